//! What kubepass tells Envoy for every example configuration: golden files for people to read, and the pinned Envoy to accept them.
//! `UPDATE_GOLDEN=1 cargo test --test it envoy_resources` rewrites them.

mod dump;
mod readable;
mod static_bootstrap;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use kubepass::operator::bootstrap::{Options, run};
use kubepass::operator::xds::diff_text;
use kubepass::server::managed_envoy::{SelfTestFailure, self_test};
use kubepass::snapshot::Snapshot;
use kubepass::xds::bootstrap::{BootstrapInput, TESTED_ENVOYS, managed};
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::{build, build_for};

use self::static_bootstrap::all;
use crate::fixture;
use crate::support::tools::Tools;

#[test]
fn the_resources_of_every_example_are_the_golden_ones() {
    let mut golden = fixture::Golden::default();
    for example in examples() {
        let got = shown(&example);
        assert!(!got.contains("test-only-content") && !got.contains("PRIVATE KEY"), "{example} shows a secret");
        let name = Path::new(&example).file_name().unwrap();
        golden.compare(&fixture::root().join("tests/it/golden/envoy").join(name), &got);
    }
    golden.assert();
}

#[test]
fn ext_authz_is_disabled_nowhere() {
    for example in examples() {
        let text = shown(&example);
        assert!(!text.contains("disabled"), "{example}");
        assert!(text.contains("context_extensions: {target: \"web\"}") && text.contains("context_extensions: {target: \"kubernetes:"));
    }
}

#[test]
fn the_pinned_envoy_accepts_the_resources_of_every_example() {
    for example in examples() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bootstrap.pb");
        for (node, set) in sets(&example) {
            std::fs::write(&file, static_bootstrap::bootstrap(&set)).unwrap();
            validate(&file, &format!("{example} {node}"));
        }
    }
}

#[test]
fn the_pinned_envoy_accepts_the_bootstrap() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.yaml");
    std::fs::write(&file, managed(&BootstrapInput { socket_dir: folder.path().to_str().unwrap() })).unwrap();
    validate(&file, "envoy/managed.yaml");
}

#[test]
fn the_pinned_envoy_accepts_what_the_verb_prints() {
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("bootstrap.yaml"), folder.path().join("kubepass.yaml"));
    // Only this part must be right: the rest may not be there yet.
    std::fs::write(&config, format!("control_plane: {{socket_dir: {}/run}}\nroutes: [{{nmae: x}}]", folder.path().display())).unwrap();
    let options = |node: &str, socket_dir: Option<PathBuf>| Options {
        node: node.parse().unwrap(),
        socket_dir,
        host: None,
        tls_dir: folder.path().to_owned(),
        run_dir: folder.path().to_owned(),
        write: None,
    };
    let text = run(&config, &options("edge-1", None)).unwrap();
    assert!(text.contains(&format!("\"{}/run/envoy-edge-1-admin.sock\"", folder.path().display())), "{text}");
    assert_eq!(text, run(Path::new("/nowhere"), &options("edge-1", Some(folder.path().join("run/")))).unwrap());
    std::fs::write(&file, text).unwrap();
    validate(&file, "what `kubepass-server bootstrap` prints");
    let error = run(Path::new("/nowhere"), &options("edge-1", None)).unwrap_err();
    assert!(error.contains("--socket-dir"), "{error}");
    // Of the example nothing but the file itself is there.
    let gateways = fixture::root().join("config/gateways.yaml");
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::write(folder.path().join(name), fixture::fixed(name)).unwrap();
    }
    for node in ["edge-1", "staging-sidecar"] {
        std::fs::write(&file, run(&gateways, &options(node, None)).unwrap()).unwrap();
        validate(&file, node);
    }
    let written = run(&gateways, &Options { write: Some(folder.path().to_owned()), ..options("edge-2", None) }).unwrap();
    assert_eq!(written.lines().count(), 3, "{written}");
    assert!(std::fs::read_to_string(&file).unwrap().contains("path_config_source"));
    validate(&file, "a bootstrap that follows its certificates");
    let error = run(&gateways, &options("edge-9", None)).unwrap_err();
    assert!(error.contains("there are: edge-1, edge-2, staging-sidecar"), "{error}");
    // Plain TCP, and a node for which there are no addresses.
    let text = "control_plane: {socket_dir: /s, xds: {address: '127.0.0.1:1'}, ext_authz: {address: '127.0.0.1:2'}, access_log: {address: '127.0.0.1:3'}, \
                web: {address: '127.0.0.1:4'}, insecure_loopback: true}\nnodes: [{name: dev, identity: {insecure_loopback: true}}, \
                {name: far, identity: {dns: far.example.com}}, {name: near, identity: {uid: 7}}]";
    std::fs::write(&config, text).unwrap();
    let dev = run(&config, &options("dev", None)).unwrap();
    assert!(dev.contains("{address: \"127.0.0.1\", port_value: 2}") && !dev.contains("transport_socket"), "{dev}");
    std::fs::write(&file, dev).unwrap();
    validate(&file, "plain TCP on loopback");
    assert!(run(&config, &options("far", None)).unwrap_err().contains("no addresses with `tls`"));
    assert!(run(&config, &options("near", None)).unwrap().contains("/s/envoy-near-admin.sock"));
}

#[test]
fn the_difference_of_two_configurations_tells_what_drains() {
    let check = |change: &dyn Fn(String) -> String, expected: &[&str], end: &str| {
        let path = "config/two-clusters.yaml";
        let text = change(std::fs::read_to_string(fixture::root().join(path)).unwrap());
        let config = fixture::load(&text, path, &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"));
        let after = build(&Snapshot::new(Arc::new(config), "0123456789abcdef")).unwrap();
        let said = diff_text(&resources(path), &after);
        let lines: Vec<&str> = said.lines().collect();
        for line in expected {
            assert!(lines.iter().any(|said| said.starts_with(line)), "{line:?} is not said:\n{said}");
        }
        assert!(said.ends_with(end), "{said}");
        assert!(!said.contains("test-only-content") && !said.contains("PRIVATE KEY"), "{said}");
    };
    check(&|text| text, &[], "no Envoy would be told anything");
    check(&|text| text.replace("[::]:443", "[::]:8443"), &["~ lds  listener-0"], "Open connections DRAIN on: listener-0 (all of it)");
    check(
        &|text| text.replace("name: staging", "name: other"),
        &[
            "+ cds  kubernetes:other@",
            "- cds  kubernetes:staging@",
            "~ rds  staging.k8s.example.com",
            "+ sds  token:other@",
            "- sds  token:staging@",
        ],
        "no open connection drains.",
    );
}

/// The version that the tests run is one of those that are said to be tested.
#[test]
fn the_pinned_envoy_is_among_the_tested_ones() {
    let output = Command::new(Tools::ensure().envoy()).arg("--version").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(TESTED_ENVOYS.iter().any(|(major, minor)| said.contains(&format!("/{major}.{minor}."))), "{said}");
}

#[tokio::test]
async fn the_pinned_envoy_treats_headers_as_we_rely_on() {
    self_test(&Tools::ensure().envoy()).await.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Each plant changes the encoded bootstrap on its way to Envoy (in place, so that it stays well formed), as if Envoy behaved otherwise.
#[tokio::test]
async fn an_envoy_that_differs_is_refused_and_the_difference_named() {
    let plants = [
        (r"s/\\S(\.\*\\S)?/.*.*.*.*./", "an allowed request with a blank user is stopped"),
        ("s/Bearer /Bearer_/", "the service account's token replaces"),
        ("s/ext_authz:g64)/ext_authz:g63)/", "every client-sent impersonate-* line"),
        ("s/x-envoy-upstream-stream-duration-ms|/impersonate-user|x-envoy-[a-z-]+.*$|/", "sets a header which it may not set"),
        ("s/%REQ(x-kubepass-authorization)%/%REQ(x-kubepass-authorizatiom)%/", "on a route with tokens the user's token"),
        ("s/self-test.invalid/self-text.invalid/", "a path is normalised before"),
    ];
    for (plant, semantic) in plants {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("envoy");
        let envoy = Tools::ensure().envoy();
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\nLC_ALL=C sed -e '{plant}' \"$last\" >\"$last.planted.pb\"\n\
             exec {} --disable-hot-restart --concurrency 1 --log-level error -c \"$last.planted.pb\"\n",
            envoy.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let failure = self_test(&program).await.expect_err(plant);
        assert!(matches!(failure, SelfTestFailure::Differs(_)) && failure.to_string().contains(semantic), "{plant}: {failure}");
    }
}

#[tokio::test]
async fn what_is_no_envoy_is_refused_with_its_words() {
    let failure = self_test(Path::new("/bin/false")).await.unwrap_err();
    assert!(matches!(failure, SelfTestFailure::Start { .. }), "{failure}");
    let failure = self_test(Path::new("/nonexistent/envoy")).await.unwrap_err();
    assert!(failure.to_string().contains("/nonexistent/envoy"), "{failure}");
}

fn examples() -> Vec<String> {
    let entries = std::fs::read_dir(fixture::root().join("config")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    files.sort();
    assert!(files.len() >= 3, "the examples are gone");
    files.iter().map(|path| path.strip_prefix(fixture::root()).unwrap().to_str().unwrap().to_owned()).collect()
}

fn resources(example: &str) -> ResourceSet {
    build(&fixture::snapshot_of(example)).unwrap()
}

/// What every node of an example has, and before it what the unnamed one has where it has listeners.
fn sets(example: &str) -> Vec<(String, ResourceSet)> {
    let snapshot = fixture::snapshot_of(example);
    let unnamed = (!snapshot.config().listeners.is_empty()).then(|| (String::new(), build(&snapshot).unwrap()));
    let mut nodes: Vec<_> = snapshot.nodes().iter().collect();
    nodes.sort_by_key(|node| node.name());
    let named = nodes.into_iter().map(|node| (node.name().unwrap().to_string(), build_for(&snapshot, node).unwrap()));
    unnamed.into_iter().chain(named).collect()
}

/// All of them as text; sets that are equal stand once.
fn shown(example: &str) -> String {
    let mut parts: Vec<(Vec<String>, ResourceSet)> = Vec::new();
    for (node, set) in sets(example) {
        match parts.iter_mut().find(|(_, known)| *known == set) {
            Some((nodes, _)) => nodes.push(node),
            None => parts.push((vec![node], set)),
        }
    }
    let part = |(nodes, set): &(Vec<String>, ResourceSet)| match nodes.join(", ") {
        unnamed if unnamed.is_empty() => readable(set),
        names => format!("# The nodes {names}\n{}", readable(set)),
    };
    parts.iter().map(part).collect::<Vec<_>>().join("\n")
}

fn readable(set: &ResourceSet) -> String {
    let mut documents = Vec::new();
    documents.extend(all::<Listener>(set, TypeUrl::Listener).iter().map(|message| document("Listener", message)));
    documents.extend(
        all::<ScopedRouteConfiguration>(set, TypeUrl::ScopedRouteConfiguration)
            .iter()
            .map(|message| document("ScopedRouteConfiguration", message)),
    );
    documents
        .extend(all::<RouteConfiguration>(set, TypeUrl::RouteConfiguration).iter().map(|message| document("RouteConfiguration", message)));
    documents.extend(all::<Cluster>(set, TypeUrl::Cluster).iter().map(|message| document("Cluster", message)));
    documents.extend(
        all::<ClusterLoadAssignment>(set, TypeUrl::ClusterLoadAssignment).iter().map(|message| document("ClusterLoadAssignment", message)),
    );
    documents.extend(all::<Secret>(set, TypeUrl::Secret).iter().map(|message| document("Secret", message)));
    documents.join("\n")
}

fn document(kind: &str, message: &impl std::fmt::Debug) -> String {
    format!("--- # {kind}\n{}", readable::yaml(message))
}

fn validate(file: &Path, what: &str) {
    let output = Command::new(Tools::ensure().envoy()).args(["--mode", "validate", "-l", "warn", "-c"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Envoy refuses {what}:\n{said}");
    // Deprecated fields are warnings today and refused tomorrow.
    assert!(!said.contains("eprecated"), "{what}:\n{said}");
}
