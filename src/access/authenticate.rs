//! From a credential to a live session: looks into the session table, decides nothing.

use crate::access::request::{AccessRequest, Credential, RequestTarget};
use crate::session::{Authenticated, SessionTable};
use crate::snapshot::Snapshot;
use crate::token::TokenRejection;

/// What the credential of a request is worth at this moment.
#[derive(Debug, Clone)]
pub enum SessionState {
    NoCredential,
    Rejected(TokenRejection),
    Live(Authenticated),
}

/// Verifies the session token for the route that the request is for: the audience is that route's host, so a token of one route is worth
/// nothing at another.
pub fn authenticate(snapshot: &Snapshot, request: &AccessRequest<'_>, sessions: &SessionTable, now: u64) -> SessionState {
    let RequestTarget::Kubernetes(id) = request.target else { return SessionState::NoCredential };
    let Some(route) = snapshot.route_by_id(id) else { return SessionState::NoCredential };
    let token = match request.headers.credential {
        Credential::None => return SessionState::NoCredential,
        Credential::Bearer(token) => token,
        Credential::PomeriumBearer(token) if route.pomerium_cli => token,
        Credential::PomeriumBearer(_) => return SessionState::Rejected(TokenRejection::WrongType),
    };
    match sessions.authenticate(snapshot.token_keys(), token, &route.host, now) {
        Ok(authenticated) => SessionState::Live(authenticated),
        Err(rejection) => SessionState::Rejected(rejection),
    }
}
