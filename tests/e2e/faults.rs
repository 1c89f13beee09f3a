//! Parts that fail: what cannot be decided, written or stored is refused with an answer that says so, nothing reaches the API server meanwhile,
//! and all comes back by itself. What was granted outlives a crash, and what was taken back stays taken back.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::shared::own_world;
use super::support::http;
use super::support::person::Person;
use super::support::processes::{envoys, kill, resident_kib};
use super::support::raw::Connection;
use super::support::wait::eventually;
use super::support::world::{POLICY, PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};

/// For a part to come back by itself.
const RECOVERY: Duration = Duration::from_secs(10);

const PEOPLE: [&str; 9] = ["envoy", "audit", "store", "later", "crash", "newcomer", "revoked", "rotated", "junk"];

/// One installation for the faults; each story mends what it broke and has people of its own. After one that failed, a new one.
fn world() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| Mutex::new(fresh_world()));
    world.lock().unwrap_or_else(|broken| {
        let mut guard = broken.into_inner();
        *guard = fresh_world();
        world.clear_poison();
        guard
    })
}

fn fresh_world() -> World {
    let claims = |name: &str| json!({"email": format!("{name}@example.com"), "email_verified": true, "groups": []});
    let users = PEOPLE.iter().map(|name| ((*name).to_owned(), claims(name))).collect::<serde_json::Map<_, _>>();
    let world = own_world("faults", WorldOptions { users: users.into(), ..WorldOptions::default() });
    let users = PEOPLE.map(|name| format!("--user={name}@example.com"));
    for cluster in [&world.prod, &world.staging] {
        let arguments = ["create", "clusterrolebinding", "all", "--clusterrole=cluster-admin"];
        let arguments: Vec<&str> = arguments.into_iter().chain(users.iter().map(String::as_str)).collect();
        cluster.kubectl_admin(&arguments).ok();
    }
    world
}

#[test]
fn a_killed_envoy_comes_back_and_refuses_while_no_check_is_answered() {
    let mut world = world();
    let (_envoy, token) = logged_in(&world, "envoy");
    let socket = world.run.file("kubepass/run/ext_authz.sock");
    let restarts = || world.metric(&["kubepass_envoy_restarts_total"]).concat();
    let before = (envoys(&world), restarts());
    assert_eq!(before.0.len(), 1);
    std::fs::rename(&socket, socket.with_extension("away")).unwrap();
    kill(before.0[0]);
    let awaited =
        eventually("not ready without an Envoy", Duration::from_secs(2), || Some(readiness(&world)).filter(|(status, _)| *status == 503));
    assert_eq!(awaited.1, "not ready: waiting for Envoy to acknowledge its listener\n");
    let refused = eventually("Envoy is back", RECOVERY, || ask(&world, &token, "check-is-gone"));
    assert!(envoys(&world).len() == 1 && envoys(&world) != before.0);
    assert_ne!(restarts(), before.1);
    refused_by_envoy(&world, &refused, "check-is-gone");
    // In these words Envoy tells of it; by them a stream counts no more whose check took too long.
    let line = world.audit_line("of what nobody decided", |line| line["event"] == "completion" && line["ended_by"] == "ext_authz_error");
    assert_eq!(line["status"], 503, "{line}");
    std::fs::rename(socket.with_extension("away"), &socket).unwrap();
    eventually("checks are answered again", RECOVERY, || ask(&world, &token, "check-is-back").filter(|answer| answer.0 == 200));

    assert_eq!(readiness(&world).0, 200);

    // One that hangs instead.
    world.server().signal(Signal::STOP);
    let began = Instant::now();
    let refused = ask(&world, &token, "check-hangs").unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    refused_by_envoy(&world, &refused, "check-hangs");
    world.server().signal(Signal::CONT);
    eventually("checks are answered again", RECOVERY, || ask(&world, &token, "check-goes-on").filter(|answer| answer.0 == 200));
    assert!(!reached(&world, "check-hangs"), "a request that was refused went on later");
}

fn refused_by_envoy(world: &World, (status, body): &(u16, Value), namespace: &str) {
    assert_eq!((*status, body["kind"].as_str(), body["reason"].as_str()), (503, Some("Status"), Some("ServiceUnavailable")), "{body}");
    assert!(body["message"].as_str().unwrap().contains("kubepass did not answer the authorization check"), "{body}");
    assert!(!reached(world, namespace), "{namespace} reached the API server");
}

#[test]
fn without_an_audit_trail_nothing_passes_unless_configured_so() {
    let world = world();
    let (_audit, token) = logged_in(&world, "audit");
    let trail = Broken::folder_for_file(&world.audit_path());
    let (status, body) = ask(&world, &token, "no-trail").unwrap();
    assert_eq!((status, body["kind"].as_str(), body["reason"].as_str()), (503, Some("Status"), Some("ServiceUnavailable")), "{body}");
    assert!(body["message"].as_str().unwrap().contains("audit trail"), "{body}");
    assert!(!reached(&world, "no-trail"));
    assert_eq!(world.metric(&["kubepass_audit_healthy"]).last().unwrap(), "kubepass_audit_healthy 0");
    assert_eq!(readiness(&world), (503, "not ready: waiting for the audit trail\n".to_owned()));
    trail.mend();
    eventually("ready again without a request", RECOVERY, || (readiness(&world).0 == 200).then_some(()));
    assert_eq!(world.metric(&["kubepass_audit_healthy"]).last().unwrap(), "kubepass_audit_healthy 1");
    let line = world.audit_line("what is missing", |line| line["event"] == "trail_restored");
    assert!(line["lines_lost"].as_u64().unwrap() >= 1, "{line}");
    assert_eq!(ask(&world, &token, "trail-is-back").unwrap().0, 200);
    assert!(reached(&world, "trail-is-back"));

    let deny = world.config(POLICY);
    apply(&world, &deny.replace("on_failure: deny", "on_failure: allow"));
    let trail = Broken::folder_for_file(&world.audit_path());
    assert_eq!(ask(&world, &token, "passes-without-trail").unwrap().0, 200);
    assert!(reached(&world, "passes-without-trail"));
    trail.mend();
    apply(&world, &deny);
    eventually("ready again", RECOVERY, || (readiness(&world).0 == 200).then_some(()));
}

#[test]
fn without_the_session_store_sessions_go_on_and_no_new_one_begins() {
    let mut world = world();
    let (_store, token) = logged_in(&world, "store");
    let file = world.run.file("kubepass/kubepass.db");
    std::fs::rename(&file, file.with_extension("away")).unwrap();
    assert_eq!(ask(&world, &token, "store-is-gone").unwrap().0, 200, "a session that lives needs no store");
    let later = world.person("later");
    let login = format!("{}/login", world.url(PUBLIC_HOST));
    let page = later.visit(&login);
    assert_eq!(page.status, 503, "{page}");
    assert!(page.text().contains("The session store cannot be used"), "{page}");
    // Sessions of before the last restart rest in the store: what is in memory is listed, and that others are missing.
    let listed = format!("{:?}", world.operator(&["session", "list"]));
    assert!(
        listed.contains("store@example.com") && !listed.contains("later@example.com"),
        "no session that a restart would lose: {listed}"
    );
    assert_eq!(world.metric(&["kubepass_store_healthy"]).last().unwrap(), "kubepass_store_healthy 0");
    assert_eq!(readiness(&world), (503, "not ready: waiting for the session store\n".to_owned()));

    // Revoked while the store cannot be written: refused at once, and not forgotten.
    let said = world.operator(&["session", "revoke", "--user", "store@example.com"]).err();
    assert!(said.contains("store"), "{said}");
    assert_eq!(ask(&world, &token, "revoked").unwrap().0, 401);

    std::fs::rename(file.with_extension("away"), &file).unwrap();
    eventually("ready again without a login", RECOVERY, || (readiness(&world).0 == 200).then_some(()));
    assert_eq!(world.metric(&["kubepass_store_healthy"]).last().unwrap(), "kubepass_store_healthy 1");
    let page = later.visit(&login);
    assert!(page.status == 200 && page.text().contains("later@example.com"), "{page}");
    restart_after_kill(&mut world);
    assert_eq!(ask(&world, &token, "revoked").unwrap().0, 401, "the restart brought back a session that was ended");
    assert!(!reached(&world, "revoked"));
}

#[test]
fn a_crash_and_an_identity_provider_that_is_away_cost_nobody_their_session() {
    let mut world = world();
    let (crash, token) = logged_in(&world, "crash");
    world.idp.stop();
    restart_after_kill(&mut world);
    crash.kubectl(&["get", "configmaps", "-n", "after-the-crash"]).ok();
    assert!(reached(&world, "after-the-crash"));
    assert_eq!(crash.logins(), 1, "kubectl went on without a new login");
    assert_eq!(ask(&world, &token, "same-token").unwrap().0, 200);

    let up = |world: &World| world.metric(&["kubepass_idp_up{"]).concat();
    let newcomer = world.person("newcomer");
    let login = format!("{}/login", world.url(PUBLIC_HOST));
    let page = newcomer.visit(&login);
    assert_eq!(page.status, 502, "{page}");
    assert!(page.text().contains("Try again in a minute") && page.text().contains("corp"), "{page}");
    assert_eq!(up(&world), "kubepass_idp_up{idp=\"corp\"} 0");
    assert_eq!(readiness(&world).0, 200, "only new logins need it");
    world.idp.start_again();
    let page = eventually("a new login", RECOVERY, || Some(newcomer.visit(&login)).filter(|page| page.status == 200));
    assert!(page.text().contains("newcomer@example.com"), "{page}");
    assert_eq!(up(&world), "kubepass_idp_up{idp=\"corp\"} 1");
}

#[test]
fn a_revoked_session_is_refused_at_its_next_request() {
    let world = world();
    let (revoked, token) = logged_in(&world, "revoked");
    assert_eq!(std::fs::metadata(world.admin_socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = sessions(&world);
    let row = listed.lines().find(|line| line.contains("revoked@example.com")).unwrap_or_else(|| panic!("{listed}"));
    let id = row.split_whitespace().next().unwrap();
    assert_eq!(world.operator(&["session", "revoke", id]).ok(), "1 session has ended\n");
    let (status, body) = ask(&world, &token, "after-revocation").unwrap();
    assert_eq!((status, body["reason"].as_str()), (401, Some("Unauthorized")), "{body}");
    assert!(!reached(&world, "after-revocation"));
    let line = world.audit_line("the revocation", |line| line["event"] == "logout" && line["session"] == id);
    assert_eq!(line["by"], "operator");
    assert!(world.operator(&["session", "revoke", id]).err().contains("no such session"));
    // kubectl shows the first refusal, and its next call logs in.
    let _ = revoked.kubectl(&["get", "configmaps", "-n", "first-refused"]);
    revoked.kubectl(&["get", "configmaps", "-n", "logged-in-again"]).ok();
    assert_eq!(revoked.logins(), 2);
}

#[test]
fn secrets_rotate_without_a_log_out_until_the_old_one_is_removed() {
    let world = world();
    let (rotated, old) = logged_in(&world, "rotated");
    let original = world.config(POLICY);
    world.secret("secret-2", "the next secret for tests only, as long as the one before it");
    apply(&world, &original.replace("secrets: [{file: secret}]", "secrets: [{file: secret-2}, {file: secret}]"));
    assert_eq!(ask(&world, &old, "old-secret-kept").unwrap().0, 200);
    rotated.kubectl(&["get", "configmaps", "-n", "both-secrets"]).ok();
    // Asked for only now, so the new secret signs it; the login token that asks is of the old one.
    let new = rotated.session_token(&world.url(STAGING_HOST));
    assert_eq!(rotated.logins(), 1);

    apply(&world, &original.replace("secrets: [{file: secret}]", "secrets: [{file: secret-2}]"));
    let (status, body) = ask(&world, &old, "old-secret-gone").unwrap();
    assert_eq!((status, body["reason"].as_str()), (401, Some("Unauthorized")), "{body}");
    assert!(!reached(&world, "old-secret-gone"));
    let path = format!("https://{STAGING_HOST}/api/v1/namespaces/default/configmaps");
    assert_eq!(world.client().get(path).bearer_auth(&new).send().unwrap().status(), 200);
    let _ = rotated.kubectl(&["get", "configmaps", "-n", "first-refused"]);
    rotated.kubectl(&["get", "configmaps", "-n", "logged-in-again"]).ok();
    assert_eq!(rotated.logins(), 2, "who held tokens of the old secret only is logged out");
    apply(&world, &original);
}

#[test]
fn junk_stops_nobody_else_and_does_not_fill_memory() {
    let mut world = world();
    let (junk, token) = logged_in(&world, "junk");
    let server = world.server().id();
    let began = Instant::now();
    // Some say nothing, some begin a TLS handshake that never goes on.
    let half_open: Vec<TcpStream> = (0..2_000)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
            }
            stream
        })
        .collect();
    let filler = |kibibytes: usize| "x".repeat(kibibytes << 10);
    let authorization = format!("Bearer {token}");
    let with_header = |value: &str| {
        let mut connection = Connection::open(world.port, PROD_HOST, world.authority.pem());
        let headers = [("host", PROD_HOST), ("authorization", authorization.as_str()), ("x-junk", value)];
        connection.request("GET", "/api/v1/namespaces/junk-headers/configmaps", &headers).answer().map(|answer| answer.status)
    };
    let (too_large, large) = (filler(64), filler(40));
    for _ in 0..50 {
        assert!(matches!(with_header(&too_large), Some(431) | None), "64 KiB of headers are refused");
        // What Envoy still takes, kubepass must bear.
        assert!(with_header(&large).is_some());
    }
    let asked = Instant::now();
    assert_eq!(ask(&world, &token, "beside-junk").unwrap().0, 200);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    junk.kubectl(&["get", "configmaps", "-n", "kubectl-beside-junk"]).ok();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(half_open.len(), 2_000);
    let resident = resident_kib(server);
    assert!(resident < 200 << 10, "kubepass uses {resident} KiB");
    assert_eq!(readiness(&world).0, 200);
}

#[test]
fn a_part_that_cannot_run_ends_the_process_with_its_reason() {
    let mut world = world();
    world.stop_kubepass(false);
    let socket = world.run.file("kubepass/run/envoy-admin.sock");
    // Envoy cannot listen where a folder stands.
    let _ = std::fs::remove_file(&socket);
    std::fs::create_dir(&socket).unwrap();
    let envoy = world.tools().envoy();
    let output = world.operator(&["up", "--envoy", envoy.to_str().unwrap()]);
    std::fs::remove_dir(&socket).unwrap();
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(output.stderr.contains("the task \"envoy\" ended") && output.stderr.contains("envoy-admin.sock"), "{}", output.stderr);
    world.start_kubepass();
}

/// Someone with kubectl set up and a token for the route `prod`.
fn logged_in(world: &World, name: &str) -> (Person, String) {
    let person = world.person(name);
    person.set_up(&world.url(PROD_HOST)).ok();
    let token = person.session_token(&world.url(PROD_HOST));
    (person, token)
}

/// One request over a connection of its own; `namespace` tells it from others in the API server's audit log. None when nothing answers.
fn ask(world: &World, token: &str, namespace: &str) -> Option<(u16, Value)> {
    let url = format!("https://{PROD_HOST}/api/v1/namespaces/{namespace}/configmaps");
    let answer = world.client().get(url).bearer_auth(token).send().ok()?;
    Some((answer.status().as_u16(), answer.json().unwrap_or_default()))
}

/// Whether a request of [`ask`] came to the API server.
fn reached(world: &World, namespace: &str) -> bool {
    world.prod.audit_events().iter().any(|event| event["objectRef"]["namespace"] == namespace)
}

fn readiness(world: &World) -> (u16, String) {
    let answer = http::client(&[]).get(format!("http://127.0.0.1:{}/readyz", world.admin_port)).send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

pub(super) fn assert_ready(world: &World) {
    let (status, text) = readiness(world);
    assert_eq!(status, 200, "{text}");
}

fn sessions(world: &World) -> String {
    world.operator(&["session", "list"]).ok()
}

/// Puts a configuration in force.
fn apply(world: &World, text: &str) {
    let version = || world.metric(&["kubepass_config_info{"]);
    let before = version();
    world.write_config(text);
    eventually("the configuration is in force", Duration::from_secs(2), || (version() != before).then_some(()));
}

/// SIGKILL; Envoy ends with it; then a new start.
fn restart_after_kill(world: &mut World) {
    assert_eq!(envoys(world).len(), 1);
    world.stop_kubepass(true);
    eventually("Envoy ends with kubepass", Duration::from_secs(5), || envoys(world).is_empty().then_some(()));
    assert!(TcpStream::connect(("127.0.0.1", world.port)).is_err());
    world.start_kubepass();
}

/// A file in whose place a folder stands, so that it cannot be opened.
struct Broken {
    file: PathBuf,
    away: PathBuf,
}

impl Broken {
    fn folder_for_file(file: &Path) -> Self {
        let broken = Self { file: file.to_owned(), away: file.with_extension("away") };
        std::fs::rename(&broken.file, &broken.away).unwrap();
        std::fs::create_dir(&broken.file).unwrap();
        broken
    }

    fn mend(self) {
        std::fs::remove_dir(&self.file).unwrap();
        std::fs::rename(self.away, self.file).unwrap();
    }
}
