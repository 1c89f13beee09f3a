//! Headers by which others speak of a request: where it came from, what it was called before, what hops know of each other.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::{PROD, Scene};
use super::super::support::raw::Connection;
use super::super::support::wait::eventually;

/// Lines that go no further: the request arrives as the person, and a recorder sees none of them.
fn taken_off(scene: &Scene, name: &'static str, listed: &[&str], lines: &[&str]) -> Verdict {
    let mut trial = scene.trial(name);
    if !listed.is_empty() {
        trial.listed(listed);
    }
    for lines in lines {
        trial.lines(lines, Must::AsSelf);
    }
    trial.verdict()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("remote-user", "kcp CVE-2026-61682", "X-Remote-User, -Group, -Uid, -Extra-* of an authenticating proxy", |scene| {
        let lines = ["x-remote-user: forged\r\nx-remote-group: forged", "X-Remote-Extra-Scopes: forged\r\nx-remote-uid: forged"];
        taken_off(scene, "remote-user", &["remote-user"], &lines)
    }),
    Attack::new("source-address", "Envoy CVE-2024-45806", "x-forwarded-for, x-real-ip, forwarded and their like", |scene| {
        let lines = [
            "x-forwarded-for: 10.0.0.1, 203.0.113.9\r\nx-real-ip: 203.0.113.9",
            "x-forwarded-for: 127.0.0.1, 203.0.113.9",
            "X-Envoy-Internal: forged\r\nx-envoy-peer-metadata: forged",
        ];
        taken_off(scene, "source-address", &["forwarded-for", "forwarded-twice"], &lines)
    }),
    Attack::new("path-by-header", "oauth2-proxy CVE-2026-40575", "x-forwarded-uri, x-original-url, x-rewrite-url", |scene| {
        let mut trial = scene.trial("path-by-header").never("another path", |arrival| arrival.uri.contains("secrets"));
        trial.listed(&["forwarded-host", "forwarded-uri"]);
        for name in ["x-forwarded-uri", "x-original-uri", "x-original-url", "x-forwarded-path", "x-envoy-original-path"] {
            trial.lines(&format!("{name}: /api/v1/namespaces/kube-system/secrets?forged"), Must::AsSelf);
        }
        trial.verdict()
    }),
    Attack::new("request-ids", "forged trails", "audit-id and x-request-id of the client's choice", |scene| {
        taken_off(
            scene,
            "request-ids",
            &["audit-id", "request-id"],
            &["audit-id: 00000000-0000-4000-8000-000000000000", "AUDIT-ID: forged\r\naudit-id: "],
        )
    }),
    Attack::new(
        "request-ids-of-the-refused",
        "forged trails",
        "another request's id on what Envoy refuses before it removes headers",
        |scene| {
            // The second is no id: by it nobody has the line of their own left out.
            const MADE_UP: [&str; 2] = ["00000000-0000-4000-8000-0000f0f2f0f2", "made up 00f0f2f0f2"];
            const REFUSED: [(&str, &str); 4] = [
                ("GET /a%2fb?attack={mark}. HTTP/1.1\r\nhost: {host}", "path_normalization_failed"),
                ("GET {at} HTTP/1.0\r\nhost: {host}", "low_version"),
                ("GET /api/v1/pods?watch=true&attack={mark}. HTTP/1.0\r\nhost: {host}", "low_version"),
                ("GET {at} HTTP/1.1", "missing_host_header"),
            ];
            let mut trial = scene.trial("request-ids-of-the-refused").on(&[PROD]);
            let told = || {
                let lines = scene.world.audit_lines();
                let of = |why: &str| lines.iter().filter(|line| line["event"] == "undecided" && line["ended_by"] == why).count();
                REFUSED.map(|(_, why)| of(why))
            };
            let before = told();
            for id in MADE_UP {
                for (request, _) in REFUSED {
                    let lines = format!("user-agent: security/{{mark}}.\r\naudit-id: {id}\r\nx-request-id: {id}\r\n\r\n");
                    trial.raw(&format!("{request}\r\n{lines}"), Must::Stop);
                }
            }
            // One that is asked: already its beginning is told under Envoy's id.
            let [id, _] = MADE_UP;
            let request = format!(
                "GET /api/v1/pods?watch=true&attack={{mark}}. HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\n\
                 audit-id: {id}\r\nx-request-id: {id}\r\n\r\n"
            );
            let mark = format!("security/{}.", trial.raw_to(PROD, Some(PROD.host), &request, Must::Stop).mark);
            let decision = scene.world.audit_line(&mark, |line| line["event"] == "decision" && line.to_string().contains(&mark));
            for phase in ["start", "end"] {
                scene.world.audit_line(phase, |line| line["phase"] == phase && line["request_id"] == decision["request_id"]);
            }
            // A line for each of the refused, by which it is known that none is to come any more.
            let wanted = [2, 4, 4, 2];
            eventually("lines of the refused", Duration::from_secs(10), || {
                let now = told();
                (0..REFUSED.len()).all(|at| now[at] >= before[at] + wanted[at]).then_some(())
            });
            let is_made_up = |line: &serde_json::Value| MADE_UP.iter().any(|id| line.to_string().contains(id));
            for line in scene.world.audit_lines().into_iter().filter(is_made_up) {
                trial.finding(format!("a line of the trail has the client's id: {line}"));
            }
            trial.verdict()
        },
    ),
    Attack::new("tracing-headers", "forged trails", "traceparent, tracestate, baggage, via", |scene| {
        taken_off(scene, "tracing-headers", &["tracing"], &["tracestate: a=forged\r\nvia: 1.1 forged"])
    }),
    Attack::new("envoy-headers", "Envoy CVE-2023-27487", "x-envoy-* that change paths, hosts, timeouts, retries", |scene| {
        let lines = [
            "x-envoy-max-retries: 9\r\nx-envoy-retry-on: gateway-error\r\nx-envoy-hedge-on-per-try-timeout: true",
            "x-envoy-upstream-alt-stat-name: forged\r\nx-envoy-ip-tags: forged\r\nx-envoy-downstream-service-node: forged",
        ];
        taken_off(scene, "envoy-headers", &["envoy-path", "envoy-timeouts", "envoy-hosts"], &lines)
    }),
    Attack::new(
        "kubepass-headers",
        "an inner name used from outside",
        "x-kubepass-authorization, -scope, -source and x-pomerium-*",
        |scene| {
            let lines = [
                "x-kubepass-scope: {other}",
                "x-kubepass-source: 203.0.113.1\r\nx-kubepass-assertion: forged",
                "X-Kubepass-Authorization: Bearer forged\r\nx-kubepass-cookie: forged",
                "x-pomerium-authorization: forged",
            ];
            taken_off(scene, "kubepass-headers", &["own-names", "own-token"], &lines)
        },
    ),
    Attack::new("scope-by-header", "routes chosen by a header", "x-kubepass-scope of another host, with that host's token", |scene| {
        let mut trial = scene.trial("scope-by-header");
        for target in trial.targets() {
            for lines in
                ["x-kubepass-scope: {other}", "x-kubepass-scope: {public}", "X-KUBEPASS-SCOPE: {other}\r\nx-kubepass-scope: {other}"]
            {
                let request = format!("GET {{at}} HTTP/1.1\r\nhost: {{other}}\r\nauthorization: Bearer {{other token}}\r\n{lines}\r\n\r\n");
                trial.raw_to(target, Some(target.host), &request, Must::Stop);
            }
        }
        trial.verdict()
    }),
    Attack::new("certificate-headers", "Envoy CVE-2023-27493", "x-forwarded-client-cert and ssl-client-*", |scene| {
        taken_off(
            scene,
            "certificate-headers",
            &[],
            &["x-forwarded-client-cert: By=forged;Hash=forged;Subject=\"CN=system:admin,O=system:masters\""],
        )
    }),
    Attack::new(
        "method-by-header",
        "frameworks that override methods",
        "x-http-method-override: DELETE arrives as the GET that it is",
        |scene| {
            let mut trial = scene
                .trial("method-by-header")
                .never("another method", |arrival| arrival.method.eq_ignore_ascii_case("delete") || arrival.event["verb"] == "delete");
            trial.listed(&["method-override"]);
            trial.verdict()
        },
    ),
    Attack::new("bytes-that-are-no-text", "Envoy CVE-2023-27488", "bytes above 127 in names and values that are judged", |scene| {
        let mut trial = scene.trial("bytes-that-are-no-text");
        trial.listed(&["token-not-text", "agent-not-text", "path-not-text"]);
        for lines in ["impersonate-user: \u{ff}\u{fe}", "impersonate-group: \u{c3}\u{28}", "impersonate-\u{ff}: x"] {
            trial.lines(lines, Must::Stop);
        }
        for lines in ["x-a: \u{ff}\u{fe}", "accept: \u{80}", "origin: \u{ff}", "cookie: a=\u{ff}"] {
            trial.lines(lines, Must::Either);
        }
        trial.verdict()
    }),
    Attack::new("proxy-protocol", "Envoy CVE-2024-23324", "PROXY protocol bytes before TLS, of both versions", |scene| {
        let mut trial = scene.trial("proxy-protocol");
        let second: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x01\x7f\x00\x00\x01\x00\x01\x01\xbb";
        for before in [&b"PROXY TCP4 203.0.113.1 127.0.0.1 1 443\r\n"[..], second, b"PROXY UNKNOWN\r\n"] {
            for target in trial.targets() {
                let mark = trial.mark(target, Must::Stop);
                let request = trial.fill("GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", target, &mark);
                let (port, authority) = (scene.world.port, scene.world.authority.pem());
                let connection = Connection::open_from(Ipv4Addr::LOCALHOST, before, port, target.host, authority);
                let answer = connection.within(std::time::Duration::from_secs(2)).send(request.as_bytes()).answer();
                trial.ended(super::super::trial::Sent { mark, answer });
            }
        }
        trial.verdict()
    }),
];
