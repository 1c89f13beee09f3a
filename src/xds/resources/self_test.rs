//! A whole static bootstrap out of the same builders, for the start-up self-test: the listener without TLS on a Unix socket, routes inline,
//! a Kubernetes route for each method and a plain HTTP route, every upstream the same recording server.

use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use envoy_types::pb::envoy::config::bootstrap::v3::{Admin, Bootstrap};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, Node};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
use envoy_types::util::pack_any;
use prost::Message;
use secrecy::SecretString;

use super::cluster::plain_cluster;
use super::connection_manager::Source;
use super::endpoint::assign;
use super::input::{Input, MethodInput, RouteInput};
use super::listener::{CHAIN, filter_chain, plain_listener};
use super::message::{pipe_address, seconds};
use super::names::{ACCESS_LOG_CLUSTER, EXT_AUTHZ_CLUSTER, WEB_CLUSTER};
use super::{route, secret};
use crate::config::ServerAddress;

/// The Kubernetes route that impersonates, and its host.
pub const ROUTE: &str = "self-test";
pub const HOST: &str = "self-test.invalid";
/// The Kubernetes route with tokens, and its host.
pub const JWT_ROUTE: &str = "self-test-jwt";
pub const JWT_HOST: &str = "self-test-jwt.invalid";
/// The plain HTTP route, with WebSockets; its host and its identity header.
pub const HTTP_ROUTE: &str = "self-test-http";
pub const HTTP_HOST: &str = "self-test-http.invalid";
pub const IDENTITY_HEADER: &str = "x-identity";
/// The host of the web pages.
pub const PUBLIC_HOST: &str = "public.invalid";
/// What the credential injector must send.
pub const TOKEN: &str = "self-test-service-account-token";
/// One extra key, of the oddest form that there is, and more groups than the filter's own slots.
pub const EXTRA_KEY: &str = "example.com%2freason";
pub const MAX_GROUPS: usize = 66;

/// Paths of the Unix sockets: Envoy makes the first two, the self-test the others.
#[derive(Debug, Clone, Copy)]
pub struct SelfTestSockets<'a> {
    pub listener: &'a str,
    pub admin: &'a str,
    pub ext_authz: &'a str,
    pub upstream: &'a str,
}

/// The encoded bootstrap (for a file whose name ends in `.pb`).
pub fn bootstrap(sockets: &SelfTestSockets<'_>) -> Vec<u8> {
    let server = ServerAddress { host: "127.0.0.1".to_owned(), port: 1, server_name: HOST.to_owned() };
    let token = SecretString::from(TOKEN);
    let impersonate = MethodInput::Impersonate { token: &token, max_groups: MAX_GROUPS, extra_keys: vec![EXTRA_KEY] };
    let route = |id: &str, host, method| RouteInput {
        id: id.to_owned(),
        host,
        pomerium_cli: true,
        server: &server,
        ca_pem: Some(""),
        method,
        max_stream_seconds: 60,
    };
    let http = MethodInput::Http { identity_header: IDENTITY_HEADER, websocket: true };
    let routes = vec![
        route(ROUTE, HOST, impersonate.clone()),
        route(JWT_ROUTE, JWT_HOST, MethodInput::Jwt),
        route(HTTP_ROUTE, HTTP_HOST, http.clone()),
    ];
    let routes = route::of_all_hosts(&Input { public_host: Some(PUBLIC_HOST), listeners: Vec::new(), routes });
    let chain = filter_chain(CHAIN, "self-test", Source::Peer, RouteSpecifier::RouteConfig(routes));
    let upstream = |id: &str, method: &MethodInput<'_>| {
        let cluster = plain_cluster(id, method, None);
        Cluster { load_assignment: Some(assign(&cluster.name, pipe_address(sockets.upstream))), ..cluster }
    };
    let resources = StaticResources {
        listeners: vec![plain_listener("self-test", pipe_address(sockets.listener), vec![chain])],
        clusters: vec![
            upstream(ROUTE, &impersonate),
            upstream(JWT_ROUTE, &MethodInput::Jwt),
            upstream(HTTP_ROUTE, &http),
            local_cluster(WEB_CLUSTER, sockets.upstream),
            http2(local_cluster(EXT_AUTHZ_CLUSTER, sockets.ext_authz)),
            http2(local_cluster(ACCESS_LOG_CLUSTER, sockets.ext_authz)),
        ],
        secrets: vec![secret::token(ROUTE, &token)],
    };
    Bootstrap {
        node: Some(Node { id: "kubepass-self-test".to_owned(), cluster: "kubepass".to_owned(), ..Default::default() }),
        static_resources: Some(resources),
        admin: Some(Admin { address: pipe_address(sockets.admin), ..Default::default() }),
        ..Default::default()
    }
    .encode_to_vec()
}

fn local_cluster(name: &str, path: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: seconds(1),
        load_assignment: Some(assign(name, pipe_address(path))),
        ..Default::default()
    }
}

fn http2(cluster: Cluster) -> Cluster {
    let explicit = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    Cluster { typed_extension_protocol_options: [(key, pack_any(options))].into(), ..cluster }
}
