//! Two audit trails, kubepass's and the API server's, tell the same story: joined by `Audit-ID` both ways, without a gap, and without a secret.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::rows::{ROWS, Row, for_each_row};
use super::super::shared::world;
use super::super::support::person::Person;
use super::super::support::wait::eventually_ok;
use super::super::support::world::{Method, PROD_HOST, STAGING_HOST, World};
use super::{ANYTHING, NAMESPACE, bind, namespace};

/// Events and completions come a moment after what they tell.
const SETTLED: Duration = Duration::from_secs(10);

/// The status of a request whose client left before it was answered.
const LEFT: u64 = 0;

/// Fails unless every request that kubepass let through since its start is in the audit log of the API server that it was for, as the same
/// person, every request that an API server got from kubepass (its service account, or a token of its own) has its decision, and every
/// request that was answered has its completion with the same status. Returns how many were joined.
pub(super) fn assert_trails_agree(world: &World) -> usize {
    eventually_ok("the audit trails agree", SETTLED, || {
        let lines = world.audit_lines();
        let joined = ROWS.iter().map(|row| join(world, &lines, *row)).sum::<Result<usize, String>>()?;
        refusals_are_complete(&lines)?;
        if joined == 0 { Err("nothing to join".to_owned()) } else { Ok(joined) }
    })
}

fn join(world: &World, lines: &[Value], row: Row) -> Result<usize, String> {
    let route = row.route;
    let allowed: HashMap<&str, &Value> = lines
        .iter()
        .filter(|line| line["event"] == "decision" && line["outcome"] == "allow" && line["route"] == route)
        .map(|line| (line["request_id"].as_str().unwrap(), line))
        .collect();
    let events = row.cluster(world).audit_events();
    let ends = ends(lines);
    let mut seen = HashSet::new();
    for (event, served) in events.iter().filter_map(|event| Some((event, row.served(event).ok()?))) {
        let id = event["auditID"].as_str().unwrap();
        let line =
            allowed.get(id).ok_or_else(|| format!("{route}: kubepass's trail has no decision for the API server's event {event}"))?;
        if served["username"] != line["upstream_user"] {
            return Err(format!("{route}: two persons\n{line}\n{event}"));
        }
        if row.method == Method::Jwt
            && !(is_first(served, "session", &line["session"]) && is_first(served, "policy", &line["policy_version"]))
        {
            return Err(format!("{route}: another session or policy\n{line}\n{event}"));
        }
        let end = ends.get(id).map(|end| &end["status"]);
        if event["stage"] == "ResponseComplete" && ![&event["responseStatus"]["code"], &json!(LEFT)].map(Some).contains(&end) {
            return Err(format!("{route}: the completion's status is {end:?}, and the API server answered {event}"));
        }
        seen.insert(id.to_owned());
    }
    match allowed.iter().find(|(id, _)| !seen.contains(**id)) {
        Some((_, line)) => Err(format!("{route}: the API server's log has no event for the decision {line}")),
        None => Ok(seen.len()),
    }
}

/// What the token carries, as the API server's log shows it.
fn is_first(served: &Value, key: &str, expected: &Value) -> bool {
    served["extra"][format!("kubepass.dev/{key}")][0] == *expected
}

fn ends(lines: &[Value]) -> HashMap<&str, &Value> {
    let ends = lines.iter().filter(|line| line["event"] == "completion" && line["phase"] == "end");
    ends.map(|line| (line["request_id"].as_str().unwrap(), line)).collect()
}

fn refusals_are_complete(lines: &[Value]) -> Result<(), String> {
    let ends = ends(lines);
    for line in lines.iter().filter(|line| line["event"] == "decision" && line["outcome"] != "allow") {
        let end = ends.get(line["request_id"].as_str().unwrap()).ok_or_else(|| format!("no completion of the refusal {line}"))?;
        let good = match line["outcome"].as_str() {
            _ if end["status"] == LEFT => true,
            Some("challenge") => end["status"] == 401,
            _ => end["status"].as_u64().is_some_and(|status| (400..=503).contains(&status) && status != 401),
        };
        if !good {
            return Err(format!("another status than the decision's: {line} {end}"));
        }
    }
    Ok(())
}

#[test]
fn an_exec_and_a_watch_have_a_start_and_an_end() {
    let world = world();
    let _logs = world.run.watch();
    for_each_row(&world, |world, row| {
        let foo = set_up(world, row);
        an_exec(world, row, &foo);
        a_watch(world, row, &foo);
    });
    assert_trails_agree(&world);
}

fn an_exec(world: &World, row: Row, foo: &Person) {
    let exec = foo.kubectl_command().run_with(&["exec", "-n", NAMESPACE, "-i", "web", "--", "sh", "-c", "cat; sleep 0.3"], &[b'x'; 5_000]);
    assert_eq!(exec.stdout.len(), 5_000, "{}", exec.stderr);
    let decision = decision(world, row, "exec", |words| words["subresource"] == "exec" && words["namespace"] == NAMESPACE);
    let line = world.audit_line("the exec's decision", |line| line["event"] == "decision" && line["request_id"] == decision.as_str());
    assert_told(&line, &["session", "subject", "upstream_user", "upstream_groups", "rule", "stream_limit_ms"]);
    assert_eq!((&line["source_ip"], &line["host"], &line["rule"]), (&"127.0.0.1".into(), &row.host.into(), &"staff".into()));
    assert!(line["user_agent"].as_str().unwrap().starts_with("kubectl/v1.36.3 "), "{line}");
    let (start, end) = phases(world, &decision);
    assert_eq!((&start["status"], &end["status"]), (&101.into(), &101.into()));
    assert!(end["bytes_received"].as_u64() > Some(5_000) && end["bytes_sent"].as_u64() > Some(5_000), "{end}");
    assert!((300..20_000).contains(&end["duration_ms"].as_u64().unwrap()), "{end}");
    assert_ne!(end["ended_by"], "", "{end}");
}

fn a_watch(world: &World, row: Row, foo: &Person) {
    let mut watch = foo.kubectl_command().start(&["get", "pods", "-n", NAMESPACE, "-w", "--request-timeout=2s"]);
    watch.wait_text("web");
    let decision = decision(world, row, "watch", |words| words["verb"] == "watch" && words["resource"] == "pods");
    let started = world.audit_line("the watch's start", |line| is_completion(line, &decision, "start"));
    assert!(watch.is_running(), "the start is told while the watch is open");
    assert_eq!((&started["bytes_sent"], &started["ended_by"]), (&0.into(), &"".into()), "{started}");
    drop(watch.finish());
    let (_, end) = phases(world, &decision);
    assert_eq!(end["status"], 200);
    assert!(end["duration_ms"].as_u64() > Some(1_000) && end["bytes_sent"].as_u64() > Some(0), "{end}");
    assert_ne!(end["ended_by"], "", "{end}");
}

#[test]
fn logins_refusals_and_log_outs_are_told_and_no_secret_is() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, ROWS[0]);
    let token = foo.session_token(&world.url(PROD_HOST));
    let login = last(&world, "login", |line| line["user"] == "foo@example.com");
    let session = login["session"].as_str().unwrap().to_owned();
    assert_eq!((&login["idp"], &login["groups"]), (&"corp".into(), &json!(["group1", "group2"])), "{login}");
    let issued = last(&world, "token_issued", |line| line["session"] == session.as_str());
    assert_eq!((&issued["route"], &issued["user"]), (&"prod".into(), &"foo@example.com".into()), "{issued}");

    // Refused: no token, one that is none, one of another route, by policy.
    let client = world.client();
    let ask = |host: &str, token: Option<&str>| {
        let request = client.get(format!("{}/api/v1/namespaces/{NAMESPACE}/secrets", world.url(host)));
        let answer = token.into_iter().fold(request, reqwest::blocking::RequestBuilder::bearer_auth).send().unwrap();
        answer.headers()["audit-id"].to_str().unwrap().to_owned()
    };
    let foreign = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    for (host, token, outcome, reason) in [
        (PROD_HOST, None, "challenge", "no_credential"),
        (PROD_HOST, Some(foreign), "challenge", "token_of_other_kind"),
        (STAGING_HOST, Some(token.as_str()), "challenge", "token_of_other_route"),
        (PROD_HOST, Some(token.as_str()), "deny", "policy_denied"),
    ] {
        let id = ask(host, token);
        let line = world.audit_line(reason, |line| line["event"] == "decision" && line["request_id"] == id.as_str());
        assert_eq!((&line["outcome"], &line["reason"]), (&outcome.into(), &reason.into()), "{line}");
        if outcome == "deny" {
            assert_told(&line, &["session", "subject", "reason", "message", "rule"]);
        }
    }

    let cookies: Vec<String> = foo.browse(|browser| browser.jar.cookies.iter().map(|cookie| cookie.value.clone()).collect());
    assert!(!cookies.is_empty());
    foo.kubepass(&["logout"]).ok();
    let out = last(&world, "logout", |line| line["session"] == session.as_str());
    assert_eq!((&out["by"], &out["user"]), (&"user".into(), &"foo@example.com".into()), "{out}");

    let bar = world.person("bar");
    bar.set_up(&world.url(PROD_HOST)).ok();
    let bars = bar.session_token(&world.url(PROD_HOST));
    let session = last(&world, "login", |line| line["user"] == "bar@example.com")["session"].as_str().unwrap().to_owned();
    world.operator(&["session", "revoke", &session]).ok();
    let out = last(&world, "logout", |line| line["session"] == session.as_str());
    assert_eq!(out["by"], "operator", "{out}");

    let trail = std::fs::read_to_string(world.audit_path()).unwrap();
    let file = |name: &str| std::fs::read_to_string(world.run.file(&format!("kubepass/{name}"))).unwrap().trim().to_owned();
    let secrets = [token, bars, foreign.to_owned(), file("prod-token"), file("signing.pem"), file("secret"), file("client-secret")];
    for secret in secrets.iter().chain(&cookies).chain(&["eyJ".to_owned(), "Bearer ".to_owned(), "__Host-".to_owned()]) {
        assert!(!trail.contains(secret.as_str()), "the trail holds {secret:?}");
    }
    assert_trails_agree(&world);
}

fn set_up(world: &World, row: Row) -> Person {
    namespace(row.cluster(world));
    bind(row.cluster(world), NAMESPACE, "foo", ANYTHING, ("User", "foo@example.com"));
    let person = world.person("foo");
    person.set_up(&world.url(row.host)).ok();
    person
}

/// What a decision about somebody always tells, and `more`.
fn assert_told(line: &Value, more: &[&str]) {
    let always =
        ["schema", "time", "request_id", "outcome", "route", "user", "groups", "idp", "source_ip", "method", "host", "path", "kubernetes"];
    for key in always.iter().chain(&["policy_version"]).chain(more) {
        assert!(!line[key].is_null() && line[key] != "", "{key} is missing: {line}");
    }
}

/// The id of the last decision on a route whose Kubernetes words fit.
pub(super) fn decision(world: &World, row: Row, what: &str, fits: impl Fn(&Value) -> bool) -> String {
    let line = world.audit_line(what, |line| {
        line["event"] == "decision" && line["route"] == row.route && line["outcome"] == "allow" && fits(&line["kubernetes"])
    });
    line["request_id"].as_str().unwrap().to_owned()
}

/// The completion lines of a long request: exactly one start and one end.
pub(super) fn phases(world: &World, id: &str) -> (Value, Value) {
    world.audit_line("the end", |line| is_completion(line, id, "end"));
    let lines = world.audit_lines();
    let only = |phase: &str| {
        let found: Vec<&Value> = lines.iter().filter(|line| is_completion(line, id, phase)).collect();
        assert_eq!(found.len(), 1, "{phase} of {id}: {found:#?}");
        found[0].clone()
    };
    (only("start"), only("end"))
}

fn is_completion(line: &Value, id: &str, phase: &str) -> bool {
    line["event"] == "completion" && line["request_id"] == id && line["phase"] == phase
}

/// The last line of an event.
pub(super) fn last(world: &World, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
    world.audit_line(event, |line| line["event"] == event && fits(line))
}
