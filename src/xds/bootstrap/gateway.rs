//! The bootstrap of an Envoy that reaches kubepass over TCP: that of the managed one with addresses instead of sockets, and with mutual TLS.

use std::net::IpAddr;

use super::{ADMIN_SOCKET, MANAGED, NODE, NodeName, quoted};

/// How such an Envoy reaches kubepass.
#[derive(Debug, Clone, Copy)]
pub struct GatewayInput<'a> {
    /// DNS name or IP address; with TLS, kubepass's certificate must carry it.
    pub host: &'a str,
    /// Of the services in the order of `SERVICES`.
    pub ports: [u16; 4],
    /// A folder of the Envoy's own, for its admin socket; without a slash at the end, as all folders here.
    pub run_dir: &'a str,
    /// `None`: plain TCP, on loopback.
    pub tls: Option<GatewayTls<'a>>,
}

/// The files of the node.
#[derive(Debug, Clone, Copy)]
pub struct GatewayTls<'a> {
    /// The folder of `tls.crt`, `tls.key` and `ca.crt`.
    pub dir: &'a str,
    /// The folder of `CERTIFICATE_FILE` and `CA_FILE`: then Envoy follows renewed certificates. Otherwise it reads them when it starts.
    pub followed_from: Option<&'a str>,
}

/// Files that name the node's certificates for an Envoy that follows them.
pub const CERTIFICATE_FILE: &str = "node-certificate.yaml";
pub const CA_FILE: &str = "control-plane-ca.yaml";

/// Sockets of the services as `MANAGED` names them, in the order of its clusters.
const SERVICES: [&str; 4] = ["xds", "ext_authz", "access_log", "web"];
const PIPE: &str = "{pipe: {path: \"/run/kubepass/";
/// Once in each cluster of `MANAGED`.
const CONNECT_TIMEOUT: &str = "    connect_timeout: 1s\n";

const ELSEWHERE: &str = "\
# An Envoy that reaches kubepass over the network: where the control plane is, and what it may use up. Listeners, routes, clusters, endpoints
# and secrets come from there: those of this node, which its certificate names. Start it so:
#   envoy --config-path FILE --disable-hot-restart --drain-time-s 28800 --drain-strategy gradual
# The long drain time lets open streams end by themselves when a change must touch a listener. Several Envoys may share the certificate and the
# name; each then says which one it is: --service-node NAME/ANYTHING
";

/// The bootstrap of `node`, as YAML.
pub fn gateway(node: &NodeName, input: &GatewayInput<'_>) -> String {
    let body = MANAGED.find("node:").and_then(|at| MANAGED.get(at..)).unwrap_or_default();
    let mut text = body.replacen(NODE, &format!("{{id: \"{node}\", cluster: kubepass}}"), 1);
    text = text.replacen(&quoted(&format!("/run/kubepass/{ADMIN_SOCKET}")), &quoted(&format!("{}/admin.sock", input.run_dir)), 1);
    for (service, port) in SERVICES.iter().zip(input.ports) {
        let address = format!("{{socket_address: {{address: {}, port_value: {port}}}}}", quoted(input.host));
        text = text.replacen(&format!("{PIPE}{service}.sock\"}}}}"), &address, 1);
    }
    let parts: Vec<&str> = text.split(CONNECT_TIMEOUT).collect();
    let connections = (0..).map(|index| connection(index, input));
    let mut whole = ELSEWHERE.to_owned();
    for (index, (part, connection)) in parts.iter().zip(connections).enumerate() {
        whole.push_str(part);
        if index + 1 < parts.len() {
            whole.push_str(&connection);
        }
    }
    whole
}

/// The two files for `GatewayTls::followed_from`, each with its name.
pub fn followed_files(tls: &GatewayTls<'_>) -> [(&'static str, String); 2] {
    let file = |name: &str| quoted(&format!("{}/{name}", tls.dir));
    let secret = |name: &str, body: &str| {
        format!(
            "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: {name}\n{body}    \
             watched_directory: {{path: {}}}\n",
            quoted(tls.dir)
        )
    };
    let certificate = format!(
        "  tls_certificate:\n    certificate_chain: {{filename: {}}}\n    private_key: {{filename: {}}}\n",
        file("tls.crt"),
        file("tls.key")
    );
    let ca = format!("  validation_context:\n    trusted_ca: {{filename: {}}}\n", file("ca.crt"));
    [(CERTIFICATE_FILE, secret("node-certificate", &certificate)), (CA_FILE, secret("control-plane-ca", &ca))]
}

/// How the cluster `index` of the bootstrap connects.
fn connection(index: usize, input: &GatewayInput<'_>) -> String {
    let kind = if is_address(input.host) { "STATIC" } else { "STRICT_DNS" };
    let mut text = format!("    connect_timeout: 5s\n    type: {kind}\n");
    text.push_str("    upstream_connection_options: {tcp_keepalive: {keepalive_probes: 3, keepalive_time: 30, keepalive_interval: 10}}\n");
    let Some(tls) = &input.tls else { return text };
    match (index, SERVICES.get(index)) {
        (0, _) => text.push_str(&format!("    transport_socket: &grpc_tls\n{}", transport_socket("h2", input.host, tls))),
        (_, Some(&"web")) => text.push_str(&format!("    transport_socket:\n{}", transport_socket("http/1.1", input.host, tls))),
        _ => text.push_str("    transport_socket: *grpc_tls\n"),
    }
    text
}

/// TLS 1.3 only; kubepass must show a certificate of that CA with exactly that name.
fn transport_socket(alpn: &str, host: &str, tls: &GatewayTls<'_>) -> String {
    let san_type = if is_address(host) { "IP_ADDRESS" } else { "DNS" };
    let sni = if is_address(host) { String::new() } else { format!("        sni: {}\n", quoted(host)) };
    let names = format!("match_typed_subject_alt_names: [{{san_type: {san_type}, matcher: {{exact: {}}}}}]", quoted(host));
    let file = |name: &str| quoted(&format!("{}/{name}", tls.dir));
    let certificates = match tls.followed_from {
        None => format!(
            "          tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]\n          \
             validation_context:\n            trusted_ca: {{filename: {}}}\n            {names}\n",
            file("tls.crt"),
            file("tls.key"),
            file("ca.crt")
        ),
        Some(folder) => {
            let source = |name: &str, file: &str| {
                let path = quoted(&format!("{folder}/{file}"));
                format!("{{name: {name}, sds_config: {{resource_api_version: V3, path_config_source: {{path: {path}}}}}}}")
            };
            format!(
                "          tls_certificate_sds_secret_configs: [{}]\n          combined_validation_context:\n            \
                 default_validation_context: {{{names}}}\n            validation_context_sds_secret_config: {}\n",
                source("node-certificate", CERTIFICATE_FILE),
                source("control-plane-ca", CA_FILE)
            )
        }
    };
    format!(
        "      name: envoy.transport_sockets.tls\n      typed_config:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n{sni}        \
         max_session_keys: 0\n        common_tls_context:\n          \
         tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}\n          \
         alpn_protocols: [{alpn}]\n{certificates}"
    )
}

fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use serde_json::Value;

    use super::*;

    const TLS: GatewayTls<'static> = GatewayTls { dir: "/etc/kubepass/node", followed_from: None };

    fn input(tls: Option<GatewayTls<'static>>) -> GatewayInput<'static> {
        GatewayInput { host: "kubepass.internal.example.com", ports: [18000, 18001, 18002, 18003], run_dir: "/run/kubepass-envoy", tls }
    }

    fn text(input: &GatewayInput<'_>) -> String {
        gateway(&"edge-1".parse().unwrap(), input)
    }

    fn parsed(input: &GatewayInput<'_>) -> Value {
        serde_yaml::from_str(&text(input)).unwrap()
    }

    #[test]
    fn the_text_for_people_is_the_one_that_envoy_gets() {
        assert_eq!(text(&input(Some(TLS))), include_str!("../../../envoy/gateway.yaml"));
    }

    #[test]
    fn nothing_of_the_machine_of_kubepass_is_left() {
        assert!(!text(&input(Some(TLS))).contains("/run/kubepass/") && !text(&input(Some(TLS))).contains("kubepass-managed"));
        let address = |cluster: &Value| {
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"].clone()
        };
        let clusters = parsed(&input(Some(TLS)))["static_resources"]["clusters"].as_array().unwrap().clone();
        let ports: Vec<_> = clusters
            .iter()
            .map(|cluster| (cluster["name"].as_str().unwrap().to_owned(), address(cluster)["port_value"].as_u64()))
            .collect();
        let expected = [("kubepass-xds", 18000), ("kubepass-ext-authz", 18001), ("kubepass-access-log", 18002), ("kubepass-web", 18003)];
        assert_eq!(ports, expected.map(|(name, port)| (name.to_owned(), Some(port))));
    }

    #[test]
    fn every_cluster_shows_the_certificate_and_demands_the_name() {
        let check = |host: &'static str, kind: &str, san_type: &str, sni: Value| {
            let bootstrap = parsed(&GatewayInput { host, ..input(Some(TLS)) });
            let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
            assert_eq!(clusters.len(), 4);
            for cluster in clusters {
                let tls = &cluster["transport_socket"]["typed_config"];
                let common = &tls["common_tls_context"];
                let alpn = if cluster["name"] == "kubepass-web" { "http/1.1" } else { "h2" };
                assert_eq!((&cluster["type"], &tls["sni"], &common["alpn_protocols"][0]), (&kind.into(), &sni, &alpn.into()), "{cluster}");
                assert_eq!(common["tls_params"]["tls_minimum_protocol_version"], "TLSv1_3");
                assert_eq!(common["tls_certificates"][0]["private_key"]["filename"], "/etc/kubepass/node/tls.key");
                let validation = &common["validation_context"];
                assert_eq!(validation["trusted_ca"]["filename"], "/etc/kubepass/node/ca.crt");
                let name = &validation["match_typed_subject_alt_names"][0];
                assert_eq!((&name["san_type"], &name["matcher"]["exact"]), (&san_type.into(), &host.into()));
            }
        };
        check("kubepass.internal.example.com", "STRICT_DNS", "DNS", "kubepass.internal.example.com".into());
        check("192.0.2.1", "STATIC", "IP_ADDRESS", Value::Null);
        check("2001:db8::1", "STATIC", "IP_ADDRESS", Value::Null);
    }

    #[test]
    fn one_that_follows_its_certificates_names_their_files() {
        let tls = GatewayTls { followed_from: Some("/etc/envoy"), ..TLS };
        let bootstrap = parsed(&input(Some(tls)));
        let common = &bootstrap["static_resources"]["clusters"][3]["transport_socket"]["typed_config"]["common_tls_context"];
        let path = |config: &Value| config["sds_config"]["path_config_source"]["path"].as_str().unwrap().to_owned();
        assert_eq!(path(&common["tls_certificate_sds_secret_configs"][0]), "/etc/envoy/node-certificate.yaml");
        let validation = &common["combined_validation_context"];
        assert_eq!(path(&validation["validation_context_sds_secret_config"]), "/etc/envoy/control-plane-ca.yaml");
        let name = &validation["default_validation_context"]["match_typed_subject_alt_names"][0];
        assert_eq!(name["matcher"]["exact"], "kubepass.internal.example.com");
        for (_, text) in followed_files(&tls) {
            let file: Value = serde_yaml::from_str(&text).unwrap();
            let secret = &file["resources"][0];
            let of = if secret["name"] == "node-certificate" { &secret["tls_certificate"] } else { &secret["validation_context"] };
            assert_eq!(of["watched_directory"]["path"], "/etc/kubepass/node", "{text}");
        }
    }

    #[test]
    fn over_plain_tcp_no_cluster_has_tls_and_all_else_is_the_same() {
        let mut plain = parsed(&GatewayInput { host: "127.0.0.1", ..input(None) });
        let mut with_tls = parsed(&GatewayInput { host: "127.0.0.1", ..input(Some(TLS)) });
        for bootstrap in [&mut plain, &mut with_tls] {
            for cluster in bootstrap["static_resources"]["clusters"].as_array_mut().unwrap() {
                cluster.as_object_mut().unwrap().remove("transport_socket");
            }
        }
        assert_eq!(plain, with_tls);
        assert!(!text(&input(None)).contains("transport_socket:"));
    }
}
