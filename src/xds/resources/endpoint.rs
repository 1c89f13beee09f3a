//! EDS: the address of each server that is given as an IP address. Servers given by name resolve in Envoy.

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};

use super::input::RouteInput;
use super::message::socket_address;

pub(super) fn load_assignment(input: &RouteInput<'_>) -> ClusterLoadAssignment {
    assign(&input.target(), socket_address(&input.server.host, input.server.port))
}

pub(super) fn assign(cluster: &str, address: Option<Address>) -> ClusterLoadAssignment {
    let endpoint = lb_endpoint::HostIdentifier::Endpoint(Endpoint { address, ..Default::default() });
    let endpoint = LbEndpoint { host_identifier: Some(endpoint), ..Default::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    ClusterLoadAssignment { cluster_name: cluster.to_owned(), endpoints: vec![locality], ..Default::default() }
}
