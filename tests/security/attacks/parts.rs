//! What stands between the parts: a trail that cannot be written, an Envoy that is none, a server in the place of an API server, a balancer that is none. The attacks change the installation for as long as they last.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::super::attack::{Attack, Verdict};
use super::super::change::with_config;
use super::super::judge::Must;
use super::super::rogue_node::{Question, RogueNode};
use super::super::scene::{RECORDER, RECORDER_HOST, RECORDER_TOKEN, Scene, Target};
use super::super::support::raw::{Answer, Connection};
use super::super::support::wait::eventually;
use super::super::trial::{Sent, Trial};

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("no-audit-line", "a trail that is filled or taken away", "requests while the audit trail cannot be written", |scene| {
        let mut trial = scene.trial("no-audit-line");
        // A token leaves an audit line, too.
        for target in trial.targets() {
            scene.token("foo", target);
        }
        let (file, away) = (scene.world.audit_path(), scene.world.audit_path().with_extension("away"));
        std::fs::rename(&file, &away).and_then(|()| std::fs::create_dir(&file)).expect("a trail that cannot be written");
        trial.plain("accept: */*", Must::Stop);
        trial.flush();
        std::fs::remove_dir(&file).and_then(|()| std::fs::rename(&away, &file)).expect("the trail");
        eventually("the trail is written again", PATIENCE, || scene.world.metric(&["kubepass_audit_healthy 1"]).first().map(drop));
        trial.verdict()
    }),
    Attack::new(
        "envoy-that-is-no-node",
        "a rogue Envoy, node.id is a claim",
        "a good certificate of the right CA, for which there is no node",
        |scene| {
            let stranger = scene.world.authority.node(&["spiffe://example.com/kubepass/edge-9"]);
            let node = RogueNode::new(scene, Some(stranger));
            let (mut findings, mut ends) = (Vec::new(), Vec::new());
            for delta in [true, false] {
                for id in ["edge-9", "kubepass-managed", "edge-1"] {
                    let question = Question { node: id, delta, names: &["*"] };
                    match node.secrets(&question) {
                        Ok(told) if told.windows(RECORDER_TOKEN.len()).any(|window| window == RECORDER_TOKEN.as_bytes()) => {
                            findings.push(format!("as {id:?} it got the service account's token of a route"));
                        }
                        Ok(_) => ends.push("nothing".to_owned()),
                        Err(refused) => ends.push(refused),
                    }
                }
            }
            Verdict::of(&findings, ends.join(", "))
        },
    ),
    Attack::new(
        "server-of-another-name",
        "Envoy CVE-2022-21656",
        "a server in the API server's place, with a certificate of the same CA for another name",
        |scene| {
            let mut trial = scene.trial("server-of-another-name").on(&[RECORDER]);
            let route = format!("- name: recorder\n  host: {RECORDER_HOST}\n  kubernetes:\n    server: {}\n", scene.recorder.url());
            let config = scene.config().replace(&route, &format!("{route}    server_name: api.internal.example\n"));
            assert_ne!(config, scene.config());
            with_config(
                scene,
                &config,
                || true,
                || {
                    let deadline = Instant::now() + PATIENCE;
                    loop {
                        let (mark, bytes) = request(&mut trial, RECORDER, "");
                        let answer = trial.open(RECORDER, Some(RECORDER_HOST)).send(bytes.as_bytes()).answer();
                        let sent = trial.ended(Sent { mark, answer });
                        // On the way there kubepass and Envoy speak of two servers.
                        let is_there = sent.status() == 200 || sent.text().contains("cannot be reached");
                        assert!(is_there || Instant::now() < deadline, "{} {}", sent.status(), sent.text());
                        if is_there {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(100));
                    }
                },
            );
            until_served(scene);
            trial.verdict()
        },
    ),
    Attack::new(
        "balancer-that-is-none",
        "Envoy CVE-2024-23324",
        "the PROXY protocol from an address that the listener does not name",
        |scene| {
            let mut trial = scene.trial("balancer-that-is-none");
            let config = scene.config().replace("certificates: [{chain", "proxy_protocol: {from: [192.0.2.0/24]}, certificates: [{chain");
            assert_ne!(config, scene.config());
            let ask = |before: &[u8], host: &str, bytes: &str| -> Option<Answer> {
                let connection = Connection::open_from(Ipv4Addr::LOCALHOST, before, scene.world.port, host, scene.world.authority.pem());
                connection.within(Duration::from_secs(2)).send(bytes.as_bytes()).answer()
            };
            let is_behind_balancers = || ask(b"", RECORDER_HOST, &format!("GET / HTTP/1.1\r\nhost: {RECORDER_HOST}\r\n\r\n")).is_none();
            with_config(scene, &config, is_behind_balancers, || {
                for target in trial.targets() {
                    let (mark, bytes) = request(&mut trial, target, "");
                    let answer = ask(b"PROXY TCP4 203.0.113.1 127.0.0.1 1 443\r\n", target.host, &bytes);
                    trial.ended(Sent { mark, answer });
                }
            });
            until_served(scene);
            trial.verdict()
        },
    ),
];

/// A good request that must not arrive, with its mark.
fn request(trial: &mut Trial<'_>, target: Target, lines: &str) -> (String, String) {
    let mark = trial.mark(target, Must::Stop);
    let text = format!("GET {{at}} HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {{token}}\r\n{lines}\r\n");
    let bytes = trial.fill(&text, target, &mark);
    (mark, bytes)
}

/// After a change that touched the routes' ways.
fn until_served(scene: &Scene) {
    eventually("the installation serves as before", PATIENCE, || {
        let mut connection = Connection::open(scene.world.port, RECORDER_HOST, scene.world.authority.pem());
        let answer = connection.request("GET", "/version", &[("host", RECORDER_HOST)]).answer()?;
        (answer.status == 401).then_some(())
    });
}
