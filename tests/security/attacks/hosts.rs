//! Naming one host to TLS and another to HTTP, or one in two ways.

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::Scene;
use super::super::support::raw_http2::Http2;
use super::super::trial::Sent;

fn listed(scene: &Scene, name: &'static str, rows: &[&str], requests: &[(&str, Must)]) -> Verdict {
    let mut trial = scene.trial(name);
    if !rows.is_empty() {
        trial.listed(rows);
    }
    for (request, must) in requests {
        trial.raw(request, *must);
    }
    trial.verdict()
}

const GOOD: [(&str, &str); 2] = [("user-agent", "security/{mark}."), ("authorization", "Bearer {token}")];

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("host-of-another-route", "Teleport 11.3.10", "another route's host on this connection, with either token", |scene| {
        listed(scene, "host-of-another-route", &["host-of-", "host-unknown"], &[])
    }),
    Attack::new("server-name-of-another-route", "domain fronting", "another route's server name, the pages', another case", |scene| {
        listed(scene, "server-name-of-another-route", &["server-name-"], &[])
    }),
    Attack::new("no-server-name", "Envoy CVE-2020-8660", "TLS without a server name", |scene| {
        listed(scene, "no-server-name", &["no-server-name"], &[])
    }),
    Attack::new("host-twice", "Envoy 1.40 joins them", "two host lines, equal and not", |scene| {
        let other = "GET {at} HTTP/1.1\r\nhost: {other}\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n";
        listed(scene, "host-twice", &["host-twice", "host-list"], &[(other, Must::Stop)])
    }),
    Attack::new("absolute-form", "RFC 9112, 3.2.2", "absolute targets with this host, another, either token", |scene| {
        listed(
            scene,
            "absolute-form",
            &["absolute"],
            &[
                ("GET HTTPS://{other}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET ftp://{host}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Either),
                ("GET https://{host}:1{at} HTTP/1.1\r\nhost: {other}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Either),
            ],
        )
    }),
    Attack::new("userinfo-in-hosts", "parsers of authorities", "user@host, host/path, host?query, brackets", |scene| {
        listed(
            scene,
            "userinfo-in-hosts",
            &["host-user", "host-path"],
            &[
                ("GET {at} HTTP/1.1\r\nhost: {other}@{host}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET {at} HTTP/1.1\r\nhost: {host}@{other}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET {at} HTTP/1.1\r\nhost: {host}?x\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET {at} HTTP/1.1\r\nhost: {host}#\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET {at} HTTP/1.1\r\nhost: [{host}]\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET {at} HTTP/1.1\r\nhost: {host}\\\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
            ],
        )
    }),
    Attack::new("ports-dots-and-cases", "Envoy keeps them", "ports, a dot at the end, two, capitals: the same host or none", |scene| {
        listed(
            scene,
            "ports-dots-and-cases",
            &["host-upper", "host-dot", "host-port", "host-other-port"],
            &[
                ("GET {at} HTTP/1.1\r\nhost: .{host}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
                ("GET {at} HTTP/1.1\r\nhost: {host}:443.\r\nauthorization: Bearer {token}\r\n\r\n", Must::Either),
                ("GET {at} HTTP/1.1\r\nhost: {host}:99999999999\r\nauthorization: Bearer {token}\r\n\r\n", Must::Either),
                ("GET {at} HTTP/1.1\r\nhost: {host}\u{a0}\r\nauthorization: Bearer {token}\r\n\r\n", Must::Stop),
            ],
        )
    }),
    Attack::new("no-host", "RFC 9112, 3.2", "no host line, an empty one", |scene| {
        listed(scene, "no-host", &["host-missing", "host-empty"], &[])
    }),
    Attack::new(
        "coalesced-connection",
        "Envoy CVE-2020-11767; RFC 9113, 9.1.1",
        "a second host on an open HTTP/2 connection, as browsers do",
        |scene| {
            let mut trial = scene.trial("coalesced-connection");
            for target in trial.targets() {
                let mut connection = Http2::open(scene.world.port, target.host, scene.world.authority.pem());
                for (authority, token, must) in [
                    ("{host}", "Bearer {token}", Must::AsSelf),
                    ("{other}", "Bearer {other token}", Must::Stop),
                    ("{other}", "Bearer {token}", Must::Stop),
                    ("{public}", "Bearer {token}", Must::Stop),
                    ("{host}", "Bearer {token}", Must::AsSelf),
                ] {
                    let mark = trial.mark(target, must);
                    let fields = [
                        (":method", "GET"),
                        (":scheme", "https"),
                        (":authority", authority),
                        (":path", "{at}"),
                        ("user-agent", "security/{mark}."),
                        ("authorization", token),
                    ];
                    let fields = trial.fields(target, &mark, &fields);
                    let stream = connection.request(&fields, true);
                    let answer = connection.answer(stream);
                    trial.ended(Sent { mark, answer });
                }
            }
            trial.verdict()
        },
    ),
    Attack::new("authority-and-host", "RFC 9113, 8.3.1", ":authority and a host field that differ, or only host", |scene| {
        let mut trial = scene.trial("authority-and-host");
        let start = [(":method", "GET"), (":scheme", "https"), (":path", "{at}")];
        for (fields, must) in [
            (&[(":authority", "{other}"), ("host", "{host}")][..], Must::Stop),
            (&[(":authority", "{host}"), ("host", "{other}")], Must::Either),
            (&[("host", "{host}")], Must::Either),
            (&[("host", "{other}")], Must::Stop),
            (&[(":authority", "{host}"), ("host", "{host}"), ("host", "{other}")], Must::Either),
            (&[(":authority", "")], Must::Stop),
            (&[(":authority", "x@{host}")], Must::Stop),
            (&[(":authority", "{host}:443"), ("host", "{host}")], Must::Either),
        ] {
            let (pseudo, regular): (Vec<_>, Vec<_>) = fields.iter().copied().partition(|(name, _)| name.starts_with(':'));
            trial.http2(&[&start[..], &pseudo, &regular, &GOOD].concat(), must);
        }
        trial.verdict()
    }),
];
