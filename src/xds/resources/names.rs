//! The names by which Envoy, the control plane and ext_authz speak of the same thing.

/// The one route configuration.
pub const ROUTE_CONFIGURATION: &str = "routes";
/// Static clusters of the bootstrap, each on a Unix socket of the control plane.
pub const XDS_CLUSTER: &str = "kubepass-xds";
pub const EXT_AUTHZ_CLUSTER: &str = "kubepass-ext-authz";
pub const ACCESS_LOG_CLUSTER: &str = "kubepass-access-log";
pub const WEB_CLUSTER: &str = "kubepass-web";
/// Key of the one entry in ext_authz's `context_extensions`.
pub const TARGET_KEY: &str = "target";
/// Its value on routes to the web pages.
pub const WEB_TARGET: &str = "web";
/// Namespace of the dynamic metadata that an ext_authz answer brings.
pub const EXT_AUTHZ_NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// Metadata keys in that namespace.
pub const GRANT_KEY: &str = "grant";
pub const USER_KEY: &str = "user";
pub const UID_KEY: &str = "uid";
/// The request's id, in our audit log and in the API server's.
pub const AUDIT_ID: &str = "audit-id";
/// Ends a stream at that age, in milliseconds; Envoy does not forward it.
pub const STREAM_DURATION: &str = "x-envoy-upstream-stream-duration-ms";
/// Groups that the connection manager's own mutation writes; a route with a higher limit adds the rest.
pub const GROUP_SLOTS: usize = 64;

/// Target, grant, cluster and load assignment of a Kubernetes route all have this name. `id`, here and below: `config::Route::id`.
pub fn kubernetes_cluster(id: &str) -> String {
    format!("kubernetes:{id}")
}

/// `index` counts `listeners` of the configuration.
pub fn listener(index: usize) -> String {
    format!("listener-{index}")
}

/// The certificate `index` of a listener.
pub fn serving_secret(listener: &str, index: usize) -> String {
    format!("serving:{listener}:{index}")
}

/// CA bundle of a route's API server.
pub fn ca_secret(id: &str) -> String {
    format!("ca:{id}")
}

/// Service-account token of a route.
pub fn token_secret(id: &str) -> String {
    format!("token:{id}")
}

/// Metadata key of group `index`.
pub fn group_key(index: usize) -> String {
    format!("g{index}")
}

/// Metadata key of value `index` of an extra key.
pub fn extra_key(key: &str, index: usize) -> String {
    format!("e.{key}.{index}")
}
