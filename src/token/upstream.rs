//! `UpstreamToken`: says to one API server who someone is. The API server verifies it with our public keys (structured authentication) and
//! needs nothing else of us; its rules see the claims only, so the claims carry all that tells this kind from every other.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::jwk::JwkSet;
use super::jwt::{SignError, TokenRejection};
use super::session_id::SessionId;
use super::signed::{Registered, SignedPayload};
use super::signing_key::SigningKey;

/// An upstream token lives an hour at most, whoever signs it.
pub const MAX_UPSTREAM_TOKEN_SECONDS: u64 = 3600;
/// No upstream token is longer: it is one header line, and Envoy and the API server bound all headers together.
pub const MAX_UPSTREAM_TOKEN_BYTES: usize = 16 * 1024;

/// What an upstream token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTokenClaims {
    /// `public_url` without a slash at its end.
    pub issuer: String,
    /// The route's audience: one API server, or several that say so.
    pub audience: String,
    /// The same for one person at every route and login: see [`crate::identity::Principal`].
    pub subject: String,
    /// `jti`: unique text, random.
    pub token_id: String,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds; the token is dead from this second on.
    pub expires_at: u64,
    /// The route's prefix included.
    pub username: String,
    pub groups: Vec<String>,
    pub uid: Option<String>,
    pub extra: BTreeMap<String, Vec<String>>,
    /// Leads from the API server's audit log to the login.
    pub session: SessionId,
    /// Version of the configuration by which the identity was mapped.
    pub policy_version: String,
}

/// A signed token for an API server. Its text is a credential: it is shown by [`Self::expose`] only.
pub struct UpstreamToken(SecretString);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    iss: String,
    aud: String,
    sub: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    token_use: String,
    username: String,
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
    kubepass_session: SessionId,
    kubepass_policy: String,
}

impl UpstreamToken {
    /// The text, for the one header that carries it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for UpstreamToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UpstreamToken([redacted])")
    }
}

impl SigningKey {
    /// # Errors
    /// When the life is empty or longer than [`MAX_UPSTREAM_TOKEN_SECONDS`], or the token is larger than [`MAX_UPSTREAM_TOKEN_BYTES`].
    pub fn sign_upstream_token(&self, claims: &UpstreamTokenClaims) -> Result<UpstreamToken, SignError> {
        self.sign(&Payload::from(claims.clone())).map(UpstreamToken)
    }
}

impl JwkSet {
    /// What an API server does with the token, and more: the header and every claim must be as we write them.
    ///
    /// # Errors
    /// The reason why the token does not count.
    pub fn verify_upstream_token(
        &self,
        token: &str,
        issuer: &str,
        audience: &str,
        now: u64,
    ) -> Result<UpstreamTokenClaims, TokenRejection> {
        self.verify::<Payload>(token, issuer, audience, now).map(UpstreamTokenClaims::from)
    }
}

impl SignedPayload for Payload {
    const HEADER_TYPE: &'static str = "kubepass-upstream+jwt";
    const TOKEN_USE: &'static str = "upstream";
    const MAX_SECONDS: u64 = MAX_UPSTREAM_TOKEN_SECONDS;
    const MAX_BYTES: usize = MAX_UPSTREAM_TOKEN_BYTES;

    fn registered(&self) -> Registered<'_> {
        let Self { iss, aud, token_use, iat, nbf, exp, .. } = self;
        Registered { iss, aud, token_use, iat: *iat, nbf: *nbf, exp: *exp }
    }
}

impl From<UpstreamTokenClaims> for Payload {
    fn from(claims: UpstreamTokenClaims) -> Self {
        Self {
            iss: claims.issuer,
            aud: claims.audience,
            sub: claims.subject,
            exp: claims.expires_at,
            nbf: claims.issued_at,
            iat: claims.issued_at,
            jti: claims.token_id,
            token_use: Self::TOKEN_USE.to_owned(),
            username: claims.username,
            groups: claims.groups,
            uid: claims.uid,
            extra: claims.extra,
            kubepass_session: claims.session,
            kubepass_policy: claims.policy_version,
        }
    }
}

impl From<Payload> for UpstreamTokenClaims {
    fn from(payload: Payload) -> Self {
        Self {
            issuer: payload.iss,
            audience: payload.aud,
            subject: payload.sub,
            token_id: payload.jti,
            issued_at: payload.iat,
            expires_at: payload.exp,
            username: payload.username,
            groups: payload.groups,
            uid: payload.uid,
            extra: payload.extra,
            session: payload.kubepass_session,
            policy_version: payload.kubepass_policy,
        }
    }
}
