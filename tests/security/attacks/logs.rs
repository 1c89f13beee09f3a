//! What is written down, and what the refused get to read.

use std::path::Path;

use serde_json::Value;

use super::super::attack::Attack;
use super::super::judge::Must;
use super::super::scene::{CLUSTERS, PROD, RECORDER_TOKEN, Scene};

/// What nobody who is refused has to know: names of rules, their text, upstreams, headers of ours, credentials.
const INSIDE: [&str; 11] = [
    "readers-read",
    "no-secrets",
    "endsWith",
    "user.groups",
    "kubernetes.default",
    "x-kubepass",
    "X-Kubepass",
    "impersonate-user",
    "system:serviceaccount",
    "ext_authz",
    RECORDER_TOKEN,
];

/// Lines of kubepass's trail that hold a text.
fn trail_with(scene: &Scene, text: &str) -> Vec<Value> {
    // Panics where a line is not JSON.
    scene.world.audit_lines().into_iter().filter(|line| line.to_string().contains(text)).collect()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("lines-in-logs", "Envoy CVE-2024-45808", "quotes, JSON, escape sequences and line ends in path and user agent", |scene| {
        let mut trial = scene.trial("lines-in-logs");
        for agent in [
            "\"},\n{\"event\":\"planted\"}",
            "\"}{\"event\":\"planted\",\"outcome\":\"allow\"}",
            "\u{1b}[2K\u{1b}[1;31mplanted",
            "\\\"}\\n{\\\"event\\\":\\\"planted\\\"}",
            "\u{85}{\"event\":\"planted\"}",
            "\r{\"event\":\"planted\"}",
            "\u{e2}\u{80}\u{a8}{\"event\":\"planted\"}",
        ] {
            trial.raw(
                &format!("GET {{at}}%0a HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.{agent}\r\nauthorization: Bearer {{token}}\r\n\r\n"),
                Must::Either,
            );
            trial.raw(
                &format!("GET {{at}}&x=%22%7d%0a{{\"event\":\"planted\"}} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: {agent}\r\nauthorization: Bearer {{token}}\r\n\r\n"),
                Must::Either,
            );
        }
        if let Some(line) = trail_with(scene, "planted").into_iter().find(|line| line["event"] == "planted") {
            trial.finding(format!("a line of the trail is the client's: {line}"));
        }
        for log in logs(scene) {
            let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
            if text.lines().any(|line| line.starts_with("{\"event\":\"planted") || line.contains('\u{1b}') && line.contains("planted")) {
                trial.finding(format!("{} has a line that the client wrote", log.display()));
            }
        }
        trial.verdict()
    }),
    Attack::new(
        "formats-in-values",
        "Envoy's substitution formats",
        "%REQ(authorization)% and %DYNAMIC_METADATA% in values that are copied",
        |scene| {
            let mut trial = scene.trial("formats-in-values");
            for value in [
                "%REQ(authorization)%",
                "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%",
                "%REQ(impersonate-user)%",
                "%%",
                "${env:SECRET}",
            ] {
                trial.lines(&format!("x-a: {value}\r\naccept: {value}"), Must::AsSelf);
            }
            trial.verdict()
        },
    ),
    Attack::new("long-values-in-logs", "logs that fill up", "a user agent of 50 KiB and a path of as many: lines stay short", |scene| {
        let mut trial = scene.trial("long-values-in-logs").on(&CLUSTERS);
        let long = "y".repeat(50 << 10);
        trial.raw(
            &format!(
                "GET {{at}} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.{long}\r\nauthorization: Bearer {{token}}\r\n\r\n"
            ),
            Must::Either,
        );
        trial.raw(&format!("GET {{at}}&{long} HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {{token}}\r\n\r\n"), Must::Either);
        let text = std::fs::read_to_string(scene.world.audit_path()).expect("the trail");
        let longest = text.lines().map(str::len).max().unwrap_or(0);
        if longest > 32 << 10 {
            trial.finding(format!("a line of the trail has {longest} bytes"));
        }
        trial.verdict()
    }),
    Attack::new(
        "tokens-in-logs",
        "Pomerium's header tokens in logs",
        "tokens in every header and place of a request: in no log",
        |scene| {
            let mut trial = scene.trial("tokens-in-logs").on(&CLUSTERS);
            for lines in
                ["x-a: {token}", "cookie: {token}", "proxy-authorization: Bearer {token}", "x-kubepass-authorization: Bearer {token}"]
            {
                trial.lines(lines, Must::AsSelf);
            }
            // In the address, where no client has to have it.
            let head = "HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n\r\n";
            trial.raw(&format!("GET {{at}}&token={{token}} {head}"), Must::AsSelf);
            trial.raw(&format!("GET /version/{{token}}?attack={{mark}}. {head}"), Must::Either);
            trial.flush();
            let token = scene.token("foo", PROD);
            let secrets = [token.as_str(), RECORDER_TOKEN];
            for log in logs(scene).into_iter().chain([scene.world.audit_path()]) {
                let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
                if secrets.iter().any(|secret| text.contains(secret)) {
                    trial.finding(format!("{} holds a token", log.display()));
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "refusals-that-tell",
        "Warpgate CVE-2026-91163",
        "answers to strangers and to whom no rule lets in: nothing of what is inside",
        |scene| {
            let mut trial = scene.trial("refusals-that-tell").by("eve");
            let head = "HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\n";
            for credential in ["", "authorization: Bearer x\r\n", "authorization: Bearer {token}\r\n", "authorization: Basic YTpi\r\n"] {
                for (path, lines) in [
                    ("/api/v1/namespaces/default/secrets", ""),
                    ("/api/v1/namespaces/there-is-none/pods", ""),
                    ("/", "accept: text/html\r\n"),
                    ("/api", "accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList\r\n"),
                    ("/x", "impersonate-user: system:admin\r\n"),
                    ("/%2f", ""),
                    ("/x", "connection: upgrade, x\r\nupgrade: websocket\r\n"),
                ] {
                    for target in trial.targets() {
                        let sent =
                            trial.raw_to(target, Some(target.host), &format!("GET {path} {head}{credential}{lines}\r\n"), Must::Stop);
                        let told =
                            sent.answer.as_ref().map(|answer| format!("{:?}\n{}", answer.headers, answer.text())).unwrap_or_default();
                        let port = scene.world.prod.port().to_string();
                        if let Some(word) = INSIDE.iter().copied().chain([port.as_str()]).find(|word| told.contains(word)) {
                            trial.finding(format!("the answer to {path} tells {word:?}: {told}"));
                        }
                    }
                }
            }
            trial.verdict()
        },
    ),
    Attack::new("refusals-that-differ", "enumeration", "strangers asking for what is there and what is not: one answer", |scene| {
        let mut trial = scene.trial("refusals-that-differ");
        for target in trial.targets() {
            let mut answers = std::collections::BTreeSet::new();
            for path in [
                "/api/v1/namespaces/default/pods/web",
                "/api/v1/namespaces/default/pods/none",
                "/nothing",
                "/version",
                "/.well-known/openid-configuration",
            ] {
                let request = format!("GET {path} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\n\r\n");
                let sent = trial.raw_to(target, Some(target.host), &request, Must::Stop);
                let mut status: Value = serde_json::from_str(&sent.text()).unwrap_or_default();
                // The request's own id.
                status["details"] = Value::Null;
                status["message"] = status["message"].to_string().split("(request id").next().unwrap_or_default().into();
                answers.insert((sent.status(), status.to_string()));
            }
            if answers.len() != 1 {
                trial.finding(format!("{}: {answers:?}", target.route));
            }
        }
        trial.verdict()
    }),
];

/// The logs of kubepass and its Envoy, not those of the parts around them.
fn logs(scene: &Scene) -> Vec<std::path::PathBuf> {
    let folder = scene.world.run.path().join("logs");
    let files = std::fs::read_dir(folder).expect("the logs").flatten().map(|entry| entry.path());
    files.filter(|path: &std::path::PathBuf| is_of_kubepass(path)).collect()
}

fn is_of_kubepass(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("kubepass"))
}
