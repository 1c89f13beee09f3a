//! Tokens: sign and verify JWTs and seal bytes, given keys and a time; one type and one key per use.
//!
//! What only we read (login and session tokens, cookies, sealed rows) has keys that derive from the configuration's `secrets` (HKDF-SHA256,
//! RFC 5869): the first secret signs and seals, all of them are accepted, so a secret is replaced by adding the new one in front and removing
//! the old one when nothing of it is alive any more. What others verify (upstream and assertion tokens) is signed by key pairs whose public
//! halves are published: see `KeyRing`. No kind is accepted as another.
//! This module reads no clock and makes no randomness but that inside a signature: both are arguments. It must not know who may do what: a valid token says
//! which session it speaks for, and the session table says whether that session lives.

mod assertion;
mod claims;
mod discovery;
mod jwk;
mod jwt;
mod key_ledger;
mod key_ring;
mod keys;
mod seal;
mod secret;
mod session_id;
mod signed;
mod signing_key;
mod upstream;

pub use assertion::{AssertionToken, AssertionTokenClaims, MAX_ASSERTION_TOKEN_BYTES, MAX_ASSERTION_TOKEN_SECONDS};
pub use claims::{LoginTokenClaims, SessionTokenClaims};
pub use discovery::DiscoveryDocument;
pub use jwk::{JwkSet, PublicJwk};
pub(crate) use jwt::is_for;
pub use jwt::{CLOCK_LEEWAY_SECONDS, MAX_SESSION_TOKEN_SECONDS, MAX_TOKEN_BYTES, SignError, TokenRejection};
pub use key_ledger::{KEY_RETENTION_SECONDS, KeyChange, KeyChangeKind, KeyLedger};
pub use key_ring::{KeyRing, KeyState, KeyStatus};
pub use keys::{KeyId, TokenKeys};
pub use seal::{MAX_SEALED_BYTES, SealError};
pub use secret::{MIN_SECRET_BYTES, Secret, SecretError};
pub use session_id::{InvalidSessionId, SessionId};
pub use signing_key::{SigningAlgorithm, SigningKey, SigningKeyError, UnknownSigningAlgorithm};
pub use upstream::{MAX_UPSTREAM_TOKEN_BYTES, MAX_UPSTREAM_TOKEN_SECONDS, UpstreamToken, UpstreamTokenClaims};
