//! What a check meets, in process: a configuration of any size, a person who is logged in, and the question as Envoy puts it.
#![allow(dead_code, reason = "each program that includes this uses another part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request as AttributeRequest, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::protobuf::Timestamp;
use kubepass::config::{AuditSettings, AuditSink, Config, Durability, OnAuditFailure};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::server::clock;
use kubepass::server::ext_authz::ExtAuthz;
use kubepass::server::sessions::Sessions;
use kubepass::server::signing::Signing;
use kubepass::server::store::Store;
use kubepass::server::telemetry::Metrics;
use kubepass::server::trail::Trail;
use kubepass::session::{HOT_SESSIONS, Resting, Session, SessionTable};
use kubepass::snapshot::Snapshot;
use kubepass::token::SessionId;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::stream::{DeltaStream, Limits, Push};
use prost::Message as _;

use super::fixture;

const LIFETIME: u64 = 12 * 3_600;

pub(crate) const PATH: &str = "/api/v1/namespaces/web/pods?limit=500";

/// Rules of which the one before the last is the first that allows; one rule allows by itself.
pub(crate) fn policy(rules: usize) -> String {
    let allows = r#"{name: staff, allow: 'user.email.endsWith("@example.com") && k8s.read_only'}"#;
    let other = |number: usize| match number {
        0 => r#"{name: suspended, deny: '"suspended" in user.groups'}"#.to_owned(),
        1 => r#"{name: no-secrets, deny: 'k8s.resource == "secrets" && !("sre" in user.groups)'}"#.to_owned(),
        2 => r#"{name: on-call, allow: 'user.groups.exists(g, g.startsWith("oncall-"))'}"#.to_owned(),
        _ => format!(r#"{{name: team-{number}, allow: '"team-{number}" in user.groups && k8s.namespace == "team-{number}"'}}"#),
    };
    let mut lines: Vec<String> = (0..rules - 1).map(other).collect();
    lines.insert(rules.saturating_sub(2), allows.to_owned());
    lines.iter().map(|line| format!("  - {line}\n")).collect()
}

/// How the API servers of a scene learn who the user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Impersonate,
    Jwt,
}

/// The text of a configuration with `routes` routes, each with the same `rules` rules.
pub(crate) fn configuration(routes: usize, rules: usize, method: Method) -> String {
    let policy = policy(rules);
    configuration_with(routes, method, |_| policy.clone())
}

/// The same with what a policy is by the number of its route.
pub(crate) fn configuration_with(routes: usize, method: Method, policy: impl Fn(usize) -> String) -> String {
    let route = |number: usize| {
        let method = match method {
            Method::Impersonate => "impersonate: {token: {file: token}}".to_owned(),
            Method::Jwt => format!("jwt: {{audience: route-{number}}}"),
        };
        format!(
            "- name: route-{number}\n  host: route-{number}.k8s.example.com\n  kubernetes:\n    server: https://10.{}.{}.1:6443\n    \
             ca: {{file: ca.crt}}\n    {method}\n  policy:\n{}",
            number / 250,
            number % 250,
            policy(number)
        )
    };
    format!(
        "public_url: https://pass.example.com\n\
         listeners:\n- {{address: 127.0.0.1:443, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
         secrets: [{{file: secret}}]\n\
         identity_providers:\n- name: corp\n  issuer: https://idp.example.com\n  client_id: kubepass\n  client_secret: {{file: client-secret}}\n  \
         identity: {{username: claims.email, groups: claims.groups}}\n\
         sessions: {{store: {{embedded: {{path: kubepass.db}}}}}}\n\
         routes:\n{}\
         audit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n",
        (0..routes).map(route).collect::<String>()
    )
}

/// Parses and resolves it, as a reload does.
pub(crate) fn config(text: &str) -> Config {
    fixture::load(text, "bench.yaml", &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The same, with `before` in force.
pub(crate) fn config_after(before: &Config, text: &str) -> Config {
    fixture::load_after(Some(before), text, "bench.yaml", &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn snapshot(routes: usize, rules: usize, method: Method) -> Arc<Snapshot> {
    Arc::new(Snapshot::new(Arc::new(config(&configuration(routes, rules, method))), "0123456789abcdef0123456789abcdef"))
}

/// Someone who is logged in, and what answers.
pub(crate) struct Scene {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) token: String,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) now: u64,
}

impl Scene {
    /// `sessions` people are logged in; the one who asks is in `groups` groups.
    pub(crate) fn new(routes: usize, rules: usize, sessions: usize, groups: usize) -> Self {
        Self::at(snapshot(routes, rules, Method::Impersonate), sessions, groups)
    }

    pub(crate) fn at(snapshot: Arc<Snapshot>, sessions: usize, groups: usize) -> Self {
        let now = clock::unix_now();
        let table = Arc::new(SessionTable::new());
        let route = snapshot.route(&format!("route-{}", snapshot.config().routes.len() / 2)).expect("a route");
        let asks = session(0, groups, now);
        let claims = asks.session_token_claims(&route.host, "jti".into(), now);
        let token = snapshot.token_keys().sign_session_token(&claims).expect("a token");
        let mut others: Vec<Resting> = (1..sessions).map(|number| resting(number, now)).collect();
        others.sort_by_key(|resting| resting.id);
        assert_eq!(table.take_resting(&others), 0, "room");
        // As many as there is room for are in memory, as after a while of work.
        for number in 1..sessions.min(2 * HOT_SESSIONS) {
            table.wake(Arc::new(session(number, groups, now)), now).expect("it lives");
        }
        table.insert(Arc::new(asks)).expect("room");
        let (target, host) = (format!("kubernetes:{}", route.id()), route.host.clone());
        Self { snapshot, sessions: table, token, target, host, now }
    }

    /// The fixed conditions of `make bench`, but for the numbers of routes and sessions, which change nothing and take time to make.
    pub(crate) fn usual(method: Method) -> Self {
        Self::at(snapshot(3, 5, method), 100, 2)
    }

    /// The question, encoded: as an Envoy 1.40 puts it for kubectl (`encode_raw_headers`, `include_tls_session`).
    pub(crate) fn check(&self) -> Vec<u8> {
        let headers = [
            (":authority", self.host.as_str()),
            (":path", PATH),
            (":method", "GET"),
            (":scheme", "https"),
            ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
            ("user-agent", "kubectl/v1.36.3 (linux/amd64) kubernetes/0000000"),
            ("authorization", &format!("Bearer {}", self.token)),
            ("kubectl-command", "kubectl get"),
            ("kubectl-session", "0d5f8c7e-3ef1-4a45-9f2e-6a1f0c0f6c55"),
            ("accept-encoding", "gzip"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "7373a616-45b1-4144-adf1-bd54fdb28e23"),
        ]
        .map(|(key, value)| HeaderValue { key: key.into(), raw_value: value.into(), ..HeaderValue::default() });
        let http = HttpRequest {
            id: "1234567890123456789".into(),
            method: "GET".into(),
            path: PATH.into(),
            host: self.host.clone(),
            scheme: "https".into(),
            size: -1,
            protocol: "HTTP/2".into(),
            header_map: Some(HeaderMap { headers: headers.into() }),
            ..HttpRequest::default()
        };
        let time = Some(Timestamp { seconds: 1_790_000_000, nanos: 123_456_789 });
        let check = CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(peer("192.0.2.1", 45_678)),
                destination: Some(peer("192.0.2.2", 443)),
                request: Some(AttributeRequest { time, http: Some(http) }),
                context_extensions: [("target".to_owned(), self.target.clone())].into(),
                tls_session: Some(TlsSession { sni: self.host.clone() }),
                ..AttributeContext::default()
            }),
        };
        check.encode_to_vec()
    }

    /// The whole service, with a trail in a folder that lives as long as the second value.
    pub(crate) fn service(&self, runtime: &tokio::runtime::Runtime) -> (ExtAuthz, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = AuditSettings {
            sinks: vec![AuditSink::File { path: folder.path().join("audit.jsonl") }],
            on_failure: OnAuditFailure::Deny,
            durability: Durability::Written,
        };
        let trail = Trail::open(&settings).expect("a trail");
        let store = Store::open(&folder.path().join("kubepass.db"), Arc::clone(self.snapshot.token_keys())).expect("a store");
        let signing = runtime.block_on(Signing::open(self.snapshot.config(), &store, self.now)).expect("keys");
        let snapshot = Arc::new(ArcSwap::new(Arc::clone(&self.snapshot)));
        let sessions = Sessions::new(Arc::clone(&self.sessions), store);
        (ExtAuthz::new(snapshot, sessions, signing, trail, Arc::new(Metrics::default())), folder)
    }
}

/// A stream whose Envoy has taken all of a set.
pub(crate) fn subscribed(set: &ResourceSet) -> DeltaStream {
    let mut stream = DeltaStream::new(Limits::default());
    for kind in TypeUrl::ALL {
        let wildcard = matches!(kind, TypeUrl::Cluster | TypeUrl::Listener);
        let names = if wildcard { Vec::new() } else { set.resources(kind).map(|resource| resource.name.to_string()).collect() };
        let ask =
            DeltaDiscoveryRequest { type_url: kind.as_str().into(), resource_names_subscribe: names, ..DeltaDiscoveryRequest::default() };
        let mut answers = stream.on_request(ask, set).unwrap();
        while let Some(Push { kind, nonce, .. }) = answers.pop() {
            let ack =
                DeltaDiscoveryRequest { type_url: kind.as_str().to_owned(), response_nonce: nonce, ..DeltaDiscoveryRequest::default() };
            answers.extend(stream.on_request(ack, set).unwrap());
        }
    }
    stream
}

fn id(number: usize) -> SessionId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    SessionId::from_random(id)
}

fn resting(number: usize, now: u64) -> Resting {
    Resting { id: id(number), expires_at: now + LIFETIME }
}

fn session(number: usize, groups: usize, now: u64) -> Session {
    let email = format!("user-{number}@example.com");
    let claims =
        serde_json::json!({"sub": format!("00u{number:017}"), "email": email, "email_verified": true, "name": "A Person", "locale": "en"});
    Session {
        id: id(number),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: format!("00u{number:017}") },
            username: email.clone(),
            email,
            groups: (1..=groups).map(|number| format!("group{number}")).collect::<Groups>(),
            claims: claims.as_object().expect("an object").clone(),
        },
        created_at: now,
        expires_at: now + LIFETIME,
        client: "kubepass".into(),
        source_ip: "192.0.2.1".into(),
    }
}

fn peer(address: &str, port: u32) -> Peer {
    let socket =
        SocketAddress { address: address.into(), port_specifier: Some(PortSpecifier::PortValue(port)), ..SocketAddress::default() };
    Peer { address: Some(Address { address: Some(AddressKind::SocketAddress(socket)) }), ..Peer::default() }
}
