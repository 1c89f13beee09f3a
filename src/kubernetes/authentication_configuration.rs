//! The `AuthenticationConfiguration` by which an API server takes the tokens that kubepass signs: a whole file, or our entry in a file that is there.
//!
//! Fields, limits and the meaning of each expression as in `k8s.io/apiserver` (v0.36): `pkg/apis/apiserver/validation` and
//! `plugin/pkg/authenticator/token/oidc`. An expression that meets a claim which is not there is an error, and an error is a refusal; so a claim that
//! every token has is named plainly, and one that may be missing by `.?`.

mod merge;

use std::fmt::Write as _;

use super::manifests::quoted;

pub use merge::{MergeError, merge};

/// Audit keys under which the API server's log leads back to kubepass, and the claims that fill them.
const OWN_EXTRA: [(&str, &str); 2] =
    [("kubepass.dev/session", "claims.kubepass_session"), ("kubepass.dev/policy", "claims.kubepass_policy")];

const SYSTEM: &str = "system:";
/// Begins the comments at the head of a file; those that follow begin with [`COMMENT`].
const FIRST_COMMENT: &str = "# kubepass: ";
const COMMENT: &str = "#   ";

/// The version of the configuration's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// Kubernetes 1.34 and later.
    V1,
    /// Kubernetes 1.30 and later.
    V1beta1,
}

/// What one API server is to believe. Names are as it will see them, prefixes included.
#[derive(Debug, Clone, Default)]
pub struct AuthenticationInput<'a> {
    /// The routes whose tokens this API server takes: an issuer has one entry in a file, however many routes lead there.
    pub routes: Vec<&'a str>,
    /// `iss` of the tokens, letter by letter.
    pub issuer: &'a str,
    /// Where the API server finds the discovery document, when not under the issuer.
    pub discovery_url: Option<&'a str>,
    /// PEM bundle for the server of the discovery document and of the keys; the system's roots otherwise.
    pub certificate_authority: Option<&'a str>,
    pub audiences: Vec<&'a str>,
    /// The longest that a token may live from `iat` to `exp`.
    pub longest_seconds: u64,
    /// Whether tokens may carry a uid.
    pub uid: bool,
    /// Keys of the extra values that tokens may carry, with their domain: `example.com/team`.
    pub extra_keys: Vec<&'a str>,
    /// Exact `system:` users and groups that may pass.
    pub allow_system: Vec<&'a str>,
}

impl ApiVersion {
    pub const ALL: [Self; 2] = [Self::V1, Self::V1beta1];

    /// As a file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "apiserver.config.k8s.io/v1",
            Self::V1beta1 => "apiserver.config.k8s.io/v1beta1",
        }
    }

    fn kubernetes(self) -> &'static str {
        match self {
            Self::V1 => "1.34 and later; from 1.30 --api-version v1beta1",
            Self::V1beta1 => "1.30 and later; from 1.34 also --api-version v1",
        }
    }
}

/// A whole file, comments first.
pub fn authentication_configuration(input: &AuthenticationInput<'_>, version: ApiVersion) -> String {
    let mut text = preamble(input, version, &[]);
    _ = write!(text, "apiVersion: {}\nkind: AuthenticationConfiguration\n", version.as_str());
    text.push_str(
        "# No `anonymous` section, on purpose: without one the API server keeps what its --anonymous-auth flag says, and who may come without a\n\
         # token is not kubepass's matter. One that appeared or changed here would make a running API server refuse the whole file.\n",
    );
    text.push_str("jwt:\n");
    text.push_str(&entry(input));
    text
}

/// What whoever applies the file should know. `notes` tell what a merge did.
fn preamble(input: &AuthenticationInput<'_>, version: ApiVersion, notes: &[String]) -> String {
    let mut text = format!("{FIRST_COMMENT}this API server takes the tokens that kubepass signs for {}.\n", routes(input));
    let trusted = match input.allow_system.as_slice() {
        [] => "the API server refuses names that begin with \"system:\"".to_owned(),
        names => format!("of the names that begin with \"system:\" the API server takes {} and no other", list(names)),
    };
    let source = input.discovery_url.map_or_else(|| format!("{}/.well-known/openid-configuration", input.issuer), str::to_owned);
    let lines = [
        format!("What it trusts: whoever holds kubepass's signing key can be any user in any group on this cluster; {trusted}."),
        "No secret stands in this file, and kubepass needs no credential of this cluster for it.".to_owned(),
        format!("The keys: every API server must reach {}", one_line(&source)),
        "and the `jwks_uri` that it names, over verified TLS; at start, and when a key that it has not seen signs.".to_owned(),
        format!("How to apply it, on every replica of the API server (Kubernetes {}):", version.kubernetes()),
        "1. Store this file where the API server can read it (a static pod needs it as a volume), the same on every replica.".to_owned(),
        "2. Start the API server with --authentication-config=FILE. No --oidc-* flag may stand beside it: move such an issuer into"
            .to_owned(),
        "   the file, and let --merge add kubepass to it.".to_owned(),
        "3. A changed file is taken without a restart, within about a minute. A file with a mistake changes nothing: look for".to_owned(),
        "   \"authentication config\" in the API server's log. Do not change `anonymous` in a running one.".to_owned(),
        "Write it anew, and apply it first, before a route gets a longer `lifetime`, another `audience`, more `extra`, a `uid` or more"
            .to_owned(),
        "`allow_system`: the API server takes only what stands here.".to_owned(),
        "When a signing key was stolen: take the entry out of this file at once, for an API server goes on believing a key that it has"
            .to_owned(),
        "read. Put it back when kubepass no longer publishes the key (`kubepass-server keys list`).".to_owned(),
    ];
    for line in lines.iter().chain(notes) {
        _ = writeln!(text, "{COMMENT}{line}");
    }
    text
}

/// Our element of the list `jwt`, without indentation.
fn entry(input: &AuthenticationInput<'_>) -> String {
    [issuer(input), claim_rules(input), mappings(input), user_rules(input)].concat()
}

fn issuer(input: &AuthenticationInput<'_>) -> String {
    let mut text = format!("- issuer:\n    url: {}\n", quoted(input.issuer));
    if let Some(url) = input.discovery_url {
        _ = writeln!(text, "    discoveryURL: {}", quoted(url));
    }
    if let Some(pem) = input.certificate_authority {
        text.push_str("    certificateAuthority: |\n");
        for line in pem.lines().map(str::trim).filter(|line| !line.is_empty()) {
            _ = writeln!(text, "      {}", one_line(line));
        }
    }
    text.push_str("    audiences:\n");
    for audience in &input.audiences {
        _ = writeln!(text, "    - {}", quoted(audience));
    }
    if input.audiences.len() > 1 {
        text.push_str("    audienceMatchPolicy: MatchAny\n");
    }
    text
}

fn claim_rules(input: &AuthenticationInput<'_>) -> String {
    // An API server holds `nbf` against its clock, and nobody `iat`: one in the future would make a life of any length short.
    let life = format!("claims.nbf == claims.iat && claims.exp - claims.iat <= {}", input.longest_seconds);
    let mut text = "  claimValidationRules:\n".to_owned();
    text.push_str(&rule("claims.token_use == \"upstream\"", "not a token that kubepass makes for API servers"));
    text.push_str(&rule(&life, "the token lives longer than kubepass makes any for this cluster"));
    text
}

fn mappings(input: &AuthenticationInput<'_>) -> String {
    let mut text = "  claimMappings:\n".to_owned();
    _ = writeln!(text, "    username:\n      expression: {}", single_quoted("claims.username"));
    _ = writeln!(text, "    groups:\n      expression: {}", single_quoted("claims.groups"));
    if input.uid {
        _ = writeln!(text, "    uid:\n      expression: {}", single_quoted("claims.?uid.orValue(\"\")"));
    }
    text.push_str("    extra:\n");
    let own = OWN_EXTRA.iter().map(|(key, claim)| (*key, (*claim).to_owned()));
    let given = input.extra_keys.iter().map(|key| (*key, format!("claims.?extra[?{}].orValue([])", literal(key))));
    for (key, expression) in own.chain(given) {
        _ = writeln!(text, "    - key: {}\n      valueExpression: {}", quoted(key), single_quoted(&expression));
    }
    text
}

fn user_rules(input: &AuthenticationInput<'_>) -> String {
    let allowed = input.allow_system.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let unless_allowed = |name: &str| {
        let is_system = format!("{name}.startsWith({})", literal(SYSTEM));
        if allowed.is_empty() { format!("!{is_system}") } else { format!("!{is_system} || {name} in [{allowed}]") }
    };
    let mut text = "  userValidationRules:\n".to_owned();
    text.push_str(&rule("user.username != \"\"", "the user has no name"));
    text.push_str(&rule(&unless_allowed("user.username"), "no user of Kubernetes itself comes from kubepass"));
    text.push_str(&rule(
        &format!("user.groups.all(group, {})", unless_allowed("group")),
        "no group of Kubernetes itself comes from kubepass",
    ));
    text
}

fn rule(expression: &str, message: &str) -> String {
    format!("  - expression: {}\n    message: {}\n", single_quoted(expression), message)
}

fn routes(input: &AuthenticationInput<'_>) -> String {
    match input.routes.as_slice() {
        [one] => format!("route {}", quoted(one)),
        several => format!("routes {}", list(several)),
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A string of CEL: what JSON escapes, CEL escapes in the same way.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A YAML scalar in which the double quotes of CEL need no escape. What cannot stand on one line is written as JSON would.
fn single_quoted(text: &str) -> String {
    if text.chars().any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')) {
        return quoted(text);
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// For a comment, or a line of a block: nothing in it ends the line.
fn one_line(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}')).collect()
}

#[cfg(test)]
mod tests;
