//! More than can be answered: who is refused is told so as a `Status` that says when to try again, and nobody waits in a queue without an end.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::serve::{start_envoy, until_served};
use super::support::envoy_stats;
use super::support::raw::{Answer, Connection};
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, World, WorldOptions};

const PATIENCE: Duration = Duration::from_secs(30);
const MARK: &str = "too-many-checks";

/// With a limit of one check instead of thousands, and a kubepass that stands still so that the one is never answered.
#[test]
fn checks_beyond_the_limit_are_refused_and_told_when_to_ask_again() {
    let mut world = World::prepare(Tools::ensure(), Run::new("overload"), WorldOptions::default());
    world.permit("prod", &world.prod);
    world.permit("staging", &world.staging);
    world.start_server(&["serve"]);
    let mut envoy = start_envoy(&world, "edge-1", |bootstrap| {
        assert!(bootstrap.contains("max_requests: 4096"), "{bootstrap}");
        bootstrap.replace("max_requests: 4096", "max_requests: 1")
    });
    until_served(&world, &mut envoy);
    let foo = world.person("foo");
    foo.set_up(&world.url(PROD_HOST)).ok();
    let token = foo.session_token(&world.url(PROD_HOST));

    let admin = world.run.file("kubepass/run/envoy-edge-1-admin.sock");
    world.server().signal(Signal::STOP);
    let before = refused_at_once(&admin);
    let refused = eventually("a check is refused because another waits", PATIENCE, || {
        let mut connections = [0, 1].map(|_| Connection::open(world.port, PROD_HOST, world.authority.pem()));
        connections.iter_mut().for_each(|connection| ask(connection, &token));
        let answers = connections.map(|mut connection| connection.answer());
        (refused_at_once(&admin) > before).then_some(answers)
    });
    for answer in &refused {
        is_to_be_tried_again(answer.as_ref());
    }
    world.server().signal(Signal::CONT);

    eventually("checks are answered again", PATIENCE, || {
        let mut connection = Connection::open(world.port, PROD_HOST, world.authority.pem());
        ask(&mut connection, &token);
        // RBAC says no, after kubepass said yes.
        connection.answer().filter(|answer| answer.status == 403 && answer.header("retry-after").is_none())
    });
    let reached = world.prod.audit_events().iter().filter(|event| event["objectRef"]["namespace"] == MARK).count();
    assert_eq!(reached, 1, "only the last one reached the API server");
    world.stop_kubepass(false);
}

fn ask(connection: &mut Connection, token: &str) {
    let authorization = format!("Bearer {token}");
    let path = format!("/api/v1/namespaces/{MARK}/configmaps");
    connection.request("GET", &path, &[("host", PROD_HOST), ("authorization", &authorization), ("connection", "close")]);
}

/// Checks that Envoy did not even send; one that waited in vain is a 504.
fn refused_at_once(admin: &Path) -> u64 {
    let stats = envoy_stats::read(admin, "cluster.kubepass-ext-authz.internal.upstream_rq_503");
    stats.values().sum()
}

fn is_to_be_tried_again(answer: Option<&Answer>) {
    let answer = answer.expect("an answer");
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!((answer.status, &body["kind"], &body["reason"]), (503, &"Status".into(), &"ServiceUnavailable".into()), "{body}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    assert!(body["message"].as_str().unwrap().contains("nothing was sent to the API server"), "{body}");
}
