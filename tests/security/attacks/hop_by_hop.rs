//! Having identity taken off on the way: headers that a client names as this connection's own are removed by the next hop.

use super::super::attack::Attack;
use super::super::judge::Must;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "connection-names-identity",
        "Rancher CVE-2021-31999",
        "connection: impersonate-user and others on a plain request",
        |scene| {
            let mut trial = scene.trial("connection-names-identity");
            trial.listed(&["connection-user", "connection-close-user", "connection-tabs", "connection-and-user", "connection-lines"]);
            for lines in [
                "connection: impersonate-user\r\nconnection: impersonate-group\r\nconnection: close",
                "CONNECTION: IMPERSONATE-USER, IMPERSONATE-GROUP",
                "connection: close,impersonate-user,,impersonate-group,",
                "connection: \"impersonate-user\"",
            ] {
                trial.plain(lines, Must::AsSelf);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "upgrade-names-identity",
        "capsule-proxy CVE-2022-23652",
        "connection: Upgrade, Impersonate-User on WebSocket and SPDY",
        |scene| {
            let mut trial = scene.trial("upgrade-names-identity");
            trial.listed(&["connection-websocket", "connection-spdy"]);
            for protocol in ["websocket", "SPDY/3.1"] {
                for nominated in [
                    "Upgrade, Impersonate-User",
                    "impersonate-group, upgrade",
                    "Upgrade,impersonate-extra-team",
                    "upgrade, audit-id",
                    "upgrade, x-forwarded-for",
                    "upgrade, te",
                    "upgrade\r\nconnection: impersonate-user",
                    "keep-alive, Upgrade, \"Impersonate-User\"",
                ] {
                    trial.upgrade(protocol, &format!("connection: {nominated}\r\nupgrade: {protocol}\r\n"), "", Must::Stop);
                }
            }
            trial.verdict()
        },
    ),
    Attack::new("connection-names-authorization", "Fabio CVE-2025-48865", "connection: authorization, plain and on upgrades", |scene| {
        let mut trial = scene.trial("connection-names-authorization");
        trial.listed(&["connection-authorization"]);
        for protocol in ["websocket", "SPDY/3.1"] {
            trial.upgrade(protocol, &format!("connection: Upgrade, Authorization\r\nupgrade: {protocol}\r\n"), "", Must::Stop);
        }
        trial.verdict()
    }),
    Attack::new(
        "connection-names-ours",
        "header removal, other names",
        "connection: audit-id, x-kubepass-authorization, x-request-id",
        |scene| {
            let mut trial = scene.trial("connection-names-ours");
            trial.listed(&["connection-audit-id", "connection-own-names"]);
            for name in ["x-kubepass-authorization", "x-kubepass-scope", "x-envoy-upstream-stream-duration-ms", "host", "content-length"] {
                trial.plain(&format!("connection: {name}"), Must::Either);
            }
            for name in [":path", ":authority", "x-forwarded-for", "x-forwarded-proto"] {
                trial.plain(&format!("connection: {name}"), Must::Either);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "connection-of-many-tokens",
        "limits of header removal",
        "connection with ten and with a thousand tokens before impersonate-user",
        |scene| {
            let mut trial = scene.trial("connection-of-many-tokens");
            for count in [10, 1000] {
                let tokens = (0..count).map(|index| format!("x{index}")).collect::<Vec<_>>().join(", ");
                trial.plain(&format!("connection: {tokens}, impersonate-user, authorization"), Must::Either);
                trial.upgrade(
                    "websocket",
                    &format!("connection: Upgrade, {tokens}, impersonate-user\r\nupgrade: websocket\r\n"),
                    "",
                    Must::Stop,
                );
            }
            trial.verdict()
        },
    ),
    Attack::new("other-hop-by-hop-headers", "RFC 9110, 7.6.1", "proxy-connection, keep-alive and te that name identity headers", |scene| {
        let mut trial = scene.trial("other-hop-by-hop-headers");
        trial.listed(&["proxy-connection"]);
        trial.plain("te: trailers, impersonate-user", Must::AsSelf);
        trial.plain("keep-alive: impersonate-user", Must::AsSelf);
        trial.plain("trailer: impersonate-user, authorization", Must::AsSelf);
        trial.verdict()
    }),
    Attack::new("connection-over-http2", "RFC 9113, 8.2.2", "connection and upgrade as HTTP/2 fields", |scene| {
        let mut trial = scene.trial("connection-over-http2");
        let usual = super::super::trial::usual_fields();
        for (name, value) in [
            ("connection", "impersonate-user"),
            ("connection", "keep-alive, authorization"),
            ("proxy-connection", "impersonate-user"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers, impersonate-user"),
        ] {
            trial.http2(&[&usual[..], &[(name, value)]].concat(), Must::Either);
        }
        trial.verdict()
    }),
];
