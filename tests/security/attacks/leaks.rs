//! What an upstream gets to see of a client's secrets: nothing. Judged by the bytes that the recorders kept.

use super::super::attack::Attack;
use super::super::judge::Must;
use super::super::scene::{RECORDER_TOKEN, RECORDERS};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "session-token-upstream",
        "Pomerium's header tokens; Rancher CVE-2025-54468",
        "the session token in every header that could carry it on",
        |scene| {
            let mut trial = scene.trial("session-token-upstream").on(&RECORDERS);
            for lines in [
                "proxy-authorization: Bearer {token}",
                "x-pomerium-authorization: {token}",
                "cookie: a={token}",
                "x-kubepass-authorization: Bearer {token}",
                "x-forwarded-access-token: {token}",
                "x-original-authorization: Bearer {token}",
            ] {
                trial.lines(lines, Must::AsSelf);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "cookies-upstream",
        "pods behind a proxy read cookies",
        "cookies of kubepass's pages and of others, in one line and in many",
        |scene| {
            let mut trial = scene.trial("cookies-upstream").on(&RECORDERS);
            trial.listed(&["cookie"]);
            for lines in [
                "cookie: __Host-kubepass=forged; other=forged",
                "Cookie: a=forged\r\ncookie: b=forged\r\nCOOKIE: c=forged",
                "cookie: =forged",
            ] {
                trial.lines(lines, Must::AsSelf);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "service-account-token-downstream",
        "Tailscale and others forward without it",
        "an answer of every kind: none holds kubepass's own credential",
        |scene| {
            let mut trial = scene.trial("service-account-token-downstream").on(&RECORDERS);
            let prod = std::fs::read_to_string(scene.world.run.file("kubepass/prod-token")).expect("the token");
            for request in [
                "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
                "TRACE {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
                "OPTIONS {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
            ] {
                for target in trial.targets() {
                    let sent = trial.raw_to(target, Some(target.host), request, Must::Either);
                    let told = sent.answer.map(|answer| format!("{:?} {}", answer.headers, answer.text())).unwrap_or_default();
                    for secret in [RECORDER_TOKEN, prod.trim(), "kubepass-upstream"] {
                        if told.contains(secret) {
                            trial.finding(format!("the answer to {request:?} holds a credential"));
                        }
                    }
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "identity-off-its-route",
        "Rancher CVE-2025-54468",
        "requests for kubepass's own paths: no cluster hears of them",
        |scene| {
            let mut trial = scene.trial("identity-off-its-route");
            for path in ["/.kubepass/", "/.kubepass/../version", "/.kubepass/%2e%2e/version", "/.kubepass//", "/.pomerium/", "/.KUBEPASS/"]
            {
                let must =
                    if path.starts_with("/.kubepass") && !path.contains("..") && !path.contains("%2e") { Must::Stop } else { Must::Either };
                let request = format!(
                    "GET {path}?attack={{mark}}. HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\nauthorization: Bearer {{token}}\r\n\r\n"
                );
                trial.raw(&request, must);
            }
            trial.verdict()
        },
    ),
];
