//! Names of the impersonation headers, lower case as HTTP/2 and Envoy write them.
//! Source: `k8s.io/api/authentication/v1` and `k8s.io/apiserver/pkg/endpoints/filters/impersonation` (v0.36).

use std::borrow::Cow;

pub const USER: &str = "impersonate-user";
pub const GROUP: &str = "impersonate-group";
pub const UID: &str = "impersonate-uid";
/// Followed by a key as [`valid_extra_key`] admits it.
pub const EXTRA_PREFIX: &str = "impersonate-extra-";
/// Every header that an API server could take for impersonation begins with this, in any case.
pub const PREFIX: &str = "impersonate-";

/// Values of one extra key that can go upstream; more is a refusal.
pub const MAX_EXTRA_VALUES: usize = 16;

/// Longest key of an extra value, in bytes.
const MAX_EXTRA_KEY_BYTES: usize = 128;

/// Whether `key` may follow [`EXTRA_PREFIX`]: lower-case letters, digits, `-`, `.`, `_`, with a letter or digit at both ends, and at most one
/// `%2f`, which the API server reads as the slash of a key with a domain (`example.com%2fteam`). The constrained form of impersonation admits
/// only keys with such a domain.
pub fn valid_extra_key(key: &str) -> bool {
    let (domain, name) = key.split_once("%2f").map_or((None, key), |(domain, name)| (Some(domain), name));
    key.len() <= MAX_EXTRA_KEY_BYTES && is_extra_key_part(name) && domain.is_none_or(is_extra_key_part)
}

/// The key as the API server and RBAC know it (`userextras/KEY`).
pub fn decoded_extra_key(key: &str) -> Cow<'_, str> {
    if key.contains("%2f") { Cow::Owned(key.replace("%2f", "/")) } else { Cow::Borrowed(key) }
}

fn is_extra_key_part(part: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.iter().all(|byte| is_alphanumeric(byte) || matches!(byte, b'-' | b'.' | b'_'))
        && bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_keys() {
        for key in ["team", "a", "a-b.c_d", "example.com%2fteam"] {
            assert!(valid_extra_key(key), "{key}");
        }
        let long = "x".repeat(129);
        for key in ["", "Team", "-a", "a-", "a/b", "a%2Fb", "a%2f", "%2fa", "a%2fb%2fc", "a%20b", "a b", "a:b", "ä", "a\n", &long] {
            assert!(!valid_extra_key(key), "{key}");
        }
        assert_eq!(decoded_extra_key("example.com%2fteam"), "example.com/team");
        assert_eq!(decoded_extra_key("team"), "team");
    }
}
