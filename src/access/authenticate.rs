//! From a credential to a live session: looks into the session table, decides nothing.

use crate::access::request::{AccessRequest, Credential, RequestTarget};
use crate::config::{Route, Target};
use crate::defence::{Defence, off};
use crate::session::{Authenticated, ROUTE_COOKIE, SessionTable, open_route_cookie};
use crate::snapshot::Snapshot;
use crate::token::TokenRejection;

/// What the credential of a request is worth at this moment.
#[derive(Debug, Clone)]
pub enum SessionState {
    NoCredential,
    Rejected(TokenRejection),
    Live(Authenticated),
    /// By the cookie of a plain HTTP route, which a browser also sends for pages of others: it counts for less.
    LiveByCookie(Authenticated),
}

/// Verifies the session token for the route that the request is for: the audience is that route's host, so a token of one route is worth
/// nothing at another.
pub fn authenticate(snapshot: &Snapshot, request: &AccessRequest<'_>, sessions: &SessionTable, now: u64) -> SessionState {
    let (RequestTarget::Kubernetes(id) | RequestTarget::Http(id)) = request.target else { return SessionState::NoCredential };
    let Some(route) = snapshot.route_by_id(id) else { return SessionState::NoCredential };
    let token = match request.headers.credential {
        Credential::None => return by_cookie(snapshot, route, request, sessions, now),
        Credential::Bearer(token) => token,
        Credential::PomeriumBearer(token) if route.pomerium_cli => token,
        Credential::PomeriumBearer(_) => return SessionState::Rejected(TokenRejection::WrongType),
    };
    match sessions.authenticate(snapshot.token_keys(), token, &route.host, now) {
        Ok(authenticated) => SessionState::Live(authenticated),
        Err(rejection) => SessionState::Rejected(rejection),
    }
}

/// A Kubernetes route takes no cookie: a web page that a pod serves through the `proxy` subresource must not be able to act as its visitor.
fn by_cookie(snapshot: &Snapshot, route: &Route, request: &AccessRequest<'_>, sessions: &SessionTable, now: u64) -> SessionState {
    match (request.target, &route.target) {
        (RequestTarget::Http(_), Target::Http(_)) => {}
        _ if off(Defence::CookieKind) => {}
        _ => return SessionState::NoCredential,
    }
    let Some(value) = request.headers.cookies.only(ROUTE_COOKIE) else { return SessionState::NoCredential };
    let Some(id) = open_route_cookie(snapshot.token_keys(), &route.host, value) else {
        return SessionState::Rejected(TokenRejection::BadSignature);
    };
    match sessions.live(&id, now) {
        Some(session) => SessionState::LiveByCookie(Authenticated { token_expires_at: session.expires_at, session }),
        None => SessionState::Rejected(TokenRejection::SessionEnded),
    }
}
