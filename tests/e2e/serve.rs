//! kubepass beside an Envoy that somebody else runs: `serve`, and what `bootstrap` prints.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::leash::{self, Process};
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{POLICY, PROD_HOST, World, WorldOptions};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_envoy_of_ones_own_carries_the_requests() {
    let mut world = World::prepare(Tools::ensure(), Run::new("serve"), WorldOptions::default());
    world.permit("prod", &world.prod);
    world.permit("staging", &world.staging);
    world.start_server(&["serve"]);
    assert_eq!(state(&world)["xds"]["streams"], serde_json::json!([]), "kubepass is ready, and started none itself");

    let mut envoy = start_envoy(&world, "edge-1", |bootstrap| bootstrap);
    until_served(&world, &mut envoy);
    let foo = world.person("foo");
    foo.set_up(&world.url(PROD_HOST)).ok();
    let whoami = || foo.kubectl(&["--context", PROD_HOST, "auth", "whoami", "-o", "json"]);
    let who: Value = serde_json::from_str(&whoami().ok()).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "foo@example.com");
    let event = world.prod.audit_find("foo's whoami", |event| event["objectRef"]["resource"] == "selfsubjectreviews");
    assert_eq!(event["impersonatedUser"]["username"], "foo@example.com");

    // Without kubepass nothing passes; when it is back, the same Envoy goes on.
    world.stop_kubepass(false);
    // It would ask again for as long as it is told to.
    let refused = foo.kubectl(&["--context", PROD_HOST, "--request-timeout", "2s", "auth", "whoami", "-o", "json"]);
    assert!(!refused.stderr.is_empty() && !refused.stdout.contains("foo@example.com"), "{refused:?}");
    world.start_server(&["serve"]);
    until_served(&world, &mut envoy);
    eventually("requests pass again", PATIENCE, || whoami().stdout.contains("foo@example.com").then_some(()));
    assert!(envoy.ended().is_none());

    let status = world.operator(&["xds", "status"]).ok();
    let of = |kind: &str| status.lines().find(|line| line.starts_with("edge-1  1.40.0  delta") && line.contains(kind)).map(str::to_owned);
    for kind in ["cds", "eds", "lds", "rds", "sds"] {
        assert!(of(kind).is_some_and(|line| line.contains("ok, took")), "{kind}:\n{status}");
    }
    let changed = world.run.write("kubepass/changed.yaml", world.config(POLICY).replace("name: staging", "name: other"));
    let diff = world.operator(&["xds", "diff", changed.to_str().unwrap()]).ok();
    assert!(diff.contains("+ cds  kubernetes:other@") && diff.contains("no open connection drains"), "{diff}");
    world.stop_kubepass(false);
}

/// As the operator does: what the verb prints, `change`d, and the command line that stands in it.
pub(super) fn start_envoy(world: &World, node: &str, change: impl Fn(String) -> String) -> Process {
    start_envoy_of(&world.tools().envoy(), world, node, change)
}

pub(super) fn start_envoy_of(program: &Path, world: &World, node: &str, change: impl Fn(String) -> String) -> Process {
    let printed = change(world.operator(&["bootstrap", "--node", node]).ok());
    let said = printed.lines().find_map(|line| line.strip_prefix("#   envoy --config-path FILE ")).expect("how to start it");
    let file = world.run.write(&format!("{node}.yaml"), &printed);
    let mut command = leash::command(program);
    command.arg("--config-path").arg(file).args(said.split(' ')).args(["--concurrency", "1", "--log-level", "info"]);
    world.run.start(node, command)
}

pub(super) fn until_served(world: &World, envoy: &mut Process) {
    envoy.until("Envoy has its listener", PATIENCE, || {
        let listeners = &state(world)["xds"]["streams"][0]["types"]["lds"];
        (listeners["wanted"] == listeners["acknowledged"] && !listeners["wanted"].is_null()).then_some(())
    });
    envoy.until("Envoy accepts", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", world.port)).ok());
}

pub(super) fn state(world: &World) -> Value {
    serde_json::from_str(&world.operator(&["state"]).ok()).unwrap()
}
