//! A snapshot as Envoy resources: listeners (LDS), routes (SRDS and RDS, by host), clusters (CDS), endpoints (EDS) and secrets (SDS). Pure, and the same
//! snapshot gives the same bytes: no message here may hold a map with more than one entry, for `envoy-types` encodes maps in random order.
//!
//! The way of a request, in the order in which the submodules stand on it: `listener` -> `connection_manager` (hardened; `early_headers`,
//! `local_reply`, `access_log`) -> `http_filters` (ext_authz, then the one late header mutation of `identity_headers`) -> `route` ->
//! `cluster` with `upstream_filters` (guard, credential, `connection`).
//!
//! A listener depends on `listeners` of the configuration alone: whatever changes about routes, policies, certificates or tokens travels by
//! RDS, CDS, EDS and SDS, which cut no open stream.

mod access_log;
mod cluster;
mod connection_manager;
mod early_headers;
mod endpoint;
mod http_filters;
mod identity_headers;
mod input;
mod listener;
mod local_reply;
mod maker;
mod message;
pub mod names;
mod node_resources;
mod route;
mod secret;
pub mod self_test;
mod upstream_filters;

#[cfg(test)]
mod tests;

use envoy_types::pb::envoy::config::route::v3::VirtualHost;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;

pub use self::access_log::ACCESS_LOG_FLUSH_MILLISECONDS;
use self::input::{Input, ListenerInput, RouteInput};
pub use self::maker::Maker;
pub use self::node_resources::{NodeResources, build_all};
use crate::snapshot::{NodeView, Snapshot};
use crate::xds::resource::{InvalidResource, Resource, ResourceSet, TypeUrl};

/// Every resource that the unnamed node needs: where the configuration has no `nodes`, that is any Envoy.
///
/// # Errors
/// Two routes with one name, or a name that xDS cannot carry: a valid configuration has neither.
pub fn build(snapshot: &Snapshot) -> Result<ResourceSet, InvalidResource> {
    build_for(snapshot, NodeView::UNNAMED)
}

/// Every resource that a node needs, and none besides.
///
/// # Errors
/// As `build`.
pub fn build_for(snapshot: &Snapshot, node: &NodeView) -> Result<ResourceSet, InvalidResource> {
    build_input(&Input::of(snapshot, node))
}

fn build_input(input: &Input<'_>) -> Result<ResourceSet, InvalidResource> {
    let mut set = ResourceSet::builder();
    for (kind, resource) in of_the_rest(input).into_iter().chain(input.routes.iter().flat_map(of_route)) {
        set.insert(kind, resource)?;
    }
    Ok(set.build())
}

type Resources = Vec<(TypeUrl, Resource)>;

/// What belongs to no route: listeners with their certificates, and the host of the web pages.
fn of_the_rest(input: &Input<'_>) -> Resources {
    let listener = |input: &ListenerInput<'_>| (TypeUrl::Listener, Resource::new(input.name.as_str(), &listener::listener(input)));
    let mut resources: Resources = input.listeners.iter().map(listener).collect();
    resources.extend(input.public_host.into_iter().flat_map(|host| of_host(host, route::public_host(host))));
    resources.extend(input.listeners.iter().flat_map(secret::serving).map(of_secret));
    resources
}

/// All that only this route needs. What it is made from stands in `RouteInput`, so that the same input gives the same resources.
fn of_route(route: &RouteInput<'_>) -> Resources {
    let name = route.target();
    let mut resources = vec![(TypeUrl::Cluster, Resource::new(name.clone(), &cluster::cluster(route)))];
    if cluster::is_ip(&route.server.host) {
        resources.push((TypeUrl::ClusterLoadAssignment, Resource::new(name, &endpoint::load_assignment(route))));
    }
    resources.extend(of_host(route.host, route::route_host(route)));
    resources.extend(secret::of_route(route).map(of_secret));
    resources
}

fn of_host(host: &str, virtual_host: VirtualHost) -> [(TypeUrl, Resource); 2] {
    [
        (TypeUrl::ScopedRouteConfiguration, Resource::new(host, &route::scope(host))),
        (TypeUrl::RouteConfiguration, Resource::new(host, &route::of_host(host, virtual_host))),
    ]
}

fn of_secret(secret: Secret) -> (TypeUrl, Resource) {
    (TypeUrl::Secret, Resource::new(secret.name.as_str(), &secret))
}
