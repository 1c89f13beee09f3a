//! Who people are on each cluster, and what plain RBAC makes of it.

use std::time::Duration;

use super::super::shared::world;
use super::super::support::kubectl::Output;
use super::super::support::person::Person;
use super::super::support::wait::eventually;
use super::super::support::world::{PROD_HOST, STAGING_HOST, World};
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
    let foo = set_up(&world, "foo");
    for (host, cluster) in [(PROD_HOST, &world.prod), (STAGING_HOST, &world.staging)] {
        let who = foo.kubectl(&["--context", host, "auth", "whoami", "-o", "json"]).ok();
        let who: serde_json::Value = serde_json::from_str(&who).unwrap();
        assert_eq!(who["status"]["userInfo"]["username"], "foo@example.com", "{host}");
        assert_eq!(who["status"]["userInfo"]["groups"], serde_json::json!(["group1", "group2", "system:authenticated"]), "{host}");
        let event = cluster.audit_find("foo's whoami", |event| {
            event["objectRef"]["resource"] == "selfsubjectreviews" && event["impersonatedUser"]["username"] == "foo@example.com"
        });
        assert_eq!(event["user"]["username"], "system:serviceaccount:kubepass:kubepass");
        assert_eq!(event["impersonatedUser"]["groups"], serde_json::json!(["group1", "group2", "system:authenticated"]));
    }
    assert_eq!(foo.logins(), 1, "one login serves both clusters");

    for cluster in [&world.prod, &world.staging] {
        cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {FRESH}}}\n"));
    }
    let refused = kubectl(&foo, PROD_HOST, &["get", "pods"]);
    assert_eq!(
        refused.err(),
        "Error from server (Forbidden): pods is forbidden: User \"foo@example.com\" cannot list resource \"pods\" in API group \"\" \
         in the namespace \"access\"\n"
    );
    let can_i = |person: &Person, host: &str, verb: &str, what: &str| kubectl(person, host, &["auth", "can-i", verb, what]).stdout;
    let can_exec = |person: &Person| kubectl(person, PROD_HOST, &["auth", "can-i", "create", "pods", "--subresource=exec"]).stdout;
    assert_eq!(can_i(&foo, PROD_HOST, "list", "pods"), "no\n");
    bind(&world.prod, FRESH, "foo-reads", READ_PODS, ("User", "foo@example.com"));
    eventually("the API server knows the RoleBinding", LEARNT, || (can_i(&foo, PROD_HOST, "list", "pods") == "yes\n").then_some(()));
    assert_eq!(can_i(&foo, STAGING_HOST, "list", "pods"), "no\n", "RBAC of one cluster says nothing on another");
    assert!(kubectl(&foo, PROD_HOST, &["get", "pods"]).stderr.contains("No resources found"));

    let bar = set_up(&world, "bar");
    assert_eq!(can_exec(&foo), "no\n");
    bind(&world.prod, FRESH, "group2-execs", "apiGroups: [''], resources: [pods/exec], verbs: [create, get]", ("Group", "group2"));
    eventually("... and that of the group", LEARNT, || (can_exec(&foo) == "yes\n").then_some(()));
    assert_eq!(can_exec(&bar), "no\n", "bar is not in group2");
    assert_trails_agree(&world);
}

#[test]
fn a_token_of_one_route_is_refused_at_the_other() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, "foo");
    let token = foo.session_token(&world.url(PROD_HOST));
    let ask = |host: &str| world.client().get(format!("{}/api", world.url(host))).bearer_auth(&token).send().unwrap();
    assert_eq!(ask(PROD_HOST).status(), 200, "the token is good where it belongs");
    let answer = ask(STAGING_HOST);
    assert_eq!(answer.status(), 401);
    let status: serde_json::Value = answer.json().unwrap();
    assert!(status["message"].as_str().unwrap().starts_with("this token was issued for another route; log in to this one"), "{status}");

    let seen = |wanted: &str| {
        world.staging.audit_events().iter().filter(|event| event["userAgent"].as_str().unwrap_or_default().contains(wanted)).count()
    };
    let before = seen("kubectl/");
    // The user of one context with the cluster of the other: what a mistaken kubeconfig does.
    let mixed = foo.kubectl(&["--cluster", STAGING_HOST, "--user", PROD_HOST, "get", "--raw", "/api"]);
    assert!(mixed.stderr.contains("You must be logged in to the server"), "{mixed:?}");
    assert_ne!(mixed.code, Some(0));
    assert_eq!(seen("kubectl/"), before, "nothing of it reached the API server");
    foo.kubectl(&["--context", STAGING_HOST, "get", "--raw", "/api"]).ok();
    assert_eq!(seen("kubectl/"), before + 1, "with its own token it does");
}

fn set_up(world: &World, login: &str) -> Person {
    let person = world.person(login);
    for host in [STAGING_HOST, PROD_HOST] {
        person.set_up(&world.url(host)).ok();
    }
    person
}

fn kubectl(person: &Person, host: &str, args: &[&str]) -> Output {
    person.kubectl(&[&["--context", host, "-n", FRESH], args].concat())
}
