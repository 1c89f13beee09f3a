//! What the header path relies on, each with the request that shows it.

use super::super::http_exchange::Reply;
use crate::xds::resources::self_test::{EXTRA_KEY, HOST, HTTP_HOST, IDENTITY_HEADER, JWT_HOST, PUBLIC_HOST, TOKEN};

pub(super) const USER: &str = "jos\u{e9}@example.com";
pub(super) const AUDIT_ID: &str = "self-test-audit-id";
/// Slot and value; the last two are beyond the filter's own slots.
pub(super) const GROUPS: [(usize, &str); 5] = [(0, "a,b"), (1, "two words"), (2, "stra\u{df}e"), (64, "slot 64"), (65, "slot 65")];
pub(super) const REASONS: [&str; 2] = ["on call", "b,c"];

/// What the upstream of the plain HTTP route must get, and nothing else.
pub(super) const ASSERTION: &str = "eyJ.assertion.c2ln";
pub(super) const COOKIE: &str = "app=1; other=\"a, b\"";

/// One request and what must come of it.
pub(super) struct Case {
    pub(super) semantic: &'static str,
    method: &'static str,
    host: &'static str,
    path: &'static str,
    /// Lines with their ends.
    headers: &'static str,
    pub(super) nothing_upstream: bool,
    /// Says what was seen where it is not what is expected.
    pub(super) expect: fn(&Reply) -> Result<(), String>,
}

impl Case {
    pub(super) fn request(&self) -> String {
        format!("{} {} HTTP/1.1\r\nhost: {}\r\n{}\r\n", self.method, self.target(), self.host, self.headers)
    }

    /// Each case has a target of its own, by which the upstream's record is searched.
    pub(super) fn target(&self) -> String {
        self.path.to_owned()
    }
}

const GET: Case =
    Case { semantic: "", method: "GET", host: HOST, path: "/identity", headers: "", nothing_upstream: false, expect: |_| Ok(()) };

const REFUSED: Case = Case { nothing_upstream: true, ..GET };

pub(super) const CASES: &[Case] = &[
    Case {
        semantic: "every client-sent impersonate-* line, in any case, is replaced by the identity of the ext_authz answer: filled slots become \
                   one line each (a comma stays in its line), empty slots vanish, the route's slots follow the filter's",
        path: "/forged/identity",
        headers: "impersonate-user: root\r\nImpersonate-User: root\r\nImpersonate-Group: system:masters\r\nIMPERSONATE-GROUP: system:nodes\r\n\
                  impersonate-uid: 0\r\nImpersonate-Extra-Scopes: all\r\nImpersonate-Extra-example.com%2Freason: forged\r\nImpersonate-Unknown: x\r\n",
        expect: |reply| has_exactly(reply, "impersonate-", &identity_lines()),
        ..GET
    },
    Case {
        semantic: "the service account's token replaces the client's authorization",
        path: "/credential/identity",
        headers: "authorization: Bearer of-the-client\r\n",
        expect: |reply| has_exactly(reply, "authorization", &[format!("authorization: Bearer {TOKEN}")]),
        ..GET
    },
    Case {
        semantic: "audit-id is ext_authz's, whatever the client sent",
        path: "/audit/identity",
        headers: "audit-id: forged\r\nAudit-ID: forged\r\n",
        expect: |reply| has_exactly(reply, "audit-id", &[format!("audit-id: {AUDIT_ID}")]),
        ..GET
    },
    Case {
        semantic: "the request id is Envoy's own, whatever the client sent",
        path: "/request-id/identity",
        headers: "x-request-id: forged\r\n",
        expect: |reply| {
            let is_ours = |line: &str| {
                line.strip_prefix("x-request-id: ").is_some_and(|id| id.len() == 36 && reply.header("x-request-id") == Some(id))
            };
            if reply.body.lines().any(is_ours) && !reply.body.contains("forged") { Ok(()) } else { Err(reply.body.clone()) }
        },
        ..GET
    },
    Case {
        semantic: "cookies, other credentials and forwarding headers of the client do not go upstream",
        path: "/strip/identity",
        headers: "cookie: a=b\r\nX-Pomerium-Authorization: x\r\nproxy-authorization: x\r\nX-Remote-User: root\r\nx-remote-extra-a: x\r\n\
                  x-envoy-original-path: /x\r\nx-real-ip: 1.2.3.4\r\nx-forwarded-host: x\r\nx-kubepass-authorization: x\r\n",
        expect: |reply| {
            let prefixes =
                ["cookie", "x-pomerium-", "proxy-", "x-remote-", "x-envoy-original", "x-real-", "x-forwarded-host", "x-kubepass-"];
            prefixes.iter().try_for_each(|prefix| has_exactly(reply, prefix, &[]))
        },
        ..GET
    },
    Case {
        semantic: "the limit of a stream's duration is Envoy's own business and does not go upstream",
        path: "/duration/identity",
        headers: "x-envoy-upstream-stream-duration-ms: 1\r\n",
        expect: |reply| has_exactly(reply, "x-envoy-upstream-stream-duration-ms", &[]),
        ..GET
    },
    Case {
        semantic: "a stream ends when the duration that ext_authz set is over",
        path: super::upstream::NEVER_ANSWERED,
        expect: |reply| envoy_answered(reply, 504),
        ..GET
    },
    Case {
        semantic: "headers that the client's `connection` nominates are still sent upstream when they are ours",
        path: "/nominated/identity",
        headers: "connection: close, impersonate-user, impersonate-group, authorization, audit-id\r\n",
        expect: |reply| {
            has_exactly(reply, "impersonate-", &identity_lines())?;
            has_exactly(reply, "authorization", &[format!("authorization: Bearer {TOKEN}")])?;
            has_exactly(reply, "connection", &[])
        },
        ..GET
    },
    Case {
        semantic: "on a WebSocket upgrade the `connection` that goes upstream nominates nothing but the upgrade",
        path: "/websocket/identity",
        headers: "Connection: Upgrade, Impersonate-User, Authorization\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nImpersonate-User: root\r\n",
        expect: upgraded,
        ..GET
    },
    Case {
        semantic: "on a SPDY upgrade the `connection` that goes upstream nominates nothing but the upgrade",
        method: "POST",
        path: "/spdy/identity",
        headers: "Connection: Upgrade, Impersonate-Group\r\nUpgrade: SPDY/3.1\r\nImpersonate-Group: system:masters\r\n",
        expect: upgraded,
        ..GET
    },
    Case {
        semantic: "a path is normalised before ext_authz sees it, and goes upstream as ext_authz saw it",
        path: "/x/..//normal/./identity",
        expect: |reply| {
            answered(reply, 200)?;
            if reply.body.starts_with("GET /normal/identity HTTP/1.1\r\n") { Ok(()) } else { Err(first_line(&reply.body)) }
        },
        ..GET
    },
    Case {
        semantic: "ext_authz sees each of the client's impersonate-* lines by itself, and the target of the virtual host",
        path: "/lines/seen",
        headers: "Impersonate-User: x\r\nImpersonate-User: y\r\nImpersonate-Group: a\r\n",
        expect: |reply| {
            let wanted = ["impersonate-user: x", "impersonate-user: y", "impersonate-group: a", "target=kubernetes:self-test"];
            wanted.iter().try_for_each(|line| has_line(reply, line))
        },
        ..REFUSED
    },
    Case {
        semantic: "ext_authz sees both of two authorization lines, joined by a comma",
        path: "/authorization/seen",
        headers: "authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        expect: |reply| has_line(reply, "authorization: Bearer a,Bearer b"),
        ..REFUSED
    },
    Case {
        semantic: "an answer of ext_authz that refuses reaches the client as it is",
        path: "/as-it-is/seen",
        expect: |reply| {
            answered(reply, 403)?;
            let kind = reply.header("content-type").unwrap_or_default();
            if kind == "text/html; charset=utf-8" { Ok(()) } else { Err(format!("content-type {kind:?}")) }
        },
        ..REFUSED
    },
    Case {
        semantic: "a web path of a Kubernetes host overrides the virtual host's target",
        path: "/.kubepass/seen",
        expect: |reply| has_line(reply, "target=web"),
        ..REFUSED
    },
    Case {
        semantic: "a web route passes with the grant `web` and without an identity",
        host: PUBLIC_HOST,
        path: "/public/web",
        headers: "impersonate-user: root\r\n",
        expect: |reply| has_exactly(reply, "impersonate-", &[]),
        ..GET
    },
    Case {
        semantic: "header names with an underscore are refused",
        path: "/underscore/identity",
        headers: "impersonate_user: root\r\n",
        expect: |reply| envoy_answered(reply, 400),
        ..REFUSED
    },
    Case {
        semantic: "an escaped slash in the path is refused",
        path: "/escaped%2Fslash/identity",
        headers: "x-request-id: forged\"\r\n",
        expect: |reply| envoy_answered(reply, 400),
        ..REFUSED
    },
    Case {
        semantic: "a host without a virtual host is refused",
        host: "unknown.invalid",
        path: "/unknown/identity",
        expect: |reply| envoy_answered(reply, 404),
        ..REFUSED
    },
    Case {
        semantic: "an upgrade to anything else than websocket and SPDY/3.1 is refused",
        path: "/upgrade/identity",
        headers: "connection: Upgrade\r\nupgrade: other\r\n",
        expect: |reply| envoy_answered(reply, 403),
        ..REFUSED
    },
    Case { semantic: "an allowed request without a grant is stopped before its upstream", path: "/no-grant", expect: stopped, ..REFUSED },
    Case {
        semantic: "a request with another cluster's grant is stopped before its upstream",
        path: "/wrong-grant",
        expect: stopped,
        ..REFUSED
    },
    Case { semantic: "an allowed request without a user is stopped before its upstream", path: "/no-user", expect: stopped, ..REFUSED },
    Case {
        semantic: "an allowed request with a blank user is stopped before its upstream",
        path: "/blank-user",
        expect: stopped,
        ..REFUSED
    },
    Case {
        semantic: "on a route with tokens the user's token of the ext_authz answer replaces the client's authorization, and stands nowhere else",
        host: JWT_HOST,
        path: "/user-token/token",
        headers: "authorization: Bearer of-the-client\r\nx-kubepass-authorization: Bearer forged\r\n",
        expect: |reply| {
            has_exactly(reply, "authorization", &[format!("authorization: Bearer {}", user_token())])?;
            has_exactly(reply, "x-kubepass-", &[])?;
            has_exactly(reply, "impersonate-", &[])
        },
        ..GET
    },
    Case {
        semantic: "on a route with tokens every client-sent impersonate-* line is removed, in any case",
        host: JWT_HOST,
        path: "/user-token-forged/token",
        headers: "impersonate-user: root\r\nImpersonate-User: root\r\nImpersonate-Group: system:masters\r\nimpersonate-uid: 0\r\n\
                  Impersonate-Extra-Scopes: all\r\nIMPERSONATE-UNKNOWN: x\r\ncookie: a=b\r\n",
        expect: |reply| {
            has_exactly(reply, "impersonate-", &[])?;
            has_exactly(reply, "cookie", &[])
        },
        ..GET
    },
    Case {
        semantic: "on an upgrade of a route with tokens the user's token goes upstream, and `connection` nominates nothing but the upgrade",
        host: JWT_HOST,
        path: "/user-token-upgrade/token",
        headers: "Connection: Upgrade, Authorization, X-Kubepass-Authorization\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer of-the-client\r\n",
        expect: |reply| {
            answered(reply, 101)?;
            has_exactly(reply, "connection", &["connection: Upgrade".to_owned()])?;
            has_exactly(reply, "authorization", &[format!("authorization: Bearer {}", user_token())])
        },
        ..GET
    },
    Case {
        semantic: "an allowed request without the user's token is stopped before its upstream, the client's own credential with it",
        host: JWT_HOST,
        path: "/no-user-token/no-token",
        headers: "authorization: Bearer of-the-client\r\nx-kubepass-authorization: Bearer forged\r\n",
        expect: stopped,
        ..REFUSED
    },
    Case {
        semantic: "a request with a user's token and another cluster's grant is stopped before its upstream",
        host: JWT_HOST,
        path: "/other-grant/wrong-grant-token",
        expect: stopped,
        ..REFUSED
    },
    Case {
        semantic: "a request with a user's token that would impersonate as well is stopped before its upstream",
        host: JWT_HOST,
        path: "/both/token-and-user",
        expect: stopped,
        ..REFUSED
    },
    Case {
        semantic: "on a plain HTTP route the identity header and `cookie` are those of the ext_authz answer, and no other credential goes upstream",
        host: HTTP_HOST,
        path: "/asserted/assertion",
        headers: "authorization: Bearer of-the-client\r\nX-Identity: forged\r\nx-identity: forged\r\ncookie: forged=1\r\nCookie: forged=2\r\n\
                  x-kubepass-assertion: forged\r\nx-kubepass-cookie: forged=3\r\nproxy-authorization: x\r\nImpersonate-User: root\r\n\
                  X.Identity: forged\r\nx!identity: forged\r\nX-Rewrite-URL: /forged\r\nX-HTTP-Method-Override: FORGED\r\n",
        expect: asserted,
        ..GET
    },
    Case {
        semantic: "on a WebSocket upgrade of a plain HTTP route the same holds, and `connection` nominates nothing but the upgrade",
        host: HTTP_HOST,
        path: "/asserted-upgrade/assertion",
        headers: "Connection: Upgrade, X-Identity, Cookie\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-Identity: forged\r\ncookie: forged=1\r\n",
        expect: |reply| {
            answered(reply, 101)?;
            has_exactly(reply, "connection", &["connection: Upgrade".to_owned()])?;
            asserted(reply)
        },
        ..GET
    },
    Case {
        semantic: "on a plain HTTP route no `cookie` goes upstream when the ext_authz answer has none",
        host: HTTP_HOST,
        path: "/no-cookie/assertion-alone",
        headers: "cookie: forged=1\r\nx-kubepass-cookie: forged=2\r\n",
        expect: |reply| has_exactly(reply, "cookie", &[]),
        ..GET
    },
    Case {
        semantic: "a plain HTTP route has no upgrades but WebSockets",
        method: "POST",
        host: HTTP_HOST,
        path: "/spdy/assertion",
        headers: "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
        expect: |reply| envoy_answered(reply, 403),
        ..REFUSED
    },
    Case {
        semantic: "a request to a plain HTTP route without a token in the identity header is stopped before its upstream",
        host: HTTP_HOST,
        path: "/unasserted/no-assertion",
        headers: "x-identity: forged\r\nx-kubepass-assertion: forged\r\n",
        expect: stopped,
        ..REFUSED
    },
    Case {
        semantic: "a request to a plain HTTP route with another route's grant is stopped before its upstream",
        host: HTTP_HOST,
        path: "/other-grant/wrong-grant-assertion",
        expect: stopped,
        ..REFUSED
    },
    Case {
        semantic: "a request to a plain HTTP route that would impersonate as well is stopped before its upstream",
        host: HTTP_HOST,
        path: "/both/assertion-and-user",
        expect: stopped,
        ..REFUSED
    },
    Case { semantic: "an empty ext_authz answer lets nothing reach the upstream", path: "/empty", expect: stopped, ..REFUSED },
    Case {
        semantic: "an ext_authz answer that refuses with status OK lets nothing reach the upstream",
        path: "/denied-but-ok",
        expect: stopped,
        ..REFUSED
    },
    Case { semantic: "a failed ext_authz check is answered 503", path: "/fails", expect: |reply| envoy_answered(reply, 503), ..REFUSED },
    Case {
        semantic: "an ext_authz answer that sets a header which it may not set is answered 500",
        path: "/identity-header",
        expect: |reply| envoy_answered(reply, 500),
        ..REFUSED
    },
    Case {
        semantic: "an ext_authz answer with a line break in a header is answered 500",
        path: "/invalid-header",
        expect: |reply| envoy_answered(reply, 500),
        ..REFUSED
    },
];

/// As large as a user's token may be, so that nothing on the way cuts it.
pub(super) fn user_token() -> String {
    format!("eyJ.{}.c2ln", "x".repeat(16_000))
}

fn asserted(reply: &Reply) -> Result<(), String> {
    has_exactly(reply, IDENTITY_HEADER, &[format!("{IDENTITY_HEADER}: {ASSERTION}")])?;
    has_exactly(reply, "cookie", &[format!("cookie: {COOKIE}")])?;
    ["authorization", "proxy-", "x-kubepass-", "impersonate-"].iter().try_for_each(|prefix| has_exactly(reply, prefix, &[]))?;
    // Under whatever name.
    if reply.body.to_ascii_lowercase().contains("forged") { Err(reply.body.clone()) } else { Ok(()) }
}

fn identity_lines() -> Vec<String> {
    let groups = GROUPS.iter().map(|(_, group)| format!("impersonate-group: {group}"));
    let reasons = REASONS.iter().map(|reason| format!("impersonate-extra-{EXTRA_KEY}: {reason}"));
    let user = [format!("impersonate-user: {USER}"), "impersonate-uid: uid-1".to_owned()];
    user.into_iter().chain(groups).chain(reasons).collect()
}

fn answered(reply: &Reply, status: u16) -> Result<(), String> {
    if reply.status == status { Ok(()) } else { Err(format!("status {} {:?}", reply.status, first_line(&reply.body))) }
}

/// By the guard.
fn stopped(reply: &Reply) -> Result<(), String> {
    envoy_answered(reply, 403)
}

/// By Envoy itself: in the words of the local reply configuration.
fn envoy_answered(reply: &Reply, status: u16) -> Result<(), String> {
    answered(reply, status)?;
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let is = |field: &str, wanted: serde_json::Value| body.get(field) == Some(&wanted);
    let is_status = is("kind", "Status".into()) && is("code", status.into()) && reply.header("content-type") == Some("application/json");
    if is_status && !reply.body.contains("forged") {
        Ok(())
    } else {
        Err(format!("an answer that is no plain Kubernetes Status: {:?}", reply.body))
    }
}

fn upgraded(reply: &Reply) -> Result<(), String> {
    answered(reply, 101)?;
    has_exactly(reply, "connection", &["connection: Upgrade".to_owned()])?;
    has_exactly(reply, "impersonate-", &identity_lines())?;
    has_exactly(reply, "authorization", &[format!("authorization: Bearer {TOKEN}")])
}

/// The lines of the echoed head whose name begins so, in any order (their order among one name is kept by Envoy and not relied on).
fn has_exactly(reply: &Reply, prefix: &str, wanted: &[String]) -> Result<(), String> {
    if !matches!(reply.status, 101 | 200) {
        return Err(format!("status {}", reply.status));
    }
    let mut seen: Vec<_> = reply.body.lines().filter(|line| line.to_ascii_lowercase().starts_with(prefix)).collect();
    let mut wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    seen.sort_unstable();
    wanted.sort_unstable();
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
}

fn has_line(reply: &Reply, line: &str) -> Result<(), String> {
    if reply.body.lines().any(|seen| seen == line) { Ok(()) } else { Err(format!("no line {line:?} in {:?}", reply.body)) }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record of the upstream tells cases apart by their targets.
    #[test]
    fn each_case_has_a_target_of_its_own() {
        let mut targets: Vec<_> = CASES.iter().map(Case::target).collect();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!(targets.len(), CASES.len());
    }
}
