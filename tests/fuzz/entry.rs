//! What the fuzzers call: any bytes end in a value, and some things hold for every input. Used by the fuzz targets and, over the corpus, by an
//! ordinary test.
#![allow(unreachable_pub, dead_code, reason = "the fuzz targets and a test include this module, each for a part of it")]

#[path = "decision.rs"]
pub mod decision;
#[path = "xds_stream.rs"]
pub mod xds_stream;

use std::collections::BTreeMap;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use kubepass::access::request::{Credential, RequestHeaders};
use kubepass::audit::AuditEvent;
use kubepass::cli;
use kubepass::config;
use kubepass::identity::IdentityMapping;
use kubepass::kubernetes::request_info::RequestInfo;
use kubepass::policy::{Effect, Policy, PolicyInput, RequestView, RouteView, RuleResult, RuleSource, UserView};
use kubepass::server::access_log::convert::{Converted, told};
use kubepass::server::access_log::entry::Entries;
use kubepass::server::ext_authz::question;
use kubepass::session::{ROUTE_COOKIE, open_route_cookie};
use kubepass::snapshot::NodeView;
use kubepass::token::{JwkSet, Secret, TokenKeys};
use prost::Message as _;

/// A name and what it calls.
pub type Target = (&'static str, fn(&[u8]));

/// One entry for each target.
pub const ALL: [Target; 14] = [
    ("check_request", check_request),
    ("decision", decision::run),
    ("request_info", request_info),
    ("request_headers", request_headers),
    ("configuration", configuration),
    ("expression", expression),
    ("evaluation", evaluation),
    ("token", token),
    ("cookies", cookies),
    ("access_log", access_log),
    ("cache_file", cache_file),
    ("xds_stream", xds_stream::run),
    ("xds_delta", xds_stream::delta),
    ("xds_state_of_the_world", xds_stream::state_of_the_world),
];

/// Envoy's question, encoded: what `prost` takes is taken too, and says the same.
pub fn check_request(data: &[u8]) {
    let Ok(check) = CheckRequest::decode(data) else { return drop(question::read(data, NodeView::UNNAMED)) };
    let request = question::read(data, NodeView::UNNAMED).expect("a message that prost takes");
    let attributes = check.attributes.unwrap_or_default();
    let sni = attributes.tls_session.map_or_else(String::new, |session| session.sni);
    let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
    assert_eq!((request.method, request.path, request.host, request.sni), (&*http.method, &*http.path, &*http.host, &*sni));
    let headers = http.header_map.unwrap_or_default().headers;
    let named = |name: &str| headers.iter().filter(|header| header.key.eq_ignore_ascii_case(name)).count();
    assert!(named("authorization") == 1 || request.headers.credential == Credential::None, "a credential of several lines");
    assert!(http.headers.is_empty() || request.headers.malformed.is_some(), "joined headers were read");
    assert!(named("x-request-id") > 0 || request.headers.malformed.is_some(), "a request without an id was read");
}

/// First line the method, the rest path and query.
pub fn request_info(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, path) = text.split_once('\n').unwrap_or(("GET", text));
    let Ok(info) = RequestInfo::parse(method, path) else { return };
    assert!(info.path.starts_with('/') && !info.path.contains('\0'), "{text:?} gave the path {:?}", info.path);
    assert!(info.is_resource_request || info.resource.is_empty(), "{text:?}");
    assert!(!info.read_only() || !matches!(info.policy_verb(), "exec" | "attach" | "portforward" | "proxy"), "{text:?} is no plain read");
}

/// Lines of `name: value`.
pub fn request_headers(data: &[u8]) {
    let lines: Vec<(&str, &[u8])> = data
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
        })
        .collect();
    let read = RequestHeaders::read(lines.iter().copied());
    let authorizations = lines.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).count();
    assert!(authorizations == 1 || read.credential == Credential::None, "a credential of {authorizations} lines");
    assert!(read.malformed.is_none() || read.credential == Credential::None, "a malformed request shows a credential");
    let impersonates = lines.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("impersonate-"));
    assert_eq!(read.impersonates.is_some(), impersonates);
}

/// A configuration file's text; no file that it names can be read.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(draft) = config::parse(text, "kubepass.yaml") else { return };
    let contents = config::Contents(draft.references().keys().map(|reference| (reference.clone(), Err("not there".to_owned()))).collect());
    // Without secrets no configuration is whole.
    let errors = config::resolve(draft, &contents, 1_767_225_600).expect_err("a configuration without its files");
    assert!(!errors.to_string().is_empty());
}

/// A rule's source.
pub fn expression(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let rule = RuleSource { name: "rule", effect: Effect::Allow, source, message: None };
    if let Err(errors) = Policy::compile(&[rule]) {
        assert!(!errors.is_empty());
    }
}

/// First line the claims as JSON, the rest a rule's source or what a name is made of.
pub fn evaluation(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (claims, source) = text.split_once('\n').unwrap_or(("{}", text));
    let Ok(claims) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(claims) else { return };
    if let Ok(mapping) = IdentityMapping::compile(source, Some(source), None)
        && let Ok(identity) = mapping.map("corp", &claims)
    {
        assert!(!identity.username.trim().is_empty(), "a name that is none of {text:?}");
    }
    let rule = |name, effect| RuleSource { name, effect, source, message: None };
    let Ok(policy) = Policy::compile(&[rule("allow", Effect::Allow), rule("deny", Effect::Deny)]) else { return };
    let (groups, labels) = (["sre".to_owned(), "team-a".to_owned()], BTreeMap::from([("tier".to_owned(), "production".to_owned())]));
    let info = RequestInfo::parse("GET", "/api/v1/namespaces/web/pods/a/log?follow=true").expect("a request");
    let input = PolicyInput {
        user: UserView { name: "foo", email: "foo@example.com", groups: &groups, claims: &claims, idp: "corp", session_age: 60 },
        request: RequestView {
            info: &info,
            method: "GET",
            host: "prod.k8s.example.com",
            source_ip: "192.0.2.1",
            user_agent: "kubectl",
            time: 9,
        },
        route: RouteView { name: "prod", labels: &labels },
    };
    // One source as both: whatever it says, its deny comes first.
    let verdict = policy.evaluate(&input);
    assert_eq!(verdict, policy.evaluate(&input), "{text:?} says one thing and then another");
    assert!(!verdict.allowed, "{text:?} allows though its deny holds as much as its allow");
    let matched = policy.explain(&input).iter().any(|trace| trace.effect == Effect::Deny && trace.result != RuleResult::NotMatched);
    assert_eq!(verdict.rule.as_deref() == Some("deny"), matched, "{text:?}");
}

/// The key of RFC 7517, A.1, under its thumbprint: nobody signs with it here.
const PUBLISHED: &str = r#"{"keys": [{"kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s", "use": "sig", "alg": "ES256", "kty": "EC", "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// A bearer: never ours, since the key is made here.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let keys = TokenKeys::derive(&[Secret::new("a key that no corpus entry was signed with, long enough").expect("long enough")]);
    assert!(keys.verify_session_token(text, "prod.k8s.example.com", 1_767_225_600).is_err());
    assert!(keys.verify_login_token(text, "https://pass.example.com", 1_767_225_600).is_err());
    assert!(keys.open("session", data).is_none());
    let jwks: JwkSet = serde_json::from_str(PUBLISHED).expect("a JWKS");
    assert!(jwks.verify_upstream_token(text, "https://pass.example.com", "prod", 1_767_225_600).is_err());
    assert!(jwks.verify_assertion_token(text, "https://pass.example.com", "https://wiki.example.com", 1_767_225_600).is_err());
}

/// Lines of `cookie`.
pub fn cookies(data: &[u8]) {
    let read = RequestHeaders::read(data.split(|byte| *byte == b'\n').map(|line| ("cookie", line)));
    let upstream = read.cookies.for_upstream();
    let text = upstream.as_ref().map_or("", |cookies| cookies.as_str());
    assert!(!text.to_ascii_lowercase().contains("__host-kubepass"), "an upstream sees {text:?}");
    assert!(!text.contains(char::is_control), "{text:?} is no line");
    let keys = TokenKeys::derive(&[Secret::new("a key that no corpus entry was sealed with, long enough").expect("long enough")]);
    if let Some(value) = read.cookies.only(ROUTE_COOKIE) {
        assert!(open_route_cookie(&keys, "wiki.example.com", value).is_none());
    }
}

/// A message of Envoy's access log, encoded.
pub fn access_log(data: &[u8]) {
    let mut count = 0;
    for entry in Entries::of(data) {
        count += 1;
        let event = match entry.as_ref().map(|entry| told(entry).line) {
            Ok(Converted::Event(event)) => {
                assert!((1..=128).contains(&event.request_id.len()) && event.request_id.is_ascii(), "{:?}", event.request_id);
                event
            }
            Ok(Converted::Undecided(event)) => {
                assert_eq!(event.request_id, "", "nobody vouches for it");
                event
            }
            Ok(Converted::StillThere | Converted::Skipped) | Err(_) => continue,
            Ok(Converted::Malformed(why)) => {
                assert!(!why.is_empty());
                continue;
            }
        };
        assert!(event.route.chars().count() <= 253 && event.ended_by.chars().count() <= 256, "{event:?}");
        assert!(event.flags.len() <= 64 && event.flags.iter().all(|flag| flag.len() <= 32), "{event:?}");
        let line = serde_json::to_string(&AuditEvent::Completion(Box::new(event))).expect("a line");
        assert!(!line.contains(['\n', '\r']), "an audit line of several lines: {line:?}");
    }
    assert!(count <= data.len(), "more entries than bytes");
}

/// A file of the CLI's cache.
pub fn cache_file(data: &[u8]) {
    for kind in cli::understood_cache_file(data, 1_767_225_600) {
        assert!(matches!(kind, "login" | "session" | "trust"));
    }
}
