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
use prost::Message;

pub use self::access_log::ACCESS_LOG_FLUSH_MILLISECONDS;
use self::input::Input;
pub use self::node_resources::{NodeResources, build_all};
use crate::snapshot::{NodeView, Snapshot};
use crate::xds::resource::{InvalidResource, Resource, ResourceSet, ResourceSetBuilder, TypeUrl};

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
    for input in &input.listeners {
        insert(&mut set, TypeUrl::Listener, input.name.clone(), &listener::listener(input))?;
    }
    if let Some(host) = input.public_host {
        insert_host(&mut set, host, route::public_host(host))?;
    }
    for route in &input.routes {
        let name = route.target();
        if cluster::is_ip(&route.server.host) {
            insert(&mut set, TypeUrl::ClusterLoadAssignment, name.clone(), &endpoint::load_assignment(route))?;
        }
        insert(&mut set, TypeUrl::Cluster, name, &cluster::cluster(route))?;
        insert_host(&mut set, route.host, route::route_host(route))?;
    }
    for secret in secret::secrets(input) {
        insert(&mut set, TypeUrl::Secret, secret.name.clone(), &secret)?;
    }
    Ok(set.build())
}

fn insert_host(set: &mut ResourceSetBuilder, host: &str, virtual_host: VirtualHost) -> Result<(), InvalidResource> {
    insert(set, TypeUrl::ScopedRouteConfiguration, host.to_owned(), &route::scope(host))?;
    insert(set, TypeUrl::RouteConfiguration, host.to_owned(), &route::of_host(host, virtual_host))
}

fn insert(set: &mut ResourceSetBuilder, kind: TypeUrl, name: String, message: &impl Message) -> Result<(), InvalidResource> {
    set.insert(kind, Resource::new(name, message))
}
