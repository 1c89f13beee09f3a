//! Randomness for codes, states, ids and nonces: the one place of the web part that makes it.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of the system's cryptographic source.
pub(super) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // Without randomness nothing here can be secret, and there is no way to go on.
        std::process::abort();
    }
    bytes
}

/// 256 bits as base64url.
pub(super) fn text() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<32>())
}

/// 64 bits as hexadecimal digits: an id, not a secret.
pub(super) fn id() -> String {
    bytes::<8>().iter().fold(String::with_capacity(16), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
