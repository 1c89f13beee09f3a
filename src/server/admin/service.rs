//! The operator API's server: lists and ends sessions, shows state and what Envoys are given. Who may speak to it is decided by the socket's mode and the peer's uid.

use std::sync::Arc;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::given::GivenResources;
use crate::server::admin::v1::admin_server::Admin;
use crate::server::admin::v1::revoke_sessions_request::Which;
use crate::server::admin::v1::{
    DumpResourcesRequest, DumpedResource, GetStateRequest, GetStateResponse, ListSessionsRequest, ListSessionsResponse,
    RevokeSessionsRequest, RevokeSessionsResponse, Session as ListedSession,
};
use crate::server::ending::{EndError, SessionEnder};
use crate::session::Session;

/// Builds the state page: JSON without secrets.
pub type StateReader = dyn Fn() -> serde_json::Value + Send + Sync;

/// Serves `kubepass.admin.v1.Admin`.
#[derive(Clone)]
pub struct AdminService {
    ender: SessionEnder,
    state: Arc<StateReader>,
    given: GivenResources,
}

impl std::fmt::Debug for AdminService {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AdminService").finish_non_exhaustive()
    }
}

impl AdminService {
    pub fn new(ender: SessionEnder, state: Arc<StateReader>, given: GivenResources) -> Self {
        Self { ender, state, given }
    }

    fn sessions(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.ender.sessions().list().into_iter().filter(|session| wanted(session)).collect();
        sessions.sort_by_key(|session| session.created_at);
        sessions
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type DumpResourcesStream = BoxStream<'static, Result<DumpedResource, Status>>;

    async fn get_state(&self, _: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        Ok(Response::new(GetStateResponse { json: (self.state)().to_string() }))
    }

    async fn list_sessions(&self, request: Request<ListSessionsRequest>) -> Result<Response<ListSessionsResponse>, Status> {
        let user = request.into_inner().user;
        let sessions = self.sessions(|session| user.is_empty() || session.identity.username == user);
        Ok(Response::new(ListSessionsResponse { sessions: sessions.iter().map(|session| listed(session)).collect() }))
    }

    async fn dump_resources(&self, request: Request<DumpResourcesRequest>) -> Result<Response<Self::DumpResourcesStream>, Status> {
        self.given.shown(&request.into_inner()).map(Response::new)
    }

    async fn revoke_sessions(&self, request: Request<RevokeSessionsRequest>) -> Result<Response<RevokeSessionsResponse>, Status> {
        let sessions = match request.into_inner().which {
            Some(Which::SessionId(id)) => {
                let id =
                    id.parse().map_err(|_| Status::invalid_argument(format!("{id:?} is not a session id; `session list` shows them")))?;
                self.sessions(|session| session.id == id)
            }
            Some(Which::User(user)) if !user.is_empty() => self.sessions(|session| session.identity.username == user),
            _ => return Err(Status::invalid_argument("name a session or a user")),
        };
        let mut revoked = 0;
        let mut first_fault = None;
        // A disk that fails must not leave the rest of somebody's sessions open.
        for session in sessions {
            match self.ender.end(&session, "operator").await {
                Ok(()) => {}
                Err(error) => drop(first_fault.get_or_insert(error)),
            }
            revoked += 1;
        }
        match first_fault {
            None => Ok(Response::new(RevokeSessionsResponse { revoked })),
            Some(EndError::Store(error)) => {
                let text = format!("{revoked} sessions have ended, but a restart could bring some back; revoke again after it: {error}");
                Err(Status::unavailable(text))
            }
            Some(EndError::Trail(error)) => {
                Err(Status::unavailable(format!("{revoked} sessions have ended, but audit lines of it are missing: {error}")))
            }
        }
    }
}

fn listed(session: &Session) -> ListedSession {
    ListedSession {
        id: session.id.to_string(),
        user: session.identity.username.clone(),
        identity_provider: session.identity.principal.idp.clone(),
        groups: session.identity.groups.as_slice().to_vec(),
        created_at: session.created_at,
        expires_at: session.expires_at,
        client: session.client.clone(),
        source_ip: session.source_ip.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::server::ending::tests::{ender, session};

    #[tokio::test]
    async fn a_disk_that_fails_leaves_none_of_somebodys_sessions_open() {
        let folder = tempfile::tempdir().unwrap();
        let ender = ender(folder.path());
        for (id, user) in [(1, "foo"), (2, "foo"), (3, "foo"), (4, "bar")] {
            ender.sessions().insert(session(id, user)).unwrap();
        }
        std::fs::remove_dir_all(folder.path().join("audit")).unwrap();
        let admin = AdminService::new(ender.clone(), Arc::new(|| serde_json::Value::Null), GivenResources::default());
        let request = RevokeSessionsRequest { which: Some(Which::User("foo".into())) };
        let status = admin.revoke_sessions(Request::new(request)).await.unwrap_err();
        assert!(status.message().starts_with("3 sessions have ended"), "{status}");
        let left: Vec<_> = ender.sessions().list().iter().map(|session| session.identity.username.clone()).collect();
        assert_eq!(left, ["bar"]);
    }
}
