//! Syntax of names and hosts, and the search for what was probably meant.

/// Longest piece of the operator's text that a message repeats, in characters.
const MAX_QUOTED: usize = 80;

/// The text for a message: in backticks, bounded, without control characters.
pub(super) fn quote(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut quoted: String = text.chars().take(MAX_QUOTED).map(clean).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push_str("...");
    }
    format!("`{quoted}`")
}

/// The candidate that `name` most resembles, when it resembles one enough to be a slip.
pub(super) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = folded(name);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&name, &folded(candidate));
    let near = candidates.into_iter().min_by_key(distance)?;
    let tolerance = name.chars().count().max(near.chars().count()).div_ceil(3).min(3);
    let begins = name.len() >= 4 && folded(near).starts_with(&name);
    (distance(&near) <= tolerance || begins).then_some(near)
}

/// Why `text` cannot be a name that ends up in Envoy's resource names, metrics and audit lines; `None` when it can.
pub(super) fn name_fault(text: &str) -> Option<&'static str> {
    let letter_or_digit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.is_empty() || text.len() > 63 {
        return Some("must have 1 to 63 characters");
    }
    if !text.chars().all(|c| letter_or_digit(c) || c == '-') || !text.starts_with(letter_or_digit) || !text.ends_with(letter_or_digit) {
        return Some("may hold only lower-case letters, digits and `-`, and begins and ends with a letter or digit");
    }
    None
}

/// Why `text` cannot be a host that TLS clients ask for; `None` when it can.
pub(super) fn host_fault(text: &str) -> Option<&'static str> {
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.is_empty() {
        return Some("is empty");
    }
    if text.contains("://") || text.contains('/') {
        return Some("must be a host name only, without scheme and path");
    }
    if text.contains('*') {
        return Some("must be one host; wildcards are not supported");
    }
    if text.parse::<std::net::IpAddr>().is_ok() || text.starts_with('[') {
        return Some("must be a DNS name, not an address: TLS clients send no server name for an address");
    }
    if text.contains(':') {
        return Some("must not have a port; the listener has it");
    }
    if text.ends_with('.') {
        return Some("must not end with a dot");
    }
    if text.chars().any(char::is_uppercase) {
        return Some("must be in lower case");
    }
    if text.len() > 253 || !text.split('.').all(label_is_valid) {
        return Some("is not a DNS name");
    }
    // `10.0.0.1` was caught above; `10.0.0` and `0x7f.1` are addresses to some resolvers.
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) && (last.chars().all(|c| c.is_ascii_digit()) || last.starts_with("0x")) {
        return Some("must be a DNS name, not an address");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_dns_names() {
        for good in ["prod.k8s.example.com", "localhost", "a-b.example", "xn--bcher-kva.example", "1.example"] {
            assert_eq!(host_fault(good), None, "{good}");
        }
        for bad in [
            "",
            "A.example",
            "a.example:443",
            "*.example",
            "https://a",
            "a/b",
            "10.0.0.1",
            "[::1]",
            "::1",
            "a..b",
            "a.",
            "-a",
            "a_b",
            "10.0",
        ] {
            assert!(host_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["server", "server_name", "client_secret", "policy"];
        let check = |name: &str, want: Option<&str>| assert_eq!(suggestion(name, known), want, "{name}");
        check("sever", Some("server"));
        check("clientSecret", Some("client_secret"));
        check("client-secret", Some("client_secret"));
        check("Policy", Some("policy"));
        check("polices", Some("policy"));
        check("upstream", None);
        check("xy", None);
    }

    #[test]
    fn quoted_text_is_bounded_and_clean() {
        assert_eq!(quote("a\u{1b}[31mb"), "`a\u{fffd}[31mb`");
        assert_eq!(quote(&"x".repeat(100)), format!("`{}...`", "x".repeat(80)));
    }
}
