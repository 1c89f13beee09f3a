//! CDS: one cluster for each route. Where it has TLS, and an API server always has, the server's name and CA are verified. An API server's protocol
//! follows the client's (an HTTP/2 upstream cannot carry `exec`), and the limits are above what thousands of watches need.

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions as CommonOptions;
use envoy_types::pb::envoy::config::core::v3::{
    ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions, RoutingPriority, TransportSocket,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::util::pack_any;

use super::connection_manager::http2_keepalive;
use super::endpoint::load_assignment;
use super::input::{MethodInput, RouteInput};
use super::listener::BUFFER_BYTES;
use super::message::{ads, exactly, number, seconds, tcp_keepalive, transport_socket};
use super::{names, upstream_filters};
use crate::defence::{Defence, off};

/// Each watch holds a request open; Envoy's default of 1,024 would refuse the next one.
const MAX_OPEN: u32 = 100_000;
/// Requests of one connection to an API server. Before Envoy has read how many the server takes it would send any number, and the server
/// refuses those beyond: whoever asks for much at once would have the requests of others refused with theirs.
const MAX_STREAMS_UPSTREAM: u32 = 100;

pub(super) fn cluster(input: &RouteInput<'_>) -> Cluster {
    let tls = input.ca_pem.and_then(|_| upstream_tls(input));
    let cluster = Cluster { transport_socket: tls, ..plain_cluster(&input.id, &input.method, ads()) };
    if is_ip(&input.server.host) {
        return Cluster {
            cluster_discovery_type: discovery(DiscoveryType::Eds),
            eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), ..Default::default() }),
            ..cluster
        };
    }
    Cluster {
        cluster_discovery_type: discovery(DiscoveryType::StrictDns),
        dns_lookup_family: DnsLookupFamily::All.into(),
        load_assignment: Some(load_assignment(input)),
        ..cluster
    }
}

/// What every route's cluster has, without TLS and endpoints. `secrets`: where its token comes from; `None` takes it from the bootstrap.
pub(super) fn plain_cluster(route: &str, method: &MethodInput<'_>, secrets: Option<ConfigSource>) -> Cluster {
    let options = HttpProtocolOptions {
        // Less than the 90 s after which an API server closes, so that no request meets a connection that is just going.
        common_http_protocol_options: Some(CommonOptions { idle_timeout: seconds(60), ..Default::default() }),
        http_filters: upstream_filters::for_cluster(route, method, secrets),
        upstream_protocol_options: Some(match method {
            MethodInput::Impersonate { .. } | MethodInput::Jwt => UpstreamProtocolOptions::UseDownstreamProtocolConfig(as_downstream()),
            // Without TLS there is nothing to agree on a protocol by, and WebSockets are HTTP/1.1.
            MethodInput::Http { .. } => UpstreamProtocolOptions::ExplicitHttpConfig(http1()),
        }),
        ..Default::default()
    };
    Cluster {
        name: method.target(route),
        connect_timeout: seconds(5),
        per_connection_buffer_limit_bytes: number(BUFFER_BYTES),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![thresholds()], ..Default::default() }),
        upstream_connection_options: Some(UpstreamConnectionOptions { tcp_keepalive: tcp_keepalive(), ..Default::default() }),
        // Open streams outlive a change of endpoints.
        close_connections_on_host_health_failure: false,
        typed_extension_protocol_options: [("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack_any(options))].into(),
        ..Default::default()
    }
}

/// A server without endpoint discovery is reached by its name.
pub(super) fn is_ip(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok()
}

fn as_downstream() -> UseDownstreamHttpConfig {
    let http2 = Http2ProtocolOptions {
        max_concurrent_streams: number(MAX_STREAMS_UPSTREAM),
        connection_keepalive: Some(http2_keepalive()),
        ..Default::default()
    };
    UseDownstreamHttpConfig {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(http2),
        ..Default::default()
    }
}

fn http1() -> ExplicitHttpConfig {
    ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())) }
}

fn thresholds() -> Thresholds {
    Thresholds {
        priority: RoutingPriority::Default.into(),
        max_connections: number(MAX_OPEN),
        max_pending_requests: number(MAX_OPEN),
        max_requests: number(MAX_OPEN),
        ..Default::default()
    }
}

/// The certificate must chain to the route's CA and carry exactly the server's name: without the name, any certificate of that CA would do.
fn upstream_tls(input: &RouteInput<'_>) -> Option<TransportSocket> {
    let address = input.server.server_name.parse::<std::net::IpAddr>().ok();
    let by_ip = address.is_some();
    // As Envoy writes what it reads from a certificate.
    let server_name = address.map_or_else(|| input.server.server_name.to_ascii_lowercase(), |address| address.to_string());
    let san_type = if by_ip { SanType::IpAddress } else { SanType::Dns };
    let name = SubjectAltNameMatcher { san_type: san_type.into(), matcher: Some(exactly(&server_name)), ..Default::default() };
    let expected = if off(Defence::UpstreamName) { vec![] } else { vec![name] };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext { match_typed_subject_alt_names: expected, ..Default::default() }),
        validation_context_sds_secret_config: Some(SdsSecretConfig { name: names::ca_secret(&input.id), sds_config: ads() }),
        ..Default::default()
    };
    let common = CommonTlsContext {
        // Envoy's clients stop at TLS 1.2 unless told otherwise.
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv12.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..Default::default()
        }),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    };
    let sni = if by_ip { String::new() } else { server_name };
    transport_socket(UpstreamTlsContext { common_tls_context: Some(common), sni, ..Default::default() })
}

fn discovery(kind: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(kind.into()))
}
