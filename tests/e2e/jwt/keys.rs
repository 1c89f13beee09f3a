//! Keys under way: a day on which parts are away and keys come and go, told as one story on an installation of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::super::support::https::Server;
use super::super::support::jwt::{self, Signer};
use super::super::support::kubectl::Running;
use super::super::support::manifests::NO_ISSUERS;
use super::super::support::person::Person;
use super::super::support::pki;
use super::super::support::wait::eventually;
use super::super::support::world::{PUBLIC_HOST, STAGING_HOST, World};
use super::{Installation, TWIN_HOST};

const ROTATIONS: usize = 10;
const REQUESTS: usize = 10_000;
/// Clients at once: enough for a request at every moment of a rotation, and not so many that a busy machine leaves a check unanswered.
const CLIENTS: usize = 4;
/// By when a new key signs: it is seen, published for a second, and used.
const ROTATED: Duration = Duration::from_secs(30);

#[test]
fn keys_come_and_go_and_nobody_notices() {
    let mut installed = Installation::start("keys", World::trust_while_running);
    let foo = installed.world.person("foo");
    foo.set_up(&installed.world.url(STAGING_HOST)).ok();
    is_foo(&foo);
    without_the_identity_provider(&mut installed.world, &foo);
    ten_rotations_under_load(&installed, &foo);
    from_a_server_near_the_cluster(&installed.world, &foo);
    the_cluster_takes_its_trust_back(&installed.world, &foo);
}

/// kubepass crashes and the API server as well, and each needs nobody but the other to go on.
fn without_the_identity_provider(world: &mut World, foo: &Person) {
    world.idp.stop();
    world.stop_kubepass(true);
    world.start_kubepass();
    is_foo(foo);
    world.staging.restart_api_server();
    world.until_trusted(&world.staging);
    is_foo(foo);
    assert_eq!(foo.logins(), 1, "all of it in the first session");
}

/// A new first key ten times while requests come as fast as they can; each is published before it signs.
fn ten_rotations_under_load(installed: &Installation, foo: &Person) {
    let world = &installed.world;
    let session = foo.session_token(&world.url(STAGING_HOST));
    let for_twin = foo.session_token(&world.url(TWIN_HOST));
    let signing = || jwt::header(&installed.sent_to(&installed.twin, TWIN_HOST, &for_twin))["kid"].clone();
    let good = std::fs::read_to_string(world.config_path()).unwrap();
    let mut exec = open_exec(foo);
    let (done, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = world.client();
                while !over.load(Ordering::Relaxed) {
                    let answer = client.get(format!("https://{STAGING_HOST}/version")).bearer_auth(&session).send().unwrap();
                    assert_eq!(answer.status(), 200, "{:?}", answer.text());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = AtEnd(&over);
        let mut files = vec!["signing.pem".to_owned()];
        for round in 1..=ROTATIONS {
            let (file, pem) = (format!("signing-{round}.pem"), pki::key_pair().0);
            world.secret(&file, &pem);
            files.insert(0, file);
            // The third is gone for good: only what it has signed lives on.
            files.truncate(2);
            let list: Vec<String> = files.iter().map(|file| format!("{{file: {file}}}")).collect();
            let keys = format!("publish_before_use: 1s\nsigning_keys: [{}]\n", list.join(", "));
            world.write_config(&good.replace("signing_keys: [{file: signing.pem}]\n", &keys));
            let wanted = Signer::from_pem(&pem).kid();
            eventually(&format!("key {round} signs"), ROTATED, || (signing() == wanted.as_str()).then_some(()));
            say(&mut exec, &format!("round-{round}"));
        }
        eventually("all requests", Duration::from_secs(120), || (done.load(Ordering::Relaxed) >= REQUESTS).then_some(()));
    });
    let ended = exec.finish();
    assert_eq!(ended.code, Some(0), "the exec was open to its own end: {ended:?}");
    let unauthorized = world.staging.audit_events().into_iter().filter(|event| event["responseStatus"]["code"] == 401);
    assert_eq!(unauthorized.collect::<Vec<_>>(), Vec::<serde_json::Value>::new(), "the API server refused a token");
    // Everything that was published less than an hour ago still is: a token may be on its way.
    let published = world.client().get(format!("{}/.well-known/jwks.json", world.url(PUBLIC_HOST))).send().unwrap();
    let published: serde_json::Value = published.json().unwrap();
    assert_eq!(published["keys"].as_array().unwrap().len(), ROTATIONS + 1, "{published}");
}

/// The API server cannot reach kubepass by name; static files near it say the same. It takes the new address over while it runs.
fn from_a_server_near_the_cluster(world: &World, foo: &Person) {
    let folder = world.run.dir("published");
    let near = Server::of_files(&world.authority.server(&["127.0.0.1"]), &folder);
    world.operator(&["keys", "publish", &folder.display().to_string(), "--base-url", &near.url()]).ok();
    world.cluster_proxy.unmap(PUBLIC_HOST);
    let discovery = format!("{}/.well-known/openid-configuration", near.url());
    let mut exec = open_exec(foo);
    world.staging.reload_authentication_config(&world.authentication_config("staging", &world.staging, &["--discovery-url", &discovery]));
    is_foo(foo);
    let asked: Vec<String> = near.asked().into_iter().map(|asked| asked.path).collect();
    assert!(
        asked.iter().any(|path| path.ends_with("/openid-configuration")) && asked.iter().any(|path| path.ends_with("jwks.json")),
        "{asked:?}"
    );
    say(&mut exec, "still-here");
    assert_eq!(exec.finish().code, Some(0));
}

/// Whom an API server trusts is up to its own administrator.
fn the_cluster_takes_its_trust_back(world: &World, foo: &Person) {
    world.staging.reload_authentication_config(NO_ISSUERS);
    // An API server remembers for ten seconds what it found good.
    let refused = eventually("the API server takes the token no more", Duration::from_secs(20), || {
        Some(foo.kubectl(&["get", "pods"])).filter(|output| output.code != Some(0))
    });
    assert!(refused.stderr.contains("You must be logged in to the server"), "{refused:?}");
}

/// Ends the clients also when a rotation fails.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn is_foo(person: &Person) {
    assert_eq!(person.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok(), "foo@example.com");
}

fn open_exec(person: &Person) -> Running {
    let echo = ["exec", "-i", "web", "--", "sh", "-c", "while read -r word; do echo got $word; done"];
    let mut exec = person.kubectl_command().start(&echo);
    say(&mut exec, "begun");
    exec
}

fn say(exec: &mut Running, word: &str) {
    exec.write(format!("{word}\n").as_bytes());
    exec.wait_text(&format!("got {word}"));
}
