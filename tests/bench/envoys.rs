//! The floors: an Envoy as one would write it by hand, with the same TLS, the same headers and the same upstream as kubepass's.
//!
//! `envoy_floor` writes identity and token statically. `ext_authz_floor` asks a server that always allows, and has the guard and the
//! credential injector before the API server that kubepass has: what any ext_authz product on this Envoy takes at least.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::always_allow;
use super::paths;
use super::support::cluster::Cluster;
use super::support::leash::{self, Process};
use super::support::pki::Pair;
use super::support::ports::free_port;
use super::support::run::Run;
use super::support::tools::Tools;

/// The host name that the floors are reached by.
pub(super) const HOST: &str = "floor.k8s.localhost";

const START: Duration = Duration::from_secs(30);
const TYPE: &str = "type.googleapis.com/envoy";

/// A running Envoy, and the ext_authz server that it asks.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) port: u16,
    /// Of its admin interface.
    pub(super) admin: PathBuf,
    pub(super) envoy: Process,
    pub(super) authz: Option<Process>,
}

/// What a floor leads to, and how.
pub(super) struct FloorInput<'a> {
    pub(super) tools: &'a Tools,
    pub(super) run: &'a Run,
    pub(super) cluster: &'a Cluster,
    /// Serves [`HOST`].
    pub(super) certificate: &'a Pair,
    /// The service account's token.
    pub(super) token: &'a str,
}

impl Floor {
    /// Identity and token written by Envoy itself.
    pub(super) fn plain(input: &FloorInput<'_>) -> Self {
        Self::start(input, "envoy-floor", None)
    }

    /// The same behind an ext_authz that always allows.
    pub(super) fn with_ext_authz(input: &FloorInput<'_>) -> Self {
        let socket = input.run.file("always-allow.sock");
        let mut command = leash::command(std::env::current_exe().expect("this program"));
        command.arg(always_allow::VERB).arg(&socket);
        let mut authz = input.run.start("always-allow", command);
        authz.until("the always-allow server listens", START, || socket.exists().then_some(()));
        let floor = Self::start(input, "ext-authz-floor", Some(&socket));
        Self { authz: Some(authz), ..floor }
    }

    fn start(input: &FloorInput<'_>, name: &str, ext_authz: Option<&PathBuf>) -> Self {
        let (port, admin) = (free_port(), input.run.file(&format!("{name}.sock")));
        let mut bootstrap = bootstrap(input, port, ext_authz.map(PathBuf::as_path));
        bootstrap["admin"] = json!({"address": {"pipe": {"path": admin}}});
        let config = input.run.write(&format!("{name}.json"), bootstrap.to_string());
        let mut command = leash::command(input.tools.envoy());
        command.arg("--config-path").arg(config).args(["--disable-hot-restart", "--log-level", "warning"]);
        let mut envoy = input.run.start(name, command);
        envoy.until("it listens", START, || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        Self { port, admin, envoy, authz: None }
    }
}

fn bootstrap(input: &FloorInput<'_>, port: u16, ext_authz: Option<&Path>) -> Value {
    let mut clusters = vec![kubernetes(input, ext_authz.is_some())];
    clusters.extend(ext_authz.map(ext_authz_cluster));
    json!({
        "static_resources": {
            "listeners": [listener(input, port, ext_authz.is_some())],
            "clusters": clusters,
            "secrets": [{"name": "token", "generic_secret": {"secret": {"inline_string": input.token}}}],
        },
    })
}

fn listener(input: &FloorInput<'_>, port: u16, ext_authz: bool) -> Value {
    let tls = json!({
        "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{
                "certificate_chain": {"inline_string": input.certificate.cert}, "private_key": {"inline_string": input.certificate.key},
            }],
        },
    });
    let mut filters = Vec::new();
    if ext_authz {
        filters.push(json!({"name": "envoy.filters.http.ext_authz", "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.http.ext_authz.v3.ExtAuthz"),
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "ext_authz"}, "timeout": "1s"},
            "encode_raw_headers": true,
            "include_tls_session": true,
        }}));
    }
    filters.push(
        json!({"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.router.v3.Router")}}),
    );
    let manager = json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "floor",
        "route_config": {"virtual_hosts": [{"name": "floor", "domains": [HOST, format!("{HOST}:*")], "routes": [route(input, ext_authz)]}]},
        "http_filters": filters,
        // What `exec` and quiet watches need, and lists of requests do not notice.
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
    });
    json!({
        "name": "floor",
        "address": address(port),
        "filter_chains": [{
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        }],
    })
}

/// The identity is the same static one on both floors; the token is written by the injector where there is one.
fn route(input: &FloorInput<'_>, injected: bool) -> Value {
    let header = |name: &str, value: &str, action: &str| json!({"header": {"key": name, "value": value}, "append_action": action});
    let mut added: Vec<Value> =
        paths::impersonation_headers().iter().map(|(name, value)| header(name, value, "APPEND_IF_EXISTS_OR_ADD")).collect();
    if !injected {
        added.push(header("authorization", &format!("Bearer {}", input.token), "OVERWRITE_IF_EXISTS_OR_ADD"));
    }
    json!({"match": {"prefix": "/"}, "route": {"cluster": "kubernetes", "timeout": "0s"}, "request_headers_to_add": added})
}

fn kubernetes(input: &FloorInput<'_>, guarded: bool) -> Value {
    let tls = json!({
        "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {
                "trusted_ca": {"inline_string": input.cluster.ca_pem()},
                "match_typed_subject_alt_names": [{"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}],
            },
        },
    });
    let mut options = json!({
        "@type": format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"),
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    });
    if guarded {
        options["http_filters"] = json!([
            {"name": "envoy.filters.http.rbac", "typed_config": guard()},
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector()},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.upstream_codec.v3.UpstreamCodec")}},
        ]);
    }
    json!({
        "name": "kubernetes",
        "connect_timeout": "5s",
        // Each open watch is a request.
        "circuit_breakers": {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]},
        "load_assignment": {
            "cluster_name": "kubernetes",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(input.cluster.port())}}]}],
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    })
}

fn guard() -> Value {
    let granted = json!({"sourced_metadata": {"metadata_source": "DYNAMIC", "metadata_matcher": {
        "filter": "envoy.filters.http.ext_authz", "path": [{"key": "grant"}], "value": {"string_match": {"exact": always_allow::GRANT}},
    }}});
    let has_user = json!({"header": {"name": "impersonate-user", "string_match": {"safe_regex": {"regex": r"\S(.*\S)?"}}}});
    json!({
        "@type": format!("{TYPE}.extensions.filters.http.rbac.v3.RBAC"),
        "rules": {"action": "ALLOW", "policies": {"granted": {
            "permissions": [{"and_rules": {"rules": [granted, has_user]}}], "principals": [{"any": true}],
        }}},
    })
}

fn injector() -> Value {
    json!({
        "@type": format!("{TYPE}.extensions.filters.http.credential_injector.v3.CredentialInjector"),
        "overwrite": true,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": {
            "@type": format!("{TYPE}.extensions.http.injected_credentials.generic.v3.Generic"),
            "credential": {"name": "token"}, "header": "authorization", "header_value_prefix": "Bearer ",
        }},
    })
}

fn ext_authz_cluster(socket: &Path) -> Value {
    let options = json!({
        "@type": format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    json!({
        "name": "ext_authz",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "ext_authz",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
