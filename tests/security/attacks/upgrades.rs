//! Bytes beside and behind an upgrade, which no filter sees once it has been agreed to.

use std::time::Duration;

use super::super::attack::Attack;
use super::super::change::with_config;
use super::super::judge::Must;
use super::super::scene::{CLUSTERS, RECORDERS, Scene, Target};
use super::super::support::raw::Connection;
use super::super::support::raw_http2::Http2;
use super::super::support::wait::eventually;
use super::super::trial::{Sent, Trial, usual_fields};

const EXEC: &str =
    "GET {exec} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\nconnection: Upgrade\r\n";
const WEBSOCKET: &str = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                         sec-websocket-protocol: v5.channel.k8s.io\r\n";
const WATCH: &str = "/api/v1/pods?watch=true&attack={mark}.";
/// RFC 9113, 6.4 and 7.
const RST_STREAM: u8 = 3;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// As a request of its own it is refused, so where it arrives as one it was not judged.
const INNER: &str = "GET /api?smuggled HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer smuggled\r\n\r\n";

/// Sends a head and what follows it in one write, and reads until the server has closed or has nothing more to say.
fn together(trial: &mut Trial<'_>, target: Target, head: &str, behind: &str, must: Must) -> Sent {
    trial.raw_to(target, Some(target.host), &format!("{head}\r\n{behind}"), must)
}

/// Streams that one person may have in [`with_few_streams`].
const MOST: usize = 12;

/// Does this where nobody may have more than [`MOST`] streams. Nobody else's trials go on meanwhile.
fn with_few_streams(scene: &Scene, act: impl FnOnce()) {
    let config = scene.config().replacen("sessions: {", &format!("sessions: {{max_streams: {MOST}, "), 1);
    with_config(scene, &config, || true, act);
}

/// Asks for one more exec stream of the trial's person.
fn ask_for_one_more(trial: &mut Trial<'_>, target: Target) -> (String, Connection) {
    let mark = trial.mark(target, Must::Either);
    let mut connection = trial.open(target, Some(target.host));
    connection.send(trial.fill(&format!("{EXEC}{WEBSOCKET}\r\n"), target, &mark).as_bytes());
    (mark, connection)
}

/// The same: the status of its answer, and its connection.
fn one_more(trial: &mut Trial<'_>, target: Target) -> (u16, Connection) {
    let (mark, mut connection) = ask_for_one_more(trial, target);
    let answer = connection.answer();
    (trial.ended(Sent { mark, answer }).status(), connection)
}

/// Asks for so many exec streams over connections that close at once, and for so many watches that are reset at once.
fn abandon(trial: &mut Trial<'_>, target: Target, count: usize) {
    let mut watches = Http2::open(trial.scene.world.port, target.host, trial.scene.world.authority.pem());
    for _ in 0..count {
        let _left_at_once = ask_for_one_more(trial, target);
        let mark = trial.mark(target, Must::Either);
        let fields = usual_fields().map(|(name, value)| (name, if name == ":path" { WATCH } else { value }));
        let stream = watches.request(&trial.fields(target, &mark, &fields), true);
        watches.frame(RST_STREAM, 0, stream, &CANCEL);
    }
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "pipelined-behind-a-refused-upgrade",
        "kubernetes CVE-2018-1002105",
        "a request behind an upgrade that kubepass or the API server refuses",
        |scene| {
            let mut trial = scene.trial("pipelined-behind-a-refused-upgrade");
            trial.listed(&["after-refused-upgrade"]);
            for target in trial.targets() {
                for lines in [
                    // By kubepass: not a good token, another header named, an identity asked for.
                    format!("{}{WEBSOCKET}", EXEC.replace("Bearer {token}", "Bearer x")),
                    format!("{}{WEBSOCKET}", EXEC.replace("Upgrade", "Upgrade, impersonate-user")),
                    format!("{EXEC}{WEBSOCKET}impersonate-user: system:admin\r\n"),
                    // By Envoy.
                    format!("{EXEC}upgrade: other\r\n"),
                    format!("{EXEC}upgrade: websocket, SPDY/3.1\r\n"),
                ] {
                    together(&mut trial, target, &lines, INNER, Must::Stop);
                }
            }
            for target in CLUSTERS {
                // By the API server: a pod that is not there, a request that is no exec.
                let missing = EXEC.replace("{exec}", "/api/v1/namespaces/default/pods/none/exec?command=true&attack={mark}.");
                together(&mut trial, target, &format!("{missing}{WEBSOCKET}"), INNER, Must::Either);
                together(&mut trial, target, &format!("{}{WEBSOCKET}", EXEC.replace("{exec}", "{at}")), INNER, Must::Either);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "early-data-behind-an-upgrade",
        "Envoy CVE-2025-64763",
        "bytes sent before the upgrade was agreed to: they open nothing",
        |scene| {
            let mut trial = scene.trial("early-data-behind-an-upgrade");
            for target in CLUSTERS {
                for protocol in [WEBSOCKET, "upgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n"] {
                    together(&mut trial, target, &format!("{EXEC}{protocol}"), INNER, Must::Either);
                }
            }
            for target in RECORDERS {
                // In the stream of the one upgrade that was judged, and nowhere else.
                together(&mut trial, target, &format!("{EXEC}{WEBSOCKET}"), INNER, Must::Either);
            }
            trial.verdict()
        },
    ),
    Attack::new("ok-in-the-place-of-101", "Envoy CVE-2024-23326", "an upstream answers an upgrade with 200; a request follows", |scene| {
        let mut trial = scene.trial("ok-in-the-place-of-101").on(&RECORDERS);
        let mut open = Vec::new();
        for (word, answer) in [
            ("ok-200", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
            ("ok-open", "HTTP/1.1 200 OK\r\n\r\n"),
            ("ok-upgrade", "HTTP/1.1 200 OK\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"),
            ("ok-switched", "HTTP/1.1 204 No Content\r\nupgrade: websocket\r\n\r\n"),
        ] {
            for target in RECORDERS {
                scene.kept(target).answer(&format!("hostile-{word}&"), answer, false);
                let exec = EXEC.replace("{exec}", &format!("/api/v1/namespaces/default/pods/web/exec?hostile-{word}&attack={{mark}}."));
                let mark = trial.mark(target, Must::AsSelf);
                let mut connection = trial.open(target, Some(target.host)).within(Duration::from_secs(1));
                connection.send(trial.fill(&format!("{exec}{WEBSOCKET}\r\n"), target, &mark).as_bytes());
                let answer = connection.answer();
                trial.ended(Sent { mark: mark.clone(), answer });
                // If Envoy took the 200 for an agreement, this goes to the upstream as it is.
                connection.send(trial.fill(INNER, target, &mark).as_bytes());
                open.push(connection);
            }
        }
        std::thread::scope(|scope| open.iter_mut().for_each(|connection| drop(scope.spawn(|| connection.answer()))));
        trial.verdict()
    }),
    Attack::new(
        "switched-without-being-asked",
        "RFC 9110, 15.2.2",
        "an upstream answers 101 to a plain request; a request follows",
        |scene| {
            let mut trial = scene.trial("switched-without-being-asked").on(&RECORDERS);
            for target in RECORDERS {
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
                scene.kept(target).answer("hostile-101&", answer, false);
                let mark = trial.mark(target, Must::AsSelf);
                let request = "GET /version?hostile-101&attack={mark}. HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n";
                let mut connection = trial.open(target, Some(target.host)).within(Duration::from_secs(1));
                connection.send(trial.fill(request, target, &mark).as_bytes());
                let answer = connection.answer();
                trial.ended(Sent { mark: mark.clone(), answer });
                connection.send(trial.fill(INNER, target, &mark).as_bytes());
                let _ = connection.answer();
            }
            trial.verdict()
        },
    ),
    Attack::new("h2c-upgrade", "h2c smuggling", "upgrade: h2c, with settings and with HTTP/2 behind it", |scene| {
        let mut trial = scene.trial("h2c-upgrade");
        trial.listed(&["upgrade-h2c"]);
        for target in trial.targets() {
            let head = "GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n";
            let lines =
                format!("{head}connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n");
            together(
                &mut trial,
                target,
                &lines,
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{0}\u{0}\u{0}\u{4}\u{0}\u{0}\u{0}\u{0}\u{0}",
                Must::Either,
            );
            together(&mut trial, target, &lines, INNER, Must::Either);
        }
        trial.verdict()
    }),
    Attack::new("other-upgrades", "RFC 9110, 7.8", "upgrades to TLS, to lists, to unknown protocols", |scene| {
        let mut trial = scene.trial("other-upgrades");
        trial.listed(&["upgrade-other", "upgrade-list"]);
        for protocol in
            ["WebSocket, h2c", "SPDY/2", "spdy/3.1x", "connect-udp", "websocket\r\nupgrade: SPDY/3.1", "\"websocket\"", "HTTP/2.0"]
        {
            for target in trial.targets() {
                together(&mut trial, target, &format!("{EXEC}upgrade: {protocol}\r\n"), INNER, Must::Stop);
            }
        }
        trial.verdict()
    }),
    Attack::new("streams-without-end", "one client, all of an upstream's room", "exec streams, more than one person may have", |scene| {
        let mut trial = scene.trial("streams-without-end").by("trent").on(&RECORDERS);
        with_few_streams(scene, || {
            let mut open = Vec::new();
            for _ in 0..MOST {
                open.extend(RECORDERS.map(|target| one_more(&mut trial, target)));
            }
            let agreed = open.iter().filter(|(status, _)| *status == 101).count();
            if agreed > MOST {
                trial.finding(format!("{agreed} streams of one person are open, and {MOST} may be"));
            }
            assert!(agreed >= MOST, "only {agreed} streams could be opened");
            // Those that end make room.
            open.clear();
            eventually("the streams that ended count no more", Duration::from_secs(20), || {
                (one_more(&mut trial, RECORDERS[0]).0 == 101).then_some(())
            });
        });
        trial.verdict()
    }),
    Attack::new(
        "abandoned-streams",
        "rapid reset CVE-2023-44487",
        "watches and exec streams left before they are answered: they take no place",
        |scene| {
            let mut trial = scene.trial("abandoned-streams").by("trent").on(&RECORDERS);
            with_few_streams(scene, || {
                for target in RECORDERS {
                    abandon(&mut trial, target, 3 * MOST);
                }
                // What is lost counts for a quarter of an hour.
                let mut open = Vec::new();
                eventually("as many streams as ever can be opened", Duration::from_secs(20), || {
                    open.extend(Some(one_more(&mut trial, RECORDERS[0])).filter(|(status, _)| *status == 101));
                    (open.len() == MOST).then_some(())
                });
            });
            trial.verdict()
        },
    ),
    Attack::new("upgrade-with-a-body", "Envoy CVE-2025-30157", "lengths and chunks on an upgrade, a request as the body", |scene| {
        let mut trial = scene.trial("upgrade-with-a-body");
        for lines in ["content-length: 5\r\n", "transfer-encoding: chunked\r\n", "content-length: 5\r\ntransfer-encoding: chunked\r\n"] {
            for target in trial.targets() {
                together(&mut trial, target, &format!("{EXEC}{WEBSOCKET}{lines}"), &format!("0\r\n\r\n{INNER}"), Must::Either);
            }
        }
        trial.verdict()
    }),
];
