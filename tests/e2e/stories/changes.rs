//! Changing things: watches that see it, `apply`, `debug`, helm.

use super::super::rows::{Row, for_each_row};
use super::super::shared::world;
use super::super::support::world::World;
use super::trails::assert_trails_agree;
use super::{ANYTHING, NAMESPACE, bind, namespace};

#[test]
fn watch_apply_and_debug() {
    let world = world();
    let _logs = world.run.watch();
    for_each_row(&world, a_watch_sees_what_is_applied);
    assert_trails_agree(&world);
}

fn a_watch_sees_what_is_applied(world: &World, row: Row) {
    let cluster = row.cluster(world);
    namespace(cluster);
    bind(cluster, NAMESPACE, "foo", ANYTHING, ("User", "foo@example.com"));
    let foo = world.person("foo");
    foo.set_up(&world.url(row.host)).ok();

    let columns = "jsonpath={.metadata.name}={.data.color}{'\\n'}";
    let mut watch = foo.kubectl_command().start(&["get", "configmaps", "-n", NAMESPACE, "-w", "-o", columns]);
    let apply = |color: &str| {
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: paint, namespace: {NAMESPACE}}}\ndata: {{color: {color}}}\n");
        foo.kubectl_command().run_with(&["apply", "-f", "-"], map.as_bytes()).ok()
    };
    assert_eq!(apply("red"), "configmap/paint created\n");
    watch.wait_text("paint=red");
    assert_eq!(apply("blue"), "configmap/paint configured\n");
    watch.wait_text("paint=blue");
    assert!(watch.is_running());
    watch.interrupt();
    drop(watch);
    let server_side =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: paint, namespace: {NAMESPACE}}}\ndata: {{color: green}}\n");
    foo.kubectl_command().run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], server_side.as_bytes()).ok();
    let paint = cluster.kubectl_admin(&["get", "configmap", "paint", "-n", NAMESPACE, "-o", "jsonpath={.data}"]).ok();
    assert_eq!(paint, r#"{"color":"green"}"#);

    foo.kubectl(&["debug", "-n", NAMESPACE, "web", "--image=registry.example/debug:1", "--container=look", "--attach=false"]).ok();
    let template = "jsonpath={.spec.ephemeralContainers[*].name} {.spec.ephemeralContainers[*].image}";
    let seen = cluster.kubectl_admin(&["get", "pod", "web", "-n", NAMESPACE, "-o", template]).ok();
    assert!(seen.contains("look") && seen.contains("registry.example/debug:1"), "{seen}");
    let event = cluster.audit_find("debug", |event| event["objectRef"]["subresource"] == "ephemeralcontainers");
    assert_eq!(event["verb"], "patch", "{row:?}");
    assert_eq!(row.served(&event).unwrap()["username"], "foo@example.com");
}

/// helm keeps its releases in secrets, so the policy asks for the group `sre`: bar is in it, foo is not.
#[test]
fn helm_installs_and_upgrades_a_chart() {
    let world = world();
    let _logs = world.run.watch();
    world.run.write("chart/Chart.yaml", "apiVersion: v2\nname: small\nversion: 1.0.0\n");
    world.run.write("chart/values.yaml", "color: red\n");
    world.run.write(
        "chart/templates/map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\ndata: {color: '{{ .Values.color }}'}\n",
    );
    for_each_row(&world, helm_from_install_to_uninstall);
    assert_trails_agree(&world);
}

fn helm_from_install_to_uninstall(world: &World, row: Row) {
    let cluster = row.cluster(world);
    namespace(cluster);
    bind(cluster, NAMESPACE, "sre", ANYTHING, ("Group", "sre"));
    bind(cluster, NAMESPACE, "foo", ANYTHING, ("User", "foo@example.com"));
    let chart = world.run.file("chart").display().to_string();
    let bar = world.person("bar");
    bar.set_up(&world.url(row.host)).ok();
    let helm = bar.kubectl_command().program(&world.tools().helm());
    let color = || cluster.kubectl_admin(&["get", "configmap", "shop", "-n", NAMESPACE, "-o", "jsonpath={.data.color}"]).ok();
    helm.run(&["install", "shop", &chart, "-n", NAMESPACE]).ok();
    assert_eq!(color(), "red");
    helm.run(&["upgrade", "shop", &chart, "-n", NAMESPACE, "--set", "color=blue"]).ok();
    assert_eq!(color(), "blue");
    let releases = helm.run(&["list", "-n", NAMESPACE, "-o", "json"]).ok();
    let releases: serde_json::Value = serde_json::from_str(&releases).unwrap();
    assert_eq!((&releases[0]["name"], &releases[0]["revision"], &releases[0]["status"]), (&"shop".into(), &"2".into(), &"deployed".into()));

    let foo = world.person("foo");
    foo.set_up(&world.url(row.host)).ok();
    let refused = foo.kubectl_command().program(&world.tools().helm()).run(&["upgrade", "shop", &chart, "-n", NAMESPACE]).err();
    assert!(refused.contains("denied by policy: ask the SRE on call"), "{refused}");
    assert_eq!(color(), "blue");
    helm.run(&["uninstall", "shop", "-n", NAMESPACE]).ok();
}
