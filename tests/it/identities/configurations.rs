//! Configurations with two identity providers and two routes, which are kept apart in every way that there is; and the installation behind one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request as AttributeRequest, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use kubepass::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use kubepass::server::clock;
use kubepass::server::ext_authz::ExtAuthz;
use kubepass::server::sessions::Sessions;
use kubepass::server::signing::Signing;
use kubepass::server::store::Store;
use kubepass::server::telemetry::Metrics;
use kubepass::server::trail::Trail;
use kubepass::session::SessionTable;
use kubepass::snapshot::Snapshot;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

use super::envoy::{Envoy, Routed};
use crate::fixture;

pub(super) const PROVIDERS: [(&str, &str, &str); 2] =
    [("corp", "https://idp.example.com", "example.com"), ("partner", "https://idp.partner.example", "partner.example")];
pub(super) const ROUTES: [(&str, &str); 2] = [("one", "one.k8s.example.com"), ("two", "two.k8s.example.com")];

/// What keeps the users of two providers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apart {
    Prefixes,
    Domains,
    Lists,
}

/// How a configuration differs from the others.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) apart: Apart,
    pub(super) same_server: bool,
    pub(super) routes: [RouteShape; 2],
}

#[derive(Debug, Clone)]
pub(super) struct RouteShape {
    pub(super) by_token: bool,
    pub(super) username_prefix: &'static str,
    pub(super) group_prefix: &'static str,
    pub(super) allow: &'static [&'static str],
    pub(super) uid: Option<&'static str>,
    pub(super) extra: Option<&'static str>,
    pub(super) allow_system: bool,
    pub(super) rule: &'static str,
}

pub(super) const ALLOWED_SYSTEM: &str = "system:monitoring";
pub(super) const STAFF: &str = r#"user.email.endsWith("@example.com")"#;
pub(super) const SRE: &str = r#""sre" in user.groups"#;

pub(super) fn shape() -> BoxedStrategy<Shape> {
    let apart = select(vec![Apart::Prefixes, Apart::Domains, Apart::Lists]);
    (apart, any::<bool>(), [route(), route()]).prop_map(|(apart, same_server, routes)| Shape { apart, same_server, routes }).boxed()
}

fn route() -> impl Strategy<Value = RouteShape> {
    let allow: Vec<&'static [&'static str]> = vec![&["*"], &["sre", "team-*"], &["sre", "tem:*", "corp:*"]];
    let prefixes = (select(vec!["", "corp:", "Sys", "x"]), select(vec!["", "corp:", "Sys"]));
    let values = (
        select(vec![None, Some("user.name"), Some("user.claims.sub"), Some("user.claims.team")]),
        select(vec![None, Some("user.groups"), Some("user.claims.team"), Some("user.idp")]),
    );
    (any::<bool>(), prefixes, select(allow), values, prop::bool::weighted(0.3), select(vec!["true", "true", STAFF, SRE])).prop_map(
        |(by_token, (username_prefix, group_prefix), allow, (uid, extra), allow_system, rule)| RouteShape {
            by_token,
            username_prefix,
            group_prefix,
            allow,
            uid,
            extra,
            allow_system,
            rule,
        },
    )
}

impl Shape {
    /// What a provider's configuration puts before usernames.
    pub(super) fn provider_prefix(&self, provider: usize) -> &'static str {
        match (self.apart, provider) {
            (Apart::Prefixes, 0) => "c:",
            (Apart::Prefixes, _) => "p:",
            _ => "",
        }
    }

    /// Whether a route takes people of a provider.
    pub(super) fn takes(&self, route: usize, provider: usize) -> bool {
        self.apart != Apart::Lists || route == provider
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "public_url: https://pass.example.com\nlisteners: [{address: '[::]:443', certificates: [{chain: {file: tls.crt}, key: {file: tls.key}}]}]\n\
             control_plane: {socket_dir: /run/kubepass}\nadmin: {address: '127.0.0.1:9902', socket: /run/kubepass/admin.sock}\nsecrets: [{file: secret}]\n\
             sessions: {lifetime: 10h, store: {embedded: {path: kubepass.db}}}\naudit: {sinks: [{file: {path: audit.jsonl}}], on_failure: deny}\nidentity_providers:\n",
        );
        for (index, (name, issuer, domain)) in PROVIDERS.iter().enumerate() {
            let apart = match self.apart {
                Apart::Prefixes => format!(", username_prefix: '{}'", self.provider_prefix(index)),
                Apart::Domains => format!(", email_domains: [{domain}]"),
                Apart::Lists => String::new(),
            };
            writeln!(
                text,
                "- {{name: {name}, issuer: '{issuer}', client_id: kubepass, client_secret: {{file: {name}-client-secret}}, scopes: [openid], \
                 identity: {{username: claims.email, groups: claims.groups{apart}}}}}"
            )
            .unwrap();
        }
        text.push_str("routes:\n");
        for (index, ((name, host), shape)) in ROUTES.iter().zip(&self.routes).enumerate() {
            let server = if self.same_server { 1 } else { index + 1 };
            let lists =
                if self.apart == Apart::Lists { format!("  identity_providers: [{}]\n", PROVIDERS[index].0) } else { String::new() };
            writeln!(text, "- name: {name}\n  host: {host}\n{lists}{}", shape.text(name, server)).unwrap();
        }
        text
    }
}

impl RouteShape {
    fn text(&self, name: &str, server: usize) -> String {
        let mut method = if self.by_token { format!("audience: api-{server}") } else { format!("token: {{file: {name}-token}}") };
        self.uid.iter().for_each(|uid| write!(method, ", uid: {uid}").unwrap());
        self.extra.iter().for_each(|extra| write!(method, ", extra: {{example.com/team: {extra}}}").unwrap());
        let allow_system = if self.allow_system { format!("\n    allow_system: ['{ALLOWED_SYSTEM}']") } else { String::new() };
        let allow: Vec<String> = self.allow.iter().map(|pattern| format!("'{pattern}'")).collect();
        format!(
            "  kubernetes:\n    server: https://10.0.0.{server}:6443\n    ca: {{file: {name}-ca.crt}}\n    {}: {{{method}}}\n    \
             username_prefix: '{}'\n    groups: {{prefix: '{}', allow: [{}], max: 4}}{allow_system}\n  policy: [{{name: rule, allow: '{}'}}]",
            if self.by_token { "jwt" } else { "impersonate" },
            self.username_prefix,
            self.group_prefix,
            allow.join(", "),
            self.rule,
        )
    }
}

/// kubepass with one configuration, and the Envoy that has its resources.
pub(super) struct Installation {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) envoy: Envoy,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) signing: Arc<Signing>,
    service: ExtAuthz,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Installation {
    /// `None` when kubepass refuses the configuration.
    pub(super) fn of(shape: &Shape) -> Option<Self> {
        let config = fixture::load(&shape.text(), "kubepass.yaml", &BTreeMap::new()).map_err(|errors| {
            let text = errors.to_string();
            assert!(text.contains("identities are ambiguous"), "{text}\n{}", shape.text());
        });
        let snapshot = Arc::new(Snapshot::new(Arc::new(config.ok()?), "0123456789abcdef"));
        let folder = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            sinks: vec![AuditSink::File { path: folder.path().join("audit.jsonl") }],
            on_failure: OnAuditFailure::Deny,
            durability: Durability::Written,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = Store::open(&folder.path().join("kubepass.db"), Arc::clone(snapshot.token_keys())).unwrap();
        let signing = runtime.block_on(Signing::open(snapshot.config(), &store, clock::unix_now())).unwrap();
        let (trail, sessions) = (Trail::open(&settings).unwrap(), Arc::new(SessionTable::new()));
        let swap = Arc::new(ArcSwap::new(Arc::clone(&snapshot)));
        let asked = Sessions::new(Arc::clone(&sessions), store);
        let service = ExtAuthz::new(swap, asked, Arc::clone(&signing), trail, Arc::new(Metrics::default()));
        Some(Self { envoy: Envoy::of(&snapshot), snapshot, sessions, signing, service, runtime, _folder: folder })
    }

    /// Asks as Envoy does, through the encoding of both messages.
    pub(super) fn check(&self, routed: &Routed, sni: &str, host: &str, method: &str, path: &str) -> CheckResponse {
        let id = ("x-request-id".to_owned(), REQUEST_ID.as_bytes().to_vec());
        let headers = std::iter::once(&id).chain(&routed.headers).map(|(key, value)| HeaderValue {
            key: key.clone(),
            raw_value: value.clone(),
            ..HeaderValue::default()
        });
        let http = HttpRequest {
            method: method.into(),
            path: path.into(),
            host: host.into(),
            header_map: Some(HeaderMap { headers: headers.collect() }),
            ..HttpRequest::default()
        };
        let attributes = AttributeContext {
            request: Some(AttributeRequest { http: Some(http), ..AttributeRequest::default() }),
            context_extensions: [("target".to_owned(), routed.target.clone())].into(),
            tls_session: Some(TlsSession { sni: sni.into() }),
            ..AttributeContext::default()
        };
        let question = CheckRequest { attributes: Some(attributes) }.encode_to_vec();
        let answer = self.runtime.block_on(self.service.check(&question, None)).unwrap();
        CheckResponse::decode(answer.as_slice()).unwrap()
    }
}

/// Made by Envoy itself.
pub(super) const REQUEST_ID: &str = "7373a616-45b1-4144-adf1-bd54fdb28e23";
