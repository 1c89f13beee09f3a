//! A load balancer and a forwarding proxy: a second Envoy, which knows nothing of kubepass.

use std::time::Duration;

use super::super::support::leash::{self, Process};
use super::super::support::ports::free_port;
use super::super::support::world::{PROD_HOST, PUBLIC_HOST, World};
use super::{BALANCER, PROXY};

pub(super) struct Hops {
    /// Ports of the balancer that sends the PROXY protocol version 1, of the one that sends version 2, and of the proxy.
    pub(super) v1: u16,
    pub(super) v2: u16,
    pub(super) proxy: u16,
    _envoy: Process,
}

impl Hops {
    /// `balanced` and `proxied`: ports of kubepass's Envoy.
    pub(super) fn start(world: &World, balanced: u16, proxied: u16) -> Self {
        let (v1, v2, proxy) = (free_port(), free_port(), free_port());
        let pair = world.authority.server(&[PROD_HOST, PUBLIC_HOST]);
        let cert = world.run.write("hops/tls.crt", &pair.cert);
        let key = world.run.write("hops/tls.key", &pair.key);
        let (cert, key) = (cert.display(), key.display());
        let ca = world.run.file("kubepass/ca.pem");
        let ca = ca.display();
        let balancer = |name: &str, port: u16, version: &str| {
            (
                format!(
                    "  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: {name}, cluster: {name}}}
"
                ),
                format!(
                    "  - name: {name}
    upstream_bind_config: {{source_address: {{address: {BALANCER}, port_value: 0}}}}
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {balanced}}}}}}}}}]}}]}}
    transport_socket:
      name: envoy.transport_sockets.upstream_proxy_protocol
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
        config: {{version: {version}}}
        transport_socket: {{name: envoy.transport_sockets.raw_buffer, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}
"
                ),
            )
        };
        let ((listener_1, cluster_1), (listener_2, cluster_2)) = (balancer("v1", v1, "V1"), balancer("v2", v2, "V2"));
        // Envoy by itself names the machine instead of a client on loopback, so the address of the connection is appended by hand.
        let text = format!(
            "static_resources:
  listeners:
{listener_1}{listener_2}  - name: proxy
    address: {{socket_address: {{address: 127.0.0.1, port_value: {proxy}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {{alpn_protocols: [h2, http/1.1], tls_certificates: [{{certificate_chain: {{filename: '{cert}'}}, private_key: {{filename: '{key}'}}}}]}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: proxy
          use_remote_address: true
          skip_xff_append: true
          upgrade_configs: [{{upgrade_type: websocket}}, {{upgrade_type: SPDY/3.1}}]
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: [{{match: {{prefix: /}}, route: {{cluster: proxied, timeout: 0s}}}}]
              request_headers_to_add: [{{header: {{key: x-forwarded-for, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}, append_action: APPEND_IF_EXISTS_OR_ADD}}]
  clusters:
{cluster_1}{cluster_2}  - name: proxied
    upstream_bind_config: {{source_address: {{address: {PROXY}, port_value: 0}}}}
    load_assignment: {{cluster_name: proxied, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {proxied}}}}}}}}}]}}]}}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {PROD_HOST}
        common_tls_context: {{alpn_protocols: [http/1.1], validation_context: {{trusted_ca: {{filename: '{ca}'}}, match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {PROD_HOST}}}}}]}}}}
"
        );
        let file = world.run.write("hops/envoy.yaml", text);
        let mut command = leash::command(world.tools().envoy());
        command.arg("--config-path").arg(file).args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "info"]);
        let mut envoy = world.run.start("hops", command);
        for port in [v1, v2, proxy] {
            envoy.until("the hops listen", Duration::from_secs(20), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        }
        Self { v1, v2, proxy, _envoy: envoy }
    }
}
