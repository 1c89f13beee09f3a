//! Forged and malformed requests, one line each: what is sent, and what must become of it. The end-to-end tests send them to an installation whose
//! names are odd, the security suite to one with a recorder; the words in braces are theirs to fill in.

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One of these statuses (0: the connection ends without an answer), and no API server hears of it.
    Refused(&'static [u16]),
    /// It arrives once, at the right API server, as the person who sent it and as nobody else.
    AsSelf,
}

use Verdict::{AsSelf, Refused};

/// Refused by kubepass as impersonation.
const IMPERSONATION: Verdict = Refused(&[403]);
/// Refused by kubepass or by Envoy, because it can be read in two ways.
const MALFORMED: Verdict = Refused(&[400]);
/// Refused by Envoy's parser, with or without an answer.
const UNREADABLE: Verdict = Refused(&[0, 400, 426, 501]);

/// Name, header lines beside `host` and a valid `authorization`, verdict. Sent over HTTP/1.1, and over HTTP/2 where that can carry them.
pub const HEADERS: &[(&str, &str, Verdict)] = &[
    ("none", "accept: */*", AsSelf),
    ("as-user", "impersonate-user: system:admin", IMPERSONATION),
    ("as-oneself", "Impersonate-User: foo@example.com", IMPERSONATION),
    ("as-user-upper", "IMPERSONATE-USER: system:admin", IMPERSONATION),
    ("as-user-mixed", "iMpErSoNaTe-UsEr: system:admin", IMPERSONATION),
    ("as-nobody", "impersonate-user: ", IMPERSONATION),
    ("as-two-users", "impersonate-user: foo@example.com\r\nimpersonate-user: system:admin", IMPERSONATION),
    ("as-users-of-two-cases", "impersonate-user: foo@example.com\r\nImpersonate-User: system:admin", IMPERSONATION),
    ("as-group", "Impersonate-Group: system:masters", IMPERSONATION),
    ("as-groups", "impersonate-group: a\r\nImpersonate-Group: system:masters\r\nIMPERSONATE-GROUP: b", IMPERSONATION),
    ("as-group-list", "impersonate-group: a, system:masters", IMPERSONATION),
    ("as-uid", "impersonate-uid: 0", IMPERSONATION),
    ("as-uid-mixed", "Impersonate-Uid: 0\r\nimpersonate-uid: 1", IMPERSONATION),
    ("as-extra", "impersonate-extra-scopes: all", IMPERSONATION),
    ("as-extra-domain", "Impersonate-Extra-Example.com%2Fteam: root", IMPERSONATION),
    ("as-extra-encoded", "impersonate-extra-example.com%2fteam: root\r\nimpersonate-extra-%74eam: root", IMPERSONATION),
    ("as-extra-of-ours", "impersonate-extra-team: root", IMPERSONATION),
    ("as-unknown", "impersonate-whatever: x", IMPERSONATION),
    ("as-prefix", "impersonate-: x", IMPERSONATION),
    ("as-all", "impersonate-user: a\r\nimpersonate-uid: b\r\nimpersonate-group: c\r\nimpersonate-extra-d: e", IMPERSONATION),
    ("underscore-user", "impersonate_user: system:admin", MALFORMED),
    ("underscore-mixed", "Impersonate_User: system:admin", MALFORMED),
    ("underscore-group", "impersonate-user_: a\r\nimpersonate_group: system:masters", MALFORMED),
    ("underscore-extra", "impersonate_extra_scopes: all", MALFORMED),
    ("underscore-remote", "x_remote_user: system:admin", MALFORMED),
    ("underscore-authorization", "x-a_b: c", MALFORMED),
    ("remote-user", "x-remote-user: system:admin\r\nX-Remote-Group: system:masters\r\nx-remote-extra-scopes: all", AsSelf),
    ("remote-user-upper", "X-REMOTE-USER: system:admin\r\nX-REMOTE-UID: 0\r\nX-Remote-Group: a\r\nX-Remote-Group: b", AsSelf),
    ("forwarded-for", "x-forwarded-for: 203.0.113.7\r\nX-Real-IP: 203.0.113.7\r\nforwarded: for=203.0.113.7;host=x", AsSelf),
    ("forwarded-twice", "X-Forwarded-For: 203.0.113.7, 203.0.113.8\r\nx-forwarded-for: 203.0.113.9", AsSelf),
    ("forwarded-host", "x-forwarded-host: staging.k8s.localhost\r\nx-forwarded-proto: http\r\nx-forwarded-port: 1", AsSelf),
    ("forwarded-uri", "x-original-url: /api/v1/secrets\r\nx-rewrite-url: /api/v1/secrets\r\nx-forwarded-prefix: /api", AsSelf),
    ("audit-id", "audit-id: forged\r\nAudit-ID: 00000000-0000-0000-0000-000000000000", AsSelf),
    ("request-id", "x-request-id: 00000000-0000-0000-0000-000000000000", AsSelf),
    ("request-ids", "X-Request-Id: forged\r\nx-request-id: forged too", AsSelf),
    ("tracing", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nbaggage: a=b", AsSelf),
    ("envoy-path", "x-envoy-original-path: /api/v1/secrets\r\nx-envoy-external-address: 203.0.113.7\r\nx-envoy-internal: true", AsSelf),
    ("envoy-timeouts", "x-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-upstream-stream-duration-ms: 1\r\nx-envoy-retry-on: 5xx", AsSelf),
    ("envoy-hosts", "x-envoy-decorator-operation: x\r\nx-envoy-original-dst-host: 127.0.0.1:1\r\nx-envoy-force-trace: true", AsSelf),
    ("own-names", "x-kubepass-authorization: Bearer x\r\nx-pomerium-authorization: x\r\nx-kubepass-user: root", AsSelf),
    ("own-token", "x-kubepass-authorization: Bearer {token}\r\nX-Kubepass-Authorization: Bearer {token}", AsSelf),
    ("method-override", "x-http-method-override: DELETE\r\nx-http-method: DELETE\r\nx-method-override: DELETE", AsSelf),
    ("cookie", "cookie: authorization=Bearer x; __Host-kubepass=x\r\ncookie: impersonate-user=x", AsSelf),
    ("proxy-authorization", "proxy-authorization: Bearer x", AsSelf),
    // What a plain request's `connection` nominates, Envoy removes before anything reads it: from the client's lines, not from ours.
    ("connection-user", "connection: impersonate-user", AsSelf),
    ("connection-close-user", "Connection: close, Impersonate-User, Impersonate-Group", AsSelf),
    ("connection-authorization", "connection: keep-alive, authorization", Refused(&[401])),
    ("connection-audit-id", "connection: audit-id", AsSelf),
    ("connection-own-names", "connection: x-kubepass-authorization, x-kubepass-user", AsSelf),
    ("connection-lines", "connection: keep-alive\r\nConnection: x-request-id", AsSelf),
    ("connection-tabs", "connection: close,\timpersonate-extra-team", AsSelf),
    (
        "connection-and-user",
        "connection: impersonate-user, x-remote-user\r\nimpersonate-user: system:admin\r\nx-remote-user: system:admin",
        AsSelf,
    ),
    (
        "connection-websocket",
        "Connection: Upgrade, Impersonate-User\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        MALFORMED,
    ),
    ("connection-spdy", "connection: upgrade, impersonate-group\r\nupgrade: SPDY/3.1", MALFORMED),
    ("connection-spdy-lines", "connection: upgrade\r\nconnection: authorization\r\nupgrade: SPDY/3.1", MALFORMED),
    ("proxy-connection", "proxy-connection: impersonate-user, authorization", AsSelf),
    ("authorization-again", "authorization: Bearer {token}", MALFORMED),
    ("authorization-other", "Authorization: Bearer other", MALFORMED),
    ("authorization-basic", "AUTHORIZATION: Basic YTpi", MALFORMED),
    // Envoy joins the lines of this header, and an empty one adds nothing.
    ("authorization-empty", "authorization: ", AsSelf),
    ("websocket-bearer", "sec-websocket-protocol: base64url.bearer.authorization.k8s.io.QQ", MALFORMED),
    ("websocket-bearer-list", "Sec-WebSocket-Protocol: v5.channel.k8s.io, Base64URL.Bearer.Authorization.k8s.io.QQ", MALFORMED),
    (
        "websocket-bearer-lines",
        "sec-websocket-protocol: v5.channel.k8s.io\r\nsec-websocket-protocol: base64url.bearer.authorization.k8s.io.QQ",
        MALFORMED,
    ),
    (
        "websocket-bearer-upgrade",
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: base64url.bearer.authorization.k8s.io.QQ, v5.channel.k8s.io",
        MALFORMED,
    ),
    // Ignored, as RFC 9113 has it.
    ("upgrade-h2c", "connection: upgrade\r\nupgrade: h2c", AsSelf),
    ("upgrade-h2c-settings", "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA", AsSelf),
    ("upgrade-other", "connection: upgrade\r\nupgrade: TLS/1.0", Refused(&[403])),
    ("upgrade-list", "connection: upgrade\r\nupgrade: foo, websocket", Refused(&[403])),
    ("expect", "expect: 100-continue", AsSelf),
    ("te", "te: trailers, impersonate-user", AsSelf),
];

/// A request by itself. `{at}` is a target by which it is known in the audit logs; nothing with `smuggled` in its target may arrive.
pub struct Attack {
    pub name: &'static str,
    /// Empty for none.
    pub server_name: &'static str,
    /// Each character is one byte.
    pub request: &'static str,
    pub verdict: Verdict,
}

const fn attack(name: &'static str, request: &'static str, verdict: Verdict) -> Attack {
    Attack { name, server_name: "{host}", request, verdict }
}

pub const ATTACKS: &[Attack] = &[
    // Credentials.
    attack("no-credential", "GET {at} HTTP/1.1\r\nhost: {host}\r\n\r\n", Refused(&[401])),
    attack("query-token", "GET {at}&access_token={token} HTTP/1.1\r\nhost: {host}\r\n\r\n", Refused(&[401])),
    attack("cookie-token", "GET {at} HTTP/1.1\r\nhost: {host}\r\ncookie: authorization=Bearer {token}\r\n\r\n", Refused(&[401])),
    attack("proxy-token", "GET {at} HTTP/1.1\r\nhost: {host}\r\nproxy-authorization: Bearer {token}\r\n\r\n", Refused(&[401])),
    attack("pomerium-header", "GET {at} HTTP/1.1\r\nhost: {host}\r\nx-pomerium-authorization: {token}\r\n\r\n", Refused(&[401])),
    attack("pomerium-bearer", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer Pomerium-{token}\r\n\r\n", Refused(&[401])),
    attack("token-of-staging", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {other token}\r\n\r\n", Refused(&[401])),
    attack("token-list", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}, Bearer {token}\r\n\r\n", MALFORMED),
    attack("token-list-other", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer a, Bearer {token}\r\n\r\n", MALFORMED),
    attack(
        "token-first-bad",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer a\r\nauthorization: Bearer {token}\r\n\r\n",
        MALFORMED,
    ),
    attack("token-blanks", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer  {token}\r\n\r\n", MALFORMED),
    attack("token-no-scheme", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: {token}\r\n\r\n", MALFORMED),
    attack("token-truncated", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}x\r\n\r\n", Refused(&[401])),
    attack("token-not-text", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer \u{ff}{token}\r\n\r\n", Refused(&[400, 503])),
    attack(
        "agent-not-text",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nuser-agent: \u{ff}\u{fe}\r\n\r\n",
        AsSelf,
    ),
    attack("path-not-text", "GET {at}\u{ff} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[0, 400, 503])),
    // Where a request begins and ends.
    attack(
        "cl-te",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /api?smuggled HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "te-cl",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n1\r\nGGET /api?smuggled HTTP/1.1\r\nhost: {host}\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "te-unknown",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "te-list",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "te-gzip",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "te-twice",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "te-blank",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding : chunked\r\ncontent-length: 2\r\n\r\n{}",
        UNREADABLE,
    ),
    attack(
        "te-folded",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding:\r\n chunked\r\ncontent-length: 2\r\n\r\n{}",
        UNREADABLE,
    ),
    attack(
        "te-tab",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "cl-two",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: 2\r\ncontent-length: 50\r\n\r\n{}GET /api?smuggled HTTP/1.1\r\nhost: {host}\r\n\r\n",
        UNREADABLE,
    ),
    attack("cl-list", "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: 2, 2\r\n\r\n{}", UNREADABLE),
    attack("cl-plus", "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: +2\r\n\r\n{}", UNREADABLE),
    attack("cl-negative", "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: -1\r\n\r\n", UNREADABLE),
    attack("cl-hex", "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: 0x2\r\n\r\n{}", UNREADABLE),
    attack(
        "folded-line",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nx-a: b\r\n impersonate-user: system:admin\r\n\r\n",
        AsSelf,
    ),
    attack(
        "blank-before-colon",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nimpersonate-user : system:admin\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "leading-blank",
        "GET {at} HTTP/1.1\r\n impersonate-user: system:admin\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        UNREADABLE,
    ),
    attack("nul-in-value", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nx-a: b\0c\r\n\r\n", UNREADABLE),
    attack(
        "cr-in-value",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nx-a: b\rimpersonate-user: system:admin\r\n\r\n",
        AsSelf,
    ),
    attack(
        "nul-in-name",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nimpersonate-user\0: system:admin\r\n\r\n",
        UNREADABLE,
    ),
    attack("no-colon", "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nimpersonate-user\r\n\r\n", UNREADABLE),
    attack(
        "name-not-ascii",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\u{ef}mpersonate-user: system:admin\r\n\r\n",
        UNREADABLE,
    ),
    attack(
        "line-feeds",
        "GET {at} HTTP/1.1\nhost: {host}\nauthorization: Bearer {token}\nimpersonate-user: system:admin\n\n",
        Refused(&[0, 400, 403]),
    ),
    attack(
        "chunk-size",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff1\r\n\r\n",
        Refused(&[0, 400, 502, 503]),
    ),
    attack(
        "trailers",
        "POST {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\ntrailer: impersonate-user\r\n\r\n0\r\nimpersonate-user: system:admin\r\n\r\n",
        AsSelf,
    ),
    attack(
        "body-of-get",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-length: 40\r\n\r\nGET /api?smuggled HTTP/1.1\r\nhost: {host}x\r\n",
        AsSelf,
    ),
    attack(
        "after-refused-upgrade",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\nupgrade: other\r\n\r\nGET /api?smuggled HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {other token}\r\n\r\n",
        Refused(&[403]),
    ),
    attack("version-0.9", "GET {at}\r\n\r\n", UNREADABLE),
    attack("version-1.0", "GET {at} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[426])),
    attack("version-2.0", "GET {at} HTTP/2.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", UNREADABLE),
    attack("h2-preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UNREADABLE),
    // Methods.
    attack(
        "connect",
        "CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 403, 404, 405]),
    ),
    attack(
        "connect-path",
        "CONNECT {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 403, 404, 405]),
    ),
    attack("trace", "TRACE {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("method-not-known", "BREW {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", UNREADABLE),
    attack("method-not-token", "G@T {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", UNREADABLE),
    // Which host is meant.
    attack("absolute", "GET https://{host}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("absolute-http", "GET http://{host}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("absolute-over-host", "GET https://{host}{at} HTTP/1.1\r\nhost: {other}\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("absolute-other", "GET https://{other}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[421])),
    attack(
        "absolute-other-token",
        "GET https://{other}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {other token}\r\n\r\n",
        Refused(&[421]),
    ),
    attack(
        "absolute-user",
        "GET https://{host}@{other}{at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 404, 421]),
    ),
    attack("host-of-staging", "GET {at} HTTP/1.1\r\nhost: {other}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[421])),
    attack("host-of-staging-token", "GET {at} HTTP/1.1\r\nhost: {other}\r\nauthorization: Bearer {other token}\r\n\r\n", Refused(&[421])),
    attack("host-of-web", "GET {at} HTTP/1.1\r\nhost: {public}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[421])),
    attack(
        "host-twice",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nhost: {other}\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 404, 421]),
    ),
    attack(
        "host-twice-same",
        "GET {at} HTTP/1.1\r\nhost: {host}\r\nHost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 404, 421]),
    ),
    attack("host-missing", "GET {at} HTTP/1.1\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[0, 400, 404, 421])),
    attack("host-empty", "GET {at} HTTP/1.1\r\nhost: \r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[0, 400, 404, 421])),
    attack("host-unknown", "GET {at} HTTP/1.1\r\nhost: x.{host}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[421])),
    attack("host-upper", "GET {at} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("host-dot", "GET {at} HTTP/1.1\r\nhost: {host}.\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("host-dots", "GET {at} HTTP/1.1\r\nhost: {host}..\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[400, 404, 421])),
    attack("host-port", "GET {at} HTTP/1.1\r\nhost: {host}:443\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack("host-other-port", "GET {at} HTTP/1.1\r\nhost: {host}:1\r\nauthorization: Bearer {token}\r\n\r\n", AsSelf),
    attack(
        "host-ports",
        "GET {at} HTTP/1.1\r\nhost: {host}:443:443\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 404, 421]),
    ),
    attack("host-user", "GET {at} HTTP/1.1\r\nhost: x@{host}\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[0, 400, 404, 421])),
    attack(
        "host-list",
        "GET {at} HTTP/1.1\r\nhost: {host}, {other}\r\nauthorization: Bearer {token}\r\n\r\n",
        Refused(&[0, 400, 404, 421]),
    ),
    attack("host-path", "GET {at} HTTP/1.1\r\nhost: {host}/x\r\nauthorization: Bearer {token}\r\n\r\n", Refused(&[0, 400, 404, 421])),
    Attack {
        name: "no-server-name",
        server_name: "",
        request: "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        verdict: Refused(&[421]),
    },
    Attack {
        name: "no-server-name-web",
        server_name: "",
        request: "GET {at} HTTP/1.1\r\nhost: {public}\r\n\r\n",
        verdict: Refused(&[421]),
    },
    Attack {
        name: "server-name-of-staging",
        server_name: "{other}",
        request: "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        verdict: Refused(&[421]),
    },
    Attack {
        name: "server-name-of-web",
        server_name: "{public}",
        request: "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        verdict: Refused(&[421]),
    },
    Attack {
        name: "server-name-upper",
        server_name: "{HOST}",
        request: "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n",
        verdict: AsSelf,
    },
];
