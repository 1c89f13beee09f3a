//! What our two kinds of token say, as values and as the JSON of a JWT's payload (RFC 7519).

use serde::{Deserialize, Serialize};

use super::keys::TokenUse;
use super::session_id::SessionId;

/// `iss` of every token of ours.
pub(super) const ISSUER: &str = "kubepass";

/// A token that kubectl sends to one route: bound to its host, an hour at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTokenClaims {
    pub session: SessionId,
    /// The route's host without port.
    pub audience: String,
    /// Who the session is, for the eyes of whoever looks into a token; nothing is decided by it.
    pub subject: String,
    /// `jti`: unique text, random.
    pub token_id: String,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds; the token is dead from this second on.
    pub expires_at: u64,
}

/// A token that renews session tokens at `public_url`; never accepted on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginTokenClaims {
    pub session: SessionId,
    /// `public_url`.
    pub audience: String,
    /// As in [`SessionTokenClaims::subject`].
    pub subject: String,
    /// `jti`: unique text, random.
    pub token_id: String,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds; the token is dead from this second on.
    pub expires_at: u64,
}

/// The payload. `aud` is one string, never a list: a token for two audiences cannot be said. Times are whole seconds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) sub: String,
    pub(super) sid: SessionId,
    pub(super) token_use: String,
    pub(super) iat: u64,
    pub(super) nbf: u64,
    pub(super) exp: u64,
    pub(super) jti: String,
}

macro_rules! payload_of {
    ($claims:ident, $token_use:expr) => {
        impl $claims {
            pub(super) fn to_payload(&self) -> Payload {
                Payload {
                    iss: ISSUER.to_owned(),
                    aud: self.audience.clone(),
                    sub: self.subject.clone(),
                    sid: self.session,
                    token_use: $token_use.claim().to_owned(),
                    iat: self.issued_at,
                    nbf: self.issued_at,
                    exp: self.expires_at,
                    jti: self.token_id.clone(),
                }
            }

            pub(super) fn from_payload(payload: Payload) -> Self {
                Self {
                    session: payload.sid,
                    audience: payload.aud,
                    subject: payload.sub,
                    token_id: payload.jti,
                    issued_at: payload.iat,
                    expires_at: payload.exp,
                }
            }
        }
    };
}

payload_of!(SessionTokenClaims, TokenUse::Session);
payload_of!(LoginTokenClaims, TokenUse::Login);
