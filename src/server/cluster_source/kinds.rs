//! kubepass's own kinds as the API server sees them: the schema, and rules in CEL for what a schema cannot say, so that a mistake is refused
//! where it is made.
//!
//! The types describe what may be written and are never filled: an object is read by the reader of the configuration file (`config::objects`), so
//! that both say the same of the same mistake. A test holds the fields here to those that the reader knows.
#![allow(unreachable_pub, reason = "the derived schema is a copy of each type inside a function")]
#![allow(dead_code, reason = "the fields are read as a schema only")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A host of an upstream, under which people reach it through kubepass, and who may do what there. Written as in kubepass's configuration
/// file, without the name, which is NAMESPACE/NAME of the object.
#[derive(Debug, Clone, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kubepass.dev",
    version = "v1alpha1",
    kind = "Route",
    plural = "routes",
    category = "kubepass",
    namespaced,
    status = "Status",
    doc = "A host behind kubepass, what stands behind it, and who may do what there.",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name may have 63 characters and no dots"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Programmed", type_ = "string", json_path = ".status.conditions[?(@.type==\"Programmed\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.kubernetes) != has(self.http)").message("a route leads to one of `kubernetes` and `http`"),
    validation = Rule::new("has(self.kubernetes) == has(oldSelf.kubernetes)").message("what stands behind a route does not change its kind; make another route"),
    validation = Rule::new("has(self.policy) || has(self.policies)").message("without a rule everything is denied: give `policy`, `policies` or both"),
    validation = Rule::new("!has(self.pomerium_cli) || has(self.kubernetes)").message("pomerium-cli logs in to clusters only")
)]
pub struct RouteSpec {
    /// The DNS name under which people reach it. It stays what it is: of two routes with one host the older wins, and must not come to another's.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the host of a route does not change; make another route"))]
    pub host: String,
    /// For the policy: `route.labels`.
    #[schemars(length(max = 64))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Whose log-ins it takes; all, when left out.
    #[schemars(length(min = 1, max = 64))]
    pub identity_providers: Option<Vec<String>>,
    /// Whether an unmodified pomerium-cli may log in.
    pub pomerium_cli: Option<bool>,
    /// The longest that one stream stays open, such as `8h`.
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    pub max_stream: Option<String>,
    /// An API server.
    pub kubernetes: Option<KubernetesSpec>,
    /// A web server.
    pub http: Option<HttpSpec>,
    /// Rules; what none allows is denied, and deny beats allow.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.name) || self.exists_one(q, has(q.name) && q.name == r.name))").message("two rules have one name"))]
    pub policy: Option<Vec<RuleSpec>>,
    /// Policy objects of the same namespace, whose rules stand before those of `policy`.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub policies: Option<Vec<String>>,
}

/// An API server.
#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.impersonate) != has(self.jwt)").message("an API server learns who the user is in one way: give one of `impersonate` and `jwt`"))]
pub struct KubernetesSpec {
    /// Its address, such as `https://10.0.0.1:6443`.
    #[schemars(length(max = 300), regex(pattern = r"^https://[^/?#@\s]+/?$"))]
    pub server: String,
    /// The name in its certificate, when that is not the host of `server`.
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// The CA certificates that its certificate must chain to.
    pub ca: CertificateSource,
    /// By a service account that may impersonate.
    pub impersonate: Option<ImpersonateSpec>,
    /// By tokens that kubepass signs.
    pub jwt: Option<JwtSpec>,
    /// Put before every user's name.
    #[schemars(length(max = 128))]
    pub username_prefix: Option<String>,
    /// Which groups the API server is told.
    pub groups: Option<GroupsSpec>,
    /// `system:` users and groups that may pass, each by its exact name.
    #[schemars(length(max = 64), inner(regex(pattern = r"^system:[^*]*$")))]
    pub allow_system: Option<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct ImpersonateSpec {
    /// The service account's token.
    pub token: SecretSource,
    /// The user's uid there: CEL over `user`.
    #[schemars(length(min = 1, max = 4096))]
    pub uid: Option<String>,
    /// Extra fields of the user: keys, and CEL over `user`.
    #[schemars(length(max = 64))]
    pub extra: Option<BTreeMap<String, String>>,
    /// The only users that may be impersonated.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 1024)))]
    pub users: Option<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct JwtSpec {
    /// `aud` of the tokens: names this cluster, and no host of kubepass. It begins with `NAMESPACE/`, but for Routes of the operator's namespace.
    #[schemars(length(min = 1, max = 256))]
    pub audience: String,
    /// How long a token lives, `60s` to `1h`.
    #[schemars(length(min = 2, max = 32), regex(pattern = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    pub lifetime: Option<String>,
    /// The user's uid there: CEL over `user`.
    #[schemars(length(min = 1, max = 4096))]
    pub uid: Option<String>,
    /// Extra fields of the user: keys, and CEL over `user`.
    #[schemars(length(max = 64))]
    pub extra: Option<BTreeMap<String, String>>,
    /// Whether another route of this namespace may lead to another cluster with the same audience.
    pub shared_audience: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct GroupsSpec {
    /// Put before every group's name.
    #[schemars(length(max = 128))]
    pub prefix: Option<String>,
    /// The groups that pass; `*` at the end stands for any rest.
    #[schemars(length(max = 1000), inner(length(min = 1, max = 1024)))]
    pub allow: Option<Vec<String>>,
    /// More than so many are a refusal.
    #[schemars(range(min = 0, max = 256))]
    pub max: Option<i32>,
}

/// A web server, which learns who the user is from a signed header.
#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct HttpSpec {
    /// Its address, such as `http://10.0.0.9:8080`.
    #[schemars(length(max = 300), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub upstream: String,
    /// The CA certificates that its certificate must chain to; those of kubepass's machine, when left out.
    pub ca: Option<CertificateSource>,
    /// The name in its certificate, when that is not the host of `upstream`.
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// The header; X-Kubepass-Jwt-Assertion, when left out.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9-]+$"))]
    pub identity_header: Option<String>,
    /// `aud` of the tokens in it; https://HOST, when left out. Any other begins with `NAMESPACE/`, but for Routes of the operator's namespace.
    #[schemars(length(min = 1, max = 256))]
    pub audience: Option<String>,
    /// Whether WebSockets may be opened.
    pub websocket: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.allow) != has(self.deny)").message("a rule has one of `allow` and `deny`"))]
pub struct RuleSpec {
    #[schemars(length(min = 1, max = 100))]
    pub name: Option<String>,
    /// CEL: what it holds for is allowed.
    #[schemars(length(min = 1, max = 16384))]
    pub allow: Option<String>,
    /// CEL: what it holds for is denied.
    #[schemars(length(min = 1, max = 16384))]
    pub deny: Option<String>,
    /// What the user is told.
    #[schemars(length(min = 1, max = 1000))]
    pub message: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct SecretSource {
    /// A key of a Secret with the label `kubepass.dev/use: "true"`.
    pub secret: KeySpec,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.secret) != has(self.config_map)").message("give one of `secret` and `config_map`"))]
pub struct CertificateSource {
    /// A key of a ConfigMap with the label `kubepass.dev/use: "true"`.
    pub config_map: Option<KeySpec>,
    /// A key of a Secret with that label.
    pub secret: Option<KeySpec>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct KeySpec {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Another namespace than the object's own: a Grant there must say so.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Rules that several routes of a namespace, or a Gateway, take in by the object's name.
#[derive(Debug, Clone, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kubepass.dev",
    version = "v1alpha1",
    kind = "Policy",
    plural = "policies",
    category = "kubepass",
    namespaced,
    status = "Status",
    doc = "Rules that Routes of the namespace take in by name.",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name may have 63 characters and no dots"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct PolicySpec {
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.name) || self.exists_one(q, has(q.name) && q.name == r.name))").message("two rules have one name"))]
    pub rules: Vec<RuleSpec>,
}

/// What Routes may serve: without a Gateway for its host and its namespace, a Route is not accepted. Taken from the operator's namespace only.
#[derive(Debug, Clone, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kubepass.dev",
    version = "v1alpha1",
    kind = "Gateway",
    plural = "gateways",
    category = "kubepass",
    namespaced,
    status = "Status",
    doc = "The hosts that Routes of some namespaces may have, and what holds for all of them.",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')").message("the name may have 63 characters and no dots"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct GatewaySpec {
    /// Exact hosts, or `*.` and a suffix below which every host is served.
    #[schemars(
        length(min = 1, max = 256),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Vec<String>,
    /// Whose Routes are served; `*` for those of all namespaces.
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
    /// Policy objects of the Gateway's namespace, whose rules stand before those of every Route that it serves.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub policies: Option<Vec<String>>,
    /// Certificates for its hosts, besides those of the listeners. One more or less touches the listeners, whose connections drain.
    #[schemars(length(min = 1, max = 16))]
    pub certificates: Option<Vec<CertificateSpec>>,
    /// Nodes of kubepass's configuration file that serve its routes. Neither `nodes` nor `gateways`: all do.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub nodes: Option<Vec<String>>,
    /// `gateways` of that file whose nodes do.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub gateways: Option<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct CertificateSpec {
    /// The certificate, its issuers behind it.
    pub chain: CertificateSource,
    /// Its private key.
    pub key: SecretSource,
}

/// Lets objects of other namespaces refer to Secrets and ConfigMaps of this one.
#[derive(Debug, Clone, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "kubepass.dev",
    version = "v1alpha1",
    kind = "Grant",
    plural = "grants",
    category = "kubepass",
    namespaced,
    doc = "Lets objects of other namespaces refer to Secrets and ConfigMaps of this one.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct GrantSpec {
    /// Who may refer.
    #[schemars(length(min = 1, max = 64))]
    pub from: Vec<GrantFrom>,
    /// To what.
    #[schemars(length(min = 1, max = 64))]
    pub to: Vec<GrantTo>,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct GrantFrom {
    #[schemars(regex(pattern = r"^(Route|Gateway)$"))]
    pub kind: String,
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
pub struct GrantTo {
    #[schemars(regex(pattern = r"^(Secret|ConfigMap)$"))]
    pub kind: String,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What kubepass says of the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Status {
    /// The generation that the conditions are about.
    #[serde(rename = "observedGeneration")]
    pub observed_generation: Option<i64>,
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Condition {
    #[schemars(length(min = 1, max = 316))]
    pub r#type: String,
    #[schemars(regex(pattern = r"^(True|False|Unknown)$"))]
    pub status: String,
    #[serde(rename = "observedGeneration")]
    pub observed_generation: Option<i64>,
    #[serde(rename = "lastTransitionTime")]
    #[schemars(length(min = 1, max = 64))]
    pub last_transition_time: String,
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    #[schemars(length(max = 32768))]
    pub message: String,
}
