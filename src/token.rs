//! Tokens: sign and verify JWTs and seal bytes, given keys and a time; one type and one key per use.
//!
//! All keys derive from the configuration's `secrets` (HKDF-SHA256, RFC 5869): the first secret signs and seals, all of them are accepted,
//! so a secret is replaced by adding the new one in front and removing the old one when nothing of it is alive any more.
//! This module reads no clock and makes no randomness: both are arguments. It must not know who may do what: a valid token says
//! which session it speaks for, and the session table says whether that session lives.

mod claims;
mod jwt;
mod keys;
mod seal;
mod secret;
mod session_id;

pub use claims::{LoginTokenClaims, SessionTokenClaims};
pub use jwt::{CLOCK_LEEWAY_SECONDS, MAX_SESSION_TOKEN_SECONDS, MAX_TOKEN_BYTES, SignError, TokenRejection};
pub use keys::{KeyId, TokenKeys};
pub use seal::{MAX_SEALED_BYTES, SealError};
pub use secret::{MIN_SECRET_BYTES, Secret, SecretError};
pub use session_id::{InvalidSessionId, SessionId};
