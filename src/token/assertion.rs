//! `AssertionToken`: says to the upstream of a plain HTTP route who someone is, in a header of its own. Its keys and their JWKS are never those
//! that API servers read, so that an upstream that keeps such a token has nothing that a cluster would take.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::jwk::JwkSet;
use super::jwt::{SignError, TokenRejection};
use super::session_id::SessionId;
use super::signed::{Registered, SignedPayload};
use super::signing_key::SigningKey;

/// An assertion lives five minutes at most.
pub const MAX_ASSERTION_TOKEN_SECONDS: u64 = 300;
/// No assertion is longer: many web servers refuse a header line above 8 KiB.
pub const MAX_ASSERTION_TOKEN_BYTES: usize = 7 * 1024;

/// What an assertion says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionTokenClaims {
    /// `public_url` without a slash at its end.
    pub issuer: String,
    /// The route's audience.
    pub audience: String,
    /// The same for one person at every route and login: see [`crate::identity::Principal`].
    pub subject: String,
    /// `jti`: unique text, random.
    pub token_id: String,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds; the token is dead from this second on.
    pub expires_at: u64,
    /// A verified address, or empty.
    pub email: String,
    pub username: String,
    pub groups: Vec<String>,
    pub session: SessionId,
}

/// A signed identity header. Its text is shown by [`Self::expose`] only.
pub struct AssertionToken(SecretString);

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
    email: String,
    username: String,
    groups: Vec<String>,
    kubepass_session: SessionId,
}

impl AssertionToken {
    /// The text, for the one header that carries it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for AssertionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AssertionToken([redacted])")
    }
}

impl SigningKey {
    /// # Errors
    /// When the life is empty or longer than [`MAX_ASSERTION_TOKEN_SECONDS`], or the token is larger than [`MAX_ASSERTION_TOKEN_BYTES`].
    pub fn sign_assertion_token(&self, claims: &AssertionTokenClaims) -> Result<AssertionToken, SignError> {
        self.sign(&Payload::from(claims.clone())).map(AssertionToken)
    }
}

impl JwkSet {
    /// What an upstream should do with the header: the signature by these keys, `typ`, issuer, audience and time.
    ///
    /// # Errors
    /// The reason why the token does not count.
    pub fn verify_assertion_token(
        &self,
        token: &str,
        issuer: &str,
        audience: &str,
        now: u64,
    ) -> Result<AssertionTokenClaims, TokenRejection> {
        self.verify::<Payload>(token, issuer, audience, now).map(AssertionTokenClaims::from)
    }
}

impl SignedPayload for Payload {
    const HEADER_TYPE: &'static str = "kubepass-assertion+jwt";
    const TOKEN_USE: &'static str = "assertion";
    const MAX_SECONDS: u64 = MAX_ASSERTION_TOKEN_SECONDS;
    const MAX_BYTES: usize = MAX_ASSERTION_TOKEN_BYTES;

    fn registered(&self) -> Registered<'_> {
        let Self { iss, aud, token_use, iat, nbf, exp, .. } = self;
        Registered { iss, aud, token_use, iat: *iat, nbf: *nbf, exp: *exp }
    }
}

impl From<AssertionTokenClaims> for Payload {
    fn from(claims: AssertionTokenClaims) -> Self {
        Self {
            iss: claims.issuer,
            aud: claims.audience,
            sub: claims.subject,
            exp: claims.expires_at,
            nbf: claims.issued_at,
            iat: claims.issued_at,
            jti: claims.token_id,
            token_use: Self::TOKEN_USE.to_owned(),
            email: claims.email,
            username: claims.username,
            groups: claims.groups,
            kubepass_session: claims.session,
        }
    }
}

impl From<Payload> for AssertionTokenClaims {
    fn from(payload: Payload) -> Self {
        Self {
            issuer: payload.iss,
            audience: payload.aud,
            subject: payload.sub,
            token_id: payload.jti,
            issued_at: payload.iat,
            expires_at: payload.exp,
            email: payload.email,
            username: payload.username,
            groups: payload.groups,
            session: payload.kubepass_session,
        }
    }
}
