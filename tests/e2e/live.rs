//! Changes under open streams: each is in force within two seconds and cuts nothing; a bad one changes nothing and is shown. Then the end of
//! the service under an open stream.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::rows::{ROWS, Row};
use super::shared::own_world;
use super::support::http;
use super::support::jwt;
use super::support::kubectl::Running;
use super::support::mount::Mount;
use super::support::person::Person;
use super::support::pki::{Authority, Pair};
use super::support::raw::Connection;
use super::support::wait::eventually;
use super::support::world::{Method, NAMESPACE, POLICY, PROD_HOST, PUBLIC_HOST, SERVICE_ACCOUNT, STAGING_HOST, World, WorldOptions};

/// By when a change must be in force.
const IN_FORCE: Duration = Duration::from_secs(2);
/// The host of a route that is added while streams are open.
const EXTRA_HOST: &str = "extra.k8s.localhost";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[test]
fn changes_cut_nothing_and_are_in_force_within_two_seconds() {
    let mut world = own_world("live", WorldOptions { staging: Method::Jwt, ..WorldOptions::default() });
    for cluster in [&world.prod, &world.staging] {
        cluster.kubectl_admin(&["create", "clusterrolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com"]).ok();
    }
    let mut mount = mount_of(&world);
    world.write_config(&config(&world, POLICY, false));
    let foo = world.person("foo");
    for host in [STAGING_HOST, PROD_HOST] {
        foo.set_up(&world.url(host)).ok();
    }
    let token = foo.session_token(&world.url(PROD_HOST));
    let mut open = Open::start(&foo);
    open.go_on(&world, "before any change");

    add_a_route(&world, &foo, &mut mount, &mut open);
    change_the_policy(&world, &token, &mut open);
    rotate_the_serving_certificate(&world, &mut mount, &mut open);
    rotate_the_service_account_token(&world, &token, &mut mount, &mut open);
    a_bad_change_changes_nothing(&mut world, &token, &mut open);
    nothing_was_drained(&world);
    assert_eq!(foo.logins(), 1);

    open.end();
    the_drain_lets_an_open_exec_finish(&mut world, &foo, &token);
}

/// A route that is new, and the CA bundle of its cluster: first one that does not fit, then the old and the new.
fn add_a_route(world: &World, foo: &Person, mount: &mut Mount, open: &mut Open) {
    world.proxy.map(&format!("{EXTRA_HOST}:443"), world.port);
    mount.put(&[("extra-ca.crt", world.staging.ca_pem())]);
    let client = world.client();
    assert_eq!(get(&client, EXTRA_HOST, None, "/api").0, 404, "no such route yet");
    world.write_config(&config(world, POLICY, true));
    eventually("the new route is served", IN_FORCE, || (get(&client, EXTRA_HOST, None, "/api").0 == 401).then_some(()));
    open.go_on(world, "a route was added");

    let token = foo.session_token(&world.url(EXTRA_HOST));
    let refused = get(&client, EXTRA_HOST, Some(&token), CONFIG_MAPS);
    assert_eq!(refused.0, 503, "the cluster's certificate is not of this CA: {}", refused.1);
    mount.put(&[("extra-ca.crt", &format!("{}{}", world.prod.ca_pem(), world.staging.ca_pem()))]);
    eventually("the CA bundle is in force", IN_FORCE, || (get(&client, EXTRA_HOST, Some(&token), CONFIG_MAPS).0 == 200).then_some(()));
    // On the route with the open streams: the old and a new one.
    let before = secrets(world);
    mount.put(&[("prod-ca.crt", &format!("{}{}", world.prod.ca_pem(), Authority::new("the next authority").pem()))]);
    eventually("Envoy has taken the CA bundle", IN_FORCE, || {
        let secrets = secrets(world);
        (secrets["wanted"] != before["wanted"] && secrets["acknowledged"] == secrets["wanted"]).then_some(())
    });
    open.go_on(world, "the CA bundle was rotated");
}

fn change_the_policy(world: &World, token: &str, open: &mut Open) {
    let client = world.client();
    let policy = format!("{POLICY}  - {{name: no-services, deny: 'k8s.resource == \"services\"', message: \"not today\"}}\n");
    assert_eq!(get(&client, PROD_HOST, Some(token), SERVICES).0, 200);
    world.write_config(&config(world, &policy, true));
    let (_, body) = eventually("the new policy is in force", IN_FORCE, || {
        Some(get(&client, PROD_HOST, Some(token), SERVICES)).filter(|(status, _)| *status == 403)
    });
    assert!(body.contains("not today"), "{body}");
    assert_eq!(get(&client, PROD_HOST, Some(token), CONFIG_MAPS).0, 200);
    open.go_on(world, "the policy was changed");
}

fn rotate_the_serving_certificate(world: &World, mount: &mut Mount, open: &mut Open) {
    // One of another authority: then what a client trusts tells which certificate is served.
    let next = Authority::new("the next serving authority");
    let served_by = |authority: &Authority| {
        let proxy = reqwest::Proxy::https(world.proxy.url()).unwrap();
        let client = http::builder(&[authority.pem()]).proxy(proxy).build().unwrap();
        client.get(format!("https://{PROD_HOST}/api")).send().is_ok()
    };
    assert!(served_by(&world.authority) && !served_by(&next));
    let pair = serving(&next);
    mount.put(&[("tls.crt", &pair.cert), ("tls.key", &pair.key)]);
    eventually("the new certificate is served", IN_FORCE, || served_by(&next).then_some(()));
    assert!(!served_by(&world.authority));
    open.go_on(world, "the serving certificate was rotated");
    let pair = serving(&world.authority);
    mount.put(&[("tls.crt", &pair.cert), ("tls.key", &pair.key)]);
    eventually("a certificate that kubectl trusts is served again", IN_FORCE, || served_by(&world.authority).then_some(()));
}

fn rotate_the_service_account_token(world: &World, token: &str, mount: &mut Mount, open: &mut Open) {
    let client = world.client();
    let fresh = world.prod.create_token(NAMESPACE, SERVICE_ACCOUNT);
    let wanted = format!("JTI={}", jwt::claims(&fresh)["jti"].as_str().unwrap());
    let used_by = |path: &str| -> Value {
        assert_eq!(get(&client, PROD_HOST, Some(token), path).0, 200);
        let event = world.prod.audit_find(path, |event| event["requestURI"] == path && event["stage"] == "ResponseComplete");
        assert_eq!(event["impersonatedUser"]["username"], "foo@example.com", "{event}");
        event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].clone()
    };
    let before = used_by(&format!("{CONFIG_MAPS}?limit=1"));
    assert!(before.as_str().is_some_and(|id| id.starts_with("JTI=")) && before != wanted, "{before}");
    mount.put(&[("prod-token", &fresh)]);
    let mut limit = 1;
    eventually("the new service-account token is used", IN_FORCE, || {
        limit += 1;
        (used_by(&format!("{CONFIG_MAPS}?limit={limit}")) == wanted).then_some(())
    });
    open.go_on(world, "the service-account token was rotated");
}

fn a_bad_change_changes_nothing(world: &mut World, token: &str, open: &mut Open) {
    let good = std::fs::read_to_string(world.config_path()).unwrap();
    let version = world.metric(&["kubepass_config_info{"]);
    let configuration = |world: &World| -> Value {
        let state: Value = serde_json::from_str(&world.operator(&["state"]).ok()).unwrap();
        state["configuration"].clone()
    };
    let before = configuration(world);
    assert_eq!((before["last_change"].as_str(), version.len()), (Some("applied"), 1), "{before}");
    assert!(version[0].contains(before["version"].as_str().unwrap()), "{version:?}");

    world.write_config(&format!("{}surprise: 1\n", good.replace("allow: user.email", "allow: user.emial")));
    let after = eventually("the state shows the refused change", IN_FORCE, || {
        Some(configuration(world)).filter(|state| state["last_change"] == "rejected")
    });
    assert_eq!(after["version"], before["version"]);
    let line = world.audit_line("the refused change", |line| line["event"] == "config_changed" && line["outcome"] == "rejected");
    for mistake in ["surprise", "emial"] {
        assert!(after["errors"].to_string().contains(mistake), "{after}");
        assert!(line["errors"].to_string().contains(mistake), "{line}");
        assert!(world.server().log().contains(mistake), "the log lacks {mistake}");
    }
    assert_eq!(world.metric(&["kubepass_config_info{"]), version);
    assert_eq!(world.metric(&["kubepass_config_reloads_total", "rejected"]), ["kubepass_config_reloads_total{result=\"rejected\"} 1"]);

    let client = world.client();
    assert_eq!(get(&client, PROD_HOST, Some(token), CONFIG_MAPS).0, 200);
    assert_eq!(get(&client, PROD_HOST, Some(token), SERVICES).0, 403);
    world.server().signal(Signal::HUP);
    open.go_on(world, "a bad change came, and a signal to read it again");
    world.write_config(&good);
    eventually("the state shows that all is well again", IN_FORCE, || (configuration(world)["last_change"] == "applied").then_some(()));
}

fn nothing_was_drained(world: &World) {
    let stats = envoy_stats(world);
    for name in ["listener_modified", "listener_in_place_updated", "total_filter_chains_draining", "lds.update_rejected"] {
        assert_eq!(stats.get(&format!("listener_manager.{name}")), Some(&0), "{name}: {stats:?}");
    }
    assert!(world.metric(&["kubepass_envoy_stat{", "listener_manager.listener_modified"])[0].ends_with(" 0"));
    let refused: Vec<String> = world.metric(&["kubepass_xds_responses_total", "nacked"]);
    assert!(refused.iter().all(|line| line.ends_with(" 0")), "{refused:?}");
    assert!(!world.metric(&["kubepass_xds_responses_total", "acked"]).is_empty());
    // What an operator watches besides.
    for parts in [
        &["kubepass_decisions_total{route=\"prod\",outcome=\"allow\""][..],
        &["kubepass_decisions_total{route=\"prod\",outcome=\"deny\",reason=\"policy_denied\""],
        &["kubepass_decision_seconds_count"],
        &["kubepass_store_healthy 1"],
        &["kubepass_audit_healthy 1"],
        &["kubepass_idp_up{idp=\"corp\"} 1"],
    ] {
        let lines: Vec<String> = world.metric(parts).into_iter().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() == 1 && !lines[0].ends_with(" 0"), "{parts:?}: {lines:?}");
    }
}

fn the_drain_lets_an_open_exec_finish(world: &mut World, foo: &Person, token: &str) {
    let ready = format!("http://127.0.0.1:{}/readyz", world.admin_port);
    let probe = http::client(&[]);
    assert_eq!(probe.get(&ready).send().unwrap().status(), 200);
    let authorization = format!("Bearer {token}");
    let headers = [("host", PROD_HOST), ("authorization", authorization.as_str())];
    let mut kept = Connection::open(world.port, PROD_HOST, world.authority.pem());
    assert_eq!(kept.request("GET", CONFIG_MAPS, &headers).answer().unwrap().status, 200);
    let mut exec = foo.kubectl_command().start(&["exec", "web", "--", "sh", "-c", "echo begun; sleep 3; echo ended"]);
    exec.wait_text("begun");

    world.server().signal(Signal::TERM);
    let answer = eventually("readiness is false at once", Duration::from_millis(500), || {
        Some(probe.get(&ready).send().ok()?).filter(|answer| answer.status() == 503)
    });
    assert_eq!(answer.text().unwrap(), "not ready: waiting for the end of the drain\n");
    eventually("no new connection is taken", IN_FORCE, || TcpStream::connect(("127.0.0.1", world.port)).is_err().then_some(()));
    let answer = kept.request("GET", CONFIG_MAPS, &headers).answer().expect("an answer on a connection that was open");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));

    let output = exec.finish();
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "begun\nended\n"), "{}", output.stderr);
    let finished = Instant::now();
    let status = eventually("kubepass ends", Duration::from_secs(10), || world.server().ended());
    assert_eq!(status.code(), Some(0), "{}", world.server().tail(20));
    assert!(finished.elapsed() < Duration::from_secs(6), "the drain went on without an open stream: {:?}", finished.elapsed());
    let decision = world
        .audit_line("the exec", |line| line["event"] == "decision" && line["path"].as_str().is_some_and(|path| path.contains("begun")));
    world.audit_line("the exec's end", |line| {
        line["event"] == "completion" && line["phase"] == "end" && line["request_id"] == decision["request_id"]
    });
}

/// What the configuration of [`config`] reads.
fn mount_of(world: &World) -> Mount {
    let mut mount = Mount::at(&world.run.dir("kubepass/mount"));
    let read = |name: &str| std::fs::read_to_string(world.run.file(&format!("kubepass/{name}"))).unwrap();
    let pair = serving(&world.authority);
    mount.put(&[
        ("tls.crt", &pair.cert),
        ("tls.key", &pair.key),
        ("prod-ca.crt", &read("prod-ca.crt")),
        ("prod-token", &read("prod-token")),
    ]);
    mount
}

/// Streams of one person on both clusters that must not be cut.
struct Open {
    streams: [Streams; 2],
    rounds: usize,
}

/// On one cluster: exec by WebSocket and by SPDY, and a watch.
struct Streams {
    row: Row,
    exec: Running,
    spdy: Running,
    watch: Running,
}

impl Open {
    fn start(person: &Person) -> Self {
        let kubectl = person.kubectl_command().limit(Duration::from_secs(15));
        let streams = ROWS.map(|row| {
            let echo = ["--context", row.host, "exec", "-i", "web", "--", "sh", "-c", "while read -r word; do echo got $word; done"];
            Streams {
                row,
                exec: kubectl.start(&echo),
                spdy: kubectl.clone().env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").start(&echo),
                watch: kubectl.start(&["--context", row.host, "get", "configmaps", "-n", "default", "-w", "-o", "name"]),
            }
        });
        Self { streams, rounds: 0 }
    }

    /// Each stream carries something that was not there before.
    fn go_on(&mut self, world: &World, what: &str) {
        self.rounds += 1;
        let word = format!("round-{}", self.rounds);
        for Streams { row, exec, spdy, watch } in &mut self.streams {
            for exec in [&mut *exec, &mut *spdy] {
                exec.write(format!("{word}\n").as_bytes());
                exec.wait_text(&format!("got {word}"));
            }
            row.cluster(world).kubectl_admin(&["create", "configmap", &word]).ok();
            watch.wait_text(&word);
            assert!(exec.is_running() && spdy.is_running() && watch.is_running(), "{row:?}: {what}");
        }
    }

    fn end(self) {
        for Streams { row, exec, spdy, watch } in self.streams {
            for exec in [exec, spdy] {
                assert_eq!(exec.finish().code, Some(0), "{row:?}: the streams were open to their own end");
            }
            drop(watch);
        }
    }
}

/// The installation's configuration with its files in the mount, and one more route on demand.
fn config(world: &World, policy: &str, extra: bool) -> String {
    let mut text = world.config(policy);
    for name in ["tls.crt", "tls.key", "prod-ca.crt", "prod-token"] {
        text = text.replace(&format!("{{file: {name}}}"), &format!("{{file: mount/{name}}}"));
    }
    if extra {
        let route = format!(
            "- name: extra\n  host: {EXTRA_HOST}\n  kubernetes:\n    server: {}\n    ca: {{file: mount/extra-ca.crt}}\n    \
             impersonate: {{token: {{file: mount/prod-token}}}}\n  policy:{POLICY}",
            world.prod.url()
        );
        text = text.replace("\naudit:", &format!("\n{route}\naudit:"));
    }
    text
}

fn serving(authority: &Authority) -> Pair {
    authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST, EXTRA_HOST])
}

fn get(client: &reqwest::blocking::Client, host: &str, token: Option<&str>, path: &str) -> (u16, String) {
    let mut request = client.get(format!("https://{host}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

/// The secrets' versions that Envoy should have and has acknowledged.
fn secrets(world: &World) -> Value {
    let state: Value = serde_json::from_str(&world.operator(&["state"]).ok()).unwrap();
    state["xds"]["streams"][0]["types"]["sds"].clone()
}

/// What the managed Envoy says of itself now.
pub(super) fn envoy_stats(world: &World) -> BTreeMap<String, u64> {
    let mut admin = UnixStream::connect(world.run.file("kubepass/run/envoy-admin.sock")).unwrap();
    admin.write_all(b"GET /stats HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    admin.read_to_string(&mut text).unwrap();
    text.lines().filter_map(|line| line.split_once(": ").and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))).collect()
}
