//! Session tokens whose signature was verified already, found by their SHA-256. Only verified tokens enter, so a stranger cannot fill it;
//! its size is fixed. An entry is what the token says and no permission: everything that can change is checked anew at each use.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::token::{CLOCK_LEEWAY_SECONDS, KeyId, SessionId, SessionTokenClaims, TokenRejection, is_for};

/// Entries are kept in this many sets, each by the first bytes of the hash ...
const SETS: usize = 4096;
/// ... of at most this many entries, so that 32,768 tokens fit. A token that was pushed out is verified again: slower, not different.
const WAYS: usize = 8;

pub(super) type TokenHash = [u8; 32];

/// What a verified token says.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    hash: TokenHash,
    /// The key that verified; when it is no longer accepted, the entry counts for nothing.
    pub(super) key: KeyId,
    pub(super) session: SessionId,
    audience: Box<str>,
    issued_at: u64,
    pub(super) expires_at: u64,
}

impl VerifiedToken {
    pub(super) fn new(hash: TokenHash, key: KeyId, claims: &SessionTokenClaims) -> Self {
        Self {
            hash,
            key,
            session: claims.session,
            audience: claims.audience.as_str().into(),
            issued_at: claims.issued_at,
            expires_at: claims.expires_at,
        }
    }

    /// The checks of a first verification that depend on when and where the token is shown.
    pub(super) fn check(&self, audience: &str, now: u64) -> Result<(), TokenRejection> {
        if !is_for(&self.audience, audience) {
            Err(TokenRejection::WrongAudience)
        } else if now >= self.expires_at {
            Err(TokenRejection::Expired)
        } else if self.issued_at > now.saturating_add(CLOCK_LEEWAY_SECONDS) {
            Err(TokenRejection::NotYetValid)
        } else {
            Ok(())
        }
    }
}

type Set = Vec<Arc<VerifiedToken>>;

/// Readers take no lock; a writer replaces one set of at most [`WAYS`] entries.
pub(super) struct VerifiedTokens {
    sets: Box<[ArcSwap<Set>]>,
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        let empty = Arc::new(Set::new());
        Self { sets: (0..SETS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect() }
    }

    pub(super) fn get(&self, hash: &TokenHash) -> Option<Arc<VerifiedToken>> {
        self.set(hash)?.load().iter().find(|token| token.hash == *hash).cloned()
    }

    /// Pushes out, when the set is full, expired tokens and then the one that expires first.
    pub(super) fn insert(&self, token: &Arc<VerifiedToken>, now: u64) {
        let Some(set) = self.set(&token.hash) else { return };
        set.rcu(|old| {
            let mut new: Set = old.iter().filter(|other| other.hash != token.hash && now < other.expires_at).cloned().collect();
            if new.len() >= WAYS {
                new.sort_by_key(|other| std::cmp::Reverse(other.expires_at));
                new.truncate(WAYS - 1);
            }
            new.push(Arc::clone(token));
            new
        });
    }

    /// Drops the tokens of which `keep` is false.
    pub(super) fn retain(&self, keep: impl Fn(&VerifiedToken) -> bool) {
        for set in &self.sets {
            if set.load().iter().any(|token| !keep(token)) {
                set.rcu(|old| old.iter().filter(|token| keep(token)).cloned().collect::<Set>());
            }
        }
    }

    fn set(&self, hash: &TokenHash) -> Option<&ArcSwap<Set>> {
        let &[first, second, ..] = hash;
        self.sets.get(usize::from(u16::from_be_bytes([first, second])) % SETS)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.iter().map(|set| set.load().len()).sum()
    }
}

impl std::fmt::Debug for VerifiedTokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("VerifiedTokens(..)")
    }
}
