//! Unguessable names, and the verifier and state of a login (RFC 7636, RFC 6749 10.12).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// The random source of the machine gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub(crate) struct NoRandomness;

/// 256 random bits in 43 characters of base64url.
pub(crate) fn random_token() -> Result<String, NoRandomness> {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A name for a temporary file: unique is enough, since the file is created only if it does not exist. The library's generator takes some 30 ms to
/// begin, for which kubectl would wait at each of its calls; this one is the system's, through the standard library.
pub(crate) fn random_name() -> String {
    format!("{:x}-{:x}", std::process::id(), RandomState::new().build_hasher().finish())
}

/// `code_challenge` of the method `S256`.
pub(crate) fn s256(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256_hex(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in base64, as Content Security Policy names inline text.
pub(crate) fn sha256_base64(text: &str) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The example of RFC 7636, appendix B.
    #[test]
    fn challenge() {
        assert_eq!(s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_are_long_and_differ() {
        let (one, two) = (random_token().unwrap(), random_token().unwrap());
        assert_eq!(one.len(), 43);
        assert_ne!(one, two);
    }
}
