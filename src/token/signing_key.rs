//! `SigningKey`: a private key whose public half others read. Only algorithms that kube-apiserver takes: ECDSA on P-256 and P-384, and RSA.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use jsonwebtoken::{Algorithm, EncodingKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::jwk::{Curve, PublicJwk, PublicKey};

/// A private key with the one algorithm that it signs with. `jsonwebtoken` keeps its bytes; nothing here gives them out.
pub struct SigningKey {
    public: PublicJwk,
    encoding: EncodingKey,
}

/// How a key signs (RFC 7518, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "PS256")]
    Ps256,
}

/// A text that is no key to sign with. None of the messages repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    #[error("holds no private key in PEM form (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    #[error("holds an encrypted key; it must be stored without a passphrase")]
    Encrypted,
    #[error("holds more than one private key; one and nothing else is expected")]
    NotOneKey,
    #[error("is not valid PEM")]
    InvalidPem,
    #[error("holds an RSA key that cannot be used: 2048 to 8192 bits are taken")]
    RsaSize,
    #[error("holds an Ed25519 key, and API servers do not take EdDSA: P-256, P-384 and RSA are taken")]
    Ed25519,
    #[error("holds a private key of a kind that is not taken: P-256, P-384 and RSA are")]
    Unsupported,
    #[error("a {key} key cannot sign with {algorithm}")]
    Algorithm { key: &'static str, algorithm: SigningAlgorithm },
}

impl SigningKey {
    /// Takes PKCS#8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`). Without `algorithm` an RSA key signs with RS256;
    /// a curve has one algorithm only.
    ///
    /// # Errors
    /// When there is not exactly one private key, or it is of a kind that API servers do not take or that is too weak.
    pub fn from_pem(pem: &str, algorithm: Option<SigningAlgorithm>) -> Result<Self, SigningKeyError> {
        check_sections(pem)?;
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| SigningKeyError::InvalidPem)?;
        let (encoding, key) = match &der {
            PrivateKeyDer::Pkcs1(_) => rsa(pem)?,
            PrivateKeyDer::Sec1(der) => elliptic(der.secret_sec1_der()).ok_or(SigningKeyError::Unsupported)?,
            PrivateKeyDer::Pkcs8(der) => pkcs8(pem, der.secret_pkcs8_der())?,
            _ => return Err(SigningKeyError::Unsupported),
        };
        let algorithm = choose(&key, algorithm)?;
        Ok(Self { public: PublicJwk::new(key, algorithm), encoding })
    }

    /// The name of the key: see [`PublicJwk::kid`].
    pub fn kid(&self) -> &str {
        self.public.kid()
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.public.algorithm()
    }

    pub fn public_jwk(&self) -> &PublicJwk {
        &self.public
    }

    pub(super) fn encoding_key(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({} {}, [redacted])", self.algorithm(), self.kid())
    }
}

impl SigningAlgorithm {
    pub const ALL: [Self; 4] = [Self::Es256, Self::Es384, Self::Rs256, Self::Ps256];

    /// As in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    pub(super) const fn of_library(self) -> Algorithm {
        match self {
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
        }
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A text that names no algorithm of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of: ES256, ES384, RS256, PS256")]
pub struct UnknownSigningAlgorithm;

impl FromStr for SigningAlgorithm {
    type Err = UnknownSigningAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownSigningAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownSigningAlgorithm)
    }
}

/// One private key and nothing else, but for the parameters that `openssl ecparam -genkey` writes before a key.
fn check_sections(pem: &str) -> Result<(), SigningKeyError> {
    const PARAMETERS: &str = "EC PARAMETERS";
    let labels = pem.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let labels: Vec<&str> = labels.filter(|label| *label != PARAMETERS).collect();
    // The second is how keys were encrypted before PKCS#8 (RFC 1421, 4.6.1.1).
    if labels.contains(&"ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(SigningKeyError::Encrypted);
    }
    match labels.as_slice() {
        [label] if label.ends_with("PRIVATE KEY") => Ok(()),
        labels if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) => Err(SigningKeyError::NotOneKey),
        _ => Err(SigningKeyError::NoKey),
    }
}

fn pkcs8(pem: &str, der: &[u8]) -> Result<(EncodingKey, PublicKey), SigningKeyError> {
    if let Some(found) = elliptic(der) {
        return Ok(found);
    }
    if Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).is_ok() {
        return Err(SigningKeyError::Ed25519);
    }
    rsa(pem)
}

/// PKCS#8 or SEC 1. `None` when it is no key on a curve that is taken.
fn elliptic(der: &[u8]) -> Option<(EncodingKey, PublicKey)> {
    const CURVES: [(Curve, &EcdsaSigningAlgorithm); 2] =
        [(Curve::P256, &ECDSA_P256_SHA256_FIXED_SIGNING), (Curve::P384, &ECDSA_P384_SHA384_FIXED_SIGNING)];
    CURVES.into_iter().find_map(|(curve, algorithm)| {
        let pair = EcdsaKeyPair::from_private_key_der(algorithm, der).ok()?;
        let public = PublicKey::elliptic(curve, pair.public_key().as_ref())?;
        // The one form that the library takes.
        Some((EncodingKey::from_ec_der(pair.to_pkcs8v1().ok()?.as_ref()), public))
    })
}

fn rsa(pem: &str) -> Result<(EncodingKey, PublicKey), SigningKeyError> {
    let encoding = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| SigningKeyError::Unsupported)?;
    let pair = RsaKeyPair::from_der(encoding.as_bytes()).map_err(|_| SigningKeyError::RsaSize)?;
    let public = pair.public_key();
    let key = PublicKey::rsa(public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero());
    Ok((encoding, key))
}

fn choose(key: &PublicKey, wanted: Option<SigningAlgorithm>) -> Result<SigningAlgorithm, SigningKeyError> {
    use SigningAlgorithm::{Es256, Es384, Ps256, Rs256};
    let (name, taken): (_, &[SigningAlgorithm]) = match key {
        PublicKey::Elliptic { crv: Curve::P256, .. } => ("P-256", &[Es256]),
        PublicKey::Elliptic { crv: Curve::P384, .. } => ("P-384", &[Es384]),
        PublicKey::Rsa { .. } => ("RSA", &[Rs256, Ps256]),
    };
    match wanted {
        None => taken.first().copied().ok_or(SigningKeyError::Unsupported),
        Some(algorithm) if taken.contains(&algorithm) => Ok(algorithm),
        Some(algorithm) => Err(SigningKeyError::Algorithm { key: name, algorithm }),
    }
}

#[cfg(test)]
pub(super) mod tests;
