//! The one way in which a session ends: first in the table, so that the next request is refused whatever comes after (a store that fails, a
//! caller that goes away), then in the store, so that no restart brings it back, then in the audit trail.

use crate::audit::{AuditEvent, LogoutEvent};
use crate::server::sessions::Sessions;
use crate::server::store::StoreError;
use crate::server::trail::{Trail, TrailError};
use crate::session::SessionId;

pub mod mappings;

/// Ends sessions.
#[derive(Debug, Clone)]
pub struct SessionEnder {
    sessions: Sessions,
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
    pub fn new(sessions: Sessions, trail: Trail) -> Self {
        Self { sessions, trail }
    }

    #[cfg(test)]
    pub(super) fn trail(&self) -> &Trail {
        &self.trail
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// `user` where it is known, and `by` as in `LogoutEvent`. Whatever the result, the session is refused from now on.
    ///
    /// # Errors
    /// When its end is not durable or leaves no audit line.
    pub async fn end(&self, session: &SessionId, user: Option<&str>, by: &'static str) -> Result<(), EndError> {
        // Before the first wait: a caller may drop this future there.
        self.sessions.table().end(session);
        let user = match user {
            Some(user) => user.to_owned(),
            // A line without a name is better than a session that goes on.
            None => self.sessions.store().get(session).await.ok().flatten().map(|session| session.identity.username).unwrap_or_default(),
        };
        let removed = self.sessions.store().remove(session).await;
        let event = LogoutEvent { session: session.to_string(), user, by };
        let recorded = self.trail.record(AuditEvent::Logout(event)).await;
        removed.map_err(EndError::Store)?;
        recorded.map_err(EndError::Trail)
    }
}

#[cfg(test)]
pub(super) mod tests;
