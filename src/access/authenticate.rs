//! From a credential to a live session: looks into the session table, decides nothing.

use std::sync::Arc;

use crate::access::request::{AccessRequest, Credential, RequestTarget};
use crate::config::{Route, Target};
use crate::defence::{Defence, off};
use crate::session::{Authenticated, Look, ROUTE_COOKIE, Session, SessionTable, Shown, open_route_cookie};
use crate::snapshot::Snapshot;
use crate::token::{SessionId, TokenRejection};

/// What the credential of a request is worth at this moment.
#[derive(Debug, Clone)]
pub enum SessionState {
    NoCredential,
    Rejected(TokenRejection),
    Live(Authenticated),
    /// By the cookie of a plain HTTP route, which a browser also sends for pages of others: it counts for less.
    LiveByCookie(Authenticated),
    /// The session lives and is not in memory. Whoever asks reads it and goes on with [`AtRest::read`]; what stays so is refused.
    AtRest(AtRest),
}

/// A credential that counts, of a session that has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRest {
    pub session: SessionId,
    /// None of a cookie, which lasts as long as its session.
    token_expires_at: Option<u64>,
}

impl AtRest {
    /// `session` is what the table says of the session now that it was read: none where it has ended meanwhile.
    pub fn read(self, session: Option<Arc<Session>>) -> SessionState {
        match (session.filter(|session| session.id == self.session), self.token_expires_at) {
            (Some(session), Some(token_expires_at)) => SessionState::Live(Authenticated { session, token_expires_at }),
            (Some(session), None) => SessionState::LiveByCookie(Authenticated { token_expires_at: session.expires_at, session }),
            (None, _) => SessionState::Rejected(TokenRejection::SessionEnded),
        }
    }
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
        Ok(Shown::Live(authenticated)) => SessionState::Live(authenticated),
        Ok(Shown::AtRest { session, token_expires_at }) => {
            SessionState::AtRest(AtRest { session, token_expires_at: Some(token_expires_at) })
        }
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
    match sessions.look(&id, now) {
        Look::Live(session) => SessionState::LiveByCookie(Authenticated { token_expires_at: session.expires_at, session }),
        Look::AtRest => SessionState::AtRest(AtRest { session: id, token_expires_at: None }),
        Look::Gone => SessionState::Rejected(TokenRejection::SessionEnded),
    }
}
