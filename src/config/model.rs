//! What a configuration means once it is valid: nothing here is checked again later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::identity::IdentityMapping;
use crate::policy::{Policy, UserExpression};
use crate::token::{Secret, SigningKey};

mod node;

pub use node::{ControlPlane, ControlPlaneTcp, ControlPlaneTls, Gateway, Node, NodeIdentity};

/// A whole valid configuration. `Clone` shares what is large.
#[derive(Debug, Clone)]
pub struct Config {
    pub public_url: PublicUrl,
    /// Of nodes without a gateway, and of the Envoy that kubepass starts itself; never empty when there are any of those.
    pub listeners: Vec<Listener>,
    pub control_plane: ControlPlane,
    /// Empty: every Envoy that can open the sockets is served, and has everything.
    pub nodes: Vec<Node>,
    pub gateways: Vec<Gateway>,
    pub admin: Admin,
    /// Never empty: the first is used, all are accepted.
    pub secrets: Vec<Secret>,
    /// For upstream tokens: the first signs, the public halves of all are published. Empty: kubepass keeps a key of its own.
    pub signing_keys: Vec<Arc<SigningKey>>,
    /// For assertion tokens, in the same way; none of them stands among `signing_keys`.
    pub assertion_keys: Vec<Arc<SigningKey>>,
    /// How long a new first key is published before it signs.
    pub publish_before_use_seconds: u64,
    /// Ids of keys of either kind that others got hold of: they neither sign nor are published, whatever was promised to verifiers.
    pub revoked_keys: BTreeSet<String>,
    pub identity_providers: Vec<Arc<IdentityProvider>>,
    pub sessions: SessionSettings,
    pub routes: Vec<Arc<Route>>,
    pub audit: AuditSettings,
    /// The API server whose objects are configuration besides the file.
    pub cluster_source: Option<ClusterSource>,
    /// Whether files that others could read or replace are a mistake instead of a warning.
    pub strict_file_modes: bool,
    /// Unix seconds: from when it was judged until its first certificate is no longer valid.
    pub valid_at: Range<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSource {
    /// The operator's: Gateways are taken from here only, and the Lease stands here.
    pub namespace: String,
    /// What is watched, `namespace` among them; `None` for every namespace.
    pub namespaces: Option<Vec<String>>,
    /// How the API server is reached; `None` for the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    pub lease: Lease,
}

/// By which one of several replicas is chosen to write statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    /// How long it is held without being renewed.
    pub seconds: u64,
}

/// Where the login pages live; `https` always, so that `__Host-` cookies work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    pub url: Url,
    /// Lower case, without port.
    pub host: String,
}

impl PublicUrl {
    /// `https://host[:port]` without a slash at the end: what our addresses begin with, and the issuer of our tokens, letter by letter.
    pub fn origin(&self) -> &str {
        // Nothing but an origin is taken as `public_url`, and the default port does not stand in it.
        self.url.as_str().trim_end_matches('/')
    }

    /// `https://host[:port]` of a host of ours: all are served at the port of `public_url`.
    pub fn origin_of(&self, host: &str) -> String {
        match self.url.port() {
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    /// At least one; chosen by SNI among their DNS names.
    pub certificates: Vec<ServingCertificate>,
    pub sources: Sources,
}

/// Who may say where a request came from. By default nobody: it came from the address that connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Load balancers that say it by the PROXY protocol, for each connection. Where there are any, nobody else may connect.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// Proxies that say it in `x-forwarded-for`, for each request.
    pub trusted_proxies: Vec<IpNet>,
}

#[derive(Debug, Clone)]
pub struct ServingCertificate {
    /// PEM, leaf first.
    pub chain_pem: String,
    pub key_pem: SecretString,
    /// DNS names of the leaf, lower case; may be wildcards.
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
pub struct Admin {
    /// Metrics and readiness only.
    pub address: SocketAddr,
    /// State and session operations, 0600.
    pub socket: PathBuf,
}

#[derive(Debug)]
pub struct IdentityProvider {
    pub name: String,
    pub issuer: Url,
    pub client_id: String,
    pub client_secret: SecretString,
    pub scopes: Vec<String>,
    pub mapping: IdentityMapping,
    /// Extra CA bundle (PEM) for an IdP inside the company; system roots otherwise.
    pub ca_pem: Option<String>,
}

#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Seconds from login to the end of a session.
    pub lifetime_seconds: u64,
    /// Streams that one person may have open at a time.
    pub max_streams: usize,
    pub store: StoreSettings,
}

#[derive(Debug, Clone)]
pub enum StoreSettings {
    Embedded { path: PathBuf },
}

/// A host that stands for one upstream, with the policy that guards it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// [`Route::id_of`] its name and target.
    pub id: String,
    /// Unique.
    pub name: String,
    /// Lower case, without port.
    pub host: String,
    pub labels: BTreeMap<String, String>,
    /// Where it is served: by the nodes and the gateways that are named here; by all when neither names any.
    pub nodes: Option<Vec<String>>,
    pub gateways: Option<Vec<String>>,
    /// Names of identity providers whose sessions this route takes; `None` takes all.
    pub identity_providers: Option<Vec<String>>,
    /// Whether an unmodified pomerium-cli may log in here.
    pub pomerium_cli: bool,
    pub target: Target,
    pub policy: Policy,
    /// A ceiling in seconds for one stream, besides the session's end.
    pub max_stream_seconds: Option<u64>,
}

impl Route {
    /// By what Envoy and ext_authz speak of the route: its name and the server behind it, `prod@10.0.0.1:6443/kubernetes`. While the two
    /// hold different configurations, a policy that was written for one server is thus never applied in front of another.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn id_of(name: &str, target: &Target) -> String {
        let (server, transport) = match target {
            Target::Kubernetes(target) => (&target.server, ""),
            Target::Http(HttpTarget { upstream, tls: Some(_), .. }) => (upstream, "https:"),
            Target::Http(HttpTarget { upstream, tls: None, .. }) => (upstream, "http:"),
        };
        format!("{name}@{}:{}/{transport}{}", server.host, server.port, server.server_name)
    }

    /// What stands behind the route, in the word that clients are told.
    pub fn kind(&self) -> &'static str {
        match self.target {
            Target::Kubernetes(_) => "kubernetes",
            Target::Http(_) => "http",
        }
    }

    pub fn kubernetes(&self) -> Option<&KubernetesTarget> {
        match &self.target {
            Target::Kubernetes(target) => Some(target),
            Target::Http(_) => None,
        }
    }

    /// PEM bundle that the server's certificate must chain to; `None` for a server without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        match &self.target {
            Target::Kubernetes(target) => Some(&target.ca_pem),
            Target::Http(target) => target.tls.as_ref().map(|tls| tls.ca_pem.as_str()),
        }
    }

    /// The service account's token.
    pub fn service_account_token(&self) -> Option<&SecretString> {
        match &self.kubernetes()?.method {
            Method::Impersonate(method) => Some(&method.token),
            Method::Jwt(_) => None,
        }
    }

    pub fn http(&self) -> Option<&HttpTarget> {
        match &self.target {
            Target::Kubernetes(_) => None,
            Target::Http(target) => Some(target),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Kubernetes(KubernetesTarget),
    Http(HttpTarget),
}

/// Any web server that learns who the user is from a signed header. Browsers log in to it with a cookie.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTarget {
    pub upstream: ServerAddress,
    /// `None` for an upstream that speaks plain HTTP.
    pub tls: Option<HttpTls>,
    /// Lower case; the upstream finds the `AssertionToken` there.
    pub identity_header: String,
    /// `aud` of those tokens: this upstream's alone.
    pub audience: String,
    /// Whether WebSockets may be opened.
    pub websocket: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HttpTls {
    /// PEM bundle that the upstream's certificate must chain to; the certificate must carry `upstream.server_name`.
    pub ca_pem: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesTarget {
    pub server: ServerAddress,
    /// PEM bundle that the API server's certificate must chain to.
    pub ca_pem: String,
    pub method: Method,
    /// Put before every username.
    pub username_prefix: String,
    pub groups: GroupSettings,
    /// Exact `system:` users and groups that may pass although such names never do.
    pub allow_system: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// DNS name or IP literal (no brackets).
    pub host: String,
    pub port: u16,
    /// Name that the API server's certificate must carry, also sent as SNI when it is a DNS name.
    pub server_name: String,
}

/// How the API server learns who the user is.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    Impersonate(Impersonate),
    Jwt(Jwt),
}

impl Method {
    /// What the user's uid is, on the API server.
    pub fn uid(&self) -> Option<&UserExpression> {
        match self {
            Self::Impersonate(method) => method.uid.as_ref(),
            Self::Jwt(method) => method.uid.as_ref(),
        }
    }

    /// Extra fields of the user: key and its value(s).
    pub fn extra(&self) -> &[(String, UserExpression)] {
        match self {
            Self::Impersonate(method) => &method.extra,
            Self::Jwt(method) => &method.extra,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Impersonate {
    /// The service account's token; trimmed, never empty.
    pub token: SecretString,
    pub uid: Option<UserExpression>,
    /// Key (lower case, valid as a header name part) and its value(s).
    pub extra: Vec<(String, UserExpression)>,
    /// When given, only these usernames (after the prefix) may be impersonated.
    pub users: Option<Vec<String>>,
}

/// Not derived, for a secret is not compared by accident.
impl PartialEq for Impersonate {
    fn eq(&self, other: &Self) -> bool {
        let Self { token, uid, extra, users } = self;
        token.expose_secret() == other.token.expose_secret() && (uid, extra, users) == (&other.uid, &other.extra, &other.users)
    }
}

/// A token of our own, which the API server verifies by structured authentication (KEP-3331, Kubernetes 1.30 and later).
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// `aud` of the tokens: names the cluster, and is never a host of ours, so that no token for a route is one for a cluster.
    pub audience: String,
    /// Seconds that a token lives at most.
    pub lifetime_seconds: u64,
    pub uid: Option<UserExpression>,
    /// Keys as the API server knows them, `example.com/team`.
    pub extra: Vec<(String, UserExpression)>,
    /// Whether another cluster may take the same tokens.
    pub shared_audience: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GroupSettings {
    pub prefix: String,
    /// Patterns over the groups that the mapping gave; `*` at the end matches any rest.
    pub allow: Vec<String>,
    /// At most this many go upstream (default 64, ceiling 256); more is a refusal.
    pub max: usize,
}

impl GroupSettings {
    /// Whether the allow-list names finitely many groups (no `*`).
    pub fn is_finite(&self) -> bool {
        !self.allow.iter().any(|pattern| pattern.ends_with('*'))
    }
}

#[derive(Debug, Clone)]
pub struct AuditSettings {
    pub sinks: Vec<AuditSink>,
    pub on_failure: OnAuditFailure,
    pub durability: Durability,
}

#[derive(Debug, Clone)]
pub enum AuditSink {
    File { path: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAuditFailure {
    Deny,
    Allow,
}

/// When a line counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Handed to the operating system: survives a crash of kubepass (the default).
    Written,
    /// Synced to the disk: survives a power cut.
    Synced,
}
