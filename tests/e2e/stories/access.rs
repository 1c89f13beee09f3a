//! Who people are on each cluster, and what plain RBAC makes of it.

use std::time::Duration;

use super::super::rows::{ROWS, Row, for_each_row};
use super::super::shared::world;
use super::super::support::kubectl::Output;
use super::super::support::person::Person;
use super::super::support::wait::eventually;
use super::super::support::world::World;
use super::trails::assert_trails_agree;
use super::{READ_PODS, bind};

/// A namespace that no other story touches: what is refused at first must be refused by nothing but missing RBAC.
const FRESH: &str = "access";
/// An API server learns of RBAC by its own watch.
const LEARNT: Duration = Duration::from_secs(5);

#[test]
fn the_api_server_sees_the_person_and_rbac_does_the_rest() {
    let world = world();
    let _logs = world.run.watch();
    let (foo, bar) = (set_up(&world, "foo"), set_up(&world, "bar"));
    for_each_row(&world, |world, row| {
        who_they_are(world, row, &foo);
        rbac_of_one_cluster(world, row, &foo, &bar);
    });
    assert_eq!(foo.logins(), 1, "one login serves both clusters");
    assert_trails_agree(&world);
}

fn who_they_are(world: &World, row: Row, foo: &Person) {
    let who = foo.kubectl(&["--context", row.host, "auth", "whoami", "-o", "json"]).ok();
    let who: serde_json::Value = serde_json::from_str(&who).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "foo@example.com", "{row:?}");
    let groups = serde_json::json!(["group1", "group2", "system:authenticated"]);
    assert_eq!(who["status"]["userInfo"]["groups"], groups, "{row:?}");
    let event = row
        .cluster(world)
        .audit_find("foo's whoami", |event| event["objectRef"]["resource"] == "selfsubjectreviews" && row.is_for(event, "foo@example.com"));
    assert_eq!(row.served(&event).unwrap()["groups"], groups, "{row:?}");
}

fn rbac_of_one_cluster(world: &World, row: Row, foo: &Person, bar: &Person) {
    let cluster = row.cluster(world);
    cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {FRESH}}}\n"));
    let refused = kubectl(foo, row, &["get", "pods"]);
    assert_eq!(
        refused.err(),
        "Error from server (Forbidden): pods is forbidden: User \"foo@example.com\" cannot list resource \"pods\" in API group \"\" \
         in the namespace \"access\"\n"
    );
    let may = |person: &Person, verb: &str, what: &[&str]| kubectl(person, row, &[&["auth", "can-i", verb], what].concat()).stdout;
    assert_eq!(may(foo, "list", &["pods"]), "no\n");
    bind(cluster, FRESH, "foo-reads", READ_PODS, ("User", "foo@example.com"));
    eventually("the API server knows the RoleBinding", LEARNT, || (may(foo, "list", &["pods"]) == "yes\n").then_some(()));
    assert!(kubectl(foo, row, &["get", "pods"]).stderr.contains("No resources found"));

    let exec = ["pods", "--subresource=exec"];
    assert_eq!(may(foo, "create", &exec), "no\n");
    bind(cluster, FRESH, "group2-execs", "apiGroups: [''], resources: [pods/exec], verbs: [create, get]", ("Group", "group2"));
    eventually("... and that of the group", LEARNT, || (may(foo, "create", &exec) == "yes\n").then_some(()));
    assert_eq!(may(bar, "create", &exec), "no\n", "bar is not in group2");
}

#[test]
fn rbac_of_one_cluster_says_nothing_on_another() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, "foo");
    let may = |row: Row| foo.kubectl(&["--context", row.host, "-n", "default", "auth", "can-i", "watch", "events"]).stdout;
    for row in ROWS {
        assert_eq!(may(row), "no\n", "{row:?}");
    }
    let [here, there] = ROWS;
    bind(
        here.cluster(&world),
        "default",
        "foo-events",
        "apiGroups: [''], resources: [events], verbs: [watch]",
        ("User", "foo@example.com"),
    );
    eventually("the API server knows the RoleBinding", LEARNT, || (may(here) == "yes\n").then_some(()));
    assert_eq!(may(there), "no\n");
}

#[test]
fn a_token_of_one_route_is_refused_at_the_other() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, "foo");
    for row in ROWS {
        let other = row.other();
        let token = foo.session_token(&world.url(row.host));
        let ask = |host: &str| world.client().get(format!("{}/api", world.url(host))).bearer_auth(&token).send().unwrap();
        assert_eq!(ask(row.host).status(), 200, "the token is good where it belongs");
        let answer = ask(other.host);
        assert_eq!(answer.status(), 401);
        let status: serde_json::Value = answer.json().unwrap();
        assert!(status["message"].as_str().unwrap().starts_with("this token was issued for another route; log in to this one"), "{status}");

        let by_kubectl = |event: &&serde_json::Value| event["userAgent"].as_str().unwrap_or_default().contains("kubectl/");
        let seen = || other.cluster(&world).audit_events().iter().filter(by_kubectl).count();
        let before = seen();
        // The user of one context with the cluster of the other: what a mistaken kubeconfig does.
        let mixed = foo.kubectl(&["--cluster", other.host, "--user", row.host, "get", "--raw", "/api"]);
        assert!(mixed.stderr.contains("You must be logged in to the server"), "{mixed:?}");
        assert_ne!(mixed.code, Some(0));
        assert_eq!(seen(), before, "nothing of it reached the API server");
        foo.kubectl(&["--context", other.host, "get", "--raw", "/api"]).ok();
        assert_eq!(seen(), before + 1, "with its own token it does");
    }
}

fn set_up(world: &World, login: &str) -> Person {
    let person = world.person(login);
    for row in ROWS {
        person.set_up(&world.url(row.host)).ok();
    }
    person
}

fn kubectl(person: &Person, row: Row, args: &[&str]) -> Output {
    person.kubectl(&[&["--context", row.host, "-n", FRESH], args].concat())
}
