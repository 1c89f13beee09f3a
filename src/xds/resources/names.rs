//! Names of resources. Those that our answers to Envoy's checks use as well stand in `envoy_names`.

pub use crate::envoy_names::*;

/// The header, made by Envoy itself from the TLS server name, by which it chooses the routes; it never leaves Envoy.
pub const SCOPE: &str = "x-kubepass-scope";
/// Static clusters of the bootstrap, each on a Unix socket of the control plane.
pub const XDS_CLUSTER: &str = "kubepass-xds";
pub const EXT_AUTHZ_CLUSTER: &str = "kubepass-ext-authz";
pub const ACCESS_LOG_CLUSTER: &str = "kubepass-access-log";
pub const WEB_CLUSTER: &str = "kubepass-web";

/// Cluster and load assignment of a Kubernetes route have the name of its target. `id`, here and below: `config::Route::id`.
pub fn kubernetes_cluster(id: &str) -> String {
    kubernetes_target(id).to_string()
}

/// `index` counts the `listeners` of a gateway, or the top-level ones.
pub fn listener(gateway: Option<&str>, index: usize) -> String {
    match gateway {
        Some(gateway) => format!("listener-{gateway}-{index}"),
        None => format!("listener-{index}"),
    }
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
