//! The discovery document of our signed tokens (OpenID Connect Discovery 1.0, 3), as far as API servers read it.

use serde::Serialize;

use super::jwk::JwkSet;
use super::signing_key::SigningAlgorithm;

/// Who issues, where the keys are, and with what they sign. Nobody logs in at this issuer, so no endpoint for that is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiscoveryDocument {
    pub issuer: String,
    pub jwks_uri: String,
    pub response_types_supported: Vec<&'static str>,
    pub subject_types_supported: Vec<&'static str>,
    pub id_token_signing_alg_values_supported: Vec<SigningAlgorithm>,
}

impl DiscoveryDocument {
    /// `jwks_uri` must lead to `jwks`, of which the algorithms are named.
    pub fn new(issuer: &str, jwks_uri: &str, jwks: &JwkSet) -> Self {
        let used = |algorithm: &SigningAlgorithm| jwks.keys.iter().any(|key| key.algorithm() == *algorithm);
        Self {
            issuer: issuer.to_owned(),
            jwks_uri: jwks_uri.to_owned(),
            response_types_supported: vec!["id_token"],
            subject_types_supported: vec!["public"],
            id_token_signing_alg_values_supported: SigningAlgorithm::ALL.into_iter().filter(used).collect(),
        }
    }
}
