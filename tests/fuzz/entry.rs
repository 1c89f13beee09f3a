//! What the fuzzers call: any bytes end in a value, and some things hold for every input. Used by the fuzz targets and, over the corpus, by an
//! ordinary test.
#![allow(unreachable_pub, reason = "the fuzz targets and a test include this module")]

#[path = "xds_stream.rs"]
pub mod xds_stream;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use kubepass::access::request::{Credential, RequestHeaders};
use kubepass::config;
use kubepass::kubernetes::request_info::RequestInfo;
use kubepass::policy::{Effect, Policy, RuleSource};
use kubepass::server::ext_authz::question;
use kubepass::snapshot::NodeView;
use kubepass::token::{JwkSet, Secret, TokenKeys};
use prost::Message as _;

/// A name and what it calls.
pub type Target = (&'static str, fn(&[u8]));

/// One entry for each target.
pub const ALL: [Target; 7] = [
    ("check_request", check_request),
    ("request_info", request_info),
    ("request_headers", request_headers),
    ("configuration", configuration),
    ("expression", expression),
    ("token", token),
    ("xds_stream", xds_stream::run),
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
