//! `Secret`: one entry of `secrets`. Its keys are derived at once and its text is not kept, so nothing can sign with the text itself.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, KeyType, Prk, Salt};
use jsonwebtoken::{DecodingKey, EncodingKey};
use zeroize::Zeroizing;

use super::keys::KeyId;

/// A secret has at least this many bytes, white space at the ends not counted (256 bits when they are random).
pub const MIN_SECRET_BYTES: usize = 32;

/// Separates these keys from whatever else someone may derive from the same secret.
const SALT: &[u8] = b"kubepass secrets v1";
const LOGIN_TOKEN: &str = "login token HS256";
const SESSION_TOKEN: &str = "session token HS256";
const STORE: &str = "sealing AES-256-GCM";
const COOKIE: &str = "cookie AES-256-GCM";

/// One entry of `secrets`: the keys that derive from it. `Clone` shares them.
#[derive(Clone)]
pub struct Secret(Arc<DerivedKeys>);

/// A value that cannot be a secret. The value is never part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "the secret has {bytes} bytes without the white space at its ends, and needs at least {MIN_SECRET_BYTES}: make one with `openssl rand -base64 48`"
    )]
    TooShort { bytes: usize },
    #[error("no keys can be derived from the secret: the cryptographic library refused")]
    Derivation,
}

/// One key per use; none is computable from another.
pub(super) struct DerivedKeys {
    pub(super) login_token: JwtKey,
    pub(super) session_token: JwtKey,
    pub(super) sealing: AeadKey,
    pub(super) cookie: AeadKey,
}

/// A key for HS256 (RFC 7518, 3.2). `jsonwebtoken` wipes its copies when they are dropped.
pub(super) struct JwtKey {
    pub(super) id: KeyId,
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
}

/// A key for AES-256-GCM. `aws-lc` wipes it when it is dropped.
pub(super) struct AeadKey {
    pub(super) id: KeyId,
    pub(super) key: LessSafeKey,
}

impl Secret {
    /// Takes the content of a file or an environment variable; white space (ASCII) at the ends, such as a last newline, does not count.
    ///
    /// # Errors
    /// When fewer than [`MIN_SECRET_BYTES`] remain.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, SecretError> {
        let secret = bytes.as_ref().trim_ascii();
        if secret.len() < MIN_SECRET_BYTES {
            return Err(SecretError::TooShort { bytes: secret.len() });
        }
        let root = Salt::new(HKDF_SHA256, SALT).extract(secret);
        Ok(Self(Arc::new(DerivedKeys {
            login_token: JwtKey::derive(&root, LOGIN_TOKEN)?,
            session_token: JwtKey::derive(&root, SESSION_TOKEN)?,
            sealing: AeadKey::derive(&root, STORE)?,
            cookie: AeadKey::derive(&root, COOKIE)?,
        })))
    }

    pub(super) fn keys(&self) -> &Arc<DerivedKeys> {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret([redacted])")
    }
}

impl JwtKey {
    fn derive(root: &Prk, usage: &str) -> Result<Self, SecretError> {
        let key = expand::<32>(root, "key", usage)?;
        Ok(Self {
            id: KeyId::new(*expand::<8>(root, "key id", usage)?),
            encoding: EncodingKey::from_secret(key.as_slice()),
            decoding: DecodingKey::from_secret(key.as_slice()),
        })
    }
}

impl AeadKey {
    fn derive(root: &Prk, usage: &str) -> Result<Self, SecretError> {
        let key = expand::<32>(root, "key", usage)?;
        let unbound = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SecretError::Derivation)?;
        Ok(Self { id: KeyId::new(*expand::<8>(root, "key id", usage)?), key: LessSafeKey::new(unbound) })
    }
}

/// HKDF-Expand. The zero byte keeps `what` and `usage` apart; no two calls above have an equal pair.
fn expand<const N: usize>(root: &Prk, what: &str, usage: &str) -> Result<Zeroizing<[u8; N]>, SecretError> {
    let mut output = Zeroizing::new([0; N]);
    root.expand(&[what.as_bytes(), b"\0", usage.as_bytes()], Length(N))
        .and_then(|material: hkdf::Okm<'_, Length>| material.fill(output.as_mut_slice()))
        .map_err(|_| SecretError::Derivation)?;
    Ok(output)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn white_space_at_the_ends_does_not_count() {
        let ids = |secret: &[u8]| {
            let secret = Secret::new(secret).unwrap();
            [secret.0.login_token.id, secret.0.session_token.id, secret.0.sealing.id, secret.0.cookie.id]
        };
        let bare = ids(b"0123456789abcdef0123456789abcdef");
        assert_eq!(bare, ids(b" \t0123456789abcdef0123456789abcdef\r\n"));
        assert_ne!(bare, ids(b"0123456789abcdef0123456789abcdeg"));
    }

    #[test]
    fn a_short_secret_is_refused_with_its_length_only() {
        let check = |secret: &[u8], bytes: usize| {
            let error = Secret::new(secret).unwrap_err();
            assert_eq!(error, SecretError::TooShort { bytes });
            assert!(!error.to_string().contains("hunter2"), "{error}");
        };
        check(b"", 0);
        check(b"hunter2", 7);
        check(b"                                        \n", 0);
        check(b"0123456789abcdef0123456789abcde \n", 31);
    }

    #[test]
    fn each_use_has_a_key_of_its_own() {
        let secret = Secret::new([7; 32]).unwrap();
        let ids = [secret.0.login_token.id, secret.0.session_token.id, secret.0.sealing.id, secret.0.cookie.id];
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(ids.iter().position(|other| other == id), Some(index));
        }
        assert_ne!(secret.0.login_token.encoding.as_bytes(), secret.0.session_token.encoding.as_bytes());
    }

    #[test]
    fn the_derivation_never_changes() {
        // A change here would log everybody out at an upgrade, so the values are held.
        let secret = Secret::new(b"0123456789abcdef0123456789abcdef").unwrap();
        let ids = [secret.0.login_token.id, secret.0.session_token.id, secret.0.sealing.id, secret.0.cookie.id].map(|id| id.to_string());
        assert_eq!(ids, ["237dd3175b939dae", "7a7d360169ab81fc", "a0f8bced2354506e", "de3ebac340c534be"]);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Secret::new([b'x'; 32]).unwrap()), "Secret([redacted])");
    }
}
