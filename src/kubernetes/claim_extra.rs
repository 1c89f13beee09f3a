//! Keys of the extra fields that an API server takes from a token's claims.
//! Source: `k8s.io/apiserver/pkg/apis/apiserver/validation` (v0.36, `validateExtraClaimMapping`); what is not needed of the path is left out.

/// Domains that Kubernetes keeps for itself, and ours.
const RESERVED_DOMAINS: [&str; 3] = ["kubernetes.io", "k8s.io", "kubepass.dev"];
const MAX_KEY_BYTES: usize = 253;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimExtraKeyFault {
    #[error("it has no domain before a slash")]
    NoDomain,
    #[error("the domain is not a DNS name in lower case")]
    Domain,
    #[error("the domain {0} is reserved")]
    Reserved(&'static str),
    #[error("what follows the slash is not lower-case letters, digits, `-`, `.` and `_`, with a letter or digit at both ends")]
    Name,
    #[error("it is longer than {MAX_KEY_BYTES} bytes")]
    TooLong,
}

/// Whether `key` can name an extra field: `example.com/team`.
///
/// # Errors
/// What is wrong with it.
pub fn check_claim_extra_key(key: &str) -> Result<(), ClaimExtraKeyFault> {
    if key.len() > MAX_KEY_BYTES {
        return Err(ClaimExtraKeyFault::TooLong);
    }
    let (domain, name) = key.split_once('/').ok_or(ClaimExtraKeyFault::NoDomain)?;
    if !domain.split('.').all(|label| is_word(label, b"-")) {
        return Err(ClaimExtraKeyFault::Domain);
    }
    let is_in = |reserved: &str| domain.strip_suffix(reserved).is_some_and(|start| start.is_empty() || start.ends_with('.'));
    if let Some(reserved) = RESERVED_DOMAINS.into_iter().find(|reserved| is_in(reserved)) {
        return Err(ClaimExtraKeyFault::Reserved(reserved));
    }
    if is_word(name, b"-._") { Ok(()) } else { Err(ClaimExtraKeyFault::Name) }
}

fn is_word(text: &str, between: &[u8]) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| is_alphanumeric(byte) || between.contains(byte))
        && bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_a_domain_and_a_name() {
        let check = |key: &str, wanted: Result<(), ClaimExtraKeyFault>| assert_eq!(check_claim_extra_key(key), wanted, "{key:?}");
        for key in ["example.com/team", "example/team", "a.b-c.d/x_y.z-0", "notkubernetes.io/x"] {
            check(key, Ok(()));
        }
        for key in ["", "team", "example.com"] {
            check(key, Err(ClaimExtraKeyFault::NoDomain));
        }
        for key in ["/team", "Example.com/team", "-a.com/team", "a..b/team", "a b/team", "ä.com/team", "a_b.com/team"] {
            check(key, Err(ClaimExtraKeyFault::Domain));
        }
        for (key, domain) in [("kubernetes.io/x", "kubernetes.io"), ("a.k8s.io/x", "k8s.io"), ("kubepass.dev/session", "kubepass.dev")] {
            check(key, Err(ClaimExtraKeyFault::Reserved(domain)));
        }
        for key in ["example.com/", "example.com/Team", "example.com/a/b", "example.com/-a", "example.com/a\"b", "example.com/a\n"] {
            check(key, Err(ClaimExtraKeyFault::Name));
        }
        check(&format!("example.com/{}", "x".repeat(253)), Err(ClaimExtraKeyFault::TooLong));
    }
}
