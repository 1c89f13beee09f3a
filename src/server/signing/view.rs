//! The keys as operators see them: on the state page, in `keys list`, and as metrics. Public parts and times only.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::server::clock;
use crate::server::signing::holder::{self, KeyHolder, Kind};
use crate::server::signing::{Signing, SigningError};
use crate::server::store::Store;
use crate::token::{KeyRing, KeyState, KeyStatus, PublicJwk, SigningAlgorithm};

/// What is published of the keys of both kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedKeys {
    /// `iss` of both kinds of token.
    pub issuer: String,
    pub upstream: Vec<KeyView>,
    pub assertion: Vec<KeyView>,
}

/// One published key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    pub kid: String,
    pub algorithm: SigningAlgorithm,
    /// `signs`, `waits`, `published` or `withdrawn`.
    pub state: String,
    /// Unix seconds.
    pub published_at: u64,
    /// When the state ends by itself, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    pub jwk: PublicJwk,
}

impl PublishedKeys {
    /// As the rings have them.
    pub fn of(signing: &Signing, config: &Config, now: u64) -> Self {
        Self::of_rings(config, &signing.upstream_ring(), &signing.assertion_ring(), now)
    }

    fn of_rings(config: &Config, upstream: &KeyRing, assertion: &KeyRing, now: u64) -> Self {
        let issuer = config.public_url.origin().to_owned();
        Self { issuer, upstream: views(upstream, now), assertion: views(assertion, now) }
    }
}

/// What a kubepass that does not run would publish if it started now, for verbs. Changes nothing, so a key that would be made is missing.
///
/// # Errors
/// When the store cannot be read.
pub async fn published_keys(config: &Config, store: Option<&Store>, now: u64) -> Result<PublishedKeys, SigningError> {
    let upstream = holder::at_rest(Kind::Upstream, config, store, now).await?;
    let assertion = holder::at_rest(Kind::Assertion, config, store, now).await?;
    Ok(PublishedKeys::of_rings(config, &upstream, &assertion, now))
}

fn views(ring: &KeyRing, now: u64) -> Vec<KeyView> {
    let jwks = ring.jwks(now).keys;
    let view = |(key, jwk): (KeyState, PublicJwk)| KeyView {
        kid: key.kid,
        algorithm: key.algorithm,
        state: key.status.name().to_owned(),
        published_at: key.published_at,
        until: key.status.until(),
        jwk,
    };
    ring.states(now).into_iter().zip(jwks).map(view).collect()
}

/// `kubepass_signing_keys_published{tokens}`, `kubepass_signing_key_age_seconds{tokens}`, `kubepass_tokens_minted_total{tokens}`.
pub(super) struct KeyMetrics(pub(super) Arc<Signing>);

impl fmt::Debug for KeyMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyMetrics(..)")
    }
}

impl Collector for KeyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = clock::unix_now();
        let holders = [&self.0.upstream, &self.0.assertion];
        let labels = |holder: &KeyHolder| [("tokens", holder.kind.name())];
        let mut family = encoder.encode_descriptor("signing_keys_published", "Keys in the JWKS", None, MetricType::Gauge)?;
        for holder in holders {
            ConstGauge::new(number(holder.ring.load().states(now).len() as u64)).encode(family.encode_family(&labels(holder))?)?;
        }
        let mut family =
            encoder.encode_descriptor("signing_key_age_seconds", "Since when the key that signs is published", None, MetricType::Gauge)?;
        for holder in holders {
            let signs = holder.ring.load().states(now).into_iter().find(|key| key.status == KeyStatus::Signs);
            if let Some(key) = signs {
                ConstGauge::new(number(now.saturating_sub(key.published_at))).encode(family.encode_family(&labels(holder))?)?;
            }
        }
        let mut family = encoder.encode_descriptor("tokens_minted", "Tokens signed for others", None, MetricType::Counter)?;
        for holder in holders {
            ConstCounter::new(holder.tokens_minted()).encode(family.encode_family(&labels(holder))?)?;
        }
        Ok(())
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
