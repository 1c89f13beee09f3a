#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// One of the fixed keys in `tests/it/fixture/keys`.
pub(in crate::token) fn pem(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixture/keys").join(name);
    std::fs::read_to_string(path).unwrap()
}

pub(in crate::token) fn key(name: &str, algorithm: Option<SigningAlgorithm>) -> SigningKey {
    SigningKey::from_pem(&pem(name), algorithm).unwrap()
}

/// Thumbprints that Python computed from what `openssl pkey -text` shows.
const P256_KID: &str = "V5bfywo5ey1vjKS0V14O4wRQ9iacg_41LaV20HY_kUg";
const P384_KID: &str = "mjimLW_bPu_FyVHGqewSA_97YV57yxD7iwDFAV_-uDE";
const RSA_KID: &str = "bk9Jnx-7i2JKlUyYsTP6WrivyWOA4if7Yp5CRWuUoSI";

#[test]
fn the_algorithm_is_that_of_the_key() {
    let check = |name: &str, wanted: Option<SigningAlgorithm>, algorithm: SigningAlgorithm, kid: &str| {
        let key = key(name, wanted);
        assert_eq!((key.algorithm(), key.kid()), (algorithm, kid), "{name}");
    };
    check("signing.pem", None, SigningAlgorithm::Es256, P256_KID);
    check("signing.pem", Some(SigningAlgorithm::Es256), SigningAlgorithm::Es256, P256_KID);
    check("sec1.pem", None, SigningAlgorithm::Es256, P256_KID);
    check("p384-sec1.pem", None, SigningAlgorithm::Es384, P384_KID);
    check("rsa.pem", None, SigningAlgorithm::Rs256, RSA_KID);
    check("rsa.pem", Some(SigningAlgorithm::Ps256), SigningAlgorithm::Ps256, RSA_KID);
    check("rsa-pkcs1.pem", Some(SigningAlgorithm::Rs256), SigningAlgorithm::Rs256, RSA_KID);
}

#[test]
fn what_is_no_key_for_an_api_server_is_refused_with_the_reason() {
    let check = |pem: &str, algorithm: Option<SigningAlgorithm>, expected: SigningKeyError| {
        let error = SigningKey::from_pem(pem, algorithm).unwrap_err();
        assert_eq!(error, expected);
    };
    check("", None, SigningKeyError::NoKey);
    check("hunter2", None, SigningKeyError::NoKey);
    check(&pem("public.pem"), None, SigningKeyError::NoKey);
    check(&pem("encrypted.pem"), None, SigningKeyError::Encrypted);
    check(&(pem("signing.pem") + &pem("signing-2.pem")), None, SigningKeyError::NotOneKey);
    check(&(pem("signing.pem") + &pem("public.pem")), None, SigningKeyError::NotOneKey);
    check("-----BEGIN PRIVATE KEY-----\nhunter2!!\n-----END PRIVATE KEY-----\n", None, SigningKeyError::InvalidPem);
    check("-----BEGIN PRIVATE KEY-----\nhunter2", None, SigningKeyError::InvalidPem);
    check("-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n", None, SigningKeyError::Unsupported);
    check("-----BEGIN EC PRIVATE KEY-----\naHVudGVyMg==\n-----END EC PRIVATE KEY-----\n", None, SigningKeyError::Unsupported);
    check("-----BEGIN RSA PRIVATE KEY-----\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----\n", None, SigningKeyError::Unsupported);
    check(&pem("rsa-1024.pem"), None, SigningKeyError::RsaSize);
    check(&pem("ed25519.pem"), None, SigningKeyError::Ed25519);
    check(&pem("p521.pem"), None, SigningKeyError::Unsupported);
    check(&pem("rsa-pss.pem"), None, SigningKeyError::Unsupported);
    for (name, key, algorithm) in [
        ("signing.pem", "P-256", SigningAlgorithm::Es384),
        ("signing.pem", "P-256", SigningAlgorithm::Rs256),
        ("p384-sec1.pem", "P-384", SigningAlgorithm::Es256),
        ("rsa.pem", "RSA", SigningAlgorithm::Es256),
    ] {
        check(&pem(name), Some(algorithm), SigningKeyError::Algorithm { key, algorithm });
    }
}

#[test]
fn there_are_no_other_algorithms() {
    for name in ["none", "None", "HS256", "HS512", "RS384", "ES512", "EdDSA", "es256", "", " ES256"] {
        assert_eq!(name.parse::<SigningAlgorithm>(), Err(UnknownSigningAlgorithm), "{name:?}");
    }
    for algorithm in SigningAlgorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
        assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.name());
    }
}

#[test]
fn debug_shows_no_private_key() {
    assert_eq!(format!("{:?}", key("signing.pem", None)), format!("SigningKey(ES256 {P256_KID}, [redacted])"));
}
