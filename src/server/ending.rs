//! The one way in which a session ends: first in the store, so that no restart brings it back, then (whatever the store said) in the table,
//! so that the next request is refused, then in the audit trail.

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

    /// `by` is `user`, `operator` or `expired`.
    pub async fn end(&self, session: &Session, by: &'static str) -> Result<(), EndError> {
        let removed = self.store.remove(&session.id).await;
        self.sessions.end(&session.id);
        let event = LogoutEvent { session: session.id.to_string(), user: session.identity.username.clone(), by };
        let recorded = self.trail.record(AuditEvent::Logout(event)).await;
        removed.map_err(EndError::Store)?;
        recorded.map_err(EndError::Trail)
    }
}
