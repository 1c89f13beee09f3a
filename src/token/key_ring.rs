//! `KeyRing`: the private keys of one kind of token and what is published of them: who signs now, what verifiers read now.
//!
//! The first configured key that those who verify can know signs. A key is known when it was published for `publish_before_use`, or has signed;
//! when none is (the first start, or all replaced at once), the first configured key signs at once, because nothing else can. A key that is no
//! longer configured stays published until no token of it can live. It reads no clock: everything is asked for a time.

use std::sync::Arc;

use super::jwk::JwkSet;
use super::key_ledger::{KEY_RETENTION_SECONDS, KeyLedger, PublishedKey};
use super::signing_key::{SigningAlgorithm, SigningKey};

/// The keys of one kind of token at one time; a change of the configuration and the passing of time make a new one.
#[derive(Debug)]
pub struct KeyRing {
    keys: Vec<Arc<SigningKey>>,
    ledger: KeyLedger,
    publish_before_use: u64,
}

/// One published key, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    pub kid: String,
    pub algorithm: SigningAlgorithm,
    /// Unix seconds.
    pub published_at: u64,
    pub status: KeyStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// New tokens are signed by it.
    Signs,
    /// It will sign from this time on (Unix seconds).
    Waits { until: u64 },
    /// It is configured behind the one that signs.
    Published,
    /// It is no longer configured and leaves the JWKS at this time (Unix seconds).
    Withdrawn { until: u64 },
}

impl KeyRing {
    /// `keys` as they are configured, `before` as it was left by the ring before this one, also across a restart.
    pub fn new(keys: Vec<Arc<SigningKey>>, before: &KeyLedger, publish_before_use: u64, now: u64) -> Self {
        Self::with_stand_in(keys, None, before, publish_before_use, now)
    }

    /// As [`Self::new`]; where none of `keys` is known yet and `stand_in` is, that one goes on signing until one of them may.
    pub fn with_stand_in(
        mut keys: Vec<Arc<SigningKey>>,
        stand_in: Option<Arc<SigningKey>>,
        before: &KeyLedger,
        publish_before_use: u64,
        now: u64,
    ) -> Self {
        let advanced = |keys: &[Arc<SigningKey>]| before.advanced(keys.iter().map(|key| key.public_jwk()), publish_before_use, now);
        let mut ledger = advanced(&keys);
        let known = ledger.keys.iter().any(|key| key.is_configured() && key.known);
        if let Some(stand_in) = stand_in.filter(|key| !known && before.is_known(key.kid(), now)) {
            keys.push(stand_in);
            ledger = advanced(&keys);
        }
        let mut ring = Self { keys, ledger, publish_before_use };
        let signer = ring.signer(now).map(|key| key.kid().to_owned());
        for key in &mut ring.ledger.keys {
            key.known |= signer.as_deref() == Some(key.jwk.kid());
        }
        ring.ledger.signer = signer;
        ring
    }

    /// The key for new tokens; `None` when there is none at all.
    pub fn signer(&self, now: u64) -> Option<&Arc<SigningKey>> {
        self.keys.iter().find(|key| self.is_known(key, now)).or_else(|| self.keys.first())
    }

    /// What verifiers read: the configured keys, then those of which tokens may still live.
    pub fn jwks(&self, now: u64) -> JwkSet {
        JwkSet { keys: self.published(now).map(|key| key.jwk.clone()).collect() }
    }

    /// As [`Self::jwks`], with what each key is doing.
    pub fn states(&self, now: u64) -> Vec<KeyState> {
        let signer = self.signer(now).map(|key| key.kid());
        let mut before_signer = true;
        let state = |key: &PublishedKey| {
            let signs = signer == Some(key.jwk.kid());
            before_signer &= !signs;
            let status = match key.withdrawn_at {
                Some(at) => KeyStatus::Withdrawn { until: at.saturating_add(KEY_RETENTION_SECONDS) },
                None if signs => KeyStatus::Signs,
                None if before_signer => KeyStatus::Waits { until: key.published_at.saturating_add(self.publish_before_use) },
                None => KeyStatus::Published,
            };
            KeyState { kid: key.jwk.kid().to_owned(), algorithm: key.jwk.algorithm(), published_at: key.published_at, status }
        };
        self.published(now).map(state).collect()
    }

    /// What must outlast the process.
    pub fn ledger(&self) -> &KeyLedger {
        &self.ledger
    }

    pub fn keys(&self) -> &[Arc<SigningKey>] {
        &self.keys
    }

    fn is_known(&self, key: &SigningKey, now: u64) -> bool {
        let long_enough = |key: &PublishedKey| now.checked_sub(key.published_at).is_some_and(|age| age >= self.publish_before_use);
        self.ledger.find(key.kid()).is_some_and(|key| key.known || long_enough(key))
    }

    fn published(&self, now: u64) -> impl Iterator<Item = &PublishedKey> {
        self.ledger.keys.iter().filter(move |key| key.is_published(now))
    }
}

impl KeyStatus {
    /// A stable word for the state page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signs => "signs",
            Self::Waits { .. } => "waits",
            Self::Published => "published",
            Self::Withdrawn { .. } => "withdrawn",
        }
    }

    /// When that ends by itself, Unix seconds.
    pub fn until(self) -> Option<u64> {
        match self {
            Self::Waits { until } | Self::Withdrawn { until } => Some(until),
            Self::Signs | Self::Published => None,
        }
    }
}

#[cfg(test)]
mod tests;
