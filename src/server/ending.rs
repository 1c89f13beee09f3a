//! The one way in which a session ends: first in the table, so that the next request is refused whatever comes after (a store that fails, a
//! caller that goes away), then in the store, so that no restart brings it back, then in the audit trail.

use std::sync::Arc;

use crate::audit::{AuditEvent, LogoutEvent};
use crate::server::store::{Store, StoreError};
use crate::server::trail::{Trail, TrailError};
use crate::session::{Session, SessionTable};

/// Ends sessions.
#[derive(Debug, Clone)]
pub struct SessionEnder {
    sessions: Arc<SessionTable>,
    store: Store,
    trail: Trail,
}

/// What went wrong while ending.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The session is refused from now on, but its end is not durable: a restart could bring it back.
    #[error(transparent)]
    Store(StoreError),
    /// The session has ended, without an audit line.
    #[error(transparent)]
    Trail(TrailError),
}

impl SessionEnder {
    pub fn new(sessions: Arc<SessionTable>, store: Store, trail: Trail) -> Self {
        Self { sessions, store, trail }
    }

    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// `by` is `user`, `operator` or `expired`. Whatever the result, the session is refused from now on.
    ///
    /// # Errors
    /// When its end is not durable or leaves no audit line.
    pub async fn end(&self, session: &Session, by: &'static str) -> Result<(), EndError> {
        // Before the first wait: a caller may drop this future there.
        self.sessions.end(&session.id);
        let removed = self.store.remove(&session.id).await;
        let event = LogoutEvent { session: session.id.to_string(), user: session.identity.username.clone(), by };
        let recorded = self.trail.record(AuditEvent::Logout(event)).await;
        removed.map_err(EndError::Store)?;
        recorded.map_err(EndError::Trail)
    }
}

#[cfg(test)]
pub(in crate::server) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures::FutureExt;

    use super::*;
    use crate::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
    use crate::identity::{Groups, Identity, Principal};
    use crate::session::SessionId;
    use crate::token::{Secret, TokenKeys};

    /// Over real files in `folder`.
    pub(in crate::server) fn ender(folder: &std::path::Path) -> SessionEnder {
        let keys = TokenKeys::derive(&[Secret::new("a-secret-of-tests-that-is-long-enough").unwrap()]);
        let store = Store::open(&folder.join("store"), Arc::new(keys)).unwrap();
        let sink = AuditSink::File { path: folder.join("audit/audit.jsonl") };
        std::fs::create_dir(folder.join("audit")).unwrap();
        let settings = AuditSettings { sinks: vec![sink], on_failure: OnAuditFailure::Deny, durability: Durability::Written };
        SessionEnder::new(Arc::default(), store, Trail::open(&settings).unwrap())
    }

    pub(in crate::server) fn session(id: u8, user: &str) -> Arc<Session> {
        Arc::new(Session {
            id: SessionId::from_random([id; 16]),
            identity: Identity {
                principal: Principal { idp: "corp".into(), subject: user.into() },
                username: user.into(),
                email: String::new(),
                groups: Groups::default(),
                claims: serde_json::Map::new(),
            },
            created_at: 0,
            expires_at: u64::MAX,
            client: "kubepass".into(),
            source_ip: String::new(),
        })
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_no_session_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (ender, session) = (ender(folder.path()), session(7, "foo"));
        ender.sessions().insert(Arc::clone(&session)).unwrap();
        // Polled once, then dropped, as the server does with a request whose client has left.
        assert!(ender.end(&session, "user").now_or_never().is_none());
        assert!(ender.sessions().is_empty());
    }
}
