//! `GET /login` and `GET /callback`: from a browser without a session to one with a session. The login under way lives in a sealed cookie, so the answer of
//! the identity provider counts only in the browser that started it, once, and within ten minutes.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::audit::{AuditEvent, LoginEvent, LoginRefusedEvent};
use crate::config::IdentityProvider;
use crate::defence::{Defence, off};
use crate::identity::Identity;
use crate::server::ending::mappings::is_still;
use crate::server::oidc::{AuthorizationAnswer, LoginProof, OidcError};
use crate::server::sessions::KeepError;
use crate::session::{InsertRefusal, Session, SessionId};
use crate::snapshot::Snapshot;
use crate::token::TokenKeys;

use super::error::WebError;
use super::limits::{LOGIN_SECONDS, SESSIONS_PER_PERSON, StateRefusal};
use super::pages::{LoginChoice, Page};
use super::redirect::ReturnPath;
use super::request::{Origin, host_name};
use super::{Web, callback_url, cookie, now, providers_for, random, see_other};

/// Text of the other side, in characters, that a page repeats.
const MAX_DESCRIPTION: usize = 300;

#[derive(Debug, Deserialize)]
pub(super) struct LoginQuery {
    #[serde(rename = "return")]
    return_to: Option<String>,
    /// Host of the route that the login is for: limits the choice to what it takes.
    route: Option<String>,
    idp: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CallbackQuery {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// A login under way: what its cookie holds.
#[derive(Serialize, Deserialize)]
struct LoginUnderWay {
    state: String,
    nonce: String,
    pkce_verifier: String,
    provider: String,
    return_to: String,
    /// Unix seconds.
    expires_at: u64,
}

pub(super) async fn login(State(web): State<Arc<Web>>, headers: HeaderMap, query: Result<Query<LoginQuery>, QueryRejection>) -> Response {
    let origin = Origin::of(&headers);
    let result =
        async { start(&web, &headers, query.map_err(|_| WebError::Parameter { name: "query", problem: "it cannot be read" })?.0).await };
    result.await.unwrap_or_else(|error: WebError| error.page(&origin.request_id))
}

pub(super) async fn callback(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    query: Result<Query<CallbackQuery>, QueryRejection>,
) -> Response {
    let origin = Origin::of(&headers);
    let Ok(Query(query)) = query else {
        return WebError::Parameter { name: "query", problem: "it cannot be read" }.page(&origin.request_id);
    };
    if !web.login_returns.allow(&origin.source_ip, now()) {
        return WebError::Busy.page(&origin.request_id);
    }
    let snapshot = web.snapshot.load_full();
    let (name, under_way) = match under_way(&web, snapshot.token_keys(), &headers, query.state.as_deref()) {
        Ok(found) => found,
        Err(error) => return error.page(&origin.request_id),
    };
    let finished = finish(&web, &snapshot, &origin, query, &under_way).await;
    web.metrics.login(&under_way.provider, if finished.is_ok() { "ok" } else { "refused" });
    let mut response = match finished {
        Ok(response) => response,
        Err(error) => {
            let refused = LoginRefusedEvent {
                idp: under_way.provider,
                reason: error.word().to_owned(),
                source_ip: origin.source_ip.clone(),
                user_agent: origin.user_agent.clone(),
            };
            // The answer is a refusal anyway; that the trail fails is logged where it fails.
            let _ = web.record(&snapshot, AuditEvent::LoginRefused(refused)).await;
            error.page(&origin.request_id)
        }
    };
    response.headers_mut().append(header::SET_COOKIE, cookie::remove(&name));
    response
}

/// Offers the choice, or sends the browser to the only identity provider there is for this.
async fn start(web: &Web, headers: &HeaderMap, query: LoginQuery) -> Result<Response, WebError> {
    let snapshot = web.snapshot.load_full();
    let return_to = match &query.return_to {
        None => ReturnPath::portal(),
        Some(text) => ReturnPath::parse(text).ok_or(WebError::Parameter { name: "return", problem: "it is no page of kubepass" })?,
    };
    let route = match &query.route {
        None => None,
        Some(text) => {
            let route = host_name(text).and_then(|host| snapshot.route_by_host(&host).cloned());
            Some(route.ok_or_else(|| WebError::UnknownRoute(text.chars().take(MAX_DESCRIPTION).collect()))?)
        }
    };
    let offered = providers_for(snapshot.config(), route.as_deref());
    match (&query.idp, offered.as_slice()) {
        (None, [only]) => redirect_to_provider(web, &snapshot, headers, only, &return_to).await,
        (None, choices) => {
            let href = |provider: &IdentityProvider| {
                let mut pairs = vec![("idp", provider.name.as_str()), ("return", return_to.as_str())];
                pairs.extend(route.as_deref().map(|route| ("route", route.host.as_str())));
                format!("/login?{}", super::redirect::query(&pairs))
            };
            let choices: Vec<_> = choices.iter().map(|p| LoginChoice { provider: p.name.clone(), href: href(p) }).collect();
            Ok(Page::login(&choices).into_response())
        }
        (Some(name), offered) => {
            let chosen = offered.iter().find(|provider| provider.name == *name);
            let chosen = chosen.ok_or_else(|| WebError::UnknownProvider(name.chars().take(MAX_DESCRIPTION).collect()))?;
            redirect_to_provider(web, &snapshot, headers, chosen, &return_to).await
        }
    }
}

async fn redirect_to_provider(
    web: &Web,
    snapshot: &Snapshot,
    headers: &HeaderMap,
    settings: &IdentityProvider,
    return_to: &ReturnPath,
) -> Result<Response, WebError> {
    let provider = web.oidc.get(settings)?;
    let id = random::id();
    let state = format!("{id}.{}", random::text());
    let start = provider.authorization_start(settings, &callback_url(snapshot.config())?, &state).await?;
    let under_way = LoginUnderWay {
        state,
        nonce: start.proof.nonce.expose_secret().to_owned(),
        pkce_verifier: start.proof.pkce_verifier.expose_secret().to_owned(),
        provider: settings.name.clone(),
        return_to: return_to.as_str().to_owned(),
        expires_at: now().saturating_add(LOGIN_SECONDS),
    };
    let name = format!("{}{id}", cookie::LOGIN_PREFIX);
    let text = serde_json::to_vec(&under_way).map_err(|_| WebError::Internal)?;
    let value = snapshot.token_keys().seal_cookie(&name, &text, random::bytes()).map_err(|_| WebError::Internal)?;
    let mut response = see_other(start.url.as_str())?;
    let cookies = response.headers_mut();
    for surplus in cookie::surplus(headers, cookie::LOGIN_PREFIX) {
        cookies.append(header::SET_COOKIE, surplus);
    }
    cookies.append(header::SET_COOKIE, cookie::set(&name, &value, LOGIN_SECONDS));
    Ok(response)
}

/// The login that this answer belongs to, with its cookie's name; from here on the state is used.
fn under_way(web: &Web, keys: &TokenKeys, headers: &HeaderMap, state: Option<&str>) -> Result<(String, LoginUnderWay), WebError> {
    let state = state.ok_or(WebError::Parameter { name: "state", problem: "it is missing" })?;
    let id = id_of(state, headers).ok_or(WebError::LoginUnknown)?;
    let name = format!("{}{id}", cookie::LOGIN_PREFIX);
    let value = cookie::only(headers, &name).ok_or(WebError::LoginUnknown)?;
    let text = keys.open_cookie(&name, value).ok_or(WebError::LoginUnknown)?;
    let under_way: LoginUnderWay = serde_json::from_slice(&text).map_err(|_| WebError::LoginUnknown)?;
    if verify_slices_are_equal(under_way.state.as_bytes(), state.as_bytes()).is_err() && !off(Defence::LoginState) {
        return Err(WebError::LoginUnknown);
    }
    let now = now();
    if now >= under_way.expires_at {
        return Err(WebError::LoginExpired);
    }
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest(&SHA256, state.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    match web.used_states.take(hash, under_way.expires_at, now) {
        Err(StateRefusal::Used) if !off(Defence::LoginStateOnce) => Err(WebError::LoginUsed),
        Err(StateRefusal::Full) => Err(WebError::Busy),
        Ok(()) | Err(StateRefusal::Used) => Ok((name, under_way)),
    }
}

/// The id of the login that a state names.
fn id_of<'h>(state: &'h str, headers: &'h HeaderMap) -> Option<&'h str> {
    if off(Defence::LoginState) {
        return cookie::cookies(headers).find_map(|(name, _)| name.strip_prefix(cookie::LOGIN_PREFIX));
    }
    state.split_once('.').map(|(id, _)| id).filter(|id| cookie::is_id(id))
}

async fn finish(
    web: &Web,
    snapshot: &Snapshot,
    origin: &Origin,
    query: CallbackQuery,
    under_way: &LoginUnderWay,
) -> Result<Response, WebError> {
    let settings = snapshot.identity_provider(&under_way.provider).ok_or_else(|| WebError::UnknownProvider(under_way.provider.clone()))?;
    let return_to = ReturnPath::parse(&under_way.return_to).ok_or(WebError::Internal)?;
    if let Some(error) = query.error {
        let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(MAX_DESCRIPTION).collect::<String>();
        let description = shown(&query.error_description.unwrap_or_default());
        return Err(OidcError::Refused { provider: settings.name.clone(), error: shown(&error), description }.into());
    }
    let code = query.code.ok_or(WebError::Parameter { name: "code", problem: "it is missing" })?;
    let identity = identify(web, snapshot, settings, under_way, code, query.iss).await?;
    let session = open_session(web, snapshot, origin, identity, return_to.client()).await?;
    // The configuration may have come to make another of them while the provider was asked; whoever ends such sessions may have looked before.
    if !is_still(&web.snapshot.load(), &session) {
        web.ender.end_changed(&session).await;
        return Err(WebError::LoginUnknown);
    }
    let mut response = see_other(return_to.as_str())?;
    let lifetime = session.expires_at.saturating_sub(session.created_at);
    let cookie = cookie::set_session(snapshot.token_keys(), session.id, lifetime).map_err(|_| WebError::Internal)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn identify(
    web: &Web,
    snapshot: &Snapshot,
    settings: &IdentityProvider,
    under_way: &LoginUnderWay,
    code: String,
    issuer: Option<String>,
) -> Result<Identity, WebError> {
    let _under_way = web.logins.begin(settings.name.clone()).ok_or(WebError::Busy)?;
    let provider = web.oidc.get(settings)?;
    let answer = AuthorizationAnswer { code: code.into(), issuer };
    let proof = LoginProof { nonce: under_way.nonce.as_str().into(), pkce_verifier: under_way.pkce_verifier.as_str().into() };
    let claims = provider.claims(settings, &callback_url(snapshot.config())?, &answer, &proof, now()).await?;
    settings.mapping.map(&settings.name, &claims).map_err(|refusal| WebError::Identity(refusal.to_string()))
}

/// Ends the oldest sessions of a person who has as many as one person may: their log-ins must not take everybody's room.
async fn make_room(web: &Web, identity: &Identity) {
    let own = web.sessions.of(&identity.principal).await;
    let surplus = (own.len() + 1).saturating_sub(SESSIONS_PER_PERSON);
    let oldest: Vec<SessionId> = own.into_iter().take(surplus).collect();
    if !oldest.is_empty()
        && let Err(error) = web.ender.end_all(oldest, Some(&identity.username), "superseded").await
    {
        tracing::warn!(%error, "web.end_incomplete");
    }
}

/// The audit line first, then the store, then the table: what lives is always known to the trail. The id is new, so nobody can have planted it.
async fn open_session(web: &Web, snapshot: &Snapshot, origin: &Origin, identity: Identity, client: &str) -> Result<Arc<Session>, WebError> {
    make_room(web, &identity).await;
    let created_at = now();
    let session = Arc::new(Session {
        id: SessionId::from_random(random::bytes()),
        identity,
        created_at,
        expires_at: created_at.saturating_add(snapshot.config().sessions.lifetime_seconds),
        client: client.to_owned(),
        source_ip: origin.source_ip.clone(),
    });
    let event = LoginEvent {
        session: session.id.to_string(),
        user: session.identity.username.clone(),
        groups: session.identity.groups.as_slice().to_vec(),
        idp: session.identity.principal.idp.clone(),
        subject: session.identity.principal.subject.clone(),
        source_ip: origin.source_ip.clone(),
        user_agent: origin.user_agent.clone(),
        client: client.to_owned(),
    };
    web.record(snapshot, AuditEvent::Login(event)).await?;
    web.sessions.keep(&session).await.map_err(|error| match error {
        KeepError::Table(InsertRefusal::Full) => WebError::TooManySessions,
        KeepError::Table(InsertRefusal::Exists) => WebError::Internal,
        KeepError::Store(error) => {
            tracing::error!(%error, "web.store_failed");
            WebError::Store
        }
    })?;
    Ok(session)
}
