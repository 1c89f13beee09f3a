//! What arrived at a server against what may: the names that the claims said and `decide` granted, kubepass's own credential, and of the client's
//! headers those that mean nothing to anyone on the way.

use std::collections::BTreeMap;

use kubepass::access::Grant;
use kubepass::config::{Method, Target};
use kubepass::header::HeaderValue;
use kubepass::server::clock;
use secrecy::ExposeSecret as _;

use super::asks::{Person, groups_said};
use super::configurations::{ALLOWED_SYSTEM, Installation, PROVIDERS, REQUEST_ID, ROUTES, RouteShape, Shape};
use super::envoy::{Headers, Request, SOURCE, Upstream, values};

/// By server and name there: whose it is, as the provider said it.
#[derive(Default)]
pub(super) struct Arrivals {
    users: BTreeMap<(String, String), (usize, String)>,
    groups: BTreeMap<(String, String), String>,
    count: usize,
}

/// Who an API server takes the request for.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Arrivals {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    #[allow(clippy::too_many_arguments, reason = "one request, from all sides")]
    pub(super) fn judge(
        &mut self,
        installation: &Installation,
        shape: &Shape,
        route: usize,
        person: &Person,
        request: &Request,
        upstream: &Upstream,
        grant: &Grant,
    ) {
        self.count += 1;
        let configured = installation.snapshot.route(ROUTES[route].0).unwrap();
        assert_eq!(upstream.cluster, format!("kubernetes:{}", configured.id()), "another cluster");
        let Target::Kubernetes(target) = &configured.target else { panic!("{configured:?}") };
        let route_shape = &shape.routes[route];
        let seen = match &target.method {
            Method::Impersonate(method) => {
                let account = format!("Bearer {}", method.token.expose_secret());
                assert_eq!(values(&upstream.headers, "authorization"), [account.as_bytes()]);
                by_headers(&upstream.headers)
            }
            Method::Jwt(jwt) => by_token(installation, &upstream.headers, &jwt.audience),
        };
        assert_eq!(seen, granted(grant), "not what was granted");
        assert_eq!(seen.user, format!("{}{}{}", route_shape.username_prefix, shape.provider_prefix(person.provider), person.said()));
        assert_eq!(seen.groups, groups_for(route_shape, person));
        for name in std::iter::once(&seen.user).chain(&seen.groups) {
            check_name(name);
            let of_kubernetes = name.to_ascii_lowercase().starts_with("system:");
            assert!(!of_kubernetes || (route_shape.allow_system && name == ALLOWED_SYSTEM), "{name:?} is a name of Kubernetes");
            assert!(!name.to_ascii_lowercase().starts_with("kubepass:"), "{name:?} is reserved");
        }
        seen.uid.iter().chain(seen.extra.values().flatten()).for_each(|value| check_name(value));
        check_others(request, &upstream.headers);
        let server = format!("{}:{}", target.server.host, target.server.port);
        for group in seen.groups {
            let said = group.strip_prefix(route_shape.group_prefix).expect("the prefix").to_owned();
            let first = self.groups.entry((server.clone(), group.clone())).or_insert_with(|| said.clone());
            assert_eq!(*first, said, "one group at one server: {group:?}");
        }
        let at = (server, seen.user);
        let whose = (person.provider, person.said().to_owned());
        let first = self.users.entry(at.clone()).or_insert_with(|| whose.clone());
        assert_eq!(*first, whose, "one name at one server: {at:?} of {:?}", PROVIDERS[person.provider].0);
    }
}

/// No value that a server would read otherwise than it was written, or that a reader would not see.
pub(super) fn check_name(name: &str) {
    assert!(HeaderValue::new(name).is_ok(), "{name:?} is no header value");
    check_text(name);
}

pub(super) fn check_text(name: &str) {
    assert!(!name.is_empty() && name.len() <= 1024, "{name:?}");
    assert!(!name.chars().any(char::is_control), "{name:?}");
    assert!(name.trim() == name, "{name:?}");
}

/// A forged request that passed: its identity is the one that was granted to the clean one, and the rest is nothing.
pub(super) fn check_headers(request: &Request, upstream: &Upstream, granted: &Upstream) {
    let ours = |headers: &Headers| -> Headers {
        headers.iter().filter(|(name, _)| name == "authorization" || name.starts_with("impersonate-")).cloned().collect()
    };
    assert_eq!(ours(&upstream.headers), ours(&granted.headers));
    assert_eq!(upstream.cluster, granted.cluster);
    check_others(request, &upstream.headers);
}

fn by_headers(headers: &Headers) -> Seen {
    let text = |value: &[u8]| std::str::from_utf8(value).expect("text").to_owned();
    let all = |name: &str| -> Vec<String> { values(headers, name).into_iter().map(text).collect() };
    let [user] = &all("impersonate-user")[..] else { panic!("one user: {headers:?}") };
    let mut uid = all("impersonate-uid");
    assert!(uid.len() <= 1, "{headers:?}");
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.strip_prefix("impersonate-extra-") {
            extra.entry(key.replace("%2f", "/")).or_default().push(text(value));
        } else {
            let known = ["impersonate-user", "impersonate-group", "impersonate-uid"].contains(&name.as_str());
            assert!(known || !name.to_ascii_lowercase().starts_with("impersonate-"), "{name}");
        }
    }
    Seen { user: user.clone(), uid: uid.pop(), groups: all("impersonate-group"), extra }
}

/// Verified with the keys that API servers read.
fn by_token(installation: &Installation, headers: &Headers, audience: &str) -> Seen {
    let [value] = values(headers, "authorization")[..] else { panic!("one credential: {headers:?}") };
    let token = std::str::from_utf8(value).ok().and_then(|text| text.strip_prefix("Bearer ")).expect("a bearer");
    let (now, issuer) = (clock::unix_now(), installation.snapshot.config().public_url.origin());
    let claims = installation.signing.upstream_ring().jwks(now).verify_upstream_token(token, issuer, audience, now).unwrap();
    assert!(headers.iter().all(|(name, _)| !name.starts_with("impersonate-")), "{headers:?}");
    let extra = claims.extra.into_iter().filter(|(_, values)| !values.is_empty()).collect();
    Seen { user: claims.username, uid: claims.uid, groups: claims.groups, extra }
}

fn granted(grant: &Grant) -> Seen {
    let identity = grant.identity();
    let extra = identity.extra().iter().filter(|(_, values)| !values.is_empty());
    let extra = extra.map(|(key, values)| (key.replace("%2f", "/"), values.iter().map(ToString::to_string).collect()));
    Seen {
        user: identity.user().to_string(),
        uid: identity.uid().map(ToString::to_string),
        groups: identity.groups().iter().map(ToString::to_string).collect(),
        extra: extra.collect(),
    }
}

fn groups_for(route: &RouteShape, person: &Person) -> Vec<String> {
    let taken = |group: &&String| {
        route.allow.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => group.starts_with(start),
            None => group == pattern,
        })
    };
    let said = groups_said(&person.claims).expect("groups");
    said.iter().filter(taken).map(|group| format!("{}{group}", route.group_prefix)).collect()
}

/// Everything besides the identity and the credential.
fn check_others(request: &Request, upstream: &Headers) {
    assert_eq!(values(upstream, "audit-id"), [REQUEST_ID.as_bytes()]);
    assert_eq!(values(upstream, "x-forwarded-for"), [SOURCE.as_bytes()]);
    let [limit] = values(upstream, "x-envoy-upstream-stream-duration-ms")[..] else { panic!("a stream without a limit: {upstream:?}") };
    assert!(std::str::from_utf8(limit).unwrap().parse::<u64>().unwrap() >= 1_000);
    assert!(values(upstream, "connection").iter().all(|value| *value == b"Upgrade"), "{upstream:?}");
    let rest = |headers: &Headers| -> Headers { headers.iter().filter(|(name, _)| !means_something(name)).cloned().collect() };
    assert_eq!(rest(upstream), rest(&request.headers), "what means nothing is not changed");
    let made = ["authorization", "audit-id", "x-forwarded-for", "x-envoy-upstream-stream-duration-ms", "connection"];
    for (name, _) in upstream.iter().filter(|(name, _)| means_something(name)) {
        assert!(made.contains(&name.as_str()) || name.starts_with("impersonate-"), "{name} arrived");
    }
}

/// Names that some server believes, or that kubepass writes.
fn means_something(name: &str) -> bool {
    const PREFIXES: [&str; 7] = ["impersonate-", "x-forwarded-", "x-remote-", "x-envoy-", "x-kubepass-", "x-original-", "x-real-"];
    const NAMES: [&str; 12] = [
        "authorization",
        "proxy-authorization",
        "x-pomerium-authorization",
        "cookie",
        "audit-id",
        "connection",
        "forwarded",
        "x-request-id",
        "via",
        "traceparent",
        "tracestate",
        "baggage",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}
