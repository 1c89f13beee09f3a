//! What a browser shows on a plain HTTP route: a sealed cookie that names a session at one host. It is no permission: whether the session
//! lives is asked of the session table at each request. Kubernetes routes take no cookie at all.

use crate::defence::{Defence, off};
use crate::token::{SealError, SessionId, TokenKeys};

/// The cookie's name: HTTPS, this host alone, no `Domain`.
pub const ROUTE_COOKIE: &str = "__Host-kubepass-route";

/// The value for a session at `host` (lower case, without port). `nonce` as for [`TokenKeys::seal_cookie`].
///
/// # Errors
/// As [`TokenKeys::seal_cookie`].
pub fn seal_route_cookie(keys: &TokenKeys, session: SessionId, host: &str, nonce: [u8; 12]) -> Result<String, SealError> {
    keys.seal_cookie(&purpose(host), session.as_bytes(), nonce)
}

/// The session that a value names, when it was sealed for this host.
pub fn open_route_cookie(keys: &TokenKeys, host: &str, value: &str) -> Option<SessionId> {
    Some(SessionId::from_random(keys.open_cookie(&purpose(host), value)?.try_into().ok()?))
}

/// Authenticated with the value, so that a cookie of one host is none of another. No host holds the sign between the two.
fn purpose(host: &str) -> String {
    let host = if off(Defence::CookieHost) { "" } else { host };
    format!("{ROUTE_COOKIE}@{host}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::token::Secret;

    fn keys(secret: u8) -> TokenKeys {
        TokenKeys::derive(&[Secret::new([secret; 32]).unwrap()])
    }

    #[test]
    fn a_cookie_counts_at_its_host_only() {
        let id = SessionId::from_random([5; 16]);
        let value = seal_route_cookie(&keys(1), id, "wiki.example.com", [0; 12]).unwrap();
        let check = |keys: &TokenKeys, host: &str, value: &str, wanted: Option<SessionId>| {
            assert_eq!(open_route_cookie(keys, host, value), wanted, "{host} {value}");
        };
        check(&keys(1), "wiki.example.com", &value, Some(id));
        for host in ["", "docs.example.com", "iki.example.com", "wiki.example.com.evil.example"] {
            check(&keys(1), host, &value, None);
        }
        check(&keys(2), "wiki.example.com", &value, None);
        check(&keys(1), "wiki.example.com", "", None);
        check(&keys(1), "wiki.example.com", &format!("{value}A"), None);
        // Neither the cookie of the login pages nor a sealed form is one.
        for name in ["__Host-kubepass-session", ROUTE_COOKIE, "form/logout"] {
            let other = keys(1).seal_cookie(name, id.as_bytes(), [0; 12]).unwrap();
            check(&keys(1), "wiki.example.com", &other, None);
            assert!(keys(1).open_cookie(name, &value).is_none());
        }
    }
}
