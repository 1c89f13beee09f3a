//! Where a request ends: whatever Envoy and an upstream could read differently. A request with `smuggled` in its target may arrive nowhere.

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::Scene;
use super::super::trial::Sent;

const POST: &str = "POST {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n";
const GET: &str = "GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n";
/// It has no token that counts: who judges it refuses it, so where it arrives it was not judged.
const NEXT: &str = "GET /api?smuggled HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer smuggled\r\nx-a: b\r\n\r\n";

/// Listed rows, and lines and bodies behind a good POST's head.
fn bodies(scene: &Scene, name: &'static str, rows: &[&str], rest: &[(&str, Must)]) -> Verdict {
    let mut trial = scene.trial(name);
    if !rows.is_empty() {
        trial.listed(rows);
    }
    // What is no attack.
    trial.raw(&format!("{POST}content-length: 2\r\n\r\n{{}}"), Must::AsSelf);
    trial.raw(&format!("{POST}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"), Must::AsSelf);
    for (rest, must) in rest {
        trial.raw(&format!("{POST}{rest}"), *must);
    }
    trial.verdict()
}

fn behind(lines: &str) -> String {
    format!("{lines}{NEXT}")
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("content-length-and-chunks", "request smuggling, CL.TE", "both lengths, in both orders", |scene| {
        let first = behind("content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        let second = behind("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n");
        let zero = behind("content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        bodies(scene, "content-length-and-chunks", &["cl-te"], &[(&first, Must::Stop), (&second, Must::Stop), (&zero, Must::Stop)])
    }),
    Attack::new("chunks-and-content-length", "request smuggling, TE.CL", "a chunk that holds a request, and a short length", |scene| {
        let chunk = "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5c\r\nGET /api?smuggled HTTP/1.1\r\ncontent-length: 15\r\n\r\nx=1\r\n0\r\n\r\n";
        bodies(scene, "chunks-and-content-length", &["te-cl"], &[(chunk, Must::Stop)])
    }),
    Attack::new(
        "transfer-encoding-disguised",
        "request smuggling, TE.TE",
        "unknown, doubled, folded, spaced and capitalised codings",
        |scene| {
            let variants = [
                "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
                "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
                "transfer-encoding:\u{b}chunked\r\n",
                "transfer-encoding: \"chunked\"\r\n",
                "transfer-encoding: chunked;q=1\r\n",
                "transfer-encoding: chunked\u{0}\r\n",
                "transfer-encoding: ,chunked\r\n",
                "transfer-encoding\u{a0}: chunked\r\n",
                "x: y\rtransfer-encoding: chunked\r\n",
            ];
            let rest: Vec<String> = variants.iter().map(|lines| behind(&format!("{lines}content-length: 5\r\n\r\n0\r\n\r\n"))).collect();
            let rest: Vec<(&str, Must)> = rest.iter().map(|rest| (rest.as_str(), Must::Either)).collect();
            bodies(
                scene,
                "transfer-encoding-disguised",
                &["te-unknown", "te-list", "te-gzip", "te-twice", "te-blank", "te-folded", "te-tab"],
                &rest,
            )
        },
    ),
    Attack::new("content-length-disguised", "request smuggling, CL.CL", "two, lists, signs, hexadecimal, overflow", |scene| {
        let variants = ["18446744073709551617", "2\r\ncontent-length: 3", " 2 3", "2e0", "0002x", "\u{b2}", "", "2,2", "-0"];
        let rest: Vec<String> = variants.iter().map(|length| format!("content-length: {length}\r\n\r\n{{}}")).collect();
        let rest: Vec<(&str, Must)> = rest.iter().map(|rest| (rest.as_str(), Must::Stop)).collect();
        bodies(scene, "content-length-disguised", &["cl-two", "cl-list", "cl-plus", "cl-negative", "cl-hex"], &rest)
    }),
    Attack::new("folded-lines", "RFC 9112, 5.2", "obs-fold that hides a header in a value, or a value in a header", |scene| {
        let mut trial = scene.trial("folded-lines");
        trial.listed(&["folded-line", "leading-blank"]);
        for lines in ["x-a: b\r\n\timpersonate-user: system:admin", "x-a:\r\n impersonate-user: system:admin"] {
            trial.plain(lines, Must::Either);
        }
        trial.plain("impersonate-user:\r\n system:admin", Must::Stop);
        trial.plain("Impersonate-User\r\n : system:admin", Must::Stop);
        trial.verdict()
    }),
    Attack::new("bare-line-ends", "RFC 9112, 2.2", "LF alone and CR alone between lines and in values", |scene| {
        let mut trial = scene.trial("bare-line-ends");
        trial.listed(&["line-feeds", "cr-in-value"]);
        for lines in
            ["x-a: b\nimpersonate-user: system:admin", "x-a: b\n\nGET /api?smuggled HTTP/1.1", "x-a: b\n\r\nGET /api?smuggled HTTP/1.1"]
        {
            trial.plain(lines, if lines.contains("impersonate") { Must::Stop } else { Must::Either });
        }
        for lines in ["x-a: b\rimpersonate-user: system:admin", "x-a: b\r\r\nx-c: d", "x-a: b\u{85}impersonate-user: system:admin"] {
            trial.plain(lines, Must::Either);
        }
        trial.verdict()
    }),
    Attack::new(
        "names-and-values-that-are-none",
        "Envoy CVE-2019-9900, CVE-2019-18802",
        "NUL, blanks before the colon, no colon, no name",
        |scene| {
            let mut trial = scene.trial("names-and-values-that-are-none");
            trial.listed(&["blank-before-colon", "nul-in-", "no-colon", "name-not-ascii"]);
            for lines in [
                "impersonate-user\t: system:admin",
                ": x",
                "x y: z",
                "impersonate-user\u{0}x: y",
                "x(y): z",
                "x@y: z",
                "impersonate-user:\u{0}",
            ] {
                trial.plain(lines, Must::Stop);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "chunk-tricks",
        "chunk extensions and sizes",
        "extensions with line ends, sizes with signs, blanks and overflow",
        |scene| {
            let lines = "transfer-encoding: chunked\r\n\r\n";
            let variants = [
                "2;a=b\r\n{}\r\n0\r\n\r\n",
                "2;a=\"\r\n\"\r\n{}\r\n0\r\n\r\n",
                "2;a\nx\r\n{}\r\n0\r\n\r\n",
                "2 \r\n{}\r\n0\r\n\r\n",
                "+2\r\n{}\r\n0\r\n\r\n",
                "0x2\r\n{}\r\n0\r\n\r\n",
                "2\n{}\n0\n\n",
                "10000000000000002\r\n{}\r\n0\r\n\r\n",
                "2\r\n{}xx0\r\n\r\n",
                "-1\r\n{}\r\n0\r\n\r\n",
            ];
            let rest: Vec<String> = variants.iter().map(|body| behind(&format!("{lines}{body}"))).collect();
            let rest: Vec<(&str, Must)> = rest.iter().map(|rest| (rest.as_str(), Must::Either)).collect();
            bodies(scene, "chunk-tricks", &["chunk-size"], &rest)
        },
    ),
    Attack::new(
        "pipelined-identities",
        "one connection, several people",
        "requests of two people, with and without a token, in one write",
        |scene| {
            let mut trial = scene.trial("pipelined-identities");
            for target in trial.targets() {
                let foo = trial.mark(target, Must::AsSelf);
                let nobody = trial.mark(target, Must::Stop);
                let forged = trial.mark(target, Must::Stop);
                let other = trial.mark(target, Must::Stop);
                let last = trial.mark(target, Must::AsSelf);
                let bytes = [
                    trial.fill(&format!("{GET}\r\n"), target, &foo),
                    trial.fill("GET {at} HTTP/1.1\r\nhost: {host}\r\n\r\n", target, &nobody),
                    trial.fill(&format!("{GET}impersonate-user: system:admin\r\n\r\n"), target, &forged),
                    trial.fill("GET {at} HTTP/1.1\r\nhost: {other}\r\nauthorization: Bearer {other token}\r\n\r\n", target, &other),
                    trial.fill(&format!("{GET}\r\n"), target, &last),
                ];
                let mut connection = trial.open(target, Some(target.host));
                connection.send(bytes.concat().as_bytes());
                for mark in [foo, nobody, forged, other, last] {
                    let answer = connection.answer();
                    trial.ended(Sent { mark, answer });
                }
            }
            trial.verdict()
        },
    ),
    Attack::new("requests-in-bodies", "desynchronised pools", "a body that is a request, then one that must not meet it", |scene| {
        let mut trial = scene.trial("requests-in-bodies");
        trial.listed(&["body-of-get"]);
        for target in trial.targets() {
            let mark = trial.mark(target, Must::AsSelf);
            let inner = trial.fill(NEXT, target, &mark);
            let request = trial.fill(&format!("{POST}content-length: {}\r\n\r\n{inner}", inner.len()), target, &mark);
            let mut connection = trial.open(target, Some(target.host));
            let answer = connection.send(request.as_bytes()).answer();
            trial.ended(Sent { mark, answer });
            let mark = trial.mark(target, Must::AsSelf);
            let answer = connection.send(trial.fill(&format!("{GET}\r\n"), target, &mark).as_bytes()).answer();
            trial.ended(Sent { mark, answer });
        }
        trial.verdict()
    }),
    Attack::new("cut-requests", "half a request", "heads and bodies that end early, then silence", |scene| {
        let mut trial = scene.trial("cut-requests");
        for rest in ["", "content-length: 100\r\n\r\n{}", "transfer-encoding: chunked\r\n\r\n64\r\n{}"] {
            for target in trial.targets() {
                let mark = trial.mark(target, if rest.is_empty() { Must::Stop } else { Must::Either });
                let request = trial.fill(&format!("{POST}{rest}"), target, &mark);
                trial.open(target, Some(target.host)).send(request.as_bytes());
                trial.ended(Sent { mark, answer: None });
            }
        }
        trial.verdict()
    }),
    Attack::new("versions", "RFC 9112, 2.3", "HTTP/0.9, 1.0, 1.2, 2.0 and the HTTP/2 preface as HTTP/1", |scene| {
        let mut trial = scene.trial("versions");
        trial.listed(&["version-", "h2-preface"]);
        for version in ["HTTP/1.2", "HTTP/1.11", "http/1.1", "HTTP/11", "HTTP/3.0", "HTTP /1.1", "XTTP/1.1"] {
            trial.raw(&format!("{}\r\n", GET.replace("HTTP/1.1", version)), Must::Stop);
        }
        trial.verdict()
    }),
];
