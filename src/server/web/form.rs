//! Sealed forms: what a page asks for goes out sealed together with the session that was shown it, and comes back only from that session and only for
//! that purpose. So a form is at the same time its own CSRF token, and nothing in it can be changed on the way.

use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::defence::{Defence, off};
use crate::session::SessionId;
use crate::token::{SealError, TokenKeys};

use super::limits::FORM_SECONDS;
use super::random;

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    session: SessionId,
    expires_at: u64,
    ask: T,
}

/// Seals `ask` for the form of one page.
pub(super) fn seal<T: Serialize>(keys: &TokenKeys, purpose: Purpose, session: SessionId, ask: T, now: u64) -> Result<String, SealError> {
    let sealed = Sealed { session, expires_at: now.saturating_add(FORM_SECONDS), ask };
    let text = serde_json::to_vec(&sealed).map_err(|_| SealError::Library)?;
    keys.seal_cookie(purpose.label(), &text, random::bytes())
}

/// What was asked, when the form was made for this purpose and session and is not too old.
pub(super) fn open<T: DeserializeOwned>(keys: &TokenKeys, purpose: Purpose, session: SessionId, text: &str, now: u64) -> Option<T> {
    let sealed: Sealed<T> = serde_json::from_slice(&keys.open_cookie(purpose.label(), text)?).ok()?;
    let is_theirs = sealed.session == session || off(Defence::FormSession);
    (is_theirs && now < sealed.expires_at).then_some(sealed.ask)
}

/// What a form is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Logout,
    Confirm,
}

impl Purpose {
    /// No cookie's name: a form is no cookie and no cookie a form.
    fn label(self) -> &'static str {
        match self {
            Self::Logout => "form/logout",
            Self::Confirm => "form/confirm",
        }
    }
}

/// Whether a browser says that a page of `origin` sent this request. The second lock beside the sealed form: a client that says nothing has no
/// ambient cookies that another page could use.
pub(super) fn is_same_origin(headers: &HeaderMap, origin: &str) -> bool {
    if off(Defence::FormOrigin) {
        return true;
    }
    // No browser says it twice; who does is none of ours.
    let value = |name: &str| {
        let mut all = headers.get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap_or("?"));
        if all.next().is_some() { Some("?") } else { first }
    };
    match (value("sec-fetch-site"), value(header::ORIGIN.as_str())) {
        // With `Referrer-Policy: no-referrer` browsers send `Origin: null` for our own forms too; this header they cannot be made to forge.
        (Some(site), sent) => site == "same-origin" && sent.is_none_or(|sent| sent == origin || sent == "null"),
        (None, Some(sent)) => sent == origin,
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use axum::http::HeaderValue;

    use crate::token::Secret;

    use super::*;

    fn keys(secret: u8) -> TokenKeys {
        TokenKeys::derive(&[Secret::new([secret; 32]).unwrap()])
    }

    #[test]
    fn a_form_comes_back_from_its_session_for_its_purpose_in_time() {
        let (one, two) = (SessionId::from_random([1; 16]), SessionId::from_random([2; 16]));
        let form = seal(&keys(1), Purpose::Confirm, one, "ask", 100).unwrap();
        let open = |keys: &TokenKeys, purpose, session, now| super::open::<String>(keys, purpose, session, &form, now);
        assert_eq!(open(&keys(1), Purpose::Confirm, one, 699).as_deref(), Some("ask"));
        assert_eq!(open(&keys(1), Purpose::Confirm, one, 700), None, "too old");
        assert_eq!(open(&keys(1), Purpose::Confirm, two, 100), None, "another session");
        assert_eq!(open(&keys(1), Purpose::Logout, one, 100), None, "another purpose");
        assert_eq!(open(&keys(2), Purpose::Confirm, one, 100), None, "another installation");
        assert_eq!(super::open::<String>(&keys(1), Purpose::Confirm, one, "", 100), None);
        assert!(keys(1).open_cookie(super::super::cookie::SESSION, &form).is_none(), "a form is no session cookie");
    }

    #[test]
    fn other_sites_are_told_apart() {
        let check = |site: Option<&'static str>, origin: Option<&'static str>, expected: bool| {
            let mut headers = HeaderMap::new();
            site.map(|site| headers.insert("sec-fetch-site", HeaderValue::from_static(site)));
            origin.map(|origin| headers.insert("origin", HeaderValue::from_static(origin)));
            assert_eq!(is_same_origin(&headers, "https://pass.example.com"), expected, "{site:?} {origin:?}");
        };
        for (name, said) in [("sec-fetch-site", "same-origin"), ("origin", "https://pass.example.com")] {
            for other in [said, "cross-site", "https://evil.example"] {
                let twice = [said, other].map(|value| (name.parse().unwrap(), HeaderValue::from_static(value)));
                let headers = HeaderMap::from_iter::<[(header::HeaderName, HeaderValue); 2]>(twice);
                assert!(!is_same_origin(&headers, "https://pass.example.com"), "{name}: {said}, {other}");
            }
        }
        check(Some("same-origin"), Some("https://pass.example.com"), true);
        check(Some("same-origin"), Some("null"), true);
        check(Some("same-origin"), None, true);
        check(None, Some("https://pass.example.com"), true);
        check(None, None, true);
        check(Some("same-site"), Some("https://prod.example.com"), false);
        check(Some("cross-site"), Some("https://evil.example"), false);
        check(Some("cross-site"), Some("null"), false);
        check(Some("none"), None, false);
        check(Some("same-origin"), Some("https://evil.example"), false);
        check(None, Some("null"), false);
        check(None, Some("https://pass.example.com.evil.example"), false);
        check(None, Some("http://pass.example.com"), false);
    }
}
