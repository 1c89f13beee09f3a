//! Makes a new private key, as PEM.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use zeroize::{Zeroize, Zeroizing};

use crate::token::SigningAlgorithm;

/// 128 bits of security until far beyond the life of any key.
const RSA_SIZE: KeySize = KeySize::Rsa3072;
const PEM_LINE: usize = 64;

/// The cryptographic library gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library made no key")]
pub struct GenerateError;

/// A new key for this algorithm, as PKCS#8 (`-----BEGIN PRIVATE KEY-----`).
///
/// # Errors
/// When the library makes none.
pub fn generate_pem(algorithm: SigningAlgorithm) -> Result<SecretString, GenerateError> {
    match algorithm {
        SigningAlgorithm::Es256 => elliptic(&ECDSA_P256_SHA256_FIXED_SIGNING),
        SigningAlgorithm::Es384 => elliptic(&ECDSA_P384_SHA384_FIXED_SIGNING),
        SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256 => {
            let pair = KeyPair::generate(RSA_SIZE).map_err(|_| GenerateError)?;
            Ok(pem(pair.as_der().map_err(|_| GenerateError)?.as_ref()))
        }
    }
}

fn elliptic(algorithm: &'static EcdsaSigningAlgorithm) -> Result<SecretString, GenerateError> {
    let pair = EcdsaKeyPair::generate(algorithm).map_err(|_| GenerateError)?;
    Ok(pem(pair.to_pkcs8v1().map_err(|_| GenerateError)?.as_ref()))
}

fn pem(der: &[u8]) -> SecretString {
    let mut base64 = Zeroizing::new(STANDARD.encode(der));
    // As long as it will be, so that no copy is left behind by growing.
    let mut text = String::with_capacity(base64.len() + base64.len() / PEM_LINE + 128);
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(PEM_LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    base64.zeroize();
    SecretString::from(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use secrecy::ExposeSecret;

    use super::*;
    use crate::token::SigningKey;

    #[test]
    fn what_is_made_can_sign_as_was_asked() {
        for algorithm in SigningAlgorithm::ALL {
            let pem = generate_pem(algorithm).unwrap();
            let key = SigningKey::from_pem(pem.expose_secret(), Some(algorithm)).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            assert!(pem.expose_secret().lines().all(|line| line.len() <= PEM_LINE));
            assert_ne!(generate_pem(algorithm).unwrap().expose_secret(), pem.expose_secret());
        }
    }
}
