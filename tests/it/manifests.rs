//! What stands in `docker/` and `config/kubernetes/` beside what it is printed or made from, so that none can fall behind.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use kubepass::xds::bootstrap::{BootstrapInput, beside};

use crate::fixture::{self, compare_golden};

#[test]
fn the_manifests_hold_the_bootstrap_that_the_verb_prints() {
    let bootstrap = beside(&"gateway".parse().unwrap(), &BootstrapInput { socket_dir: "/run/kubepass/sockets" }).unwrap();
    compare_golden("config/kubernetes/base/envoy.yaml", &(bootstrap.trim_end().to_owned() + "\n"));
}

#[test]
fn the_overlays_configurations_are_valid() {
    for overlay in ["gateway", "sidecar"] {
        let path = format!("config/kubernetes/overlays/{overlay}/kubepass.yaml");
        let snapshot = fixture::snapshot_of(&path);
        let config = snapshot.config();
        // Where the manifests mount folders and open ports.
        assert_eq!(config.control_plane.socket_dir, Path::new("/run/kubepass/sockets"), "{path}");
        assert_eq!(config.admin.address.to_string(), "0.0.0.0:9902", "{path}");
        assert_eq!(config.admin.socket, Path::new("/run/kubepass-admin/own/admin.sock"), "{path}");
        assert_eq!(config.listeners[0].address.to_string(), "0.0.0.0:8443", "{path}");
    }
}

/// Both containers have one user, so what Envoy must not reach must not be in its folders.
#[test]
fn envoy_has_no_way_to_the_secrets_and_the_operator_s_socket() {
    let text = std::fs::read_to_string(fixture::root().join("config/kubernetes/base/deployment.yaml")).unwrap();
    let deployment: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let mounts = |container: &serde_json::Value| -> Vec<(String, String)> {
        let text = |mount: &serde_json::Value, key: &str| mount[key].as_str().unwrap().to_owned();
        container["volumeMounts"].as_array().unwrap().iter().map(|mount| (text(mount, "name"), text(mount, "mountPath"))).collect()
    };
    let own = mounts(&pod["initContainers"][0]);
    for name in ["admin", "secrets", "data", "config"] {
        assert!(own.iter().any(|(volume, _)| volume == name), "kubepass has {name}");
    }
    assert!(own.contains(&("admin".to_owned(), "/run/kubepass-admin".to_owned())));
    let envoy: Vec<String> = mounts(&pod["containers"][0]).into_iter().map(|(volume, _)| volume).collect();
    assert_eq!(envoy, ["sockets", "envoy"]);
}

#[test]
fn the_dockerfile_has_nothing_that_a_linter_minds() {
    let dockerfile = std::fs::read_to_string(fixture::root().join("docker/Dockerfile")).unwrap();
    let clean = lint(&dockerfile);
    assert!(clean.status.success(), "{}{}", String::from_utf8_lossy(&clean.stdout), String::from_utf8_lossy(&clean.stderr));
    for (from, to, code) in [
        (":nonroot AS base", " AS base", "DL3006"),
        ("ENTRYPOINT [\"/usr/local/bin/kubepass\"]", "ENTRYPOINT /usr/local/bin/kubepass", "DL3025"),
        ("USER 65532:65532", "USER root", "DL3002"),
        ("COPY src src", "ADD src src", "DL3020"),
    ] {
        let planted = dockerfile.replacen(from, to, 1);
        assert_ne!(planted, dockerfile, "{from} is not in the Dockerfile");
        let found = lint(&planted);
        assert!(String::from_utf8_lossy(&found.stdout).contains(code), "{to}: {}", String::from_utf8_lossy(&found.stdout));
    }
}

fn lint(dockerfile: &str) -> Output {
    let mut command = Command::new(fixture::root().join("tests/tools/hadolint"));
    command.args(["--no-color", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}
