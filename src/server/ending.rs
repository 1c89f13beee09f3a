//! The one way in which a session ends: first in the table, so that the next request is refused whatever comes after (a store that fails, a
//! caller that goes away), then in the store, so that no restart brings it back, then in the audit trail.

use std::sync::Arc;

use crate::audit::{AuditEvent, LogoutEvent};
use crate::server::store::{Store, StoreError};
use crate::server::trail::{Trail, TrailError};
use crate::session::{Session, SessionTable};

pub mod mappings;

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

    /// `by` as in `LogoutEvent`. Whatever the result, the session is refused from now on.
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
pub(super) mod tests;
