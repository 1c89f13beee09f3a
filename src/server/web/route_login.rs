//! The login of a browser on the host of a plain HTTP route: `/.kubepass/start` there, `/route/login` at `public_url`, `/.kubepass/callback` back there.
//! The same code with PKCE as for the command line (RFC 6749, 4.1; RFC 7636). The verifier lives in a sealed cookie of the browser that began, so a code
//! counts only there: one that was stolen, or that someone else's login planted, gives nothing. It is never worth a login token: the host's own server can
//! read it before it arrives here (a service worker sees what its host's pages open). No token stands in a URL.
//!
//! A route's host gets no power over the session: its page `/.kubepass/logout` forgets the host's own cookie and leads to the portal, where the
//! person ends the session. The upstream, which shares the host, could otherwise end it with a script.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::audit::{AuditEvent, TokenIssuedEvent};
use crate::config::Route;
use crate::session::{ROUTE_COOKIE, Session, seal_route_cookie};
use crate::snapshot::Snapshot;
use crate::token::TokenKeys;

use super::codes::{CodeChallenge, CodeRefusal, Destination};
use super::error::WebError;
use super::limits::LOGIN_SECONDS;
use super::redirect::{RoutePath, query};
use super::request::{Origin, host_name};
use super::{AskedRoute, Web, cookie, now, plain, public_origin, random, route_url, see_other, takes_provider};

/// Text of the other side, in characters, that a page repeats.
const MAX_SHOWN: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct StartQuery {
    #[serde(rename = "return")]
    return_to: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RouteLoginQuery {
    route: String,
    state: String,
    code_challenge: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct CallbackQuery {
    code: String,
    state: String,
}

/// A login under way: what its cookie holds.
#[derive(Serialize, Deserialize)]
struct Started {
    host: String,
    verifier: String,
    return_to: String,
    /// Unix seconds.
    expires_at: u64,
}

/// `GET /.kubepass/start` on a route's host.
pub(super) async fn start(
    State(web): State<Arc<Web>>,
    Extension(AskedRoute(route)): Extension<AskedRoute>,
    headers: HeaderMap,
    query: Result<Query<StartQuery>, QueryRejection>,
) -> Response {
    if route.http().is_none() {
        return nothing_here();
    }
    let result = query.map_err(unreadable).and_then(|Query(query)| begin(&web, &route, &headers, query));
    result.unwrap_or_else(|error| error.page(&Origin::of(&headers).request_id))
}

/// `GET /route/login` at `public_url`: who is logged in goes back with a code, everybody else logs in first.
pub(super) async fn route_login(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    query: Result<Query<RouteLoginQuery>, QueryRejection>,
) -> Response {
    let result = async { hand_over(&web, &headers, &query.map_err(unreadable)?.0).await };
    result.await.unwrap_or_else(|error: WebError| error.page(&Origin::of(&headers).request_id))
}

/// `GET /.kubepass/callback` on a route's host.
pub(super) async fn callback(
    State(web): State<Arc<Web>>,
    Extension(AskedRoute(route)): Extension<AskedRoute>,
    headers: HeaderMap,
    query: Result<Query<CallbackQuery>, QueryRejection>,
) -> Response {
    if route.http().is_none() {
        return nothing_here();
    }
    let origin = Origin::of(&headers);
    let result = async { finish(&web, &route, &headers, &origin, query.map_err(unreadable)?.0).await };
    result.await.unwrap_or_else(|error: WebError| error.page(&origin.request_id))
}

/// `GET /.kubepass/logout` on a route's host.
pub(super) async fn logout(
    State(web): State<Arc<Web>>,
    Extension(AskedRoute(route)): Extension<AskedRoute>,
    headers: HeaderMap,
) -> Response {
    if route.http().is_none() {
        return nothing_here();
    }
    let portal = format!("{}/", public_origin(web.snapshot.load().config()));
    match see_other(&portal) {
        Ok(mut response) => {
            response.headers_mut().append(header::SET_COOKIE, cookie::remove(ROUTE_COOKIE));
            response
        }
        Err(error) => error.page(&Origin::of(&headers).request_id),
    }
}

fn nothing_here() -> Response {
    plain(StatusCode::NOT_FOUND, "nothing at this address")
}

fn unreadable(_: QueryRejection) -> WebError {
    WebError::Parameter { name: "query", problem: "a parameter is missing or given twice" }
}

fn begin(web: &Web, route: &Route, headers: &HeaderMap, asked: StartQuery) -> Result<Response, WebError> {
    let return_to = match asked.return_to {
        None => RoutePath::start(),
        Some(text) => RoutePath::parse(&text).ok_or(WebError::Parameter { name: "return", problem: "it is no path of this host" })?,
    };
    let snapshot = web.snapshot.load_full();
    let id = random::id();
    let started = Started {
        host: route.host.clone(),
        verifier: random::text(),
        return_to: return_to.as_str().to_owned(),
        expires_at: now().saturating_add(LOGIN_SECONDS),
    };
    let challenge = CodeChallenge::of(&started.verifier).to_text();
    let name = format!("{}{id}", cookie::START_PREFIX);
    let text = serde_json::to_vec(&started).map_err(|_| WebError::Internal)?;
    let value = snapshot.token_keys().seal_cookie(&name, &text, random::bytes()).map_err(|_| WebError::Internal)?;
    let pairs = [("route", route.host.as_str()), ("state", &id), ("code_challenge", &challenge)];
    let mut response = see_other(&format!("{}/route/login?{}", public_origin(snapshot.config()), query(&pairs)))?;
    let cookies = response.headers_mut();
    for surplus in cookie::surplus(headers, cookie::START_PREFIX) {
        cookies.append(header::SET_COOKIE, surplus);
    }
    cookies.append(header::SET_COOKIE, cookie::set(&name, &value, LOGIN_SECONDS));
    Ok(response)
}

async fn hand_over(web: &Web, headers: &HeaderMap, asked: &RouteLoginQuery) -> Result<Response, WebError> {
    if !opens_a_window(headers) {
        return Err(WebError::CrossSite);
    }
    let snapshot = web.snapshot.load_full();
    let route = host_name(&asked.route).and_then(|host| snapshot.route_by_host(&host)).filter(|route| route.http().is_some());
    let route = route.ok_or_else(|| WebError::UnknownRoute(asked.route.chars().take(MAX_SHOWN).collect()))?;
    if !cookie::is_id(&asked.state) {
        return Err(WebError::Parameter { name: "state", problem: "it is none of ours" });
    }
    let problem = "it is not the base64url form of a SHA-256 hash";
    let challenge = CodeChallenge::parse(&asked.code_challenge).ok_or(WebError::Parameter { name: "code_challenge", problem })?;
    let now = now();
    let Some(session) = web.session_for(&snapshot, headers, Some(route), now).await? else {
        let challenge = challenge.to_text();
        let here = format!("/route/login?{}", query(&[("route", &route.host), ("state", &asked.state), ("code_challenge", &challenge)]));
        return see_other(&format!("/login?{}", query(&[("return", &here), ("route", &route.host)])));
    };
    let callback = callback_url(&snapshot, route);
    let destination = Destination::RouteHost(callback.clone());
    let code = web.codes.issue(random::bytes(), session.id, challenge, destination, now).map_err(|_| WebError::Busy)?;
    see_other(&format!("{callback}?{}", query(&[("code", &code), ("state", &asked.state)])))
}

async fn finish(web: &Web, route: &Route, headers: &HeaderMap, origin: &Origin, asked: CallbackQuery) -> Result<Response, WebError> {
    let (snapshot, now) = (web.snapshot.load_full(), now());
    let started = started(snapshot.token_keys(), headers, &asked.state, &route.host, now);
    // The code is gone whatever else is wrong; without a verifier it gives nothing.
    let verifier = started.as_ref().map_or("", |(_, started)| &started.verifier);
    let destination = Destination::RouteHost(callback_url(&snapshot, route));
    let redeemed = web.codes.redeem(&asked.code, verifier, &destination, now);
    let (name, started) = started?;
    let session = redeemed.map_err(|refusal| {
        tracing::info!(?refusal, source_ip = origin.source_ip, "web.code_refused");
        match refusal {
            CodeRefusal::Expired => WebError::LoginExpired,
            CodeRefusal::Unknown => WebError::LoginUsed,
            CodeRefusal::Verifier | CodeRefusal::Destination => WebError::LoginUnknown,
        }
    })?;
    let session = web.live(&session).await?.ok_or(WebError::LoggedOut)?;
    // The configuration may have changed since the code was given.
    if !takes_provider(route, &session.identity.principal.idp) {
        return Err(WebError::UnknownProvider(session.identity.principal.idp.clone()));
    }
    let return_to = RoutePath::parse(&started.return_to).ok_or(WebError::Internal)?;
    let value = seal_route_cookie(snapshot.token_keys(), session.id, &route.host, random::bytes()).map_err(|_| WebError::Internal)?;
    issued(web, &snapshot, origin, &session, route).await?;
    let mut response = see_other(&format!("{}{}", route_url(snapshot.config(), route), return_to.as_str()))?;
    let cookies = response.headers_mut();
    cookies.append(header::SET_COOKIE, cookie::set(ROUTE_COOKIE, &value, session.expires_at.saturating_sub(now)));
    cookies.append(header::SET_COOKIE, cookie::remove(&name));
    Ok(response)
}

/// Whether the person sees where this leads. A frame, an image or a script of another host of the domain, which the cookie goes with, would take
/// codes unseen: a session has a few only. Old browsers do not say.
fn opens_a_window(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-dest").is_none_or(|destination| destination == "document")
}

/// The login that this browser began on this host, with its cookie's name.
fn started(keys: &TokenKeys, headers: &HeaderMap, state: &str, host: &str, now: u64) -> Result<(String, Started), WebError> {
    if !cookie::is_id(state) {
        return Err(WebError::LoginUnknown);
    }
    let name = format!("{}{state}", cookie::START_PREFIX);
    let value = cookie::only(headers, &name).ok_or(WebError::LoginUnknown)?;
    let text = keys.open_cookie(&name, value).ok_or(WebError::LoginUnknown)?;
    let started: Started = serde_json::from_slice(&text).map_err(|_| WebError::LoginUnknown)?;
    if started.host != host {
        return Err(WebError::LoginUnknown);
    }
    if now >= started.expires_at { Err(WebError::LoginExpired) } else { Ok((name, started)) }
}

/// Where codes for a route go.
fn callback_url(snapshot: &Snapshot, route: &Route) -> String {
    format!("{}/.kubepass/callback", route_url(snapshot.config(), route))
}

/// The audit line of the cookie, before the cookie leaves.
async fn issued(web: &Web, snapshot: &Snapshot, origin: &Origin, session: &Session, route: &Route) -> Result<(), WebError> {
    let event = TokenIssuedEvent {
        session: session.id.to_string(),
        user: session.identity.username.clone(),
        route: route.name.clone(),
        client: "browser".to_owned(),
        source_ip: origin.source_ip.clone(),
    };
    web.record(snapshot, AuditEvent::TokenIssued(event)).await
}
