//! One identity provider: its discovery document and keys, fetched when first needed, kept, renewed by age and on an unknown key. One fetch at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use openidconnect::core::{CoreJsonWebKeySet, CoreProviderMetadata};
use openidconnect::{DiscoveryError, HttpRequest, JsonWebKeySet, http};
use serde::Deserialize;
use url::Url;

use crate::config::IdentityProvider;
use crate::server::clock;

use super::Timing;
use super::error::OidcError;
use super::http::{FetchError, HttpClient};

/// Client of one issuer.
#[derive(Debug)]
pub struct Provider {
    pub(super) name: String,
    issuer: Url,
    ca_pem: Option<String>,
    pub(super) http: HttpClient,
    timing: Timing,
    discovered: ArcSwapOption<Discovered>,
    /// Held while fetching: the last attempt.
    fetching: tokio::sync::Mutex<Attempt>,
    health: Mutex<ProviderHealth>,
}

/// What discovery gave: valid and from the configured issuer.
#[derive(Debug)]
pub struct Discovered {
    pub(super) metadata: CoreProviderMetadata,
    pub(super) keys: CoreJsonWebKeySet,
    /// Whether every answer in the browser names its issuer (RFC 9207, 2.4).
    pub(super) answers_name_issuer: bool,
    fetched: Instant,
}

/// What RFC 9207 adds to the discovery document.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rfc9207 {
    authorization_response_iss_parameter_supported: bool,
}

/// How an identity provider does, for metrics and the state page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderHealth {
    pub name: String,
    /// `None` until it was asked for the first time.
    pub reachable: Option<bool>,
    /// Unix seconds.
    pub last_success_at: Option<u64>,
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Attempt {
    failed: Option<(Instant, OidcError)>,
    /// When an unknown key last caused one.
    for_key: Option<Instant>,
}

/// Why the provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Age,
    UnknownKey,
}

impl Provider {
    pub(super) fn new(settings: &IdentityProvider, timing: Timing) -> Result<Self, OidcError> {
        let http = HttpClient::new(&settings.issuer, settings.ca_pem.as_deref(), timing.timeout)
            .map_err(|cause| OidcError::Unreachable { provider: settings.name.clone(), cause })?;
        Ok(Self {
            name: settings.name.clone(),
            issuer: settings.issuer.clone(),
            ca_pem: settings.ca_pem.clone(),
            http,
            timing,
            discovered: ArcSwapOption::empty(),
            fetching: tokio::sync::Mutex::default(),
            health: Mutex::new(ProviderHealth { name: settings.name.clone(), reachable: None, last_success_at: None, last_error: None }),
        })
    }

    pub(super) fn serves(&self, settings: &IdentityProvider) -> bool {
        self.issuer == settings.issuer && self.ca_pem == settings.ca_pem
    }

    pub fn health(&self) -> ProviderHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Discovery and keys, fetched when there are none or they are old. Old ones stay good while the identity provider is away.
    pub async fn discovered(&self) -> Result<Arc<Discovered>, OidcError> {
        let known = self.discovered.load_full();
        match known {
            Some(known) if known.fetched.elapsed() < self.timing.refresh_period => Ok(known),
            Some(known) => Ok(self.fetch_unless_changed(Some(&known), Cause::Age).await.unwrap_or(known)),
            None => self.fetch_unless_changed(None, Cause::Age).await,
        }
    }

    /// Keys newer than `seen`, for a token whose key is not among them; `seen` itself within the cool-down.
    pub(super) async fn newer_than(&self, seen: &Arc<Discovered>) -> Result<Arc<Discovered>, OidcError> {
        self.fetch_unless_changed(Some(seen), Cause::UnknownKey).await
    }

    async fn fetch_unless_changed(&self, seen: Option<&Arc<Discovered>>, cause: Cause) -> Result<Arc<Discovered>, OidcError> {
        let mut attempt = self.fetching.lock().await;
        // Fetches for other reasons do not count: the provider may change its key right after one.
        let cooling = cause == Cause::UnknownKey && attempt.for_key.is_some_and(|at| at.elapsed() < self.timing.key_cool_down);
        if let Some(current) = self.discovered.load_full() {
            let changed = seen.is_none_or(|seen| !Arc::ptr_eq(seen, &current));
            if changed || cooling {
                return Ok(current);
            }
        }
        if let Some((at, error)) = &attempt.failed
            && at.elapsed() < self.timing.failure_cool_down
        {
            return Err(error.clone());
        }
        if cause == Cause::UnknownKey {
            attempt.for_key = Some(Instant::now());
        }
        let result = self.fetch().await;
        self.note(result.as_ref().err());
        attempt.failed = result.as_ref().err().map(|error| (Instant::now(), error.clone()));
        let fresh = Arc::new(result?);
        self.discovered.store(Some(Arc::clone(&fresh)));
        Ok(fresh)
    }

    async fn fetch(&self) -> Result<Discovered, OidcError> {
        let (metadata, answers_name_issuer) = self.fetch_metadata().await?;
        let client = self.http.clone();
        let call = move |request: HttpRequest| {
            let client = client.clone();
            async move { client.call(request).await }
        };
        let keys = JsonWebKeySet::fetch_async(metadata.jwks_uri(), &call).await.map_err(|error| match error {
            DiscoveryError::Request(cause) => self.unreachable(cause),
            other => self.bad_discovery(format!("its keys cannot be read ({other})")),
        })?;
        if metadata.token_endpoint().is_none() {
            return Err(self.bad_discovery("it names no token endpoint"));
        }
        // What we call ourselves does not leave TLS (`HttpClient`). People's browsers shall not either.
        let scheme = metadata.authorization_endpoint().url().scheme();
        if scheme != "https" && scheme != self.issuer.scheme() {
            return Err(self.bad_discovery("its authorization endpoint is no https URL"));
        }
        Ok(Discovered { metadata, keys, answers_name_issuer, fetched: Instant::now() })
    }

    /// OpenID Connect Discovery 1.0, section 4. Not left to the library: a `Url` always ends in `/` where issuers of one host alone usually do not.
    async fn fetch_metadata(&self) -> Result<(CoreProviderMetadata, bool), OidcError> {
        let address = format!("{}/.well-known/openid-configuration", self.issuer.as_str().trim_end_matches('/'));
        let request = http::Request::get(&address)
            .header(http::header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| self.bad_discovery(error))?;
        let answer = self.http.call(request).await.map_err(|cause| self.unreachable(cause))?;
        if answer.status() != http::StatusCode::OK {
            return Err(self.bad_discovery(format!("HTTP status {} at {address}", answer.status().as_u16())));
        }
        let metadata: CoreProviderMetadata = serde_json::from_slice(answer.body()).map_err(|error| self.bad_discovery(error))?;
        let found = metadata.issuer().as_str();
        let expected = self.issuer.as_str();
        let same = found == expected || (self.issuer.path() == "/" && Some(found) == expected.strip_suffix('/'));
        if same {
            let more: Rfc9207 = serde_json::from_slice(answer.body()).unwrap_or_default();
            Ok((metadata, more.authorization_response_iss_parameter_supported))
        } else {
            Err(OidcError::DiscoveredIssuer { provider: self.name.clone(), expected: expected.to_owned(), found: shortened(found) })
        }
    }

    fn note(&self, error: Option<&OidcError>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.reachable = Some(error.is_none());
        health.last_error = error.map(ToString::to_string);
        if error.is_none() {
            health.last_success_at = Some(clock::unix_now());
        }
    }

    pub(super) fn unreachable(&self, cause: FetchError) -> OidcError {
        OidcError::Unreachable { provider: self.name.clone(), cause }
    }

    fn bad_discovery(&self, detail: impl ToString) -> OidcError {
        OidcError::Discovery { provider: self.name.clone(), detail: shortened(&detail.to_string()) }
    }
}

/// Text of the other side, cut so that it fits a page and a log line, without control characters.
pub(super) fn shortened(text: &str) -> String {
    const LIMIT: usize = 300;
    text.chars().filter(|c| !c.is_control()).take(LIMIT).collect()
}
