//! The one way in which a session ends: first in the table, so that the next request is refused whatever comes after (a store that fails, a
//! caller that goes away), then in the store, so that no restart brings it back, then in the audit trail. What follows the first of these is done
//! whether or not the caller waits for it.

use futures::future::join_all;

use crate::audit::{AuditEvent, LogoutEvent};
use crate::server::lifecycle::Errands;
use crate::server::sessions::Sessions;
use crate::server::store::StoreError;
use crate::server::trail::{Trail, TrailError};
use crate::session::SessionId;

pub mod mappings;

/// Rows removed by one command, and audit lines written at a time.
const TOGETHER: usize = 256;

/// Ends sessions.
#[derive(Debug, Clone)]
pub struct SessionEnder {
    sessions: Sessions,
    trail: Trail,
    errands: Errands,
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
    /// `errands` see the ends through.
    pub fn new(sessions: Sessions, trail: Trail, errands: Errands) -> Self {
        Self { sessions, trail, errands }
    }

    pub fn trail(&self) -> &Trail {
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
        self.end_all(vec![*session], user, by).await
    }

    /// As [`Self::end`], for many sessions of one user: nobody is let in by the last of them while the end of the first is written.
    ///
    /// # Errors
    /// As [`Self::end`], after all was tried for each of them.
    pub async fn end_all(&self, sessions: Vec<SessionId>, user: Option<&str>, by: &'static str) -> Result<(), EndError> {
        // Before the first wait: a caller may drop this future there.
        for session in &sessions {
            self.sessions.table().end(session);
        }
        let written = self.errands.run(self.clone().write(sessions, user.map(ToOwned::to_owned), by));
        written.await.unwrap_or(Err(EndError::Store(StoreError::Ended)))
    }

    /// Of sessions that are out of the table already.
    async fn write(self, sessions: Vec<SessionId>, user: Option<String>, by: &'static str) -> Result<(), EndError> {
        let users = match user {
            Some(user) => vec![user; sessions.len()],
            None => join_all(sessions.iter().map(|session| self.user_of(session))).await,
        };
        // All are on their way before the first is waited for, and a disk that fails one must not bring back the rest.
        let removals = sessions.chunks(TOGETHER).map(|some| self.sessions.store().remove_all(some.to_vec()));
        let removed: Result<Vec<()>, StoreError> = join_all(removals).await.into_iter().collect();
        let events: Vec<_> =
            sessions.iter().zip(users).map(|(session, user)| LogoutEvent { session: session.to_string(), user, by }).collect();
        let mut recorded = Ok(());
        for some in events.chunks(TOGETHER) {
            recorded = recorded.and(self.trail.record_all(some.iter().cloned().map(AuditEvent::Logout)).await);
        }
        removed.map_err(EndError::Store)?;
        recorded.map_err(EndError::Trail)
    }

    /// A line without a name is better than a session that goes on.
    async fn user_of(&self, session: &SessionId) -> String {
        self.sessions.store().get(session).await.ok().flatten().map(|session| session.identity.username).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests;
