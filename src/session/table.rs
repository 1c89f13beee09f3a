//! `SessionTable`: which sessions live. Readers take no lock: each of the shards is an immutable map behind an atomic pointer, and a writer
//! publishes a changed copy of one shard. When `end` returns, every later look sees that the session is gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};

use crate::defence::{Defence, off};
use crate::identity::Principal;
use crate::session::Session;
use crate::session::verified_tokens::{TokenHash, VerifiedToken, VerifiedTokens};
use crate::token::{MAX_TOKEN_BYTES, SessionId, TokenKeys, TokenRejection};

/// The table takes no more sessions than this: log-ins beyond it are refused, so that they cannot take all memory.
pub const MAX_SESSIONS: usize = 100_000;

/// A writer copies one shard, so there are many; a power of two.
const SHARDS: usize = 64;

/// All sessions that live, shared by everything that asks.
#[derive(Debug)]
pub struct SessionTable {
    shards: Box<[Shard]>,
    /// Sessions in all shards.
    count: AtomicUsize,
    verified_tokens: VerifiedTokens,
}

type Sessions = HashMap<SessionId, Arc<Session>>;

#[derive(Debug, Default)]
struct Shard {
    sessions: ArcSwap<Sessions>,
    /// Held by a writer from its look at the map to its publication.
    writer: Mutex<()>,
}

/// A credential that counts: whose it is, and until when.
#[derive(Debug, Clone)]
pub struct Authenticated {
    pub session: Arc<Session>,
    /// Unix seconds.
    pub token_expires_at: u64,
}

/// A session that the table did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertRefusal {
    #[error("there are {MAX_SESSIONS} sessions already, and no more are taken")]
    Full,
    #[error("a session with this id lives already")]
    Exists,
}

impl SessionTable {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), count: AtomicUsize::new(0), verified_tokens: VerifiedTokens::new() }
    }

    /// Whose session token this is. Takes no lock and does no I/O; a token that was verified before is found by its hash, without
    /// allocation, and then checked for everything that may have changed: keys, audience, time, session.
    ///
    /// # Errors
    /// The reason why the token does not count; `SessionEnded` when the session was ended or its own time is over.
    pub fn authenticate(&self, keys: &TokenKeys, token: &str, audience: &str, now: u64) -> Result<Authenticated, TokenRejection> {
        let verified = self.verified(keys, token, audience, now)?;
        let session = self.live(&verified.session, now).ok_or(TokenRejection::SessionEnded)?;
        Ok(Authenticated { session, token_expires_at: verified.expires_at })
    }

    /// Whose login token this is; `audience` is `public_url`.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub fn authenticate_login(&self, keys: &TokenKeys, token: &str, audience: &str, now: u64) -> Result<Authenticated, TokenRejection> {
        let claims = keys.verify_login_token(token, audience, now)?;
        let session = self.live(&claims.session, now).ok_or(TokenRejection::SessionEnded)?;
        Ok(Authenticated { session, token_expires_at: claims.expires_at })
    }

    /// # Errors
    /// When the table is full, or has a session with this id: a session never changes.
    pub fn insert(&self, session: Arc<Session>) -> Result<(), InsertRefusal> {
        let shard = self.shard(&session.id);
        let _writer = shard.lock();
        let old = shard.sessions.load();
        if old.contains_key(&session.id) {
            return Err(InsertRefusal::Exists);
        }
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < MAX_SESSIONS).then_some(count + 1))
            .map_err(|_| InsertRefusal::Full)?;
        let mut new = Sessions::clone(&old);
        new.insert(session.id, session);
        shard.sessions.store(Arc::new(new));
        Ok(())
    }

    /// The session, alive or expired but not yet removed; a credential is judged by [`Self::live`].
    pub fn get(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.shard(id).sessions.load().get(id).cloned()
    }

    /// The session, when it has not ended and its time is not over.
    pub fn live(&self, id: &SessionId, now: u64) -> Option<Arc<Session>> {
        self.get(id).filter(|session| session.is_alive(now))
    }

    /// Ends a session: from the return on, none of its tokens counts.
    pub fn end(&self, id: &SessionId) -> Option<Arc<Session>> {
        if off(Defence::SessionEnd) {
            return self.get(id);
        }
        let ended = self.shard(id).remove(&self.count, |session| session.id == *id).pop();
        self.verified_tokens.retain(|token| token.session != *id);
        ended
    }

    /// Removes the sessions whose time is over, and gives them back.
    pub fn remove_expired(&self, now: u64) -> Vec<Arc<Session>> {
        let mut removed = Vec::new();
        for shard in &self.shards {
            if shard.sessions.load().values().any(|session| !session.is_alive(now)) {
                removed.append(&mut shard.remove(&self.count, |session| !session.is_alive(now)));
            }
        }
        self.verified_tokens.retain(|token| now < token.expires_at && self.get(&token.session).is_some());
        removed
    }

    /// All sessions, the oldest first.
    pub fn list(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> =
            self.shards.iter().flat_map(|shard| shard.sessions.load().values().cloned().collect::<Vec<_>>()).collect();
        sessions.sort_by_key(|session| (session.created_at, session.id));
        sessions
    }

    /// The sessions of one person, the oldest first.
    pub fn of(&self, principal: &Principal) -> Vec<Arc<Session>> {
        let own = |shard: &Shard| -> Vec<_> {
            shard.sessions.load().values().filter(|session| session.identity.principal == *principal).cloned().collect()
        };
        let mut sessions: Vec<_> = self.shards.iter().flat_map(own).collect();
        sessions.sort_by_key(|session| (session.created_at, session.id));
        sessions
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn verified(&self, keys: &TokenKeys, token: &str, audience: &str, now: u64) -> Result<Arc<VerifiedToken>, TokenRejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRejection::Malformed);
        }
        let hash = sha256(token).ok_or(TokenRejection::Malformed)?;
        if let Some(known) = self.verified_tokens.get(&hash)
            && keys.accepts_session_token_key(known.key)
        {
            known.check(audience, now)?;
            return Ok(known);
        }
        let (claims, key) = keys.verify_session_token_and_key(token, audience, now)?;
        let verified = Arc::new(VerifiedToken::new(hash, key, &claims));
        if self.live(&verified.session, now).is_some() {
            self.verified_tokens.insert(&verified, now);
        }
        Ok(verified)
    }

    fn shard(&self, id: &SessionId) -> &Shard {
        let &[first, ..] = id.as_bytes();
        #[allow(clippy::indexing_slicing, reason = "a remainder is below its modulus, and there are SHARDS shards from `new` on")]
        &self.shards[usize::from(first) % SHARDS]
    }
}

impl Default for SessionTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Shard {
    fn remove(&self, count: &AtomicUsize, leaves: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let _writer = self.lock();
        let (gone, stay): (Vec<_>, Vec<_>) = self.sessions.load().values().cloned().partition(|session| leaves(session));
        if !gone.is_empty() {
            self.sessions.store(Arc::new(stay.into_iter().map(|session| (session.id, session)).collect()));
            count.fetch_sub(gone.len(), Ordering::AcqRel);
        }
        gone
    }

    /// A writer that panicked has published nothing or all of its change, so its lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sha256(token: &str) -> Option<TokenHash> {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests;
