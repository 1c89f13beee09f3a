//! Methods that are more than reading and writing.

use super::super::attack::Attack;
use super::super::judge::Must;

const REST: &str = "{at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n";

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("connect", "Envoy CVE-2025-64763", "CONNECT to the host, to a path, to elsewhere, with early data", |scene| {
        let mut trial = scene.trial("connect");
        trial.listed(&["connect"]);
        for authority in ["127.0.0.1:1", "{other}:443", "{host}", "/", "*"] {
            let head = format!(
                "CONNECT {authority} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\nauthorization: Bearer {{token}}\r\n\r\n"
            );
            trial.raw(&head, Must::Stop);
            trial
                .raw(&format!("{head}GET /api?smuggled HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {{token}}\r\n\r\n"), Must::Stop);
        }
        let fields =
            [(":method", "CONNECT"), (":authority", "{host}:443"), ("user-agent", "security/{mark}."), ("authorization", "Bearer {token}")];
        trial.http2(&fields, Must::Stop);
        trial.verdict()
    }),
    Attack::new("extended-connect", "RFC 8441", "WebSocket over HTTP/2 to exec", |scene| {
        let mut trial = scene.trial("extended-connect");
        for protocol in ["websocket", "SPDY/3.1", "connect-udp", "impersonate"] {
            let fields = [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "https"),
                (":authority", "{host}"),
                (":path", "{exec}"),
                ("user-agent", "security/{mark}."),
                ("authorization", "Bearer {token}"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ];
            for target in trial.targets() {
                trial.frames(target, &fields, Must::Stop, |connection, fields| {
                    let stream = connection.request(fields, false);
                    connection.data(stream, b"GET /api?smuggled HTTP/1.1\r\n\r\n", true);
                    stream
                });
            }
        }
        trial.verdict()
    }),
    Attack::new("trace", "cross-site tracing", "TRACE arrives as the person, and its answer shows no credential", |scene| {
        let mut trial = scene.trial("trace");
        trial.listed(&["trace"]);
        trial.verdict()
    }),
    Attack::new("unknown-methods", "Envoy CVE-2026-73547", "methods that nobody knows, that are no token, in small letters", |scene| {
        let mut trial = scene.trial("unknown-methods");
        trial.listed(&["method-not"]);
        for method in ["get", "GETT", "X", "PRI", "-", "GET\t", " GET", "", "\u{c7}ET"] {
            trial.raw(&format!("{method} {REST}\r\n"), Must::Either);
            let mut fields = super::super::trial::usual_fields().to_vec();
            fields[0].1 = method;
            trial.http2(&fields, Must::Either);
        }
        trial.verdict()
    }),
    Attack::new("methods-that-bodies-change", "requests read twice", "GET, HEAD and DELETE with bodies that hold requests", |scene| {
        let mut trial = scene.trial("methods-that-bodies-change");
        trial.listed(&["body-of-get"]);
        let body = "DELETE /api/v1/namespaces/default/pods/web?smuggled HTTP/1.1\r\nhost: {host}\r\n\r\n";
        for method in ["GET", "OPTIONS", "DELETE", "HEAD"] {
            // 79 and the host's own length.
            for target in trial.targets() {
                let length = body.len() - "{host}".len() + target.host.len();
                trial.wait_raw(target, Some(target.host), &format!("{method} {REST}content-length: {length}\r\n\r\n{body}"), Must::Either);
            }
        }
        trial.verdict()
    }),
];
