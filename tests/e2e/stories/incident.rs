//! A day on which much goes wrong, on an installation of its own: policy and configuration change under open sessions, the identity provider
//! and an API server are away. One story, because an installation takes seconds to start.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::rows::{ROWS, Row};
use super::super::shared::own_world;
use super::super::support::kubectl::Running;
use super::super::support::person::Person;
use super::super::support::wait::eventually;
use super::super::support::world::{Method, POLICY, PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};
use super::trails::{assert_trails_agree, decision, last, phases};
use super::{ANYTHING, bind};

/// A configuration is in force this much later at most.
const IN_FORCE: Duration = Duration::from_secs(5);

#[test]
fn changes_and_failures_under_open_sessions() {
    let world = own_world("incident", WorldOptions { staging: Method::Jwt, ..WorldOptions::default() });
    let _logs = world.run.watch();
    for cluster in [&world.prod, &world.staging] {
        bind(cluster, "default", "foo", ANYTHING, ("User", "foo@example.com"));
    }
    let foo = world.person("foo");
    for host in [STAGING_HOST, PROD_HOST] {
        foo.set_up(&world.url(host)).ok();
    }
    policy_changes_under_an_exec_and_a_watch(&world, &foo);
    a_bad_configuration_changes_nothing(&world, &foo);
    a_route_ends_its_streams(&world, &foo);
    the_identity_provider_gives_a_bad_answer(&world);
    // From here on requests are allowed that no API server gets.
    assert_trails_agree(&world);
    an_api_server_that_does_not_answer(&world, &foo);
    the_api_server_is_away(&world, &foo);
}

/// Streams of one person on a route, and the ids of their decisions.
struct Open {
    row: Row,
    exec: Running,
    watch: Running,
    exec_id: String,
    watch_id: String,
}

impl Open {
    fn start(world: &World, row: Row, person: &Person) -> Self {
        let mut exec = person.kubectl_command().start(&["--context", row.host, "exec", "-i", "web", "--", "cat"]);
        exec.write(b"before\n");
        exec.wait_text("before");
        let labels = "jsonpath={.metadata.labels}{'\\n'}";
        let mut watch = person.kubectl_command().start(&["--context", row.host, "get", "pods", "-w", "-o", labels]);
        watch.wait_text("\"app\":\"web\"");
        let exec_id = decision(world, row, "exec", |words| words["subresource"] == "exec");
        let watch_id = decision(world, row, "watch", |words| words["verb"] == "watch");
        Self { row, exec, watch, exec_id, watch_id }
    }

    fn go_on(&mut self, world: &World) {
        self.exec.write(b"after\n");
        self.exec.wait_text("after");
        self.row.cluster(world).kubectl_admin(&["label", "pod", "web", "seen=during-the-freeze"]).ok();
        self.watch.wait_text("during-the-freeze");
        assert!(self.exec.is_running() && self.watch.is_running(), "{:?}", self.row);
    }

    /// Returns the id of the exec's decision.
    fn end(mut self, world: &World) -> String {
        assert_eq!(self.exec.finish().code, Some(0));
        self.watch.interrupt();
        drop(self.watch);
        phases(world, &self.exec_id);
        let (_, end) = phases(world, &self.watch_id);
        assert_eq!(end["status"], 200);
        self.exec_id
    }
}

fn policy_changes_under_an_exec_and_a_watch(world: &World, person: &Person) {
    let mut open = ROWS.map(|row| Open::start(world, row, person));
    let frozen = format!("{POLICY}  - {{name: freeze, deny: 'k8s.resource == \"pods\"', message: \"freeze until Monday\"}}\n");
    world.write_config(&world.config(&frozen));
    for row in ROWS {
        let refused = eventually("the new policy is in force", IN_FORCE, || {
            let output = person.kubectl(&["--context", row.host, "get", "pods"]);
            (output.code != Some(0)).then_some(output.stderr)
        });
        assert!(refused.contains("denied by policy: freeze until Monday"), "{refused}");
        let error = person.kubectl(&["--context", row.host, "exec", "web", "--", "true"]).err();
        assert!(error.contains("freeze until Monday"), "the next exec: {error}");
    }
    open.iter_mut().for_each(|open| open.go_on(world));
    let [exec_id, _] = open.map(|open| open.end(world));

    let changed = last(world, "config_changed", |line| line["outcome"] == "applied");
    let refusal = world.audit_line("the refusal", |line| line["event"] == "decision" && line["rule"] == "freeze");
    assert_eq!(refusal["policy_version"], changed["version"], "{refusal} {changed}");
    let earlier = world.audit_line("the exec's decision", |line| line["event"] == "decision" && line["request_id"] == exec_id.as_str());
    assert_ne!(earlier["policy_version"], changed["version"]);
    world.write_config(&world.config(POLICY));
    eventually("the old policy is in force", IN_FORCE, || (person.kubectl(&["get", "pods"]).code == Some(0)).then_some(()));
    assert_eq!(world.metric(&["listener_modified", " 0"]).len(), 1, "{:?}", world.metric(&["listener_modified"]));
}

fn a_bad_configuration_changes_nothing(world: &World, person: &Person) {
    world.write_config(&world.config("\n  - {name: broken, allow: user.nickname == \"foo\"}\n"));
    let rejected = last(world, "config_changed", |line| line["outcome"] == "rejected");
    let errors = rejected["errors"].to_string();
    assert!(errors.contains("nickname") && errors.contains("kubepass.yaml"), "{errors}");
    person.kubectl(&["get", "pods"]).ok();
    world.write_config(&world.config(POLICY));
}

/// A stream that is older than its route allows ends, and the trail says that this was why.
fn a_route_ends_its_streams(world: &World, person: &Person) {
    let host = format!("  host: {STAGING_HOST}\n");
    let config = world.config(POLICY);
    assert!(config.contains(&host), "{config}");
    apply(world, &config.replace(&host, &format!("{host}  max_stream: 3s\n")));
    let staging = person.kubectl_command();
    let mut watch = staging.start(&["--context", STAGING_HOST, "get", "pods", "-w"]);
    watch.wait_text("web");
    let mut exec = staging.start(&["--context", STAGING_HOST, "exec", "-i", "web", "--", "cat"]);
    exec.write(b"going on\n");
    exec.wait_text("going on");
    for (what, mut stream) in [("watch", watch), ("exec", exec)] {
        eventually(&format!("the {what} ends"), Duration::from_secs(10), || (!stream.is_running()).then_some(()));
        let line = world.audit_line(what, |line| {
            let words = &line["kubernetes"];
            line["event"] == "decision" && line["route"] == "staging" && (words["verb"] == what || words["subresource"] == what)
        });
        assert_eq!(line["stream_limit_ms"], 3_000, "{line}");
        let (_, end) = phases(world, line["request_id"].as_str().unwrap());
        assert!(end["ended_by"].as_str().unwrap().contains("max_stream_duration_reached"), "{what}: {end}");
        assert!((3_000..5_000).contains(&end["duration_ms"].as_u64().unwrap()), "{what}: {end}");
        drop(stream);
    }
}

/// One that takes connections and says nothing, before TLS or after it.
fn an_api_server_that_does_not_answer(world: &World, person: &Person) {
    let pair = world.authority.server(&["127.0.0.1"]);
    let config = world.config(POLICY);
    let config = config.replace("ca: {file: staging-ca.crt}", "ca: {file: ca.pem}");
    let at = |port: u16| config.replace(&world.staging.url(), &format!("https://127.0.0.1:{port}"));
    let host = format!("  host: {STAGING_HOST}\n");
    apply(world, &at(silent::after_tls(&pair)).replace(&host, &format!("{host}  max_stream: 2s\n")));
    let error = person.kubectl(&["--context", STAGING_HOST, "get", "--raw", "/api/v1/namespaces/default/pods"]).err();
    assert!(error.contains("Error from server (Timeout): the session or the time that the route allows for one request ended"), "{error}");

    apply(world, &at(silent::before_tls()));
    let error = person.kubectl(&["--context", STAGING_HOST, "get", "--raw", "/api/v1/namespaces/default/pods"]).err();
    assert!(error.contains("Error from server (ServiceUnavailable): the API server of this route cannot be reached (Envoy: UF"), "{error}");
    apply(world, &world.config(POLICY));
}

/// Puts a good configuration in force.
fn apply(world: &World, config: &str) {
    let changes = || world.audit_lines().iter().filter(|line| line["event"] == "config_changed" && line["outcome"] == "applied").count();
    let before = changes();
    world.write_config(config);
    eventually("the configuration is in force", IN_FORCE, || (changes() > before).then_some(()));
}

fn the_identity_provider_gives_a_bad_answer(world: &World) {
    let bar = world.person("bar");
    world.idp.set(&json!({"id_token": {"claims": {"aud": "someone-else"}, "header": {}, "sign": "right"}}));
    let page = bar.visit(&format!("{}/login", world.url(PUBLIC_HOST)));
    world.idp.behave();
    assert!(page.status >= 400, "{page}");
    let refused = last(world, "login_refused", |_| true);
    assert_eq!(refused["idp"], "corp", "{refused}");
    assert_ne!(refused["reason"], "");
    assert!(!world.audit_lines().iter().any(|line| line["event"] == "login" && line["user"] == "bar@example.com"));
}

fn the_api_server_is_away(world: &World, person: &Person) {
    let token = person.session_token(&world.url(PROD_HOST));
    // Of something that nobody watched before, so that its decision is no earlier one.
    let mut watch = person.kubectl_command().start(&["get", "services", "-w"]);
    watch.wait_text("kubernetes");
    let watched = decision(world, ROWS[0], "watch", |words| words["verb"] == "watch" && words["resource"] == "services");
    world.prod.stop_api_server();
    let (_, end) = phases(world, &watched);
    assert!(end["ended_by"].as_str().unwrap().contains("upstream"), "the trail says who ended the watch: {end}");
    drop(watch);

    let error = person.kubectl(&["get", "pods"]).err();
    let wanted = "Error from server (ServiceUnavailable): the API server of this route cannot be reached (Envoy: ";
    assert!(error.contains(wanted) && error.contains("request id "), "{error}");
    let answer = world.client().get(format!("{}/api/v1/namespaces/default/pods", world.url(PROD_HOST))).bearer_auth(&token).send().unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (503, "application/json"));
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let status: Value = answer.json().unwrap();
    assert_eq!((&status["kind"], &status["code"], &status["reason"]), (&"Status".into(), &503.into(), &"ServiceUnavailable".into()));
    assert!(status["message"].as_str().unwrap().ends_with(&format!("request id {id})")), "{status}");
    let end = world.audit_line("how it ended", |line| line["event"] == "completion" && line["request_id"] == id.as_str());
    assert_eq!((&end["status"], &end["flags"]), (&503.into(), &json!(["UF"])), "{end}");
    let error = person.kubectl(&["exec", "web", "--", "true"]).err();
    assert!(error.contains("the API server of this route cannot be reached"), "exec says it too: {error}");

    person.kubectl(&["--context", STAGING_HOST, "get", "pods"]).ok();
    world.prod.start_api_server();
    eventually("the route works again", Duration::from_secs(15), || (person.kubectl(&["get", "pods"]).code == Some(0)).then_some(()));
}

/// Servers that never answer. They live as long as the test.
mod silent {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::super::super::support::pki::Pair;

    /// Takes the connection only: the other side waits for TLS.
    pub(super) fn before_tls() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let kept: Vec<_> = listener.incoming().collect();
            drop(kept);
        });
        port
    }

    /// Reads requests for ever.
    pub(super) fn after_tls(pair: &Pair) -> u16 {
        let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(versions.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
                    let _ = stream.read_to_end(&mut Vec::new());
                });
            }
        });
        port
    }
}
