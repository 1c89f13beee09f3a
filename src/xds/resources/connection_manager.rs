//! The HTTP connection manager: what a client may say at all. Limits and their reasons: Envoy's "configuring as an edge proxy", with the
//! timeouts that long-lived Kubernetes streams need.

use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation, StripPortMode, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::fragment_builder::header_value_extractor::ExtractType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::fragment_builder::{
    self, HeaderValueExtractor,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::scope_key_builder::FragmentBuilder;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::{ConfigSpecifier, ScopeKeyBuilder};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, ScopedRds, ScopedRoutes};
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3::{XffConfig, XffTrustedCidrs};
use envoy_types::pb::google::protobuf::BoolValue;
use ipnet::IpNet;

use super::early_headers::early_header_mutation;
use super::http_filters::http_filters;
use super::message::{ads, cidr_range, enabled, extension, number, seconds};
use super::names::SCOPE;
use super::{access_log, local_reply};
use crate::defence::{Defence, off};
use crate::envoy_names::{MAX_HEADER_BYTES, MAX_HEADERS};

/// `exec`, `attach` and `port-forward` switch to one of these; nothing else may upgrade.
pub(super) const UPGRADES: [&str; 2] = [WEBSOCKET, "SPDY/3.1"];
/// Also a web page's.
pub(super) const WEBSOCKET: &str = "websocket";

/// Requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 100;
/// What a client may send on one stream, and on all of a connection, before somebody has taken it.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// For the headers of a request to be there whole.
const HEADERS_SECONDS: u64 = 10;
/// Of a connection without a request.
const IDLE_SECONDS: u64 = 3600;

/// What a connection manager takes for the address that a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// That of the connection. Nothing that a client says about itself counts.
    Peer,
    /// From the right of `x-forwarded-for` the first that is none of these proxies; each of them appends whoever came to it, and what stands left
    /// of that is a client's own word. For connections of these proxies only.
    ForwardedBy(&'a [IpNet]),
}

/// Where a connection manager's routes come from when it serves: each host has a route configuration of its own, chosen by the server name that
/// the connection was opened for. One for all hosts would be sent again, and built again by Envoy, for a change of any.
pub(super) fn routes_by_ads() -> RouteSpecifier {
    let extractor = HeaderValueExtractor { name: SCOPE.to_owned(), extract_type: Some(ExtractType::Index(0)), ..Default::default() };
    let fragment = FragmentBuilder { r#type: Some(fragment_builder::Type::HeaderValueExtractor(extractor)) };
    RouteSpecifier::ScopedRoutes(ScopedRoutes {
        name: "hosts".to_owned(),
        scope_key_builder: Some(ScopeKeyBuilder { fragments: vec![fragment] }),
        rds_config_source: ads(),
        config_specifier: Some(ConfigSpecifier::ScopedRds(ScopedRds { scoped_rds_config_source: ads(), ..Default::default() })),
    })
}

pub(super) fn connection_manager(stat_prefix: &str, source: Source<'_>, routes: RouteSpecifier) -> HttpConnectionManager {
    let forwarded_by = match source {
        Source::Peer => None,
        Source::ForwardedBy(proxies) => Some(proxies),
    };
    use PathWithEscapedSlashesAction::{KeepUnchanged, RejectRequest};
    let normalises = !off(Defence::PathNormalisation);
    let escaped_slashes = if normalises { RejectRequest } else { KeepUnchanged };
    HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: http_filters(forwarded_by.is_some()),
        early_header_mutation_extensions: vec![early_header_mutation(forwarded_by.is_some())],
        // Envoy takes one of the two only.
        use_remote_address: Some(BoolValue { value: forwarded_by.is_none() }),
        original_ip_detection_extensions: forwarded_by.map(by_forwarded_for).into_iter().collect(),
        xff_num_trusted_hops: 0,
        // Always our own, for it is also the audit id.
        generate_request_id: enabled(),
        preserve_external_request_id: false,
        always_set_request_id_in_response: true,
        // What ext_authz judges is what the API server gets.
        normalize_path: enabled().filter(|_| normalises),
        merge_slashes: normalises,
        path_with_escaped_slashes_action: escaped_slashes.into(),
        strip_port_mode: Some(StripPortMode::StripAnyHostPort(true)),
        strip_trailing_host_dot: true,
        common_http_protocol_options: Some(common_options()),
        http2_protocol_options: Some(http2_options()),
        max_request_headers_kb: number(MAX_HEADER_BYTES / 1024),
        request_headers_timeout: seconds(HEADERS_SECONDS),
        // A quiet `logs -f` or watch is not a dead one: keepalives tell.
        stream_idle_timeout: seconds(0),
        request_timeout: seconds(0),
        upgrade_configs: upgrades(),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        local_reply_config: Some(local_reply::local_reply()),
        access_log: vec![access_log::access_log()],
        access_log_options: Some(access_log::options()),
        ..Default::default()
    }
}

fn upgrades() -> Vec<UpgradeConfig> {
    let others: &[&str] = if off(Defence::UpgradeList) { &["TLS/1.0", "h2c", "HTTP/2.0"] } else { &[] };
    UPGRADES.iter().chain(others).map(|name| UpgradeConfig { upgrade_type: (*name).to_owned(), ..Default::default() }).collect()
}

/// Where the header is missing or cannot be read, the address of the proxy itself counts.
fn by_forwarded_for(proxies: &[IpNet]) -> TypedExtensionConfig {
    let cidrs = proxies.iter().copied().map(cidr_range).collect();
    let config = XffConfig { xff_trusted_cidrs: Some(XffTrustedCidrs { cidrs }), skip_xff_append: enabled(), ..Default::default() };
    extension("envoy.http.original_ip_detection.xff", config)
}

fn common_options() -> HttpProtocolOptions {
    use HeadersWithUnderscoresAction::{Allow, RejectRequest};
    let underscores = if off(Defence::UnderscoreRefusal) { Allow } else { RejectRequest };
    HttpProtocolOptions {
        idle_timeout: seconds(IDLE_SECONDS),
        max_headers_count: number(MAX_HEADERS),
        // `impersonate_user` means `Impersonate-User` to some servers.
        headers_with_underscores_action: underscores.into(),
        ..Default::default()
    }
}

fn http2_options() -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        max_concurrent_streams: number(MAX_STREAMS),
        initial_stream_window_size: number(STREAM_WINDOW_BYTES),
        initial_connection_window_size: number(CONNECTION_WINDOW_BYTES),
        connection_keepalive: Some(http2_keepalive()),
        ..Default::default()
    }
}

/// Pings a quiet HTTP/2 connection; the same towards clients and API servers.
pub(super) fn http2_keepalive() -> KeepaliveSettings {
    KeepaliveSettings { interval: seconds(30), timeout: seconds(10), ..Default::default() }
}
