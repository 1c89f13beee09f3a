//! Sign and verify the kinds of token that others verify with our public keys. Each kind has its own `typ`, claim `token_use`, keys and JWKS;
//! every check is for one exact value, as in `jwt`, and which key may verify stands in the set, never in the token.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::jwk::{JwkSet, PublicJwk};
use super::jwt::{CLOCK_LEEWAY_SECONDS, SignError, TokenRejection};
use super::signing_key::SigningKey;

/// The payload of one kind.
pub(super) trait SignedPayload: Serialize + DeserializeOwned {
    /// The header's `typ` (RFC 8725, 3.11).
    const HEADER_TYPE: &'static str;
    /// The claim `token_use`: an API server's rules see claims only.
    const TOKEN_USE: &'static str;
    /// No token of this kind lives longer.
    const MAX_SECONDS: u64;
    /// No token of this kind is longer.
    const MAX_BYTES: usize;

    fn registered(&self) -> Registered<'_>;
}

/// The claims that every kind has.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    pub(super) iss: &'a str,
    pub(super) aud: &'a str,
    pub(super) token_use: &'a str,
    pub(super) iat: u64,
    pub(super) nbf: u64,
    pub(super) exp: u64,
}

impl SigningKey {
    pub(super) fn sign<P: SignedPayload>(&self, payload: &P) -> Result<SecretString, SignError> {
        if !has_valid_lifetime::<P>(&payload.registered()) {
            return Err(SignError::Lifetime);
        }
        let header = header::<P>(self.public_jwk());
        let token = jsonwebtoken::encode(&header, payload, self.encoding_key()).map_err(|_| SignError::Library)?;
        if token.len() > P::MAX_BYTES { Err(SignError::TooLarge { limit: P::MAX_BYTES }) } else { Ok(token.into()) }
    }
}

impl JwkSet {
    pub(super) fn verify<P: SignedPayload>(&self, token: &str, issuer: &str, audience: &str, now: u64) -> Result<P, TokenRejection> {
        if token.len() > P::MAX_BYTES {
            return Err(TokenRejection::Malformed);
        }
        let unverified_header = jsonwebtoken::decode_header(token).map_err(|_| TokenRejection::Malformed)?;
        if unverified_header.typ.as_deref() != Some(P::HEADER_TYPE) {
            return Err(TokenRejection::WrongType);
        }
        let kid = unverified_header.kid.as_deref().ok_or(TokenRejection::Malformed)?;
        let key = self.find(kid).ok_or(TokenRejection::BadSignature)?;
        // The whole header is compared: the algorithm is the key's own, and no field that we never write can mean anything.
        if unverified_header != header::<P>(key) {
            return Err(TokenRejection::Malformed);
        }
        let decoding = key.decoding_key().ok_or(TokenRejection::BadSignature)?;
        let payload = jsonwebtoken::decode::<P>(token, &decoding, &signature_only(key))
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenRejection::BadSignature,
                _ => TokenRejection::Malformed,
            })?
            .claims;
        check::<P>(&payload.registered(), issuer, audience, now)?;
        Ok(payload)
    }
}

fn header<P: SignedPayload>(key: &PublicJwk) -> Header {
    let mut header = Header::new(key.algorithm().of_library());
    header.typ = Some(P::HEADER_TYPE.to_owned());
    header.kid = Some(key.kid().to_owned());
    header
}

/// The library checks the signature and nothing else: it would read the clock and allow 60 s after `exp`.
fn signature_only(key: &PublicJwk) -> Validation {
    let mut validation = Validation::new(key.algorithm().of_library());
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn check<P: SignedPayload>(claims: &Registered<'_>, issuer: &str, audience: &str, now: u64) -> Result<(), TokenRejection> {
    if !has_valid_lifetime::<P>(claims) || issuer.is_empty() || claims.iss != issuer {
        return Err(TokenRejection::Malformed);
    }
    if claims.token_use != P::TOKEN_USE {
        return Err(TokenRejection::WrongType);
    }
    if audience.is_empty() || claims.aud != audience {
        return Err(TokenRejection::WrongAudience);
    }
    if now >= claims.exp {
        return Err(TokenRejection::Expired);
    }
    let latest = now.saturating_add(CLOCK_LEEWAY_SECONDS);
    if claims.nbf > latest || claims.iat > latest {
        return Err(TokenRejection::NotYetValid);
    }
    Ok(())
}

fn has_valid_lifetime<P: SignedPayload>(claims: &Registered<'_>) -> bool {
    claims.nbf >= claims.iat && claims.exp > claims.nbf && claims.exp - claims.iat <= P::MAX_SECONDS
}

#[cfg(test)]
mod tests;
