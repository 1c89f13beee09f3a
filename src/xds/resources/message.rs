//! Short forms for the wrappers of Envoy's messages. Knows no product meaning.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::{HeaderMutation, header_mutation};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, DataSource, GrpcService, HeaderValue, HeaderValueOption, Pipe,
    SocketAddress, TcpKeepalive, TransportSocket, TypedExtensionConfig, address, config_source, data_source, grpc_service, socket_address,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use envoy_types::util::pack_any;
use ipnet::IpNet;
use prost::{Message, Name};

pub(super) fn enabled() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 })
}

pub(super) fn milliseconds(milliseconds: u32) -> Option<Duration> {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    Some(Duration { seconds: seconds.into(), nanos: i32::try_from(rest).unwrap_or(0) * 1_000_000 })
}

pub(super) fn packed<M: Name + Message>(message: M) -> Option<Any> {
    Some(pack_any(message))
}

pub(super) fn extension<M: Name + Message>(name: &str, message: M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: packed(message) }
}

pub(super) fn transport_socket<M: Name + Message>(message: M) -> Option<TransportSocket> {
    let config_type = envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(pack_any(message));
    Some(TransportSocket { name: "envoy.transport_sockets.tls".to_owned(), config_type: Some(config_type) })
}

pub(super) fn http_filter<M: Name + Message>(name: &str, message: M) -> HttpFilter {
    HttpFilter { name: name.to_owned(), config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(message))), ..Default::default() }
}

/// The stream that brought the resource is also the source of what it names.
pub(super) fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    })
}

pub(super) fn inline_text(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(data_source::Specifier::InlineString(text.to_owned())), ..Default::default() })
}

pub(super) fn grpc_service(cluster: &str, timeout: Option<Duration>) -> Option<GrpcService> {
    let target = grpc_service::EnvoyGrpc { cluster_name: cluster.to_owned(), ..Default::default() };
    Some(GrpcService { timeout, target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)), ..Default::default() })
}

pub(super) fn socket_address(host: &str, port: u16) -> Option<Address> {
    let socket = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
        // `[::]` means every address, as in other servers.
        ipv4_compat: host == "::",
        ..Default::default()
    };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

pub(super) fn cidr_range(network: IpNet) -> CidrRange {
    CidrRange { address_prefix: network.network().to_string(), prefix_len: number(network.prefix_len().into()) }
}

pub(super) fn pipe_address(path: &str) -> Option<Address> {
    Some(Address { address: Some(address::Address::Pipe(Pipe { path: path.to_owned(), mode: 0 })) })
}

/// Finds a dead peer in about a minute, also where HTTP/1.1 has no ping.
pub(super) fn tcp_keepalive() -> Option<TcpKeepalive> {
    Some(TcpKeepalive { keepalive_probes: number(3), keepalive_time: number(30), keepalive_interval: number(10) })
}

pub(super) fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), engine_type: None }
}

pub(super) fn exactly(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(string_matcher::MatchPattern::Exact(text.to_owned())), ignore_case: false }
}

pub(super) fn prefix(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(string_matcher::MatchPattern::Prefix(text.to_owned())), ignore_case: false }
}

pub(super) fn remove_header(name: &str) -> HeaderMutation {
    HeaderMutation { action: Some(header_mutation::Action::Remove(name.to_owned())) }
}

/// Removes every header whose name begins so, in any case.
pub(super) fn remove_headers_with_prefix(text: &str) -> HeaderMutation {
    remove_headers(StringMatcher { ignore_case: true, ..prefix(text) })
}

/// Removes a header under every name that servers which make variables of names (CGI, PHP, WSGI) could take for this one: `x.user` is `X_USER` to
/// some, as `x-user` is. Underscores are refused anyway. `name`: lower case, letters, digits and `-`.
pub(super) fn remove_spellings(name: &str) -> HeaderMutation {
    remove_headers_matching(&name.replace('-', "[^a-z0-9]"))
}

/// Removes every header whose whole name, in lower case, a regular expression matches.
pub(super) fn remove_headers_matching(pattern: &str) -> HeaderMutation {
    let matching = string_matcher::MatchPattern::SafeRegex(regex(pattern));
    remove_headers(StringMatcher { match_pattern: Some(matching), ignore_case: false })
}

fn remove_headers(names: StringMatcher) -> HeaderMutation {
    let matched = header_mutation::RemoveOnMatch { key_matcher: Some(names) };
    HeaderMutation { action: Some(header_mutation::Action::RemoveOnMatch(matched)) }
}

/// Writes a header from a format string; where that gives nothing, no header.
pub(super) fn write_header(name: &str, format: &str, action: HeaderAppendAction) -> HeaderMutation {
    let header = HeaderValue { key: name.to_owned(), value: format.to_owned(), ..Default::default() };
    let option = HeaderValueOption { header: Some(header), append_action: action.into(), ..Default::default() };
    HeaderMutation { action: Some(header_mutation::Action::Append(option)) }
}
