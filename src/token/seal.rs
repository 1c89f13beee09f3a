//! Seal and open bytes that leave the process: the store's rows and the cookies (AES-256-GCM, NIST SP 800-38D).
//!
//! A sealed value is `version (1) | key id (8) | nonce (12) | ciphertext and tag`. Version, key id and purpose are authenticated with it,
//! so a value that was sealed for one purpose opens for no other.

use aws_lc_rs::aead::{Aad, MAX_TAG_LEN, NONCE_LEN, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::keys::{KeyId, TokenKeys};
use super::secret::{AeadKey, DerivedKeys};

/// A longer value is neither sealed nor opened.
pub const MAX_SEALED_BYTES: usize = 1024 * 1024;

const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 1 + KeyId::BYTES + NONCE_LEN;

type Choose = fn(&DerivedKeys) -> &AeadKey;
const SEALING: Choose = |keys| &keys.sealing;
const COOKIE: Choose = |keys| &keys.cookie;

/// A value that cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("there is no secret to seal with")]
    NoSecret,
    #[error("the value is longer than {MAX_SEALED_BYTES} bytes")]
    TooLarge,
    #[error("the cryptographic library refused to seal")]
    Library,
}

impl TokenKeys {
    /// Seals for storage. `nonce` must be random from a cryptographic source and used once; random nonces bound one secret to 2^32 seals.
    ///
    /// # Errors
    /// Without a secret, or when the value is too large.
    pub fn seal(&self, purpose: &str, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>, SealError> {
        self.seal_with(SEALING, purpose, plaintext, nonce)
    }

    /// `None` for everything that was not sealed for this purpose by a key that is accepted.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_with(SEALING, purpose, sealed)
    }

    /// Seals the value of the cookie `name`, with keys of its own; the result is URL-safe base64. `nonce` as for [`Self::seal`].
    ///
    /// # Errors
    /// Without a secret, or when the value is too large.
    pub fn seal_cookie(&self, name: &str, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Result<String, SealError> {
        self.seal_with(COOKIE, name, plaintext, nonce).map(|sealed| URL_SAFE_NO_PAD.encode(sealed))
    }

    /// `None` for everything that was not sealed for this cookie's name by a key that is accepted. How long a value counts is for the
    /// caller to put inside.
    pub fn open_cookie(&self, name: &str, text: &str) -> Option<Vec<u8>> {
        if text.len() > MAX_SEALED_BYTES {
            return None;
        }
        self.open_with(COOKIE, name, &URL_SAFE_NO_PAD.decode(text).ok()?)
    }

    fn seal_with(&self, choose: Choose, purpose: &str, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>, SealError> {
        let key = self.aead_key(choose, None).ok_or(SealError::NoSecret)?;
        if plaintext.len() > MAX_SEALED_BYTES - PREFIX_BYTES - MAX_TAG_LEN {
            return Err(SealError::TooLarge);
        }
        let mut text = plaintext.to_vec();
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), authenticated(key.id, purpose), &mut text)
            .map_err(|_| SealError::Library)?;
        let mut sealed = Vec::with_capacity(PREFIX_BYTES + text.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(key.id.as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut text);
        Ok(sealed)
    }

    fn open_with(&self, choose: Choose, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        if sealed.len() > MAX_SEALED_BYTES {
            return None;
        }
        let (&version, rest) = sealed.split_first()?;
        let (&id, rest) = rest.split_first_chunk::<{ KeyId::BYTES }>()?;
        let (&nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        if version != VERSION {
            return None;
        }
        let id = KeyId::new(id);
        let key = self.aead_key(choose, Some(id))?;
        let mut text = text.to_vec();
        let length = key.key.open_in_place(Nonce::assume_unique_for_key(nonce), authenticated(id, purpose), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// The purpose stands last and everything before it has a fixed length, so no two inputs give the same bytes.
fn authenticated(id: KeyId, purpose: &str) -> Aad<Vec<u8>> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(purpose.as_bytes());
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::token::Secret;

    fn keys(seeds: &[u8]) -> TokenKeys {
        TokenKeys::derive(&seeds.iter().map(|seed| Secret::new([*seed; 32]).unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn opens_what_it_sealed() {
        let keys = keys(&[1]);
        for text in [&b""[..], b"x", &[0xa5; 5000]] {
            assert_eq!(keys.open("session", &keys.seal("session", text, [9; 12]).unwrap()).unwrap(), text);
            assert_eq!(keys.open_cookie("name", &keys.seal_cookie("name", text, [9; 12]).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn another_purpose_use_or_key_opens_nothing() {
        let sealed = keys(&[1]).seal("session:a", b"text", [0; 12]).unwrap();
        assert_eq!(keys(&[1]).open("session:b", &sealed), None);
        assert_eq!(keys(&[1]).open("", &sealed), None);
        assert_eq!(keys(&[2]).open("session:a", &sealed), None);
        assert_eq!(keys(&[]).open("session:a", &sealed), None);
        assert_eq!(keys(&[1]).open_cookie("session:a", &URL_SAFE_NO_PAD.encode(&sealed)), None);
        let cookie = keys(&[1]).seal_cookie("c", b"text", [0; 12]).unwrap();
        assert_eq!(keys(&[1]).open_cookie("d", &cookie), None);
        assert_eq!(keys(&[1]).open("c", &URL_SAFE_NO_PAD.decode(&cookie).unwrap()), None);
    }

    #[test]
    fn the_first_secret_seals_and_all_open() {
        let old = keys(&[1]).seal("p", b"old", [1; 12]).unwrap();
        let rotated = keys(&[2, 1]);
        assert_eq!(rotated.open("p", &old).unwrap(), b"old");
        let new = rotated.seal("p", b"new", [1; 12]).unwrap();
        assert_eq!(keys(&[2]).open("p", &new).unwrap(), b"new");
        assert_eq!(keys(&[1]).open("p", &new), None);
        assert_eq!(keys(&[]).seal("p", b"new", [1; 12]), Err(SealError::NoSecret));
    }

    #[test]
    fn every_changed_or_missing_byte_is_seen() {
        let keys = keys(&[1]);
        let sealed = keys.seal("p", b"some plaintext", [3; 12]).unwrap();
        for index in 0..sealed.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = sealed.clone();
                changed[index] ^= flip;
                assert_eq!(keys.open("p", &changed), None, "byte {index}");
            }
            assert_eq!(keys.open("p", &sealed[..index]), None, "cut at {index}");
        }
        assert_eq!(keys.open("p", &[&sealed[..], b"x"].concat()), None);
    }

    #[test]
    fn too_large_is_refused_both_ways() {
        let keys = keys(&[1]);
        let largest = vec![0; MAX_SEALED_BYTES - PREFIX_BYTES - MAX_TAG_LEN];
        assert_eq!(keys.open("p", &keys.seal("p", &largest, [0; 12]).unwrap()).unwrap(), largest);
        assert_eq!(keys.seal("p", &vec![0; largest.len() + 1], [0; 12]), Err(SealError::TooLarge));
        assert_eq!(keys.open("p", &vec![VERSION; MAX_SEALED_BYTES + 1]), None);
    }

    #[test]
    fn the_text_is_not_readable_in_the_sealed_value() {
        let sealed = keys(&[1]).seal("p", b"alice@example.com", [3; 12]).unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"alice"));
    }
}
