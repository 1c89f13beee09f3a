//! `kubepass-server serve` beside an Envoy whose ways to it can be cut, slowed and held; disks and clocks that can be wrong; people who log in.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::super::serve::{start_envoy, until_served};
use super::super::support::leash::Process;
use super::super::support::link::Link;
use super::super::support::person::Person;
use super::super::support::run::Run;
use super::super::support::tools::Tools;
use super::super::support::world::{Method, POLICY, PROD_HOST, STAGING_HOST, World, WorldOptions};

/// Those whose requests are the load.
pub(super) const PEOPLE: [&str; 3] = ["foo", "bar", "baz"];

pub(super) struct Scene {
    // It ends before its control plane.
    envoy: Option<Process>,
    pub(super) world: World,
    pub(super) people: Vec<Person>,
    /// From Envoy to kubepass: resources, and checks.
    pub(super) xds: Link,
    pub(super) checks: Link,
    pub(super) slow_disk: SlowDisk,
    /// Who has logged in while something failed, and got a token.
    acknowledged: Vec<Person>,
    logins: Vec<JoinHandle<Option<Person>>>,
    newcomers: usize,
}

impl Scene {
    /// `newcomers`: how many will log in besides.
    pub(super) fn start(newcomers: usize) -> Self {
        let names = PEOPLE.iter().map(|name| (*name).to_owned()).chain((0..newcomers).map(newcomer));
        let claims = |name: &str| json!({"email": format!("{name}@example.com"), "email_verified": true, "groups": ["group1"]});
        let users: serde_json::Map<_, _> = names.map(|name| (name.clone(), claims(&name))).collect();
        let run = Run::new("script");
        let clock = run.write("clock", "0");
        let slow_disk = SlowDisk::at(&run.file("slow-disk"));
        let options = WorldOptions {
            staging: Method::Jwt,
            users: users.into(),
            server_env: vec![("KUBEPASS_TEST_CLOCK_FILE".to_owned(), clock.display().to_string())],
            ..WorldOptions::default()
        };
        let mut world = World::prepare(Tools::ensure(), run, options);
        world.write_config(&configuration(&world));
        world.permit("prod", &world.prod);
        for cluster in [&world.prod, &world.staging] {
            let group = ["create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--group=group1"];
            cluster.kubectl_admin(&group).ok();
        }
        launch(&mut world);
        let way = |name: &str| {
            let (from, to) = (world.run.file(&format!("{name}-link.sock")), world.run.file(&format!("kubepass/run/{name}.sock")));
            (Link::of_unix_sockets(&from, &to), from.display().to_string(), to.display().to_string())
        };
        let ways = [way("xds"), way("ext_authz")];
        let mut envoy = start_envoy(&world, "script", |bootstrap| {
            ways.iter().fold(bootstrap, |text, (_, from, to)| {
                assert!(text.contains(to.as_str()), "the bootstrap names the socket");
                text.replace(to, from)
            })
        });
        until_served(&world, &mut envoy);
        world.trust("staging", &world.staging);
        let people: Vec<Person> = PEOPLE.iter().map(|name| world.person(name)).collect();
        let [(xds, ..), (checks, ..)] = ways;
        Self { envoy: Some(envoy), world, people, xds, checks, slow_disk, acknowledged: Vec::new(), logins: Vec::new(), newcomers: 0 }
    }

    /// Somebody begins to log in. With a token in hand that login counts, whatever happens then.
    pub(super) fn newcomer(&mut self) {
        let person = self.world.person(&newcomer(self.newcomers));
        self.newcomers += 1;
        let (url, ca) = (self.world.url(PROD_HOST), self.world.run.file("kubepass/ca.pem").display().to_string());
        self.logins.push(std::thread::spawn(move || {
            let output = person.kubepass(&["k8s", "exec-credential", &url, "--ca-file", &ca, "--timeout", "20s"]);
            (output.code == Some(0)).then_some(person)
        }));
    }

    pub(super) fn join_newcomers(&mut self) {
        for login in self.logins.drain(..) {
            self.acknowledged.extend(login.join().expect("a newcomer"));
        }
    }

    /// As a supervisor does with a process that is gone.
    pub(super) fn restart(&mut self) {
        self.world.stop_kubepass(true);
        launch(&mut self.world);
    }

    pub(super) fn kill_envoy(&mut self) {
        if let Some(mut envoy) = self.envoy.take() {
            envoy.kill();
        }
    }

    pub(super) fn restart_envoy(&mut self) {
        self.kill_envoy();
        let bootstrap = self.world.run.file("script.yaml").display().to_string();
        let mut command = super::super::support::leash::command(self.world.tools().envoy());
        command.args(["--config-path", &bootstrap, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        self.envoy = Some(self.world.run.start("script", command));
    }

    /// By how many seconds kubepass's clock is wrong.
    pub(super) fn clock(&self, seconds: i64) {
        let part = self.world.run.write("clock.part", seconds.to_string());
        std::fs::rename(part, self.world.run.file("clock")).expect("the clock");
    }

    /// A limit of the running kubepass; `None` for as much as there was.
    pub(super) fn limit(&mut self, resource: Resource, current: Option<u64>) {
        let pid = Pid::from_raw(self.world.server().id().try_into().unwrap());
        let was = rustix::process::getrlimit(resource);
        let new = Rlimit { current: current.or(was.current), maximum: was.maximum };
        prlimit(pid, resource, new).unwrap_or_else(|error| panic!("{resource:?}: {error}"));
    }

    /// A number of `/proc/PID/status`.
    pub(super) fn status(&mut self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.world.server().id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_else(|| panic!("{key}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(super) fn descriptors(&mut self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/fd", self.world.server().id())).unwrap().count().try_into().unwrap()
    }

    /// Everybody who ever got a token goes on without a new login. Returns how many.
    pub(super) fn assert_logins_kept(&self) -> usize {
        let all: Vec<&Person> = self.people.iter().chain(&self.acknowledged).collect();
        for person in &all {
            person.away(true);
            for host in [PROD_HOST, STAGING_HOST] {
                let token = person.session_token(&self.world.url(host));
                let answer = self.world.client().get(format!("https://{host}/version")).bearer_auth(token).send().unwrap();
                assert_eq!(answer.status(), 200, "{} on {host}", person.login);
            }
            assert_eq!(person.logins(), 1, "{}", person.login);
        }
        assert!(all.len() > PEOPLE.len(), "no newcomer was acknowledged");
        all.len()
    }

    pub(super) fn end(mut self) {
        self.kill_envoy();
        self.world.stop_kubepass(false);
    }
}

/// A file-size limit ends a process that does not say otherwise; a full disk does not.
fn launch(world: &mut World) {
    world.start_server_as(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""], &["serve"]);
}

fn newcomer(number: usize) -> String {
    format!("newcomer-{number}")
}

fn configuration(world: &World) -> String {
    let text = world.config(POLICY);
    let sinks = format!("sinks: [{{file: {{path: audit.jsonl}}}}, {{file: {{path: {}}}}}]", world.run.file("slow-disk").display());
    let with_slow = text.replace("sinks: [{file: {path: audit.jsonl}}]", &sinks);
    assert_ne!(with_slow, text);
    with_slow
}

/// A second place for the audit trail: a pipe that is read, until it is not.
pub(super) struct SlowDisk {
    reads: Arc<AtomicBool>,
}

impl SlowDisk {
    fn at(path: &PathBuf) -> Self {
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(made.success());
        let reads = Arc::new(AtomicBool::new(true));
        let (path, reading) = (path.clone(), Arc::clone(&reads));
        std::thread::spawn(move || {
            // For writing as well, so that there is no end when kubepass is killed.
            let mut pipe = File::options().read(true).write(true).open(path).expect("the pipe");
            let mut part = vec![0; 64 * 1024];
            loop {
                if reading.load(Ordering::Relaxed) {
                    let _ = pipe.read(&mut part);
                } else {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self { reads }
    }

    pub(super) fn reads(&self, reads: bool) {
        self.reads.store(reads, Ordering::Relaxed);
    }
}
