//! What the web part takes from a request besides its question: host, where it came from, its id. All of it is text that a stranger may have chosen.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use super::random;

const MAX_USER_AGENT: usize = 256;
const MAX_REQUEST_ID: usize = 64;

/// Who asks, for audit and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) source_ip: String,
    pub(super) user_agent: String,
    pub(super) request_id: String,
}

impl Origin {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { source_ip: source_ip(headers), user_agent: user_agent(headers), request_id: request_id(headers) }
    }
}

/// The request's host in lower case and without port; `None` when there is not exactly one.
pub(super) fn host(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::HOST).iter();
    let text = all.next().filter(|_| all.next().is_none())?.to_str().ok()?;
    host_name(text)
}

/// A host, with or without port, in lower case and without port. Names only: routes have no IP literals in brackets.
pub(super) fn host_name(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_host && port.parse::<u16>().is_ok()).then(|| host.to_ascii_lowercase())
}

/// Of `Authorization: Bearer ...`; `None` when there is not exactly one such header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let text = all.next().filter(|_| all.next().is_none())?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Envoy writes the one address that it believes; the last one counts, whatever else could stand there.
fn source_ip(headers: &HeaderMap) -> String {
    let last = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let address = last.and_then(|text| text.rsplit(',').next()).and_then(|text| text.trim().parse::<IpAddr>().ok());
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn user_agent(headers: &HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT).collect()
}

fn request_id(headers: &HeaderMap) -> String {
    let text = headers.get("x-request-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plain = text.len() <= MAX_REQUEST_ID && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && !text.is_empty() { text.to_owned() } else { random::id() }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_source_is_what_envoy_wrote() {
        let check = |pairs: &[(&'static str, &'static str)], expected: &str| assert_eq!(source_ip(&headers(pairs)), expected, "{pairs:?}");
        check(&[("x-forwarded-for", "192.0.2.1")], "192.0.2.1");
        check(&[("x-forwarded-for", "203.0.113.9, 192.0.2.1")], "192.0.2.1");
        check(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "192.0.2.1")], "192.0.2.1");
        check(&[("x-forwarded-for", "2001:db8::1")], "2001:db8::1");
        check(&[("x-forwarded-for", "192.0.2.1, evil")], "");
        check(&[], "");
    }

    #[test]
    fn hosts_lose_port_and_case() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(host_name(text).as_deref(), expected, "{text}");
        check("Prod.K8s.Example.com", Some("prod.k8s.example.com"));
        check("prod.k8s.example.com:443", Some("prod.k8s.example.com"));
        check("prod.k8s.example.com:", None);
        check("prod.k8s.example.com:443:1", None);
        check("prod.k8s.example.com/x", None);
        check("a@b", None);
        check("", None);
        assert_eq!(host(&headers(&[("host", "a"), ("host", "b")])), None);
    }

    #[test]
    fn a_bearer_is_one_header() {
        let check =
            |pairs: &[(&'static str, &'static str)], expected: Option<&str>| assert_eq!(bearer(&headers(pairs)), expected, "{pairs:?}");
        check(&[("authorization", "Bearer abc")], Some("abc"));
        check(&[("authorization", "bearer abc")], Some("abc"));
        check(&[("authorization", "Bearer ")], None);
        check(&[("authorization", "Basic abc")], None);
        check(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], None);
        check(&[], None);
    }
}
