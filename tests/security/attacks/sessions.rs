//! A session that is over, or a policy that has changed, and connections that were open before.

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::{ALL, PROD, Scene, Target};
use super::super::support::raw::Connection;
use super::super::support::raw_http2::Http2;
use super::super::support::wait::eventually;
use super::super::trial::{Sent, Trial, usual_fields};

const GET: &str = "GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n\r\n";

/// Connections of both protocols that were used before.
struct Open {
    target: Target,
    first: Connection,
    second: Http2,
}

impl Open {
    fn new(trial: &Trial<'_>, target: Target) -> Self {
        let second = Http2::open(trial.scene.world.port, target.host, trial.scene.world.authority.pem());
        Self { target, first: trial.open(target, Some(target.host)), second }
    }

    fn ask(&mut self, trial: &mut Trial<'_>, must: Must) {
        let mark = trial.mark(self.target, must);
        let request = trial.fill(GET, self.target, &mark);
        let answer = self.first.send(request.as_bytes()).answer();
        trial.ended(Sent { mark, answer });
        let mark = trial.mark(self.target, must);
        let stream = self.second.request(&trial.fields(self.target, &mark, &usual_fields()), true);
        let answer = self.second.answer(stream);
        trial.ended(Sent { mark, answer });
    }
}

/// The person's requests arrive; then their session ends; then none does, on open connections and on new ones.
fn ended_by(scene: &Scene, name: &'static str, login: &str, end: fn(&Scene)) -> Verdict {
    let mut trial = scene.trial(name).by(login);
    let mut open = ALL.map(|target| Open::new(&trial, target));
    for connections in &mut open {
        connections.ask(&mut trial, Must::AsSelf);
    }
    end(scene);
    for connections in &mut open {
        connections.ask(&mut trial, Must::Stop);
    }
    trial.lines("accept: */*", Must::Stop);
    scene.forget(login);
    trial.by("foo").verdict()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "revoked-session",
        "Pinniped CVE-2022-31677",
        "a token whose session the operator ended, on connections that are open",
        |scene| {
            ended_by(scene, "revoked-session", "gone", |scene| {
                let said = scene.world.operator(&["session", "revoke", "--user", "gone@example.com"]).ok();
                assert!(said.contains("has ended") || said.contains("have ended"), "{said}");
            })
        },
    ),
    Attack::new("logged-out-session", "Pinniped CVE-2022-31677", "a token whose person logged out, kept by who stole it", |scene| {
        ended_by(scene, "logged-out-session", "left", |scene| {
            let person = scene.person("left");
            let ca = scene.world.run.file("kubepass/ca.pem").display().to_string();
            person.kubepass(&["logout", &scene.world.url(PROD.host), "--ca-file", &ca]).ok();
        })
    }),
    Attack::new(
        "decision-kept-over-a-change",
        "Warpgate CVE-2026-91164",
        "the same request on the same connection after policy forbade it",
        |scene| {
            let mut trial = scene.trial("decision-kept-over-a-change").by("mallory");
            let mut open = ALL.map(|target| Open::new(&trial, target));
            for connections in &mut open {
                connections.ask(&mut trial, Must::AsSelf);
            }
            let good = scene.config();
            let rule = "\n  - {name: not-mallory, deny: 'user.email == \"mallory@example.com\"'}";
            put(scene, &good.replace("\n  - {name: staff,", &format!("{rule}\n  - {{name: staff,")));
            for connections in &mut open {
                connections.ask(&mut trial, Must::Stop);
            }
            put(scene, &good);
            for connections in &mut open {
                connections.ask(&mut trial, Must::AsSelf);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "one-persons-decision-for-another",
        "Warpgate GHSA-fxfw-2m4j-xmc8",
        "the same request by several people in turn on one connection",
        |scene| {
            let mut trial = scene.trial("one-persons-decision-for-another");
            for target in ALL {
                let mut connection = trial.open(target, Some(target.host));
                for login in ["foo", "eve", "bar", "eve", "trent", "foo"] {
                    trial = trial.by(login);
                    let mark = trial.mark(target, if login == "eve" { Must::Stop } else { Must::AsSelf });
                    let request = trial.fill(GET, target, &mark);
                    let answer = connection.send(request.as_bytes()).answer();
                    trial.ended(Sent { mark, answer });
                }
            }
            trial.by("foo").verdict()
        },
    ),
];

/// Puts a configuration in force.
fn put(scene: &Scene, text: &str) {
    let version = || -> String {
        let state: serde_json::Value = serde_json::from_str(&scene.world.operator(&["state"]).ok()).expect("the state");
        state["configuration"]["version"].to_string()
    };
    let before = version();
    scene.world.write_config(text);
    eventually("the configuration is in force", std::time::Duration::from_secs(10), || (version() != before).then_some(()));
}
