//! What an Envoy is told when it starts. The text for people in `envoy/` and the one that a managed Envoy gets are the same.

/// What differs between two managed Envoys.
#[derive(Debug, Clone, Copy)]
pub struct BootstrapInput<'a> {
    /// The control plane's folder of sockets, without a slash at the end.
    pub socket_dir: &'a str,
}

/// Name of Envoy's admin socket in the socket folder.
pub const ADMIN_SOCKET: &str = "envoy-admin.sock";

const MANAGED: &str = include_str!("../../envoy/managed.yaml");
/// As `MANAGED` quotes it; nowhere else does this text occur.
const SOCKET_DIR: &str = "\"/run/kubepass/";

/// The bootstrap of the Envoy that `kubepass-server up` runs, as YAML.
pub fn managed(input: &BootstrapInput<'_>) -> String {
    // A JSON string is a double-quoted YAML string.
    let quoted = serde_json::Value::from(input.socket_dir).to_string();
    let open = quoted.strip_suffix('"').unwrap_or(&quoted);
    MANAGED.replace(SOCKET_DIR, &format!("{open}/"))
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
}
