//! The operator API's server: lists and ends sessions, shows state and what Envoys are given. Who may speak to it is decided by the socket's mode and the peer's uid.

use std::sync::Arc;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::given::GivenResources;
use super::listing;
use crate::server::admin::v1::admin_server::Admin;
use crate::server::admin::v1::revoke_sessions_request::Which;
use crate::server::admin::v1::{
    DumpResourcesRequest, DumpedResource, GetStateRequest, GetStateResponse, ListSessionsRequest, ListSessionsResponse,
    RevokeSessionsRequest, RevokeSessionsResponse,
};
use crate::server::ending::{EndError, SessionEnder};
use crate::session::SessionId;

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
}

#[tonic::async_trait]
impl Admin for AdminService {
    type DumpResourcesStream = BoxStream<'static, Result<DumpedResource, Status>>;
    type ListSessionsStream = BoxStream<'static, Result<ListSessionsResponse, Status>>;

    async fn get_state(&self, _: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        Ok(Response::new(GetStateResponse { json: (self.state)().to_string() }))
    }

    async fn list_sessions(&self, request: Request<ListSessionsRequest>) -> Result<Response<Self::ListSessionsStream>, Status> {
        Ok(Response::new(listing::list(self.ender.sessions(), request.into_inner().user)))
    }

    async fn dump_resources(&self, request: Request<DumpResourcesRequest>) -> Result<Response<Self::DumpResourcesStream>, Status> {
        self.given.shown(&request.into_inner()).map(Response::new)
    }

    async fn revoke_sessions(&self, request: Request<RevokeSessionsRequest>) -> Result<Response<RevokeSessionsResponse>, Status> {
        let table = self.ender.sessions().table();
        let (sessions, user): (Vec<SessionId>, _) = match request.into_inner().which {
            Some(Which::SessionId(id)) => {
                let id: SessionId =
                    id.parse().map_err(|_| Status::invalid_argument(format!("{id:?} is not a session id; `session list` shows them")))?;
                (table.holds(&id).then_some(id).into_iter().collect(), None)
            }
            Some(Which::User(user)) if !user.is_empty() => (table.of_user(&user), Some(user)),
            _ => return Err(Status::invalid_argument("name a session or a user")),
        };
        let revoked = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let ended = self.ender.end_all(sessions, user.as_deref(), "operator").await;
        if user.is_some() && !self.ender.sessions().owners_are_known() {
            let text =
                format!("{revoked} sessions have ended, but it is not known yet whose all stored sessions are: revoke again in a moment");
            return Err(Status::unavailable(text));
        }
        match ended {
            Ok(()) => Ok(Response::new(RevokeSessionsResponse { revoked })),
            Err(EndError::Store(error)) => {
                let text = format!("{revoked} sessions have ended, but a restart could bring some back; revoke again after it: {error}");
                Err(Status::unavailable(text))
            }
            Err(EndError::Trail(error)) => {
                Err(Status::unavailable(format!("{revoked} sessions have ended, but audit lines of it are missing: {error}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures::{FutureExt as _, TryStreamExt as _};

    use super::*;
    use crate::server::ending::tests::{ender, session, until_written};
    use crate::server::lifecycle::Errands;
    use crate::server::sessions::Sessions;

    #[tokio::test]
    async fn a_disk_that_fails_leaves_none_of_somebodys_sessions_open() {
        let folder = tempfile::tempdir().unwrap();
        let ender = ender(folder.path());
        for (id, user) in [(1, "foo"), (2, "foo"), (3, "foo"), (4, "bar")] {
            ender.sessions().keep(&session(id, user)).await.unwrap();
        }
        std::fs::remove_dir_all(folder.path().join("audit")).unwrap();
        let admin = AdminService::new(ender.clone(), Arc::new(|| serde_json::Value::Null), GivenResources::default());
        let request = RevokeSessionsRequest { which: Some(Which::User("foo".into())) };
        let status = admin.revoke_sessions(Request::new(request)).await.unwrap_err();
        assert!(status.message().starts_with("3 sessions have ended"), "{status}");
        let left: Vec<_> = ender.sessions().table().awake().iter().map(|session| session.identity.username.clone()).collect();
        assert_eq!(left, ["bar"]);
    }

    /// The operator interrupts the command: saying it again would find none of them in memory, and a restart all of them in the store.
    #[tokio::test]
    async fn an_operator_who_goes_away_leaves_no_session_behind() {
        let folder = tempfile::tempdir().unwrap();
        let ender = ender(folder.path());
        for id in 1..=3 {
            ender.sessions().keep(&session(id, "foo")).await.unwrap();
        }
        let admin = AdminService::new(ender.clone(), Arc::new(|| serde_json::Value::Null), GivenResources::default());
        let request = RevokeSessionsRequest { which: Some(Which::User("foo".into())) };
        assert!(admin.revoke_sessions(Request::new(request)).now_or_never().is_none());
        until_written(&ender, folder.path(), &["foo", "foo", "foo"]).await;
    }

    /// As after a restart: what rests is listed and ended like what is in memory.
    #[tokio::test]
    async fn sessions_at_rest_are_listed_and_ended_too() {
        let folder = tempfile::tempdir().unwrap();
        let filled = ender(folder.path());
        for (id, user) in [(1, "foo"), (2, "foo"), (3, "bar"), (4, "bar")] {
            filled.sessions().keep(&session(id, user)).await.unwrap();
        }
        let (sessions, found) = Sessions::at_rest(filled.sessions().store().clone(), 1).await.unwrap();
        assert_eq!((found.live, found.refused, found.expired.len()), (4, 0, 0));
        sessions.read(&session(1, "foo").id).await.unwrap().unwrap();
        let admin = AdminService::new(
            SessionEnder::new(sessions.clone(), filled.trail().clone(), Errands::default()),
            Arc::new(|| serde_json::Value::Null),
            GivenResources::default(),
        );
        let list = async |user: &str| {
            let parts = admin.list_sessions(Request::new(ListSessionsRequest { user: user.into() })).await.unwrap().into_inner();
            let parts: Vec<ListSessionsResponse> = parts.try_collect().await.unwrap();
            let mut ids: Vec<String> = parts.into_iter().flat_map(|part| part.sessions).map(|session| session.id).collect();
            ids.sort();
            ids
        };
        let ids = |ids: &[u8]| ids.iter().map(|id| session(*id, "").id.to_string()).collect::<Vec<_>>();
        let revoke = async |which| admin.revoke_sessions(Request::new(RevokeSessionsRequest { which: Some(which) })).await;
        assert_eq!((list("").await, list("bar").await, list("nobody").await), (ids(&[1, 2, 3, 4]), ids(&[3, 4]), ids(&[])));

        let status = revoke(Which::User("foo".into())).await.unwrap_err();
        assert!(status.message().starts_with("0 sessions have ended, but it is not known yet"), "{status}");
        sessions.learn_owners().await.unwrap();
        assert_eq!(revoke(Which::User("foo".into())).await.unwrap().into_inner().revoked, 2);
        assert_eq!(revoke(Which::SessionId(session(3, "").id.to_string())).await.unwrap().into_inner().revoked, 1);
        assert_eq!(revoke(Which::SessionId(session(3, "").id.to_string())).await.unwrap().into_inner().revoked, 0);
        assert_eq!(list("").await, ids(&[4]));
        assert_eq!(sessions.store().load(1).await.unwrap().sessions.len(), 1);
        let trail = std::fs::read_to_string(folder.path().join("audit/audit.jsonl")).unwrap();
        let users: Vec<bool> = trail.lines().map(|line| line.contains("\"foo\"")).collect();
        assert_eq!(users, [true, true, false], "{trail}");
        assert!(trail.lines().last().unwrap().contains("\"bar\""), "{trail}");
    }
}
