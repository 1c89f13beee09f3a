//! One-time codes from the login pages to the command line and to the hosts of plain HTTP routes (RFC 6749 4.1 with PKCE, RFC 7636): kept as hashes,
//! bound to challenge, destination and session, gone at the first attempt. Time and randomness come as arguments.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::defence::{Defence, off};
use crate::session::SessionId;

use super::limits::{CODE_SECONDS, CODES, CODES_PER_SESSION};

/// Bytes of randomness in a code.
pub(super) const CODE_BYTES: usize = 32;

/// An S256 code challenge: 43 characters of base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodeChallenge([u8; 32]);

/// The codes that may still be redeemed.
#[derive(Debug, Default)]
pub(super) struct OneTimeCodes {
    by_hash: Mutex<HashMap<[u8; 32], Code>>,
}

/// Where a code travels, with its redirect URI, and so what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// A program on the person's own computer, after a click: a login token.
    Program(String),
    /// A host of web pages, where nobody is asked and whose own server may come to know the code: that host's cookie, in the browser that began.
    RouteHost(String),
}

#[derive(Debug)]
struct Code {
    challenge: CodeChallenge,
    destination: Destination,
    session: SessionId,
    expires_at: u64,
}

/// There is no room for one more code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many log-ins of command lines are under way")]
pub(super) struct TooManyCodes;

/// Why a code gives nothing. The client learns one and the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeRefusal {
    Unknown,
    Expired,
    Verifier,
    Destination,
}

impl CodeChallenge {
    /// Of a verifier that we made ourselves.
    pub(super) fn of(verifier: &str) -> Self {
        Self(sha256(verifier))
    }

    /// `None` unless it is the base64url form, without padding, of 32 bytes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub(super) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Compares in constant time. A verifier has 43 to 128 unreserved characters (RFC 7636, 4.1).
    fn fits(&self, verifier: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (43..=128).contains(&verifier.len()) && verifier.bytes().all(allowed) && verify_slices_are_equal(&sha256(verifier), &self.0).is_ok()
    }
}

impl OneTimeCodes {
    /// `destination` was checked: the code travels there.
    ///
    /// # Errors
    /// When too many codes are open, of all sessions or of this one.
    pub(super) fn issue(
        &self,
        random: [u8; CODE_BYTES],
        session: SessionId,
        challenge: CodeChallenge,
        destination: Destination,
        now: u64,
    ) -> Result<String, TooManyCodes> {
        let mut codes = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner);
        let of_session = codes.values().filter(|code| code.session == session).count();
        if codes.len() >= CODES || of_session >= CODES_PER_SESSION {
            codes.retain(|_, code| now < code.expires_at);
        }
        if codes.len() >= CODES || codes.values().filter(|code| code.session == session).count() >= CODES_PER_SESSION {
            return Err(TooManyCodes);
        }
        let text = URL_SAFE_NO_PAD.encode(random);
        let code = Code { challenge, destination, session, expires_at: now.saturating_add(CODE_SECONDS) };
        codes.insert(sha256(&text), code);
        Ok(text)
    }

    /// The session that the code stands for. The code is gone afterwards, whatever the result: who guesses verifiers has one try.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(super) fn redeem(&self, code: &str, verifier: &str, destination: &Destination, now: u64) -> Result<SessionId, CodeRefusal> {
        let taken = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner).remove(&sha256(code));
        let code = taken.ok_or(CodeRefusal::Unknown)?;
        if now >= code.expires_at {
            return Err(CodeRefusal::Expired);
        }
        if !code.challenge.fits(verifier) && !off(Defence::CodeVerifier) {
            return Err(CodeRefusal::Verifier);
        }
        if code.destination != *destination && !off(Defence::CodeDestination) {
            return Err(CodeRefusal::Destination);
        }
        Ok(code.session)
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const REDIRECT: &str = "http://127.0.0.1:8000/callback";

    fn program(redirect_uri: &str) -> Destination {
        Destination::Program(redirect_uri.to_owned())
    }

    fn session(n: u8) -> SessionId {
        SessionId::from_random([n; 16])
    }

    fn issue(codes: &OneTimeCodes, random: u8, of: SessionId, now: u64) -> Result<String, TooManyCodes> {
        codes.issue([random; CODE_BYTES], of, CodeChallenge::parse(CHALLENGE).unwrap(), program(REDIRECT), now)
    }

    #[track_caller]
    fn check(verifier: &str, destination: &Destination, now: u64, expected: Result<SessionId, CodeRefusal>) {
        let codes = OneTimeCodes::default();
        let code = issue(&codes, 7, session(1), 100).unwrap();
        assert_eq!(codes.redeem(&code, verifier, destination, now), expected);
        assert_eq!(codes.redeem(&code, VERIFIER, &program(REDIRECT), 100), Err(CodeRefusal::Unknown), "a code is gone after one attempt");
    }

    #[test]
    fn a_code_needs_verifier_destination_and_time() {
        let here = program(REDIRECT);
        check(VERIFIER, &here, 100, Ok(session(1)));
        check(VERIFIER, &here, 159, Ok(session(1)));
        check(VERIFIER, &here, 160, Err(CodeRefusal::Expired));
        check("", &here, 100, Err(CodeRefusal::Verifier));
        check(CHALLENGE, &here, 100, Err(CodeRefusal::Verifier));
        check(&VERIFIER.replace('d', "e"), &here, 100, Err(CodeRefusal::Verifier));
        check(&format!("{VERIFIER}="), &here, 100, Err(CodeRefusal::Verifier));
        check(VERIFIER, &program("http://127.0.0.1:8001/callback"), 100, Err(CodeRefusal::Destination));
        check(VERIFIER, &program("http://127.0.0.1:8000/callback/"), 100, Err(CodeRefusal::Destination));
        check(VERIFIER, &Destination::RouteHost(REDIRECT.to_owned()), 100, Err(CodeRefusal::Destination));
    }

    #[test]
    fn unknown_codes_are_refused() {
        let codes = OneTimeCodes::default();
        issue(&codes, 7, session(1), 100).unwrap();
        for code in ["", "x", &URL_SAFE_NO_PAD.encode([8; CODE_BYTES])] {
            assert_eq!(codes.redeem(code, VERIFIER, &program(REDIRECT), 100), Err(CodeRefusal::Unknown));
        }
    }

    #[test]
    fn one_session_cannot_take_all_codes() {
        let codes = OneTimeCodes::default();
        for n in 0..8 {
            issue(&codes, n, session(1), 100).unwrap();
        }
        assert_eq!(issue(&codes, 8, session(1), 159), Err(TooManyCodes));
        assert!(issue(&codes, 9, session(2), 159).is_ok());
        assert!(issue(&codes, 8, session(1), 160).is_ok(), "expired codes make room");
    }

    #[test]
    fn a_challenge_is_32_bytes_of_base64url() {
        assert_eq!(CodeChallenge::parse(CHALLENGE).unwrap().to_text(), CHALLENGE);
        assert_eq!(CodeChallenge::of(VERIFIER).to_text(), CHALLENGE);
        for text in
            ["", "abc", &CHALLENGE.replace('-', "+"), &format!("{CHALLENGE}="), &format!("{CHALLENGE}AA"), &VERIFIER.replace('k', "é")]
        {
            assert_eq!(CodeChallenge::parse(text), None, "{text}");
        }
    }
}
