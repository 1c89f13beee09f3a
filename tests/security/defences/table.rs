//! Which attacks show that a defence is needed. The suite checks each row against a real installation, and `SECURITY.md` has the table as it stands
//! here.

/// A defence, in the order of `Defence::ALL`.
pub(crate) struct Row {
    pub(crate) defence: &'static str,
    /// What it stops, in a few words.
    #[allow(dead_code, reason = "of the document alone")]
    pub(crate) stops: &'static str,
    /// What holds without it: the attacks get through only when all of these are off as well. None: they get through without it alone.
    pub(crate) layers: &'static [&'static str],
    /// Rows of `make test-security`.
    pub(crate) shown_by: &'static [&'static str],
}

const fn row(defence: &'static str, stops: &'static str, layers: &'static [&'static str], shown_by: &'static [&'static str]) -> Row {
    Row { defence, stops, layers, shown_by }
}

pub(crate) const ROWS: &[Row] = &[
    row("early-strip", "headers by which proxies vouch for a client", &[], &["remote-user"]),
    row("underscore-refusal", "names that some servers read as others", &[], &["impersonate-underscore"]),
    row("path-normalisation", "paths that are read in two ways", &["path-refusal"], &["behind-paths"]),
    row("upgrade-list", "protocols that nobody judges", &[], &["other-upgrades"]),
    row("host-scope", "requests for one host on the connection of another", &["host-check"], &["server-name-of-another-route"]),
    row("proxy-protocol-source", "sources that a client makes up", &[], &["balancer-that-is-none"]),
    row("host-check", "requests for one host on the connection of another", &["host-scope"], &["server-name-of-another-route"]),
    row("path-refusal", "paths that are read in two ways", &["path-normalisation"], &["behind-paths"]),
    row("single-authorization", "two credentials, of which two servers take another", &[], &["authorization-twice"]),
    row("websocket-bearer", "credentials where nobody looks for them", &[], &["token-in-websocket-protocol"]),
    row("connection-refusal", "identity removed by the next hop", &["connection-rewrite"], &["behind-nomination"]),
    row("impersonation-refusal", "clients that impersonate", &["late-prefix-strip"], &["behind-impersonation"]),
    row("cross-site", "other pages that act as their visitors", &[], &["cross-site-requests"]),
    row("cookie-kind", "pods' pages that act as their visitors", &["cookie-host"], &["cookie-on-a-cluster"]),
    row("audit-first", "requests that nobody can tell of", &[], &["no-audit-line"]),
    row("trail-redaction", "tokens that are good for whoever reads the trail", &[], &["tokens-in-logs"]),
    row("streams-of-one", "one person with all of an upstream's room", &[], &["streams-without-end"]),
    row("login-names", "names that are more than names", &["header-value"], &["control-characters-in-names"]),
    row("header-value", "headers made out of claims", &["login-names"], &["control-characters-in-names"]),
    row("system-names", "identity providers that give names of Kubernetes", &[], &["groups-of-kubernetes"]),
    row("fail-closed", "requests without a check", &["guard"], &["check-that-hangs", "check-that-is-gone"]),
    row("mutation-rules", "a check's answer that sets what it may not", &[], &["check-that-writes-headers"]),
    row("late-prefix-strip", "clients that impersonate", &["impersonation-refusal"], &["behind-impersonation"]),
    row("trailer-strip", "headers behind the body, which nobody judged", &[], &["impersonate-in-trailers"]),
    row("source-overwrite", "another source than the one that is believed", &[], &["behind-sources"]),
    row("credential-overwrite", "people's tokens at upstreams", &[], &["session-token-upstream"]),
    row("cookie-strip", "people's cookies at upstreams", &[], &["cookies-upstream", "cookies-of-ours-upstream"]),
    row("guard", "the service account without a user, and another route's grant", &[], &["grant-of-another-route", "grant-without-a-user"]),
    row("connection-rewrite", "identity removed by the next hop", &["connection-refusal"], &["behind-nomination"]),
    row("upstream-name", "a server in the API server's place", &[], &["server-of-another-name"]),
    row("token-type", "one kind of token for another", &["token-audience", "token-keys"], &["session-token-renewed"]),
    row("token-audience", "a token of one route at another", &[], &["token-of-another-route"]),
    row("token-keys", "one kind of token for another", &["token-type", "token-audience"], &["session-token-renewed"]),
    row("session-end", "tokens of sessions that were ended", &[], &["revoked-session", "logged-out-session"]),
    row("token-cache-claims", "one person's token for another", &["token-cache-key"], &["one-persons-decision-for-another"]),
    row("token-cache-key", "one person's token for another", &["token-cache-claims"], &["one-persons-decision-for-another"]),
    row("cookie-host", "a cookie of one host at another", &[], &["cookie-of-another-host"]),
    row("login-state", "a login that the browser did not begin", &["login-pkce", "login-nonce"], &["login-csrf"]),
    row("login-state-once", "answers that are played again", &[], &["login-state-reuse"]),
    row("login-nonce", "a stolen code in another login", &["login-pkce"], &["code-injection"]),
    row("login-pkce", "a stolen code in another login", &["login-nonce"], &["code-injection"]),
    row("login-issuer", "codes brought to a hostile provider", &[], &["provider-mix-up"]),
    row("code-verifier", "codes that another program picks up", &[], &["code-interception"]),
    row("code-destination", "codes for less taken for codes for more", &[], &["code-of-a-host-as-a-login"]),
    row("form-session", "a click that was another's", &["form-origin"], &["form-of-another-session"]),
    row("form-origin", "a click that was another page's", &["form-session"], &["form-of-another-session"]),
    row("redirect-check", "codes led to other sites", &[], &["code-to-another-site"]),
    row("node-scope", "an Envoy with another's tokens", &[], &["secrets-of-another-node"]),
    row("node-identity", "an Envoy of a stranger", &[], &["envoy-that-is-no-node"]),
    row("node-claim", "an Envoy under another's name", &["node-scope"], &["node-that-says-it-is-another"]),
    row("admin-host", "pages that read metrics by a rebound name", &[], &["admin-by-rebinding"]),
];
