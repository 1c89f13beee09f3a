//! Tokens that were made, found by session and route. Its size is fixed. An entry is the claims that were signed and no permission: at each use
//! they are compared with what is asked for, so a token of another identity, key or configuration is never found.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use arc_swap::ArcSwap;

use crate::token::{AssertionTokenClaims, SessionId, SigningAlgorithm, UpstreamTokenClaims};

/// Entries are kept in this many sets, each by a hash of session and route ...
const SETS: usize = 2048;
/// ... of at most this many entries, so that 16,384 tokens fit: some 30 MB of usual size. One that was pushed out is made anew.
const WAYS: usize = 8;

/// A token and what it says.
#[derive(Debug)]
struct Held<C, T> {
    session: SessionId,
    route_id: Box<str>,
    kid: Box<str>,
    algorithm: SigningAlgorithm,
    claims: C,
    token: Arc<T>,
}

/// What the cache must know of claims.
pub(super) trait Lived {
    /// Unix seconds: made at, dead from.
    fn life(&self) -> (u64, u64);
}

/// Readers take no lock; a writer replaces one set of at most [`WAYS`] entries.
pub(super) struct TokenCache<C, T> {
    sets: Box<[Set<C, T>]>,
}

struct Set<C, T> {
    held: ArcSwap<Vec<Arc<Held<C, T>>>>,
    /// Held while a token is signed, so that many requests at once make one token: API servers remember tokens too.
    minting: Mutex<()>,
}

impl<C: Lived, T> TokenCache<C, T> {
    pub(super) fn new() -> Self {
        Self { sets: (0..SETS).map(|_| Set { held: ArcSwap::from_pointee(Vec::new()), minting: Mutex::new(()) }).collect() }
    }

    /// The token at hand when `is_same` says that its claims are what is wanted, it was signed by this key in this way, and less than 80 % of its life is
    /// over; a new one otherwise. While one caller makes a new one, the others go on with the old as long as it is good.
    pub(super) fn token<E>(
        &self,
        session: &SessionId,
        route_id: &str,
        (kid, algorithm): (&str, SigningAlgorithm),
        now: u64,
        is_same: impl Fn(&C) -> bool,
        mint: impl FnOnce() -> Result<(C, T), E>,
    ) -> Result<Arc<T>, E> {
        let Some(set) = self.set(session, route_id) else { return mint().map(|(_, token)| Arc::new(token)) };
        let find = || {
            let held = set.held.load();
            let found = held.iter().find(|held| held.session == *session && *held.route_id == *route_id);
            found.filter(|held| *held.kid == *kid && held.algorithm == algorithm && held.is_good(now) && is_same(&held.claims)).cloned()
        };
        let old = find();
        if let Some(old) = old.as_ref().filter(|old| old.is_fresh(now)) {
            return Ok(Arc::clone(&old.token));
        }
        // A writer that panicked has published nothing or all of its change, so its lock is taken as it is.
        let _minting = match (set.minting.try_lock(), old) {
            (Ok(lock), _) => lock,
            (Err(TryLockError::Poisoned(lock)), _) => lock.into_inner(),
            (Err(TryLockError::WouldBlock), Some(old)) => return Ok(Arc::clone(&old.token)),
            (Err(TryLockError::WouldBlock), None) => set.minting.lock().unwrap_or_else(PoisonError::into_inner),
        };
        // Made by another caller meanwhile.
        if let Some(new) = find().filter(|new| new.is_fresh(now)) {
            return Ok(Arc::clone(&new.token));
        }
        let (claims, token) = mint()?;
        let token = Arc::new(token);
        set.insert(
            Held { session: *session, route_id: route_id.into(), kid: kid.into(), algorithm, claims, token: Arc::clone(&token) },
            now,
        );
        Ok(token)
    }

    pub(super) fn drop_expired(&self, now: u64) {
        for set in &self.sets {
            if set.held.load().iter().any(|held| held.is_dead(now)) {
                set.held.rcu(|old| old.iter().filter(|held| !held.is_dead(now)).cloned().collect::<Vec<_>>());
            }
        }
    }

    fn set(&self, session: &SessionId, route_id: &str) -> Option<&Set<C, T>> {
        // Not keyed: session ids are random and ours, so nobody chooses where a token goes.
        let mut hasher = DefaultHasher::new();
        (session.as_bytes(), route_id).hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SETS as u64).ok()?;
        self.sets.get(index)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.iter().map(|set| set.held.load().len()).sum()
    }
}

impl<C: Lived, T> Set<C, T> {
    /// In the place of the one for the same session and route. Pushes out, when the set is full, dead tokens and then the one that ends first.
    fn insert(&self, new: Held<C, T>, now: u64) {
        let new = Arc::new(new);
        self.held.rcu(|old| {
            let is_same = |held: &Held<C, T>| held.session == new.session && held.route_id == new.route_id;
            let mut held: Vec<_> = old.iter().filter(|held| !held.is_dead(now) && !is_same(held)).cloned().collect();
            if held.len() >= WAYS {
                held.sort_by_key(|held| std::cmp::Reverse(held.claims.life().1));
                held.truncate(WAYS - 1);
            }
            held.push(Arc::clone(&new));
            held
        });
    }
}

impl<C: Lived, T> Held<C, T> {
    /// Less than 80 % of its life is over.
    fn is_fresh(&self, now: u64) -> bool {
        self.is_within(now, 80)
    }

    /// Less than 90 % of its life is over: there is time left to be sent and verified.
    fn is_good(&self, now: u64) -> bool {
        self.is_within(now, 90)
    }

    fn is_within(&self, now: u64, percent: u64) -> bool {
        let (issued_at, expires_at) = self.claims.life();
        // A token from the time to come is that of a clock that was set back: others would say that it is not valid yet.
        now.checked_sub(issued_at).is_some_and(|age| age.saturating_mul(100) < expires_at.saturating_sub(issued_at).saturating_mul(percent))
    }

    fn is_dead(&self, now: u64) -> bool {
        now >= self.claims.life().1
    }
}

impl Lived for UpstreamTokenClaims {
    fn life(&self) -> (u64, u64) {
        (self.issued_at, self.expires_at)
    }
}

impl Lived for AssertionTokenClaims {
    fn life(&self) -> (u64, u64) {
        (self.issued_at, self.expires_at)
    }
}

impl<C, T> std::fmt::Debug for TokenCache<C, T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TokenCache(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::convert::Infallible;

    use super::*;

    const KEY: (&str, SigningAlgorithm) = ("kid", SigningAlgorithm::Rs256);

    #[derive(Debug, Clone)]
    struct Claims(u64, u64);

    impl Lived for Claims {
        fn life(&self) -> (u64, u64) {
            (self.0, self.1)
        }
    }

    fn id(number: u32) -> SessionId {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
        SessionId::from_random(bytes)
    }

    #[test]
    fn the_size_is_fixed() {
        let cache = TokenCache::new();
        for number in 0..3 * 2048 * 8 {
            let id = id(number);
            let mint = || Ok::<_, Infallible>((Claims(0, 1000 + u64::from(number)), number));
            assert_eq!(*cache.token(&id, "route", KEY, 0, |_| true, mint).unwrap(), number);
        }
        assert!(cache.len() <= SETS * WAYS, "{}", cache.len());
        cache.drop_expired(u64::MAX);
        assert_eq!(cache.len(), 0);
    }

    /// A new token is being made, and the old one has a tenth of its life left: nobody waits.
    #[test]
    fn the_old_token_goes_on_while_a_new_one_is_made() {
        let (cache, id) = (TokenCache::new(), id(1));
        let give = |now: u64, token: &'static str| {
            cache.token(&id, "route", KEY, now, |_| true, || Ok::<_, Infallible>((Claims(now, now + 100), token))).map(|token| *token)
        };
        assert_eq!(give(0, "old"), Ok("old"));
        let mint = || {
            assert_eq!(give(85, "nobody's"), Ok("old"));
            Ok::<_, Infallible>((Claims(85, 185), "new"))
        };
        assert_eq!(cache.token(&id, "route", KEY, 85, |_| true, mint).map(|token| *token), Ok("new"));
        assert_eq!(give(86, "newer"), Ok("new"));
    }

    #[test]
    fn a_writer_that_panicked_stops_nobody() {
        let (cache, id) = (TokenCache::<Claims, u32>::new(), id(1));
        let mint = || -> Result<_, Infallible> { std::panic::resume_unwind(Box::new("while signing")) };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cache.token(&id, "route", KEY, 0, |_| true, mint)));
        assert!(panicked.is_err());
        assert_eq!(cache.token(&id, "route", KEY, 0, |_| true, || Ok::<_, Infallible>((Claims(0, 9), 7))).map(|token| *token), Ok(7));
    }
}
