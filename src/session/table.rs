//! `SessionTable`: which sessions live. It has a few bytes of each, and the whole of those that were asked for lately; the others rest where sessions
//! last, and come into memory when somebody asks for them. Readers take no lock: each of the shards is immutable values behind atomic pointers, and a
//! writer publishes changed copies. When `end` returns, every later look sees that the session is gone, and nothing that was read before brings it back.

mod shard;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use crate::defence::{Defence, off};
use crate::identity::Principal;
use crate::session::Session;
use crate::session::verified_tokens::{TokenHash, VerifiedToken, VerifiedTokens};
use crate::token::{MAX_TOKEN_BYTES, SessionId, TokenKeys, TokenRejection};
use shard::{Living, Shard, Whose, Writing};

/// The table takes no more sessions than this: log-ins beyond it are refused, so that they cannot take all memory.
pub const MAX_SESSIONS: usize = 1_000_000;

/// At most so many sessions are in memory whole. One that had to leave is read again when it is asked for: slower, not different.
pub const HOT_SESSIONS: usize = 4_096;

/// By the first bits of the id, which is random. A writer copies one shard, so there are many.
const SHARDS: usize = 512;
const HOT_OF_SHARD: usize = HOT_SESSIONS / SHARDS;

/// All sessions that live, shared by everything that asks.
#[derive(Debug)]
pub struct SessionTable {
    shards: Box<[Shard]>,
    /// Sessions in all shards.
    count: AtomicUsize,
    people: Mutex<People>,
    /// Makes numbers of people and user names, others in each process.
    numbers: RandomState,
    verified_tokens: VerifiedTokens,
}

/// Person, beginning and id of every session whose person is known: those of one person stand together, the oldest first. Taken after the lock of a
/// shard, never before.
type People = BTreeSet<(NonZeroU64, u64, SessionId)>;

/// A credential that counts: whose it is, and until when.
#[derive(Debug, Clone)]
pub struct Authenticated {
    pub session: Arc<Session>,
    /// Unix seconds.
    pub token_expires_at: u64,
}

/// What a token that counts leads to.
#[derive(Debug, Clone)]
pub enum Shown {
    Live(Authenticated),
    /// A session that lives and has to be read: whoever has done that asks [`SessionTable::wake`] whether it still counts.
    AtRest {
        session: SessionId,
        token_expires_at: u64,
    },
}

/// What the table knows of an id.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    Live(Arc<Session>),
    /// It lives, and is not in memory.
    AtRest,
    /// It was never here, was ended, or its time is over.
    Gone,
}

/// A session that was found in the store, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resting {
    pub id: SessionId,
    /// Unix seconds.
    pub expires_at: u64,
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
        Self {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            count: AtomicUsize::new(0),
            people: Mutex::default(),
            numbers: RandomState::new(),
            verified_tokens: VerifiedTokens::new(),
        }
    }

    /// Whose session token this is. Takes no lock and does no I/O; a token that was verified before is found by its hash, without
    /// allocation, and then checked for everything that may have changed: keys, audience, time, session.
    ///
    /// # Errors
    /// The reason why the token does not count; `SessionEnded` when the session was ended or its own time is over.
    pub fn authenticate(&self, keys: &TokenKeys, token: &str, audience: &str, now: u64) -> Result<Shown, TokenRejection> {
        let verified = self.verified(keys, token, audience, now)?;
        self.shown(verified.session, verified.expires_at, now)
    }

    /// Whose login token this is; `audience` is `public_url`.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub fn authenticate_login(&self, keys: &TokenKeys, token: &str, audience: &str, now: u64) -> Result<Shown, TokenRejection> {
        let claims = keys.verify_login_token(token, audience, now)?;
        self.shown(claims.session, claims.expires_at, now)
    }

    fn shown(&self, session: SessionId, token_expires_at: u64, now: u64) -> Result<Shown, TokenRejection> {
        match self.look(&session, now) {
            Look::Live(session) => Ok(Shown::Live(Authenticated { session, token_expires_at })),
            Look::AtRest => Ok(Shown::AtRest { session, token_expires_at }),
            Look::Gone => Err(TokenRejection::SessionEnded),
        }
    }

    /// What becomes of a credential for this session at this time.
    pub fn look(&self, id: &SessionId, now: u64) -> Look {
        let shard = self.shard(id);
        match shard.awake(id) {
            Some(session) if session.is_alive(now) => Look::Live(session),
            Some(_) => Look::Gone,
            None => match shard.living(id) {
                Some(living) if now < living.expires_at => Look::AtRest,
                _ => Look::Gone,
            },
        }
    }

    /// # Errors
    /// When the table is full, or has a session with this id: a session never changes.
    pub fn insert(&self, session: Arc<Session>) -> Result<(), InsertRefusal> {
        let shard = self.shard(&session.id).write();
        if shard.living(&session.id).is_some() {
            return Err(InsertRefusal::Exists);
        }
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < MAX_SESSIONS).then_some(count + 1))
            .map_err(|_| InsertRefusal::Full)?;
        let whose = self.whose(&session.identity.principal, &session.identity.username, session.created_at);
        self.people().insert((whose.person, whose.created_at, session.id));
        shard.add(&[Living { id: session.id, expires_at: session.expires_at, whose: Some(whose) }]);
        shard.wake(session, HOT_OF_SHARD);
        Ok(())
    }

    /// Takes sessions that rest in the store, and says how many it did not take: those that it has, and those beyond [`MAX_SESSIONS`].
    /// Quick where they come in the order of their ids.
    pub fn take_resting(&self, sessions: &[Resting]) -> usize {
        let mut refused = 0;
        for some in sessions.chunk_by(|one, next| shard_of(&one.id) == shard_of(&next.id)) {
            let Some(first) = some.first() else { continue };
            let shard = self.shard(&first.id).write();
            let mut new: Vec<Living> = some
                .iter()
                .filter(|resting| shard.living(&resting.id).is_none())
                .map(|resting| Living { id: resting.id, expires_at: resting.expires_at, whose: None })
                .collect();
            new.sort_by_key(|living| living.id);
            new.dedup_by_key(|living| living.id);
            let room = MAX_SESSIONS.saturating_sub(self.len());
            new.truncate(room);
            self.count.fetch_add(new.len(), Ordering::AcqRel);
            refused += some.len() - new.len();
            shard.add(&new);
        }
        refused
    }

    /// Notes whose these sessions are, of those that live. Quick where they come in the order of their ids.
    pub fn learn<'a>(&self, sessions: impl IntoIterator<Item = (SessionId, &'a Principal, &'a str, u64)>) {
        let known: Vec<_> = sessions.into_iter().map(|(id, principal, user, at)| (id, self.whose(principal, user, at))).collect();
        for some in known.chunk_by(|(one, _), (next, _)| shard_of(one) == shard_of(next)) {
            let Some((first, _)) = some.first() else { continue };
            let shard = self.shard(first).write();
            let learnt = |(id, whose): &(SessionId, Whose)| {
                let living = shard.living(id).filter(|living| living.whose.is_none())?;
                Some(Living { whose: Some(*whose), ..living })
            };
            let new: Vec<Living> = some.iter().filter_map(learnt).collect();
            shard.replace(&new);
            self.people().extend(new.iter().filter_map(in_people));
        }
    }

    /// What was read of a session that rests, where it still counts: the answer of the table at this moment, whatever it was when the reading began.
    pub fn wake(&self, session: Arc<Session>, now: u64) -> Option<Arc<Session>> {
        let held = self.shard(&session.id);
        let shard = held.write();
        let living = shard.living(&session.id)?;
        if living.expires_at != session.expires_at || !session.is_alive(now) {
            return None;
        }
        if let Some(awake) = held.awake(&session.id) {
            return Some(awake);
        }
        shard.wake(Arc::clone(&session), HOT_OF_SHARD);
        Some(session)
    }

    /// Lets a session leave the memory: the next who asks for it has to read it, and whoever reads it may judge it.
    pub fn lay_to_rest(&self, id: &SessionId) {
        self.shard(id).write().lay_to_rest(id);
    }

    /// Ends a session: from the return on, none of its tokens counts. Says whether it was there.
    pub fn end(&self, id: &SessionId) -> bool {
        if off(Defence::SessionEnd) {
            return self.holds(id);
        }
        let ended = self.remove(&self.shard(id).write(), |living| living.id == *id);
        self.verified_tokens.retain(|token| token.session != *id);
        !ended.is_empty()
    }

    /// Takes a session that was found in the store out again, where nobody could read whose it is. Says whether it was there.
    pub fn set_aside(&self, id: &SessionId) -> bool {
        !self.remove(&self.shard(id).write(), |living| living.id == *id && living.whose.is_none()).is_empty()
    }

    /// Removes the sessions whose time is over, and gives their ids back.
    pub fn remove_expired(&self, now: u64) -> Vec<SessionId> {
        let mut removed = Vec::new();
        for shard in self.shards.iter().filter(|shard| shard.has_expired(now)) {
            let gone = self.remove(&shard.write(), |living| now >= living.expires_at);
            removed.extend(gone.iter().map(|living| living.id));
        }
        self.verified_tokens.retain(|token| now < token.expires_at && self.holds(&token.session));
        removed
    }

    /// The sessions of one person, the oldest first; those found in the store are among them when [`Self::learn`] was told of them.
    pub fn of(&self, principal: &Principal) -> Vec<SessionId> {
        let person = self.number(principal);
        let (from, to) = (SessionId::from_random([0; 16]), SessionId::from_random([u8::MAX; 16]));
        self.people().range((person, 0, from)..=(person, u64::MAX, to)).map(|(_, _, id)| *id).collect()
    }

    /// The sessions of a user name, as [`Self::of`], in no order.
    pub fn of_user(&self, username: &str) -> Vec<SessionId> {
        let user = self.number(username);
        let own = |living: &Living| living.whose.is_some_and(|whose| whose.user == user);
        self.shards.iter().flat_map(|shard| shard.select(own)).map(|living| living.id).collect()
    }

    /// The sessions that are in memory, the oldest first.
    pub fn awake(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.shards.iter().flat_map(Shard::all_awake).collect();
        sessions.sort_by_key(|session| (session.created_at, session.id));
        sessions
    }

    /// How many sessions are in memory.
    pub fn awake_len(&self) -> usize {
        self.shards.iter().map(Shard::awake_len).sum()
    }

    /// Whether the session is here, alive or expired but not yet removed; a credential is judged by [`Self::look`].
    pub fn holds(&self, id: &SessionId) -> bool {
        self.shard(id).living(id).is_some()
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
        if self.look(&verified.session, now) != Look::Gone {
            self.verified_tokens.insert(&verified, now);
        }
        Ok(verified)
    }

    /// The one way out of a shard, so that the counts follow.
    fn remove(&self, shard: &Writing<'_>, leaves: impl Fn(&Living) -> bool) -> Vec<Living> {
        let gone = shard.remove(leaves);
        self.count.fetch_sub(gone.len(), Ordering::AcqRel);
        let mut people = self.people();
        for known in gone.iter().filter_map(in_people) {
            people.remove(&known);
        }
        gone
    }

    fn whose(&self, principal: &Principal, username: &str, created_at: u64) -> Whose {
        Whose { person: self.number(principal), user: self.number(username), created_at }
    }

    /// A hash with a key that is this process's own: nobody can bring it about that two share a number, and that two of a million do so by chance is as
    /// likely as one in thirty million. They would count as one where the sessions of a person are limited, or are ended together; no check asks for it.
    fn number(&self, of: impl Hash) -> NonZeroU64 {
        NonZeroU64::new(self.numbers.hash_one(of)).unwrap_or(NonZeroU64::MAX)
    }

    fn people(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, id: &SessionId) -> &Shard {
        #[allow(clippy::indexing_slicing, reason = "a remainder is below its modulus, and there are SHARDS shards from `new` on")]
        &self.shards[shard_of(id)]
    }
}

impl Default for SessionTable {
    fn default() -> Self {
        Self::new()
    }
}

/// Neighbours by id are in the same shard or in neighbouring ones.
fn shard_of(id: &SessionId) -> usize {
    let &[first, second, ..] = id.as_bytes();
    usize::from(u16::from_be_bytes([first, second])) * SHARDS / (usize::from(u16::MAX) + 1) % SHARDS
}

fn in_people(living: &Living) -> Option<(NonZeroU64, u64, SessionId)> {
    living.whose.map(|whose| (whose.person, whose.created_at, living.id))
}

fn sha256(token: &str) -> Option<TokenHash> {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests;
