//! An upstream that means harm to whoever asks it, and to those who come after on the same connection.

use super::super::attack::Attack;
use super::super::judge::Must;
use super::super::scene::{RECORDERS, Scene, Target};
use super::super::support::jar::{Jar, Origin};
use super::super::support::raw::Answer;
use super::super::support::world::PUBLIC_HOST;
use super::super::trial::{Sent, Trial};

/// Asks for an answer that the recorder is told to give; then, on the same connection, for one of its own.
fn ask(trial: &mut Trial<'_>, scene: &Scene, target: Target, word: &str, answer: &[u8], close: bool) -> [Option<Answer>; 2] {
    scene.kept(target).answer(&format!("hostile-{word}&"), answer, close);
    let mark = trial.mark(target, Must::AsSelf);
    let request = format!(
        "GET /version?hostile-{word}&attack={{mark}}. HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\nauthorization: Bearer {{token}}\r\n\r\n"
    );
    let mut connection = trial.open(target, Some(target.host)).within(std::time::Duration::from_secs(3));
    connection.send(trial.fill(&request, target, &mark).as_bytes());
    let mut first = connection.answer();
    while first.as_ref().is_some_and(|answer| (100..200).contains(&answer.status)) {
        first = connection.answer();
    }
    trial.ended(Sent { mark, answer: first.clone() });
    let mark = trial.mark(target, Must::Either);
    let request = "GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n\r\n";
    connection.send(trial.fill(request, target, &mark).as_bytes());
    let second = connection.answer();
    trial.ended(Sent { mark, answer: second.clone() });
    [first, second]
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("answers-split", "response splitting", "an answer with a second one behind its length: nobody's next answer", |scene| {
        let mut trial = scene.trial("answers-split").on(&RECORDERS);
        let poison = "HTTP/1.1 200 OK\r\nx-poison: forged\r\ncontent-length: 6\r\n\r\npoison";
        for (word, first) in [
            ("behind", format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}{poison}")),
            ("no-content", format!("HTTP/1.1 204 No Content\r\n\r\n{poison}")),
            ("not-modified", format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n{poison}")),
            ("chunks", format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{poison}")),
        ] {
            for target in RECORDERS {
                let answers = ask(&mut trial, scene, target, word, first.as_bytes(), false);
                let poisoned = |answer: &Answer| answer.text().contains("poison") || answer.header("x-poison").is_some();
                if answers.iter().flatten().any(poisoned) {
                    trial.finding(format!("{word}: an answer that nobody asked for was given to the next request"));
                }
            }
        }
        trial.verdict()
    }),
    Attack::new("answers-malformed", "Envoy's upstream parser", "two lengths, length and chunks, NUL, no status, garbage", |scene| {
        let mut trial = scene.trial("answers-malformed").on(&RECORDERS);
        for (word, answer) in [
            ("two-lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 60\r\n\r\n{}"),
            ("both", "HTTP/1.1 200 OK\r\ncontent-length: 60\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("nul", "HTTP/1.1 200 OK\r\nx-a: \0\r\ncontent-length: 2\r\n\r\n{}"),
            ("status", "HTTP/1.1 abc OK\r\n\r\n"),
            ("long-status", "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"),
            ("garbage", "\u{1}\u{2}\u{3}\u{4}\r\n\r\n"),
            ("line-feeds", "HTTP/1.1 200 OK\nx-a: b\n\n{}"),
            ("split-value", "HTTP/1.1 200 OK\r\nx-a: b\rset-cookie: c=d\r\ncontent-length: 2\r\n\r\n{}"),
        ] {
            for target in RECORDERS {
                ask(&mut trial, scene, target, word, answer.as_bytes(), true);
            }
        }
        trial.verdict()
    }),
    Attack::new("answers-too-large", "limits of answers", "heads of 100 KiB, a thousand headers: others go on", |scene| {
        let mut trial = scene.trial("answers-too-large").on(&RECORDERS);
        let large = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(100 << 10));
        let many: String = (0..1000).map(|index| format!("x-{index}: y\r\n")).collect();
        let many = format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n");
        for (word, answer) in [("large-head", large), ("many-headers", many)] {
            for target in RECORDERS {
                ask(&mut trial, scene, target, word, answer.as_bytes(), true);
            }
        }
        trial.verdict()
    }),
    Attack::new("interim-answers-without-end", "1xx floods", "thousands of 100, 102 and 103 before the answer", |scene| {
        let mut trial = scene.trial("interim-answers-without-end").on(&RECORDERS);
        for (word, interim) in [
            ("continue", "HTTP/1.1 100 Continue\r\n\r\n"),
            ("processing", "HTTP/1.1 102 Processing\r\n\r\n"),
            ("hints", "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"),
        ] {
            let answer = format!("{}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}", interim.repeat(2000));
            for target in RECORDERS {
                ask(&mut trial, scene, target, word, answer.as_bytes(), true);
            }
        }
        trial.verdict()
    }),
    Attack::new(
        "cookies-of-an-upstream",
        "cookie tossing",
        "an upstream sets kubepass's cookies for itself and the whole domain",
        |scene| {
            let mut trial = scene.trial("cookies-of-an-upstream").on(&RECORDERS);
            let names = ["__Host-kubepass", "__Host-kubepass-login", "__Host-kubepass-session", "__Host-kubepass-csrf"];
            for target in RECORDERS {
                let lines: String = names
                    .iter()
                    .flat_map(|name| {
                        ["Path=/; Secure", "Path=/; Secure; Domain=localhost", "Path=/; Secure; Domain=pass.localhost", "Path=/"]
                            .map(|attributes| format!("set-cookie: {name}=forged; {attributes}\r\n"))
                    })
                    .collect();
                let answer = format!("HTTP/1.1 200 OK\r\n{lines}content-length: 2\r\n\r\n{{}}");
                let [first, _] = ask(&mut trial, scene, target, "cookies", answer.as_bytes(), false);
                // What a browser makes of what came through: nothing of it goes to kubepass's own pages.
                let (mut jar, from) = (Jar::default(), url::Url::parse(&format!("https://{}/", target.host)).unwrap());
                for (_, line) in first.iter().flat_map(|answer| &answer.headers).filter(|(name, _)| name == "set-cookie") {
                    let _ = jar.set(&from, line);
                }
                let to = url::Url::parse(&format!("https://{PUBLIC_HOST}/login")).unwrap();
                if let Some(header) = jar.header(&to, Origin::SameSite) {
                    trial.finding(format!("a browser would send kubepass the upstream's cookie: {header}"));
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "answers-that-speak-for-envoy",
        "headers between Envoy and upstream",
        "x-envoy-*, audit-id, internal redirects in an answer",
        |scene| {
            let mut trial = scene.trial("answers-that-speak-for-envoy").on(&RECORDERS);
            let lines = "x-envoy-immediate-health-check-fail: true\r\nx-envoy-overloaded: true\r\nx-envoy-ratelimited: true\r\nx-envoy-degraded: true\r\n\
                     x-envoy-upstream-canary: true\r\nimpersonate-user: system:admin\r\n";
            for (word, status) in
                [("health", "200 OK"), ("redirect", "302 Found\r\nlocation: /api?smuggled"), ("proxy", "407 Proxy Authentication Required")]
            {
                for target in RECORDERS {
                    let answer = format!("HTTP/1.1 {status}\r\n{lines}content-length: 2\r\n\r\n{{}}");
                    ask(&mut trial, scene, target, word, answer.as_bytes(), false);
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "upstream-that-hangs-up",
        "connections that end early",
        "no answer, half a head, half a body: refused or cut, never another's",
        |scene| {
            let mut trial = scene.trial("upstream-that-hangs-up").on(&RECORDERS);
            for (word, answer) in [
                ("nothing", ""),
                ("half-head", "HTTP/1.1 200 OK\r\ncontent-le"),
                ("half-body", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}"),
                ("half-chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n{}"),
            ] {
                for target in RECORDERS {
                    ask(&mut trial, scene, target, word, answer.as_bytes(), true);
                }
            }
            trial.verdict()
        },
    ),
];
