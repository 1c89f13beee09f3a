//! `KeyLedger`: which public keys were published since when. It is kept where sessions last, so that a restart neither makes a new key sign
//! before its time nor takes an old one away from tokens that live.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::jwk::PublicJwk;
use super::signing_key::SigningAlgorithm;
use super::upstream::MAX_UPSTREAM_TOKEN_SECONDS;

/// How long a key that is no longer configured stays published: as long as a token may live, and five minutes for clocks that differ.
pub const KEY_RETENTION_SECONDS: u64 = MAX_UPSTREAM_TOKEN_SECONDS + 300;

/// The keys of one JWKS, the configured ones first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLedger {
    pub(super) keys: Vec<PublishedKey>,
    /// The key that signed when the ledger was written.
    pub(super) signer: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublishedKey {
    pub(super) jwk: PublicJwk,
    /// Unix seconds since which it has been in the JWKS without a break.
    pub(super) published_at: u64,
    /// It was published long enough or has signed: it never has to wait again while it stays published, whatever the clock does.
    pub(super) known: bool,
    /// Unix seconds since which it is no longer configured.
    pub(super) withdrawn_at: Option<u64>,
}

/// Something that happened to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    pub kid: String,
    pub algorithm: SigningAlgorithm,
    pub what: KeyChangeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChangeKind {
    /// It stands in the JWKS from now on.
    Published,
    /// New tokens are signed by it from now on.
    Signs,
    /// It is no longer configured; it stays in the JWKS while tokens of it may live.
    Withdrawn,
    /// It is gone from the JWKS.
    Removed,
}

impl KeyLedger {
    /// The ledger when exactly `configured` is configured at `now`.
    pub(super) fn advanced<'a>(&self, configured: impl IntoIterator<Item = &'a PublicJwk>, publish_before_use: u64, now: u64) -> Self {
        let mut keys: Vec<PublishedKey> = Vec::new();
        for jwk in configured {
            if keys.iter().any(|key| key.jwk.kid() == jwk.kid()) {
                continue;
            }
            // The same key with another algorithm is another entry of the JWKS: what is known of it is not this one.
            let before = self.find(jwk.kid()).filter(|key| key.jwk == *jwk && key.is_published(now));
            let published_at = before.map_or(now, |key| key.published_at.min(now));
            let known = before.is_some_and(|key| key.known) || now - published_at >= publish_before_use;
            keys.push(PublishedKey { jwk: jwk.clone(), published_at, known, withdrawn_at: None });
        }
        for key in &self.keys {
            // A time to come is that of a clock that was set back: then the whole retention begins now.
            let withdrawn_at = key.withdrawn_at.map_or(now, |at| at.min(now));
            let old = PublishedKey { withdrawn_at: Some(withdrawn_at), ..key.clone() };
            if !keys.iter().any(|key| key.jwk.kid() == old.jwk.kid()) && old.is_published(now) {
                keys.push(old);
            }
        }
        Self { keys, signer: self.signer.clone() }
    }

    /// The ledger as if it had never heard of the keys with these ids: none of them is published, not even for tokens that live.
    #[must_use]
    pub fn without(&self, revoked: &BTreeSet<String>) -> Self {
        let keys = self.keys.iter().filter(|key| !revoked.contains(key.jwk.kid())).cloned().collect();
        Self { keys, signer: self.signer.clone() }
    }

    /// What happened between the two, in the order in which it matters.
    pub fn changes_since(&self, before: &Self) -> Vec<KeyChange> {
        let mut changes = Vec::new();
        for key in &self.keys {
            let old = before.find(key.jwk.kid());
            match (old.is_some_and(PublishedKey::is_configured), key.is_configured()) {
                (false, true) => changes.push(key.change(KeyChangeKind::Published)),
                (true, false) => changes.push(key.change(KeyChangeKind::Withdrawn)),
                _ => {}
            }
        }
        if self.signer != before.signer
            && let Some(signer) = self.signer.as_deref().and_then(|kid| self.find(kid))
        {
            changes.push(signer.change(KeyChangeKind::Signs));
        }
        let gone = before.keys.iter().filter(|key| self.find(key.jwk.kid()).is_none());
        changes.extend(gone.map(|key| key.change(KeyChangeKind::Removed)));
        changes
    }

    pub(super) fn is_known(&self, kid: &str, now: u64) -> bool {
        self.find(kid).is_some_and(|key| key.known && key.is_published(now))
    }

    pub(super) fn find(&self, kid: &str) -> Option<&PublishedKey> {
        self.keys.iter().find(|key| key.jwk.kid() == kid)
    }
}

impl PublishedKey {
    pub(super) fn is_configured(&self) -> bool {
        self.withdrawn_at.is_none()
    }

    pub(super) fn is_published(&self, now: u64) -> bool {
        self.withdrawn_at.is_none_or(|at| now < at.saturating_add(KEY_RETENTION_SECONDS))
    }

    fn change(&self, what: KeyChangeKind) -> KeyChange {
        KeyChange { kid: self.jwk.kid().to_owned(), algorithm: self.jwk.algorithm(), what }
    }
}

impl KeyChangeKind {
    /// A stable word for logs and the audit trail.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Signs => "signs",
            Self::Withdrawn => "withdrawn",
            Self::Removed => "removed",
        }
    }
}
