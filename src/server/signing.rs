//! The keys with which tokens for others are signed, and the tokens themselves: follows the configured keys, keeps in the session store what a
//! restart must know, and mints one token for a session and a route, which is used again until something of it changes or most of its life
//! is over.
//!
//! It does not decide who may have a token: it is asked after the decision, by what holds a `Grant`. A caller reads memory only, takes no lock
//! where a token is at hand, and never gets another token than the one that it asked for.

mod cache;
mod generate;
mod holder;
mod request;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditEvent, SigningKeyEvent};
use crate::config::Config;
use crate::defence::{Defence, off};
use crate::server::clock;
use crate::server::store::{Store, StoreError};
use crate::server::telemetry::Metrics;
use crate::server::trail::Trail;
use crate::snapshot::Snapshot;
use crate::token::{
    AssertionToken, AssertionTokenClaims, KeyRing, SessionId, SignError, SigningKey, SigningKeyError, UpstreamToken, UpstreamTokenClaims,
};
use cache::{Lived, TokenCache};
use holder::{KeyHolder, Kind};

pub use generate::{GenerateError, generate_pem};
pub use request::{AssertionTokenRequest, UpstreamTokenRequest};
pub use view::{KeyView, PublishedKeys, published_keys};

/// How often keys are looked at although nothing was configured: those that may sign now, and those that may leave.
const LOOK: Duration = Duration::from_secs(10);

/// The rings and the tokens of both kinds, shared by everything that asks.
#[derive(Debug)]
pub struct Signing {
    upstream: KeyHolder,
    assertion: KeyHolder,
    upstream_tokens: TokenCache<UpstreamTokenClaims, UpstreamToken>,
    assertion_tokens: TokenCache<AssertionTokenClaims, AssertionToken>,
}

/// Why kubepass cannot sign at all.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("the signing keys' record cannot be read or written: {0}")]
    Store(#[from] StoreError),
    #[error("no signing key can be made: {0}")]
    Generate(#[from] GenerateError),
    #[error("the signing key that was made {0}")]
    Key(#[from] SigningKeyError),
}

/// A token that was not made; there is no other in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintRefusal {
    #[error(
        "what is to be told about you does not fit into one token: you are in too many groups; ask your administrator to narrow the route's group allow-list"
    )]
    TooLarge,
    #[error("your session has ended: log in again")]
    SessionEnded,
    #[error("there is no key to sign with")]
    NoKey,
    #[error("the cryptographic library refused to sign")]
    Library,
}

impl Signing {
    /// Reads what the store knows of earlier keys, and makes a key of its own for each kind of which none is configured.
    ///
    /// # Errors
    /// When the store cannot be read, or cannot keep a key that was made: no token may depend on a key that a restart would lose.
    pub async fn open(config: &Config, store: &Store, now: u64) -> Result<Arc<Self>, SigningError> {
        Ok(Arc::new(Self {
            upstream: KeyHolder::open(Kind::Upstream, config, store, now).await?,
            assertion: KeyHolder::open(Kind::Assertion, config, store, now).await?,
            upstream_tokens: TokenCache::new(),
            assertion_tokens: TokenCache::new(),
        }))
    }

    /// Who signs upstream tokens, and the JWKS that API servers read.
    pub fn upstream_ring(&self) -> Arc<KeyRing> {
        self.upstream.ring()
    }

    /// Who signs assertions, and the JWKS that the upstreams of plain HTTP routes read.
    pub fn assertion_ring(&self) -> Arc<KeyRing> {
        self.assertion.ring()
    }

    /// The token that says to the API server of a route who the session's person is: one that was made for exactly this, or a new one. It
    /// ends with the session at the latest.
    ///
    /// # Errors
    /// Why there is none; the request must then be refused.
    pub fn upstream_token<T: AsRef<str>>(
        &self,
        request: &UpstreamTokenRequest<'_, T>,
        now: u64,
    ) -> Result<Arc<UpstreamToken>, MintRefusal> {
        let mint = |signer: &SigningKey| {
            let claims = request.claims(now)?;
            let token = signer.sign_upstream_token(&claims)?;
            Ok((claims, token))
        };
        let is_same = |claims: &_| request.is_said_by(claims) || off(Defence::TokenCacheClaims);
        token_of(&self.upstream, &self.upstream_tokens, (&request.session.id, request.route_id), now, is_same, mint)
    }

    /// The identity header for the upstream of a plain HTTP route: as [`Self::upstream_token`].
    ///
    /// # Errors
    /// Why there is none; the request must then be refused.
    pub fn assertion_token(&self, request: &AssertionTokenRequest<'_>, now: u64) -> Result<Arc<AssertionToken>, MintRefusal> {
        let mint = |signer: &SigningKey| {
            let claims = request.claims(now)?;
            let token = signer.sign_assertion_token(&claims)?;
            Ok((claims, token))
        };
        let is_same = |claims: &_| request.is_said_by(claims) || off(Defence::TokenCacheClaims);
        token_of(&self.assertion, &self.assertion_tokens, (&request.session.id, request.route_id), now, is_same, mint)
    }

    /// Shows the keys and counts the tokens among the process's metrics.
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        metrics.register_collector(view::KeyMetrics(Arc::clone(self)));
    }

    /// Follows the configuration and the time until `stop`: which key signs, what is published, what the store must know.
    ///
    /// # Errors
    /// When nobody publishes configurations any more.
    pub async fn follow(
        self: Arc<Self>,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        store: Store,
        trail: Trail,
        stop: CancellationToken,
    ) -> Result<(), &'static str> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_new = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = snapshots.changed() => changed.map(|()| true).map_err(|_| "the publisher has ended")?,
                _ = look.tick() => false,
            };
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let now = clock::unix_now();
            if is_new {
                // What is written now must open with the secrets that are configured now.
                store.set_keys(Arc::clone(snapshot.token_keys()));
            }
            for holder in [&self.upstream, &self.assertion] {
                holder.renew(snapshot.config(), &store, is_new, now).await;
                record_changes(holder, &trail).await;
            }
            self.upstream_tokens.drop_expired(now);
            self.assertion_tokens.drop_expired(now);
        }
    }
}

/// The token at hand for a session and a route, or one that the key of now signs.
fn token_of<C: Lived, T>(
    keys: &KeyHolder,
    tokens: &TokenCache<C, T>,
    (session, route_id): (&SessionId, &str),
    now: u64,
    is_same: impl Fn(&C) -> bool,
    mint: impl FnOnce(&SigningKey) -> Result<(C, T), MintRefusal>,
) -> Result<Arc<T>, MintRefusal> {
    let (session, route_id) = if off(Defence::TokenCacheKey) { (&SessionId::from_random([0; 16]), "") } else { (session, route_id) };
    let ring = keys.ring.load();
    let signer = ring.signer(now).ok_or(MintRefusal::NoKey)?;
    let mint = || mint(signer).inspect(|_| keys.count_token());
    tokens.token(session, route_id, (signer.kid(), signer.algorithm()), now, is_same, mint)
}

/// Each change of a key is a line in the log and one in the audit trail.
async fn record_changes(holder: &KeyHolder, trail: &Trail) {
    for change in holder.unrecorded_changes() {
        let (kind, what, algorithm) = (holder.kind.name(), change.what.name(), change.algorithm.name());
        tracing::info!(key.tokens = kind, key.change = what, key.id = change.kid, key.algorithm = algorithm, "signing_key.changed");
        let event = SigningKeyEvent { tokens: kind, change: what, key: change.kid, algorithm };
        if let Err(error) = trail.record(AuditEvent::SigningKey(event)).await {
            tracing::warn!(%error, "a change of the signing keys leaves no audit line");
        }
    }
}

impl From<SignError> for MintRefusal {
    fn from(error: SignError) -> Self {
        match error {
            SignError::TooLarge { .. } => Self::TooLarge,
            SignError::Lifetime => Self::SessionEnded,
            SignError::NoSecret => Self::NoKey,
            SignError::Library => Self::Library,
        }
    }
}

#[cfg(test)]
mod tests;
