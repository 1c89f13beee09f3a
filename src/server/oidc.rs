//! The client of the identity providers: discovery, authorization code with PKCE, ID token, userinfo. It turns an answer into claims that are
//! verified; what they mean (`IdentityMapping`) and what follows (a session) is not decided here.
//!
//! An identity provider that is away stops new log-ins only: discovery happens at the first need, is retried, and its last good result is kept.

mod error;
mod exchange;
mod http;
mod provider;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{Config, IdentityProvider};

pub use error::{IdTokenFault, OidcError};
pub use exchange::{AuthorizationAnswer, AuthorizationStart, LoginProof};
pub use http::{ANSWER_LIMIT, FetchError};
pub use provider::{Provider, ProviderHealth};

/// How long things may take and how often they happen.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For one exchange with the identity provider, whole.
    pub timeout: Duration,
    /// After this time discovery and keys are fetched again: so long may the health that is shown be old.
    pub refresh_period: Duration,
    /// The least time between two fetches that an unknown key caused: a stranger's tokens must not make us hammer the identity provider.
    pub key_cool_down: Duration,
    /// The least time between two fetches after a failed one.
    pub failure_cool_down: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            refresh_period: Duration::from_secs(60),
            key_cool_down: Duration::from_secs(5),
            failure_cool_down: Duration::from_secs(2),
        }
    }
}

/// The clients of all identity providers, by name; follows the configuration.
#[derive(Debug)]
pub struct Providers {
    timing: Timing,
    by_name: Mutex<HashMap<String, Arc<Provider>>>,
}

impl Default for Providers {
    fn default() -> Self {
        Self::new(Timing::default())
    }
}

impl Providers {
    pub fn new(timing: Timing) -> Self {
        Self { timing, by_name: Mutex::new(HashMap::new()) }
    }

    /// The client for these settings; a new one when the issuer or its CA changed. Contacts nobody.
    ///
    /// # Errors
    /// `OidcError::Unreachable` when no HTTP client can be built (CA bundle, system roots).
    pub fn get(&self, settings: &IdentityProvider) -> Result<Arc<Provider>, OidcError> {
        let mut by_name = self.lock();
        if let Some(provider) = by_name.get(&settings.name).filter(|provider| provider.serves(settings)) {
            return Ok(Arc::clone(provider));
        }
        let provider = Arc::new(Provider::new(settings, self.timing)?);
        by_name.insert(settings.name.clone(), Arc::clone(&provider));
        Ok(provider)
    }

    /// How each known identity provider does, by name.
    pub fn health(&self) -> Vec<ProviderHealth> {
        let mut health: Vec<_> = self.lock().values().map(|provider| provider.health()).collect();
        health.sort_by(|a, b| a.name.cmp(&b.name));
        health
    }

    /// Fetches discovery and keys of every configured identity provider now and then again each `refresh_period` (each `retry_period` while one
    /// fails), so that health is known before the first login and a rotated key is there before it is used. `config` gives the configuration of the
    /// moment. Never returns.
    pub async fn keep_fresh(&self, config: impl Fn() -> Arc<Config>, retry_period: Duration) {
        loop {
            let current = config();
            let configured = &current.identity_providers;
            self.lock().retain(|name, _| configured.iter().any(|settings| settings.name == *name));
            for settings in configured {
                if let Ok(provider) = self.get(settings) {
                    // The result is in `health`; logins report it themselves.
                    let _ = provider.discovered().await;
                }
            }
            tokio::time::sleep(retry_period).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Provider>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
