//! What a node's resources depend on, as plain data borrowed from a snapshot: nothing that a policy says can change a resource. Here, and nowhere
//! else in `xds`, what a node may not have is left out.

use secrecy::SecretString;

use super::names;
use crate::config::{KubernetesTarget, Listener, Method, Route, ServerAddress, Target};
use crate::snapshot::{NodeView, Snapshot};

/// One route.
#[derive(Debug, Clone)]
pub(crate) struct RouteInput<'a> {
    /// See `config::Route::id`. It is part of every name below, so that another server is another cluster with secrets and a guard of its own.
    pub(crate) id: String,
    pub(crate) host: &'a str,
    pub(crate) pomerium_cli: bool,
    pub(crate) server: &'a ServerAddress,
    /// `None` for a server without TLS.
    pub(crate) ca_pem: Option<&'a str>,
    pub(crate) method: MethodInput<'a>,
    pub(crate) max_stream_seconds: u64,
}

/// What the upstream is, and how it learns who the user is.
#[derive(Debug, Clone)]
pub(crate) enum MethodInput<'a> {
    /// Headers beside the service account's token.
    Impersonate { token: &'a SecretString, max_groups: usize, extra_keys: Vec<&'a str> },
    /// A token for each user, which ext_authz brings.
    Jwt,
    /// A web server that finds such a token in a header.
    Http { identity_header: &'a str, websocket: bool },
}

/// Everything that one node has.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    /// Where the node has the login pages.
    pub(crate) public_host: Option<&'a str>,
    pub(crate) listeners: Vec<ListenerInput<'a>>,
    pub(crate) routes: Vec<RouteInput<'a>>,
}

/// One listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerInput<'a> {
    /// Of the resource; no other node has one of this name with other content.
    pub(crate) name: String,
    pub(crate) configured: &'a Listener,
}

impl<'a> Input<'a> {
    pub(crate) fn of(snapshot: &'a Snapshot, node: &NodeView) -> Self {
        let config = snapshot.config();
        let lifetime = config.sessions.lifetime_seconds;
        Self {
            routes: snapshot.routes_of(node).map(|route| RouteInput::of(route, lifetime)).collect(),
            ..Self::without_routes(snapshot, node)
        }
    }

    pub(crate) fn without_routes(snapshot: &'a Snapshot, node: &NodeView) -> Self {
        let listener = |(index, configured)| ListenerInput { name: names::listener(node.gateway(), index), configured };
        Self {
            public_host: snapshot.has_login_pages(node).then_some(snapshot.config().public_url.host.as_str()),
            listeners: snapshot.listeners_of(node).iter().enumerate().map(listener).collect(),
            routes: Vec::new(),
        }
    }
}

impl<'a> RouteInput<'a> {
    pub(crate) fn of(route: &'a Route, session_lifetime_seconds: u64) -> Self {
        let (server, method) = match &route.target {
            Target::Kubernetes(target) => (&target.server, MethodInput::of(target)),
            Target::Http(target) => {
                (&target.upstream, MethodInput::Http { identity_header: &target.identity_header, websocket: target.websocket })
            }
        };
        Self {
            id: route.id().to_owned(),
            host: &route.host,
            pomerium_cli: route.pomerium_cli,
            server,
            ca_pem: route.ca_pem(),
            method,
            // 0 would mean no limit.
            max_stream_seconds: route
                .max_stream_seconds
                .map_or(session_lifetime_seconds, |limit| limit.min(session_lifetime_seconds))
                .max(1),
        }
    }
}

impl MethodInput<'_> {
    /// Target, grant, cluster and load assignment of a route all have this name.
    pub(crate) fn target(&self, id: &str) -> String {
        match self {
            Self::Impersonate { .. } | Self::Jwt => names::kubernetes_target(id).to_string(),
            Self::Http { .. } => names::http_target(id).to_string(),
        }
    }
}

impl RouteInput<'_> {
    pub(crate) fn target(&self) -> String {
        self.method.target(&self.id)
    }
}

impl<'a> MethodInput<'a> {
    fn of(target: &'a KubernetesTarget) -> Self {
        match &target.method {
            Method::Impersonate(method) => Self::Impersonate {
                token: &method.token,
                max_groups: target.groups.max,
                extra_keys: method.extra.iter().map(|(key, _)| key.as_str()).collect(),
            },
            Method::Jwt(_) => Self::Jwt,
        }
    }
}
