//! LDS: one listener with one filter chain for each configured address. The chain names its certificates only by the names of their
//! secrets; it changes when an address or the number of its certificates changes, and never otherwise.

use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
};
use envoy_types::util::pack_any;

use super::connection_manager::{connection_manager, routes_by_ads};
use super::message::{ads, enabled, number, seconds, socket_address, tcp_keepalive, transport_socket};
use super::names;
use crate::config;

/// Per connection; more waits in the peer's window.
pub(super) const BUFFER_BYTES: u32 = 32 * 1024;

pub(super) fn listener(index: usize, configured: &config::Listener) -> Listener {
    let name = names::listener(index);
    let address = socket_address(&configured.address.ip().to_string(), configured.address.port());
    let tls = downstream_tls(&name, configured.certificates.len());
    Listener {
        filter_chains: vec![FilterChain { transport_socket: transport_socket(tls), ..filter_chain(&name, routes_by_ads()) }],
        tcp_keepalive: tcp_keepalive(),
        ..plain_listener(&name, address, Vec::new())
    }
}

/// What every listener has, without TLS: the header self-test puts its chain on a Unix socket.
pub(super) fn plain_listener(name: &str, address: Option<Address>, filter_chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.to_owned(),
        address,
        filter_chains,
        per_connection_buffer_limit_bytes: number(BUFFER_BYTES),
        ..Default::default()
    }
}

pub(super) fn filter_chain(name: &str, routes: RouteSpecifier) -> FilterChain {
    let manager = connection_manager(name, routes);
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
    };
    FilterChain { name: "https".to_owned(), filters: vec![filter], transport_socket_connect_timeout: seconds(10), ..Default::default() }
}

/// Envoy chooses the certificate by SNI among those that it got by SDS.
fn downstream_tls(listener: &str, certificates: usize) -> DownstreamTlsContext {
    let secret = |index| SdsSecretConfig { name: names::serving_secret(listener, index), sds_config: ads() };
    let common = CommonTlsContext {
        tls_params: Some(TlsParameters { tls_minimum_protocol_version: TlsProtocol::TlSv12.into(), ..Default::default() }),
        tls_certificate_sds_secret_configs: (0..certificates).map(secret).collect(),
        alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        ..Default::default()
    };
    // Without SNI there is nothing to compare the request's host with.
    DownstreamTlsContext { common_tls_context: Some(common), require_sni: enabled(), ..Default::default() }
}
