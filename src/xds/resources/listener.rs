//! LDS: one listener for each configured address, with one filter chain, or two where proxies are trusted: theirs, on which `x-forwarded-for`
//! counts, and everybody else's, on which it does not. A chain names its certificates only by the names of their secrets; it changes when an
//! address, the number of its certificates or who may say where requests come from changes, and never otherwise.
//!
//! Who speaks for others is told by the address that really connected (a chain's `direct_source_prefix_ranges`), which no client can choose. Envoy
//! 1.40's filter for the PROXY protocol knows no addresses itself and would believe anyone: so where it stands, connections from elsewhere
//! find no chain and are closed.

use envoy_types::pb::envoy::config::core::v3::{Address, CidrRange};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
};
use envoy_types::util::pack_any;
use ipnet::IpNet;

use super::connection_manager::{Source, connection_manager, routes_by_ads};
use super::input::ListenerInput;
use super::message::{ads, cidr_range, enabled, number, seconds, socket_address, tcp_keepalive, transport_socket};
use super::names;
use crate::config;
use crate::defence::{Defence, off};

/// Per connection; more waits in the peer's window.
pub(super) const BUFFER_BYTES: u32 = 32 * 1024;

/// The filter chain of everybody, and that of trusted proxies.
pub(super) const CHAIN: &str = "https";
const CHAIN_OF_PROXIES: &str = "https-by-proxies";

pub(super) fn listener(input: &ListenerInput<'_>) -> Listener {
    let ListenerInput { name, configured } = input;
    let address = socket_address(&configured.address.ip().to_string(), configured.address.port());
    Listener {
        listener_filters: configured.sources.proxy_protocol.iter().map(|_| proxy_protocol()).chain([tls_inspector()]).collect(),
        tcp_keepalive: tcp_keepalive(),
        ..plain_listener(name, address, filter_chains(name, configured))
    }
}

fn filter_chains(listener: &str, configured: &config::Listener) -> Vec<FilterChain> {
    let config::Sources { proxy_protocol, trusted_proxies } = &configured.sources;
    let balancers = proxy_protocol.as_deref().filter(|_| !off(Defence::ProxyProtocolSource)).unwrap_or_default();
    let chain = |chain: &str, source: Source<'_>, behind: &[IpNet]| FilterChain {
        transport_socket: transport_socket(downstream_tls(listener, configured.certificates.len())),
        filter_chain_match: filter_chain_match(balancers, behind),
        ..filter_chain(chain, listener, source, routes_by_ads())
    };
    let mut chains = vec![chain(CHAIN, Source::Peer, &[])];
    if !trusted_proxies.is_empty() {
        chains.push(chain(CHAIN_OF_PROXIES, Source::ForwardedBy(trusted_proxies), trusted_proxies));
    }
    chains
}

/// `connected`: addresses that connect; `from`: addresses for which they do, which are the same without the PROXY protocol. None are all.
fn filter_chain_match(connected: &[IpNet], from: &[IpNet]) -> Option<FilterChainMatch> {
    let ranges = |networks: &[IpNet]| -> Vec<CidrRange> { networks.iter().copied().map(cidr_range).collect() };
    (!connected.is_empty() || !from.is_empty()).then(|| FilterChainMatch {
        direct_source_prefix_ranges: ranges(connected),
        source_prefix_ranges: ranges(from),
        ..Default::default()
    })
}

/// Both versions, without their further fields. A connection that does not begin with it is closed.
fn proxy_protocol() -> ListenerFilter {
    let filter = ProxyProtocol { allow_requests_without_proxy_protocol: false, ..Default::default() };
    ListenerFilter {
        name: "envoy.filters.listener.proxy_protocol".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack_any(filter))),
        ..Default::default()
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

/// `listener`: in the names of statistics.
pub(super) fn filter_chain(name: &str, listener: &str, source: Source<'_>, routes: RouteSpecifier) -> FilterChain {
    let manager = connection_manager(listener, source, routes);
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
    };
    FilterChain { name: name.to_owned(), filters: vec![filter], transport_socket_connect_timeout: seconds(10), ..Default::default() }
}

/// Without it Envoy does not know the server name when it chooses the routes.
fn tls_inspector() -> ListenerFilter {
    let config_type = Some(listener_filter::ConfigType::TypedConfig(pack_any(TlsInspector::default())));
    ListenerFilter { name: "envoy.filters.listener.tls_inspector".to_owned(), config_type, ..Default::default() }
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
