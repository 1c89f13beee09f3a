//! What an Envoy is told when it starts. The texts for people in `envoy/` and those that Envoys get are the same.

mod gateway;

use std::fmt;
use std::str::FromStr;

pub use gateway::{CA_FILE, CERTIFICATE_FILE, GatewayInput, GatewayTls, followed_files, gateway};

/// What differs between two managed Envoys.
#[derive(Debug, Clone, Copy)]
pub struct BootstrapInput<'a> {
    /// The control plane's folder of sockets, without a slash at the end.
    pub socket_dir: &'a str,
}

/// Name of the managed Envoy's admin socket in the socket folder.
pub const ADMIN_SOCKET: &str = "envoy-admin.sock";

/// Minor versions of Envoy of which tests have shown that they treat headers as the identity path relies on: the one that all tests run with, and
/// those of `make test-matrix`.
pub const TESTED_ENVOYS: &[(u32, u32)] = &[(1, 40), (1, 39)];

/// Whether a version, such as `1.40.0`, is one of these.
pub fn is_tested(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return false };
    TESTED_ENVOYS.contains(&(major, minor))
}

const MANAGED: &str = include_str!("../../envoy/managed.yaml");
/// As `MANAGED` quotes it; nowhere else does this text occur.
const SOCKET_DIR: &str = "\"/run/kubepass/";
/// What `MANAGED` says of the Envoy itself, once each.
const NODE: &str = "{id: kubepass-managed, cluster: kubepass}";
/// Longest path of a Unix socket, in bytes: `sun_path` without its final NUL.
const MAX_SOCKET_PATH: usize = 107;

const BESIDE: &str = "\
# An Envoy beside kubepass that you run yourself: where the control plane is, and what it may use up. Listeners, routes, clusters, endpoints
# and secrets come from there. It needs the folder of sockets, and the user of kubepass: the folder is private, and peers are checked. Start it so:
#   envoy --config-path FILE --disable-hot-restart --drain-time-s 28800 --drain-strategy gradual
# The long drain time lets open streams end by themselves when a change must touch a listener.
";

/// The bootstrap of the Envoy that `kubepass-server up` runs, as YAML.
pub fn managed(input: &BootstrapInput<'_>) -> String {
    let quoted = quoted(input.socket_dir);
    let open = quoted.strip_suffix('"').unwrap_or(&quoted);
    MANAGED.replace(SOCKET_DIR, &format!("{open}/"))
}

/// The bootstrap of an Envoy that somebody else runs beside kubepass, as YAML. Several may share the folder of sockets.
///
/// # Errors
/// The path of its admin socket would be too long.
pub fn beside(node: &NodeName, input: &BootstrapInput<'_>) -> Result<String, SocketPathTooLong> {
    let admin_socket = format!("envoy-{node}-admin.sock");
    if input.socket_dir.len() + 1 + admin_socket.len() > MAX_SOCKET_PATH {
        return Err(SocketPathTooLong { path: format!("{}/{admin_socket}", input.socket_dir) });
    }
    let text = managed(input);
    let body = text.find("node:").and_then(|at| text.get(at..)).unwrap_or_default();
    let body = body.replacen(NODE, &format!("{{id: \"{node}\", cluster: kubepass}}"), 1);
    Ok(format!("{BESIDE}{}", body.replacen(ADMIN_SOCKET, &admin_socket, 1)))
}

/// A JSON string is a double-quoted YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The name by which an Envoy is told from others: lower-case letters, digits, `-` and `.`, 63 at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a node's name has 1 to 63 lower-case letters, digits, `-` and `.`, and begins and ends with a letter or a digit")]
pub struct InvalidNodeName;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is too long for a Unix socket, whose path has {MAX_SOCKET_PATH} bytes at most")]
pub struct SocketPathTooLong {
    path: String,
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, InvalidNodeName> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=63).contains(&text.len()) && text.chars().all(|c| is_plain(c) || c == '-' || c == '.');
        let ends = text.starts_with(is_plain) && text.ends_with(is_plain);
        if fits && ends { Ok(Self(text.to_owned())) } else { Err(InvalidNodeName) }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn parsed(socket_dir: &str) -> serde_json::Value {
        serde_yaml::from_str(&managed(&BootstrapInput { socket_dir })).unwrap()
    }

    fn paths(bootstrap: &serde_json::Value) -> Vec<String> {
        let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
        let of = |cluster: &serde_json::Value| {
            cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let admin = bootstrap["admin"]["address"]["pipe"]["path"].as_str().unwrap().to_owned();
        clusters.iter().map(of).chain([admin]).collect()
    }

    #[test]
    fn every_socket_lies_in_the_socket_folder() {
        for folder in ["/var/lib/kubepass", "/tmp/with \"quote\" and \\ and : #", "/tmp/\u{e9}"] {
            let wanted = ["xds.sock", "ext_authz.sock", "access_log.sock", "web.sock", ADMIN_SOCKET].map(|name| format!("{folder}/{name}"));
            assert_eq!(paths(&parsed(folder)), wanted);
        }
        assert!(!managed(&BootstrapInput { socket_dir: "/x" }).replace("for /run/kubepass.", "").contains("/run/kubepass"));
    }

    #[test]
    fn the_text_for_people_is_the_one_that_envoy_gets() {
        assert_eq!(managed(&BootstrapInput { socket_dir: "/run/kubepass" }), MANAGED);
    }

    #[test]
    fn the_admin_interface_is_a_private_socket_and_runtime_cannot_change() {
        let bootstrap = parsed("/x");
        assert_eq!(bootstrap["admin"]["address"]["pipe"]["mode"], 0o600);
        assert_eq!(bootstrap["layered_runtime"]["layers"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_envoy_that_missed_kubepass_for_long_asks_again_within_seconds() {
        for text in [MANAGED, include_str!("../../envoy/sidecar.yaml"), include_str!("../../envoy/gateway.yaml")] {
            let bootstrap: serde_json::Value = serde_yaml::from_str(text).unwrap();
            let service = &bootstrap["dynamic_resources"]["ads_config"]["grpc_services"][0]["envoy_grpc"];
            assert_eq!(service["retry_policy"]["retry_back_off"], serde_json::json!({"base_interval": "0.5s", "max_interval": "3s"}));
        }
    }

    #[test]
    fn an_envoy_of_ones_own_differs_by_its_name_and_its_admin_socket_alone() {
        let input = BootstrapInput { socket_dir: "/run/kubepass" };
        let text = beside(&"sidecar".parse().unwrap(), &input).unwrap();
        assert_eq!(text, include_str!("../../envoy/sidecar.yaml"));
        let mut own: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(own["node"]["id"], "sidecar");
        assert_eq!(own["admin"]["address"]["pipe"]["path"], "/run/kubepass/envoy-sidecar-admin.sock");
        let managed = parsed("/run/kubepass");
        own["node"]["id"] = managed["node"]["id"].clone();
        own["admin"]["address"]["pipe"]["path"] = managed["admin"]["address"]["pipe"]["path"].clone();
        assert_eq!(own, managed);
    }

    #[test]
    fn names_of_nodes_are_plain() {
        for good in ["a", "edge-1", "1.edge", &"x".repeat(63)] {
            assert_eq!(good.parse(), Ok(NodeName(good.to_owned())));
        }
        for bad in ["", "-a", "a-", "A", "a b", "a\"b", "a/b", "..", "\u{e9}", &"x".repeat(64)] {
            assert_eq!(bad.parse::<NodeName>(), Err(InvalidNodeName), "{bad:?}");
        }
    }

    #[test]
    fn an_admin_socket_that_cannot_be_bound_is_refused() {
        let node: NodeName = "x".repeat(63).parse().unwrap();
        let of = |length: usize| beside(&node, &BootstrapInput { socket_dir: &format!("/{}", "d".repeat(length - 1)) });
        assert!(of(26).is_ok());
        assert!(of(27).unwrap_err().to_string().contains("is too long for a Unix socket"));
    }
}
