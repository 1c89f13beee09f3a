//! `GET /cli/login`, `GET /pomerium/login` and `POST /confirm`: a program on the user's computer asks for a credential, the user sees for whom and which
//! port, and clicks. Our own command line gets a one-time code that only it can redeem; pomerium-cli's contract knows nothing but the token in the URL,
//! so that leg exists only on routes that ask for it.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::audit::{AuditEvent, TokenIssuedEvent};
use crate::config::Route;
use crate::session::Session;
use crate::snapshot::Snapshot;

use super::codes::{CodeChallenge, Destination};
use super::error::WebError;
use super::form::{self, Purpose, is_same_origin};
use super::pages::{Confirmation, Page};
use super::redirect::{LoopbackUri, query};
use super::request::{Origin, host_name};
use super::{Web, now, public_origin, random, see_other, takes_provider};

/// The longest `state` of a client, in bytes: it travels in cookies and URLs.
const MAX_STATE: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct CliLoginQuery {
    redirect_uri: String,
    code_challenge: String,
    code_challenge_method: String,
    state: String,
    route: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PomeriumLoginQuery {
    redirect_uri: String,
    route: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ConfirmForm {
    form: String,
    decision: String,
}

/// What a program asks for; travels sealed in the confirmation's form.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// A one-time code for our command line; `route` is the host that it was started for, if any.
    Code { redirect_uri: String, challenge: String, state: String, route: Option<String> },
    /// A session token for pomerium-cli.
    Token { redirect_uri: String, route: String },
}

pub(super) async fn cli_login(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    query: Result<Query<CliLoginQuery>, QueryRejection>,
) -> Response {
    let origin = Origin::of(&headers);
    let ask = || {
        let query = query.map_err(unreadable)?.0;
        if query.code_challenge_method != "S256" {
            return Err(WebError::Parameter { name: "code_challenge_method", problem: "only S256 is taken" });
        }
        if query.state.is_empty() || query.state.len() > MAX_STATE {
            return Err(WebError::Parameter { name: "state", problem: "it is empty or too long" });
        }
        let problem = "it is not the base64url form of a SHA-256 hash";
        let challenge = CodeChallenge::parse(&query.code_challenge).ok_or(WebError::Parameter { name: "code_challenge", problem })?;
        Ok(Ask::Code { redirect_uri: query.redirect_uri, challenge: challenge.to_text(), state: query.state, route: query.route })
    };
    let result = async { show(&web, &headers, ask()?).await };
    result.await.unwrap_or_else(|error: WebError| error.page(&origin.request_id))
}

pub(super) async fn pomerium_login(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    query: Result<Query<PomeriumLoginQuery>, QueryRejection>,
) -> Response {
    let origin = Origin::of(&headers);
    let ask = query.map_err(unreadable).map(|Query(query)| Ask::Token { redirect_uri: query.redirect_uri, route: query.route });
    let result = async { show(&web, &headers, ask?).await };
    result.await.unwrap_or_else(|error: WebError| error.page(&origin.request_id))
}

pub(super) async fn confirm(State(web): State<Arc<Web>>, headers: HeaderMap, body: Result<Form<ConfirmForm>, FormRejection>) -> Response {
    let origin = Origin::of(&headers);
    let result = async { decide(&web, &headers, &origin, body.map_err(|_| WebError::Form)?.0).await };
    result.await.unwrap_or_else(|error: WebError| error.page(&origin.request_id))
}

fn unreadable(_: QueryRejection) -> WebError {
    WebError::Parameter { name: "query", problem: "a parameter is missing or given twice" }
}

/// The confirmation, or first a login: when nobody is logged in, too little of the session is left, or the route does not take this identity provider.
async fn show(web: &Web, headers: &HeaderMap, ask: Ask) -> Result<Response, WebError> {
    let snapshot = web.snapshot.load_full();
    let redirect_uri = LoopbackUri::parse(ask.redirect_uri())?;
    let route = ask.route(&snapshot)?;
    let now = now();
    let Some(session) = web.session_for(&snapshot, headers, route.as_deref(), now).await? else {
        let mut pairs = vec![("return", ask.address())];
        pairs.extend(route.as_deref().map(|route| ("route", route.host.clone())));
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        return see_other(&format!("/login?{}", query(&pairs)));
    };
    let token_in_url = matches!(ask, Ask::Token { .. });
    let confirmation = Confirmation {
        user: session.identity.username.clone(),
        client: ask.client(),
        route: route.map(|route| (route.name.clone(), route.host.clone())),
        port: redirect_uri.port(),
        form_target: redirect_uri.csp_source(),
        form: form::seal(snapshot.token_keys(), Purpose::Confirm, session.id, ask, now).map_err(|_| WebError::Internal)?,
        token_in_url,
    };
    Ok(Page::confirm(&confirmation).into_response())
}

async fn decide(web: &Web, headers: &HeaderMap, origin: &Origin, body: ConfirmForm) -> Result<Response, WebError> {
    let snapshot = web.snapshot.load_full();
    if !is_same_origin(headers, &public_origin(snapshot.config())) {
        return Err(WebError::CrossSite);
    }
    let now = now();
    let session = web.browser_session(&snapshot, headers).await?.ok_or(WebError::LoggedOut)?;
    let ask: Ask = form::open(snapshot.token_keys(), Purpose::Confirm, session.id, &body.form, now).ok_or(WebError::Form)?;
    let redirect_uri = LoopbackUri::parse(ask.redirect_uri())?;
    // The configuration may have changed since the page was shown.
    let route = ask.route(&snapshot)?;
    if let Some(route) = route.as_deref().filter(|route| !takes_provider(route, &session.identity.principal.idp)) {
        return Err(WebError::UnknownRoute(route.host.clone()));
    }
    let allowed = body.decision == "allow";
    match (ask, route) {
        (Ask::Code { state, .. }, _) if !allowed => {
            let pairs = [("error", "access_denied"), ("error_description", "the user refused in the browser"), ("state", state.as_str())];
            see_other(&redirect_uri.with_query(&pairs))
        }
        (Ask::Code { challenge, state, .. }, _) => {
            let challenge = CodeChallenge::parse(&challenge).ok_or(WebError::Internal)?;
            let destination = Destination::Program(redirect_uri.as_str().to_owned());
            let code = web.codes.issue(random::bytes(), session.id, challenge, destination, now).map_err(|_| WebError::Busy)?;
            see_other(&redirect_uri.with_query(&[("code", &code), ("state", &state)]))
        }
        (Ask::Token { .. }, Some(route)) if allowed => token_redirect(web, &snapshot, origin, &session, &route, &redirect_uri, now).await,
        (Ask::Token { .. }, _) => Ok(Page::refused().into_response()),
    }
}

/// pomerium-cli's contract: the session token travels in the URL. It is for one route and lives an hour at most.
async fn token_redirect(
    web: &Web,
    snapshot: &Snapshot,
    origin: &Origin,
    session: &Session,
    route: &Route,
    redirect_uri: &LoopbackUri,
    now: u64,
) -> Result<Response, WebError> {
    let claims = session.session_token_claims(&route.host, random::id(), now);
    let token = snapshot.token_keys().sign_session_token(&claims).map_err(|_| WebError::Internal)?;
    let event = TokenIssuedEvent {
        session: session.id.to_string(),
        user: session.identity.username.clone(),
        route: route.name.clone(),
        client: "pomerium-cli".to_owned(),
        source_ip: origin.source_ip.clone(),
    };
    web.record(snapshot, AuditEvent::TokenIssued(event)).await?;
    see_other(&redirect_uri.with_query(&[("pomerium_jwt", &token)]))
}

impl Ask {
    fn redirect_uri(&self) -> &str {
        match self {
            Self::Code { redirect_uri, .. } | Self::Token { redirect_uri, .. } => redirect_uri,
        }
    }

    fn client(&self) -> &'static str {
        match self {
            Self::Code { .. } => "kubepass",
            Self::Token { .. } => "pomerium-cli",
        }
    }

    /// The route that is named, when it exists and takes this kind of client.
    fn route(&self, snapshot: &Snapshot) -> Result<Option<Arc<Route>>, WebError> {
        let host = match self {
            Self::Code { route: None, .. } => return Ok(None),
            Self::Code { route: Some(host), .. } | Self::Token { route: host, .. } => host,
        };
        let route = host_name(host).and_then(|host| snapshot.route_by_host(&host).cloned());
        let route = route.ok_or_else(|| WebError::UnknownRoute(host.chars().take(MAX_STATE).collect()))?;
        if matches!(self, Self::Token { .. }) && !route.pomerium_cli {
            return Err(WebError::PomeriumCli(route.name.clone()));
        }
        Ok(Some(route))
    }

    /// The page's own address, made anew from what was understood.
    fn address(&self) -> String {
        match self {
            Self::Code { redirect_uri, challenge, state, route } => {
                let mut pairs =
                    vec![("redirect_uri", redirect_uri.as_str()), ("code_challenge", challenge), ("code_challenge_method", "S256")];
                pairs.push(("state", state));
                pairs.extend(route.as_deref().map(|route| ("route", route)));
                format!("/cli/login?{}", query(&pairs))
            }
            Self::Token { redirect_uri, route } => {
                format!("/pomerium/login?{}", query(&[("redirect_uri", redirect_uri), ("route", route)]))
            }
        }
    }
}
