//! The faults: what is done, what may be answered while it lasts, and what mends it.

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Resource, Signal};

use super::super::support::link::Answers;
use super::super::support::wait::eventually;
use super::super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST};
use super::load::Period;
use super::scene::Scene;

pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) inject: fn(&mut Scene),
    pub(super) mend: fn(&mut Scene),
    pub(super) meanwhile: Meanwhile,
    /// Whether somebody logs in meanwhile.
    pub(super) newcomer: bool,
}

/// What is answered while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// Nothing is served.
    Refused,
    /// Everything is.
    Served,
    /// Nothing on the route to `prod`, everything on the other.
    RefusedOnProd,
    /// Whatever can be: it depends on the moment.
    Any,
}

impl Meanwhile {
    pub(super) fn assert(self, name: &str, during: &Period) {
        let as_it_should = match self {
            Self::Refused => during.served == 0,
            Self::Served => during.served > 0 && during.refused + during.silent == 0,
            Self::RefusedOnProd => during.served_hosts == [STAGING_HOST],
            Self::Any => true,
        };
        assert!(as_it_should, "{name}: {self:?} was expected: {during:?}");
    }
}

const fn fault(name: &'static str, inject: fn(&mut Scene), mend: fn(&mut Scene), meanwhile: Meanwhile) -> Fault {
    Fault { name, inject, mend, meanwhile, newcomer: true }
}

/// What is given out at a wrong time counts from then; and without their provider nobody comes in.
const fn without_newcomer(fault: Fault) -> Fault {
    Fault { newcomer: false, ..fault }
}

pub(super) const FAULTS: &[Fault] = &[
    fault("kubepass killed", |scene| scene.world.stop_kubepass(true), Scene::restart, Meanwhile::Refused),
    fault("Envoy killed", Scene::kill_envoy, Scene::restart_envoy, Meanwhile::Refused),
    fault("kubepass killed between decision and answer", kill_between, mend_between, Meanwhile::Refused),
    fault("checks are answered late", |scene| scene.checks.answers(Answers::Late(LATE)), in_time_again, Meanwhile::Refused),
    fault("kubepass hangs", |scene| scene.world.server().signal(Signal::STOP), go_on, Meanwhile::Refused),
    fault("no way for checks", |scene| scene.checks.cut(), |scene| scene.checks.mend(), Meanwhile::Refused),
    fault("no way for xDS", |scene| scene.xds.cut(), |scene| scene.xds.mend(), Meanwhile::Served),
    without_newcomer(fault(
        "identity provider gone",
        |scene| scene.world.idp.stop(),
        |scene| scene.world.idp.start_again(),
        Meanwhile::Served,
    )),
    fault("audit trail gone", |scene| hide("audit.jsonl", scene), |scene| show("audit.jsonl", scene), Meanwhile::Refused),
    fault("session store gone", |scene| hide("kubepass.db", scene), |scene| show("kubepass.db", scene), Meanwhile::Served),
    fault("disk full", fill_disk, |scene| scene.limit(Resource::Fsize, None), Meanwhile::Refused),
    fault("disk read-only", no_writing, |scene| scene.limit(Resource::Fsize, None), Meanwhile::Refused),
    fault("disk stuck", stick_disk, |scene| scene.slow_disk.reads(true), Meanwhile::Refused),
    without_newcomer(fault("clock an hour ahead", |scene| scene.clock(3_600), |scene| scene.clock(0), Meanwhile::Any)),
    without_newcomer(fault("clock an hour behind", |scene| scene.clock(-3_600), |scene| scene.clock(0), Meanwhile::Any)),
    fault("no file descriptors", no_descriptors, |scene| scene.limit(Resource::Nofile, None), Meanwhile::Refused),
    fault("no memory", no_memory, mend_memory, Meanwhile::Any),
    fault("API server gone", |scene| scene.world.prod.stop_api_server(), start_api_server, Meanwhile::RefusedOnProd),
    fault("certificate expired", expire, renew, Meanwhile::Served),
    fault("key files half written", half, whole, Meanwhile::Served),
];

/// More than Envoy waits for a check.
const LATE: Duration = Duration::from_millis(1_300);
/// The first half of the first would still be a secret, another one: with the others beside it nothing is taken.
const HALF: [&str; 3] = ["secret", "tls.key", "signing.pem"];

/// Decisions are made and written, and none of them leaves.
fn kill_between(scene: &mut Scene) {
    scene.checks.answers(Answers::Held);
    let written = || std::fs::metadata(scene.world.audit_path()).unwrap().len();
    let before = written();
    eventually("a decision is written", Duration::from_secs(5), || (written() > before + 1_000).then_some(()));
    scene.world.stop_kubepass(true);
    scene.checks.cut();
}

fn mend_between(scene: &mut Scene) {
    scene.checks.answers(Answers::PassedOn);
    scene.checks.mend();
    scene.restart();
}

fn in_time_again(scene: &mut Scene) {
    scene.checks.answers(Answers::PassedOn);
    // What is on its way stays late.
    scene.checks.cut();
    scene.checks.mend();
}

fn go_on(scene: &mut Scene) {
    scene.world.server().signal(Signal::CONT);
}

fn start_api_server(scene: &mut Scene) {
    scene.world.prod.start_api_server();
}

/// A folder stands where the file should.
fn hide(name: &str, scene: &mut Scene) {
    let [file, away] = here_and_away(name, scene);
    std::fs::rename(&file, away).unwrap();
    std::fs::create_dir(file).unwrap();
}

fn show(name: &str, scene: &mut Scene) {
    let [file, away] = here_and_away(name, scene);
    // In one step: kubepass makes its file anew where there is none, and what it writes into that one would be gone.
    renameat_with(CWD, &away, CWD, &file, RenameFlags::EXCHANGE).unwrap();
    std::fs::remove_dir(away).unwrap();
}

fn here_and_away(name: &str, scene: &Scene) -> [PathBuf; 2] {
    let file = scene.world.run.file(&format!("kubepass/{name}"));
    [file.clone(), file.with_extension("away")]
}

/// No file may be larger than the trail is now, with half a line's room.
fn fill_disk(scene: &mut Scene) {
    let length = std::fs::metadata(scene.world.audit_path()).unwrap().len();
    scene.limit(Resource::Fsize, Some(length + 300));
    eventually("the trail cannot be written", Duration::from_secs(5), || is_sick(scene, "kubepass_audit_healthy"));
}

fn no_writing(scene: &mut Scene) {
    scene.limit(Resource::Fsize, Some(0));
    eventually("the trail cannot be written", Duration::from_secs(5), || is_sick(scene, "kubepass_audit_healthy"));
}

fn stick_disk(scene: &mut Scene) {
    scene.slow_disk.reads(false);
    // What fits into the pipe is still written.
    eventually("the pipe is full", Duration::from_secs(30), || refuses(scene));
}

fn refuses(scene: &Scene) -> Option<()> {
    let url = format!("https://{PROD_HOST}/version");
    let answer = scene.world.client().get(url).send().ok()?;
    (answer.status() == 503).then_some(())
}

fn is_sick(scene: &Scene, metric: &str) -> Option<()> {
    (scene.world.metric(&[metric]).last()? == &format!("{metric} 0")).then_some(())
}

/// As many as are open, and connections that have to be opened anew.
fn no_descriptors(scene: &mut Scene) {
    scene.checks.cut();
    let open = scene.descriptors();
    // Those of the connections that were cut are closed in a moment.
    scene.limit(Resource::Nofile, Some(open.saturating_sub(16)));
    scene.checks.mend();
}

/// What is there already may be used; the rest of it ends the process or not.
fn no_memory(scene: &mut Scene) {
    let size = scene.status("VmSize") * 1024;
    scene.limit(Resource::As, Some(size));
    scene.checks.cut();
    scene.checks.mend();
}

fn mend_memory(scene: &mut Scene) {
    if scene.world.server().ended().is_none() {
        scene.limit(Resource::As, None);
    }
    // An end that has begun takes a moment.
    std::thread::sleep(Duration::from_millis(300));
    if scene.world.server().ended().is_some() {
        scene.restart();
    }
}

fn expire(scene: &mut Scene) {
    let pair = scene.world.authority.expired_server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST]);
    scene.world.run.write("kubepass/tls.crt", &pair.cert);
    scene.world.secret("tls.key", &pair.key);
    until_refused(scene);
}

fn renew(scene: &mut Scene) {
    let pair = scene.world.authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST]);
    scene.world.run.write("kubepass/tls.crt", &pair.cert);
    scene.world.secret("tls.key", &pair.key);
    until_accepted(scene);
}

fn half(scene: &mut Scene) {
    for name in HALF {
        let text = std::fs::read_to_string(scene.world.run.file(&format!("kubepass/{name}"))).unwrap();
        scene.world.secret(&format!("{name}.whole"), &text);
        std::fs::write(scene.world.run.file(&format!("kubepass/{name}")), &text[..text.len() / 2]).unwrap();
    }
    until_refused(scene);
}

fn whole(scene: &mut Scene) {
    for name in HALF {
        let [file, whole] = ["", ".whole"].map(|end| scene.world.run.file(&format!("kubepass/{name}{end}")));
        std::fs::rename(whole, file).unwrap();
    }
    until_accepted(scene);
}

fn until_refused(scene: &Scene) {
    last_change(scene, "rejected");
}

fn until_accepted(scene: &Scene) {
    last_change(scene, "applied");
}

fn last_change(scene: &Scene, wanted: &str) {
    eventually(&format!("the change is {wanted}"), Duration::from_secs(10), || {
        (super::super::serve::state(&scene.world)["configuration"]["last_change"] == wanted).then_some(())
    });
}
