//! The API server that holds the objects is away, comes back, and has forgotten its history.

use rustix::process::Signal;
use serde_json::Value;

use super::super::support::http;
use super::super::support::wait::eventually;
use super::super::support::world::PROD_HOST;
use super::{OTHER, PATIENCE, Stage, WEB};

#[test]
fn what_the_api_server_said_last_stays_while_it_is_away() {
    let mut stage = Stage::prepare("outage");
    stage.world.start_kubepass();
    stage.route("shop", "web", WEB, "false");
    stage.until_answers("the route is served", WEB, None, "/api", 401);
    away(&mut stage);
    restarted_meanwhile(&mut stage);
    forgotten(&mut stage);
    stage.world.stop_kubepass(false);
}

fn away(stage: &mut Stage) {
    stage.cluster().stop_api_server();
    eventually("kubepass notices", PATIENCE, || source_state(stage)["last_error"].is_string().then_some(()));
    assert_eq!(stage.get(WEB, None, "/api").0, 401, "what it said last stays");
    // A change of the file comes into force beside it.
    let config = std::fs::read_to_string(stage.world.config_path()).unwrap();
    stage.world.write_config(&config.replace("host: prod.k8s.localhost", "host: pass2.obj.localhost"));
    stage.until_answers("the file's change is in force", PROD_HOST, None, "/api", 404);
    assert_eq!(stage.get(WEB, None, "/api").0, 401);
    stage.world.write_config(&config);
    stage.until_answers("and taken back", PROD_HOST, None, "/api", 401);
    stage.cluster().start_api_server();
    eventually("kubepass finds it again", PATIENCE, || source_state(stage)["last_error"].is_null().then_some(()));
    stage.route("shop", "other", OTHER, "false");
    // Each watch tries again at its own time, which grew while nobody answered.
    eventually("changes come again", PATIENCE, || (stage.get(OTHER, None, "/api").0 == 401).then_some(()));
}

/// kubepass does not know then what there should be: it says so, and Envoys keep what they have or get nothing yet.
fn restarted_meanwhile(stage: &mut Stage) {
    stage.cluster().stop_api_server();
    stage.world.stop_kubepass(false);
    let envoy = stage.world.tools().envoy().display().to_string();
    stage.world.launch_server(&["up", "--envoy", &envoy]);
    let url = format!("http://127.0.0.1:{}/readyz", stage.world.admin_port);
    let client = http::client(&[]);
    let said = stage.world.server().until("kubepass says what it waits for", PATIENCE, || {
        let text = client.get(&url).send().ok()?.text().ok()?;
        text.contains("the API server's first whole list of objects").then_some(text)
    });
    assert!(said.starts_with("not ready"), "{said}");
    assert!(source_state(stage)["waiting_for"].to_string().contains("Route"));
    stage.cluster().start_api_server();
    stage.world.until_ready();
    assert_eq!((stage.get(WEB, None, "/api").0, stage.get(OTHER, None, "/api").0), (401, 401));
}

/// While kubepass hears nothing, objects come and go and the history is cut off.
fn forgotten(stage: &mut Stage) {
    let lists = |stage: &Stage| {
        let by_us = |event: &Value| event["user"]["username"] == "system:serviceaccount:kubepass:kubepass-server";
        let events = stage.cluster().audit_events();
        events.iter().filter(|event| by_us(event) && event["verb"] == "list" && event["objectRef"]["resource"] == "routes").count()
    };
    eventually("it is listed", PATIENCE, || (lists(stage) > 0).then_some(()));
    stage.world.server().signal(Signal::STOP);
    // Its connections end, so that nothing of what follows can reach it by them.
    stage.cluster().restart_api_server();
    let before = lists(stage);
    stage.cluster().kubectl_admin(&["delete", "route", "-n", "shop", "web"]).ok();
    for round in 0..20 {
        let label = format!("round={round}");
        stage.cluster().kubectl_admin(&["label", "--overwrite", "route", "-n", "shop", "other", &label]).ok();
    }
    stage.cluster().compact();
    stage.cluster().restart_api_server();
    stage.world.server().signal(Signal::CONT);
    eventually("it lists again and sees that one is gone", PATIENCE, || (stage.get(WEB, None, "/api").0 == 404).then_some(()));
    assert_eq!(stage.get(OTHER, None, "/api").0, 401);
    eventually("the audit log has the new list", PATIENCE, || (lists(stage) > before).then_some(()));
}

fn source_state(stage: &Stage) -> Value {
    let state: Value = serde_json::from_str(&stage.world.operator(&["state"]).ok()).unwrap();
    state["cluster_source"].clone()
}
