//! Envoys of other versions: one that no test has shown gets nothing, until the configuration names it; tested ones serve side by side.

use std::time::Duration;

use serde_json::Value;

use super::serve::{start_envoy, start_envoy_of, state};
use super::support::leash::Process;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{POLICY, PROD_HOST, World, WorldOptions};

/// Longer than an Envoy waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs other Envoys: make test-matrix"]
fn an_envoy_of_an_untested_version_is_turned_away_until_it_is_named() {
    let mut world = World::prepare(Tools::ensure(), Run::new("versions"), WorldOptions::default());
    world.permit("prod", &world.prod);
    world.permit("staging", &world.staging);
    world.start_server(&["serve"]);
    let mut old = start_envoy_of(&Tools::envoy_of("1.38"), &world, "old", without_guard);
    old.until_log("starting main dispatch loop", PATIENCE);
    world.server().until_log("an Envoy is turned away", PATIENCE);
    let status = world.operator(&["xds", "status"]).ok();
    let line = status.lines().find(|line| line.starts_with("old   1.38.3")).unwrap_or_else(|| panic!("{status}"));
    assert!(line.contains("no test has shown") && line.contains("allow_envoy_versions: [1.38.3]"), "{status}");
    assert!(status.starts_with("no Envoy is connected"), "{status}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err(), "it has a listener");

    // Named, it is told what others are told, and comes for it by itself. This one cannot do it, and its words are shown.
    let named = world.config(POLICY).replace("control_plane: {", "control_plane: {allow_envoy_versions: [1.38.x], ");
    world.write_config(&named);
    world.stop_kubepass(false);
    world.start_server(&["serve"]);
    let of_clusters = |status: &str| {
        let line = status.lines().find(|line| line.contains("old   1.38.3 (not tested)  delta") && line.contains(" cds "));
        line.unwrap_or_default().to_owned()
    };
    let status = eventually("the named version is connected", PATIENCE, || {
        Some(world.operator(&["xds", "status"]).ok()).filter(|status| of_clusters(status).contains("REFUSED"))
    });
    let refused = of_clusters(&status);
    assert!(refused.contains("envoy.filters.http.rbac") && !status.contains("TURNED AWAY"), "{status}");
    drop(old);

    // Two tested ones side by side. Both listen at one port, so one of them ends before the other is asked.
    let mut last = start_envoy_of(&Tools::envoy_of("1.39"), &world, "last", |bootstrap| bootstrap);
    let mut now = start_envoy(&world, "now", |bootstrap| bootstrap);
    for (envoy, node) in [(&mut last, "last"), (&mut now, "now")] {
        until_settled(&world, envoy, node);
    }
    let status = world.operator(&["xds", "status"]).ok();
    assert!(status.contains("last  1.39.3 ") && status.contains("now   1.40.0 "), "{status}");
    drop(now);
    served(&world, "by-last");
    world.stop_kubepass(false);
}

/// The only older build that the registry offers has no RBAC filter: it starts without the guard before the web pages.
fn without_guard(bootstrap: String) -> String {
    let (begin, rest) = bootstrap.split_once("        - name: envoy.filters.http.rbac\n").expect("the guard");
    let (_, end) = rest.split_once("        - name: envoy.filters.http.upstream_codec\n").expect("what follows it");
    format!("{begin}        - name: envoy.filters.http.upstream_codec\n{end}")
}

/// Until the node has acknowledged everything, and refused nothing.
fn until_settled(world: &World, envoy: &mut Process, node: &str) {
    envoy.until("Envoy has everything", PATIENCE, || {
        let state = state(world);
        let stream = state["xds"]["streams"].as_array().unwrap().iter().find(|stream| stream["node"] == node)?.clone();
        let types: Vec<Value> = stream["types"].as_object()?.values().filter(|of| of["requested"] == true).cloned().collect();
        let settled = |of: &Value| of["wanted"] == of["acknowledged"] && of["refusal"].is_null();
        (types.len() >= 5 && types.iter().all(settled)).then_some(())
    });
}

/// By the API server's own log, the person's request came as the person's.
fn served(world: &World, what: &str) {
    let foo = world.person("foo");
    foo.set_up(&world.url(PROD_HOST)).ok();
    let path = format!("/version?what={what}");
    let said = eventually("an answer", PATIENCE, || {
        Some(foo.kubectl(&["--context", PROD_HOST, "get", "--raw", &path])).filter(|output| output.code == Some(0))
    });
    assert!(said.stdout.contains("gitVersion"), "{said:?}");
    let event = world.prod.audit_find(what, |event| event["requestURI"] == path.as_str());
    assert_eq!(event["impersonatedUser"]["username"], "foo@example.com");
}
