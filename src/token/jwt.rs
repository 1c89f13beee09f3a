//! Sign and verify our two kinds of JWT (RFC 7519, hardened as RFC 8725 says). Only what we made ourselves is ever accepted, so every check
//! is for one exact value: the algorithm, the type, the key's id, the issuer, the audience.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};

use super::claims::{ISSUER, LoginTokenClaims, Payload, SessionTokenClaims};
use super::keys::{KeyId, TokenKeys, TokenUse};
use crate::defence::{Defence, off};

/// A longer token is refused before anything of it is read.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// A session token lives an hour at most, whoever signs it.
pub const MAX_SESSION_TOKEN_SECONDS: u64 = 3600;
/// How far our own clock may have been set back since a token was made. It never lengthens a token's life: `exp` has no leeway.
pub const CLOCK_LEEWAY_SECONDS: u64 = 30;

/// Why a token does not count. None of the texts repeats anything of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRejection {
    #[error("the token is malformed: it is none that kubepass makes")]
    Malformed,
    #[error("the token is not signed by a key that is accepted here: log in again")]
    BadSignature,
    #[error("the token is of another type: a login token is not a session token")]
    WrongType,
    #[error("the token is for another host")]
    WrongAudience,
    #[error("the token has expired: renew it or log in again")]
    Expired,
    #[error("the token is not valid yet: the clock was set back, or differs between machines")]
    NotYetValid,
    #[error("the session has ended: log in again")]
    SessionEnded,
}

/// A token that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("there is no secret to sign with")]
    NoSecret,
    #[error("the token would have no life, or a longer one than its kind may have")]
    Lifetime,
    #[error("the token would be longer than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the cryptographic library refused to sign")]
    Library,
}

impl TokenKeys {
    /// # Errors
    /// When the life is empty or longer than [`MAX_SESSION_TOKEN_SECONDS`], or the token is larger than [`MAX_TOKEN_BYTES`].
    pub fn sign_session_token(&self, claims: &SessionTokenClaims) -> Result<String, SignError> {
        self.sign(TokenUse::Session, &claims.to_payload())
    }

    /// # Errors
    /// When the life is empty, or the token is larger than [`MAX_TOKEN_BYTES`].
    pub fn sign_login_token(&self, claims: &LoginTokenClaims) -> Result<String, SignError> {
        self.sign(TokenUse::Login, &claims.to_payload())
    }

    /// Whether the session lives is asked of the session table: use [`crate::session::SessionTable::authenticate`] on requests.
    ///
    /// # Errors
    /// The reason why the token does not count.
    pub fn verify_session_token(&self, token: &str, audience: &str, now: u64) -> Result<SessionTokenClaims, TokenRejection> {
        self.verify_session_token_and_key(token, audience, now).map(|(claims, _)| claims)
    }

    /// As [`Self::verify_session_token`], with the id of the key that verified.
    ///
    /// # Errors
    /// The reason why the token does not count.
    pub fn verify_session_token_and_key(
        &self,
        token: &str,
        audience: &str,
        now: u64,
    ) -> Result<(SessionTokenClaims, KeyId), TokenRejection> {
        let (payload, key) = self.verify(TokenUse::Session, token, audience, now)?;
        Ok((SessionTokenClaims::from_payload(payload), key))
    }

    /// Whether the session lives is asked of the session table: use [`crate::session::SessionTable::authenticate_login`] on requests.
    ///
    /// # Errors
    /// The reason why the token does not count.
    pub fn verify_login_token(&self, token: &str, audience: &str, now: u64) -> Result<LoginTokenClaims, TokenRejection> {
        self.verify(TokenUse::Login, token, audience, now).map(|(payload, _)| LoginTokenClaims::from_payload(payload))
    }

    fn sign(&self, token_use: TokenUse, payload: &Payload) -> Result<String, SignError> {
        if !has_valid_lifetime(token_use, payload) {
            return Err(SignError::Lifetime);
        }
        let key = self.signing_key(token_use).ok_or(SignError::NoSecret)?;
        let token =
            jsonwebtoken::encode(&header(token_use.header_type(), key.id), payload, &key.encoding).map_err(|_| SignError::Library)?;
        if token.len() > MAX_TOKEN_BYTES { Err(SignError::TooLarge { limit: MAX_TOKEN_BYTES }) } else { Ok(token) }
    }

    fn verify(&self, token_use: TokenUse, token: &str, audience: &str, now: u64) -> Result<(Payload, KeyId), TokenRejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRejection::Malformed);
        }
        let unverified_header = jsonwebtoken::decode_header(token).map_err(|_| TokenRejection::Malformed)?;
        let typ = unverified_header.typ.as_deref().unwrap_or_default();
        if typ != token_use.header_type() && !off(Defence::TokenType) {
            return Err(TokenRejection::WrongType);
        }
        let id = unverified_header.kid.as_deref().and_then(KeyId::parse).ok_or(TokenRejection::Malformed)?;
        // The whole header is compared, so no field that we never write (crit, jku, jwk, x5c, zip, ...) can mean anything.
        if unverified_header != header(typ, id) {
            return Err(TokenRejection::Malformed);
        }
        let key = self.accepted_jwt_key(token_use, id).ok_or(TokenRejection::BadSignature)?;
        let payload = jsonwebtoken::decode::<Payload>(token, &key.decoding, &signature_only())
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenRejection::BadSignature,
                _ => TokenRejection::Malformed,
            })?
            .claims;
        check_claims(token_use, &payload, audience, now)?;
        Ok((payload, id))
    }
}

fn header(typ: &str, id: KeyId) -> Header {
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(typ.to_owned());
    header.kid = Some(id.to_string());
    header
}

/// The library checks the signature and nothing else: it would read the clock, allow 60 s after `exp` and pass a missing `aud`.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn check_claims(token_use: TokenUse, payload: &Payload, audience: &str, now: u64) -> Result<(), TokenRejection> {
    if payload.iss != ISSUER || !has_valid_lifetime(token_use, payload) {
        return Err(TokenRejection::Malformed);
    }
    if payload.token_use != token_use.claim() && !off(Defence::TokenType) {
        return Err(TokenRejection::WrongType);
    }
    if !is_for(&payload.aud, audience) {
        return Err(TokenRejection::WrongAudience);
    }
    if now >= payload.exp {
        return Err(TokenRejection::Expired);
    }
    let latest = now.saturating_add(CLOCK_LEEWAY_SECONDS);
    if payload.nbf > latest || payload.iat > latest {
        return Err(TokenRejection::NotYetValid);
    }
    Ok(())
}

/// An empty audience would be a caller that does not know its host; nothing is for it.
pub(crate) fn is_for(claimed: &str, audience: &str) -> bool {
    !audience.is_empty() && (claimed == audience || off(Defence::TokenAudience))
}

fn has_valid_lifetime(token_use: TokenUse, payload: &Payload) -> bool {
    let longest = match token_use {
        TokenUse::Login => u64::MAX,
        TokenUse::Session => MAX_SESSION_TOKEN_SECONDS,
    };
    payload.nbf >= payload.iat && payload.exp > payload.nbf && payload.exp - payload.iat <= longest
}

#[cfg(test)]
mod tests;
