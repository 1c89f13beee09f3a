//! What `SECURITY.md` says to do when a key leaks, followed to the letter: each block of commands is run while requests on both routes and an `exec` go
//! on. Afterwards what leaked is worth nothing, and nobody but whom the document says was refused meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::shared::own_world;
use super::support::document::blocks;
use super::support::http;
use super::support::jwt::Signer;
use super::support::kubectl::{Kubectl, Running};
use super::support::manifests::PROBE;
use super::support::person::Person;
use super::support::raw::Connection;
use super::support::wait::{eventually, eventually_ok};
use super::support::world::{Method, PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions, server_binary};

const SECTION: &str = "## When a key leaks";
/// In this order the document has them.
const BLOCKS: [&str; 8] =
    ["session", "service-account-token", "signing-key", "assertion-key", "secrets", "client-secret", "tls-key", "identity-provider-key"];
const HOSTS: [&str; 2] = [PROD_HOST, STAGING_HOST];
/// Files are seen, and an API server has forgotten what it found good.
const SOON: Duration = Duration::from_secs(30);
/// Requests after each of the blocks.
const GO_ON: usize = 40;

#[test]
fn every_secret_is_replaced_as_written_while_everybody_works() {
    let options = WorldOptions { staging: Method::Jwt, ..WorldOptions::default() };
    let mut world = own_world("leaks", options);
    let written = blocks("SECURITY.md", SECTION);
    let kinds: Vec<&str> = written.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, BLOCKS, "the section has other blocks than this test knows");
    let foo = world.person("foo");
    for host in HOSTS {
        foo.set_up(&world.url(host)).ok();
    }
    world.prod.run_pod("default", "web");
    world.prod.kubectl_admin(&["create", "clusterrolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com"]).ok();
    let mut exec = foo.kubectl_command().start(&[
        "--context",
        PROD_HOST,
        "exec",
        "-i",
        "web",
        "--",
        "sh",
        "-c",
        "while read -r word; do echo got $word; done",
    ]);
    let work = Work::default();
    work.with_tokens_of(&world, &foo);
    let client = [world.client(), world.client()];
    std::thread::scope(|scope| {
        let _end = AtEnd(&work.over);
        for (host, client) in HOSTS.iter().zip(&client) {
            scope.spawn(|| work.ask_until_over(host, client));
        }
        work.goes_on("before anything");
        for (kind, commands) in &written {
            rehearse(kind, commands, &mut world, &work);
            exec.write(format!("{kind}\n").as_bytes());
            exec.wait_text(&format!("got {kind}"));
            work.goes_on(kind);
        }
    });
    finish(exec);
    let last = world.person("foo");
    last.set_up(&world.url(PROD_HOST)).ok();
    last.kubectl(&["get", "pods"]).ok();
    world.stop_kubepass(false);
    world.start_kubepass();
    last.kubectl(&["get", "pods"]).ok();
}

fn rehearse(kind: &str, commands: &str, world: &mut World, work: &Work) {
    let run = |world: &World| administrator(world).run(&["-ec", &format!("set -o pipefail\n{commands}")]).ok();
    let ends_sessions = |world: &World, work: &Work| {
        let old = work.token(PROD_HOST);
        work.everybody_logs_in_again(world, || {
            run(world);
            eventually(&format!("{kind}: the old token is refused"), SOON, || (status(world, PROD_HOST, &old) == 401).then_some(()));
        });
    };
    match kind {
        "session" | "secrets" | "identity-provider-key" => {
            if kind == "identity-provider-key" {
                world.idp.rotate_keys();
            }
            ends_sessions(world, work);
        }
        "service-account-token" => {
            let stolen = read(world, "prod-token");
            run(world);
            until_refused(&world.prod, &stolen, kind);
        }
        "signing-key" => {
            let stolen = Signer::from_pem(&read(world, "signing.pem"));
            let header = json!({"alg": "ES256", "typ": "kubepass-upstream+jwt", "kid": stolen.kid()});
            let forged = || stolen.sign(&header, &world.upstream_claims("mallory"));
            // It is taken, and may do nothing only by RBAC.
            assert_eq!(direct(&world.staging, &forged()), 403);
            run(world);
            eventually(kind, SOON, || (direct(&world.staging, &forged()) == 401).then_some(()));
        }
        "assertion-key" => {
            let kids = |world: &World| -> Vec<Value> {
                let url = format!("{}/.well-known/kubepass/assertion-jwks.json", world.url(PUBLIC_HOST));
                let published: Value = world.client().get(url).send().unwrap().json().unwrap();
                published["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
            };
            let stolen = kids(world);
            run(world);
            eventually_ok(kind, SOON, || {
                let now = kids(world);
                if !now.is_empty() && now.iter().all(|kid| !stolen.contains(kid)) { Ok(()) } else { Err(format!("{now:?}")) }
            });
        }
        "client-secret" => {
            world.idp.set_client_secret("another secret of the client");
            run(world);
            eventually("the file is in force", SOON, || (state(world)["configuration"]["last_change"] == "applied").then_some(()));
            work.everybody_logs_in_again(world, || {});
        }
        "tls-key" => {
            let pair = world.authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST]);
            world.secret("tls.key.new", &pair.key);
            world.run.write("kubepass/tls.crt.new", &pair.cert);
            run(world);
            eventually("the new certificate is served", SOON, || {
                let mut connection = Connection::open(world.port, PROD_HOST, world.authority.pem());
                connection.request("GET", "/version", &[("host", PROD_HOST)]).answer()?;
                (connection.server_certificate() == pair.der()).then_some(())
            });
        }
        other => panic!("{other}: this test does not know it"),
    }
}

/// bash where the configuration stands, as an administrator of the cluster.
fn administrator(world: &World) -> Kubectl {
    Kubectl::command(Path::new("/bin/bash"), &world.run.dir("kubepass"))
        .path_first(world.tools().bin())
        .path_first(server_binary().parent().unwrap())
        .env("KUBEPASS_CONFIG", &world.config_path().display().to_string())
        .env("KUBECONFIG", &world.prod.admin_kubeconfig().display().to_string())
        .env("CLIENT_SECRET", "another secret of the client")
}

/// Requests of one person on both routes, without a pause.
#[derive(Default)]
struct Work {
    tokens: Mutex<Vec<(&'static str, String)>>,
    /// Whether a token may be refused at the moment.
    may_end: AtomicBool,
    done: [AtomicUsize; 2],
    over: AtomicBool,
}

impl Work {
    fn with_tokens_of(&self, world: &World, person: &Person) {
        let tokens = HOSTS.map(|host| (host, person.session_token(&world.url(host))));
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = tokens.to_vec();
    }

    fn token(&self, host: &str) -> String {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.iter().find(|(of, _)| *of == host).expect("a token").1.clone()
    }

    fn ask_until_over(&self, host: &str, client: &reqwest::blocking::Client) {
        let done = &self.done[HOSTS.iter().position(|known| *known == host).unwrap()];
        while !self.over.load(Ordering::SeqCst) {
            // What was asked while tokens may end, may be answered later.
            let may_end = self.may_end.load(Ordering::SeqCst);
            let answer = client.get(format!("https://{host}/version")).bearer_auth(self.token(host)).send().unwrap();
            let status = answer.status().as_u16();
            let is_right = status == 200 || (status == 401 && (may_end || self.may_end.load(Ordering::SeqCst)));
            assert!(is_right, "{host}: {status} {:?}", answer.text());
            done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The tokens end, and the person logs in anew.
    fn everybody_logs_in_again(&self, world: &World, end: impl FnOnce()) {
        self.may_end.store(true, Ordering::SeqCst);
        end();
        self.with_tokens_of(world, &world.person("foo"));
        let before = self.counts();
        eventually("requests with the new tokens", SOON, || {
            self.counts().iter().zip(before).all(|(now, before)| *now > before + 1).then_some(())
        });
        self.may_end.store(false, Ordering::SeqCst);
    }

    fn goes_on(&self, what: &str) {
        let before = self.counts();
        eventually(&format!("requests go on: {what}"), SOON, || {
            self.counts().iter().zip(before).all(|(now, before)| *now >= before + GO_ON).then_some(())
        });
    }

    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|index| self.done[index].load(Ordering::SeqCst))
    }
}

/// Ends the requests also when a step fails.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn finish(exec: Running) {
    assert_eq!(exec.finish().code, Some(0), "the exec was open to its own end");
}

fn status(world: &World, host: &str, token: &str) -> u16 {
    world.client().get(format!("https://{host}/version")).bearer_auth(token).send().unwrap().status().as_u16()
}

/// Past kubepass.
fn direct(cluster: &super::support::cluster::Cluster, token: &str) -> u16 {
    let client = http::client(&[cluster.ca_pem()]);
    client.get(format!("{}{PROBE}", cluster.url())).bearer_auth(token).send().unwrap().status().as_u16()
}

fn until_refused(cluster: &super::support::cluster::Cluster, token: &str, what: &str) {
    eventually(&format!("{what}: what leaked is refused"), SOON, || (direct(cluster, token) == 401).then_some(()));
}

fn read(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.run.file(&format!("kubepass/{name}"))).unwrap()
}

fn state(world: &World) -> Value {
    serde_json::from_str(&world.operator(&["state"]).ok()).unwrap()
}
