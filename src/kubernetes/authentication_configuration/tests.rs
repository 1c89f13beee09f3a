#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
use serde_json::{Value, json};

use super::*;

fn input() -> AuthenticationInput<'static> {
    AuthenticationInput {
        routes: vec!["prod"],
        issuer: "https://pass.example.com",
        audiences: vec!["prod"],
        longest_seconds: 300,
        ..AuthenticationInput::default()
    }
}

fn parsed(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

fn entry_of(input: &AuthenticationInput<'_>) -> Value {
    parsed(&authentication_configuration(input, ApiVersion::V1))["jwt"][0].clone()
}

#[test]
fn golden() {
    assert_eq!(
        authentication_configuration(&input(), ApiVersion::V1),
        r#"# kubepass: this API server takes the tokens that kubepass signs for route "prod".
#   What it trusts: whoever holds kubepass's signing key can be any user in any group on this cluster; the API server refuses names that begin with "system:".
#   No secret stands in this file, and kubepass needs no credential of this cluster for it.
#   The keys: every API server must reach https://pass.example.com/.well-known/openid-configuration
#   and the `jwks_uri` that it names, over verified TLS; at start, and when a key that it has not seen signs.
#   How to apply it, on every replica of the API server (Kubernetes 1.34 and later; from 1.30 --api-version v1beta1):
#   1. Store this file where the API server can read it (a static pod needs it as a volume), the same on every replica.
#   2. Start the API server with --authentication-config=FILE. No --oidc-* flag may stand beside it: move such an issuer into
#      the file, and let --merge add kubepass to it.
#   3. A changed file is taken without a restart, within about a minute. A file with a mistake changes nothing: look for
#      "authentication config" in the API server's log. Do not change `anonymous` in a running one.
#   Write it anew, and apply it first, before a route gets a longer `lifetime`, another `audience`, more `extra`, a `uid` or more
#   `allow_system`: the API server takes only what stands here.
#   When a signing key was stolen: take the entry out of this file at once, for an API server goes on believing a key that it has
#   read. Put it back when kubepass no longer publishes the key (`kubepass-server keys list`).
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
# No `anonymous` section, on purpose: without one the API server keeps what its --anonymous-auth flag says, and who may come without a
# token is not kubepass's matter. One that appeared or changed here would make a running API server refuse the whole file.
jwt:
- issuer:
    url: "https://pass.example.com"
    audiences:
    - "prod"
  claimValidationRules:
  - expression: 'claims.token_use == "upstream"'
    message: not a token that kubepass makes for API servers
  - expression: 'claims.nbf == claims.iat && claims.exp - claims.iat <= 300'
    message: the token lives longer than kubepass makes any for this cluster
  claimMappings:
    username:
      expression: 'claims.username'
    groups:
      expression: 'claims.groups'
    extra:
    - key: "kubepass.dev/session"
      valueExpression: 'claims.kubepass_session'
    - key: "kubepass.dev/policy"
      valueExpression: 'claims.kubepass_policy'
  userValidationRules:
  - expression: 'user.username != ""'
    message: the user has no name
  - expression: '!user.username.startsWith("system:")'
    message: no user of Kubernetes itself comes from kubepass
  - expression: 'user.groups.all(group, !group.startsWith("system:"))'
    message: no group of Kubernetes itself comes from kubepass
"#
    );
}

#[test]
fn golden_of_everything_that_a_route_can_say() {
    let everything = AuthenticationInput {
        routes: vec!["prod", "prod-admin"],
        discovery_url: Some("https://keys.internal:8443/kubepass/openid-configuration"),
        certificate_authority: Some("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        audiences: vec!["prod", "prod-admin"],
        uid: true,
        extra_keys: vec!["example.com/team"],
        allow_system: vec!["system:masters", "system:monitoring"],
        longest_seconds: 3600,
        ..input()
    };
    let text = authentication_configuration(&everything, ApiVersion::V1beta1);
    assert!(text.starts_with("# kubepass: this API server takes the tokens that kubepass signs for routes \"prod\", \"prod-admin\".\n"));
    assert!(
        text.contains(
            "of the names that begin with \"system:\" the API server takes \"system:masters\", \"system:monitoring\" and no other."
        )
    );
    assert!(text.contains("every API server must reach https://keys.internal:8443/kubepass/openid-configuration\n"));
    let (_, text) = text.split_once("apiVersion: ").unwrap();
    let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(
        text,
        r#"apiserver.config.k8s.io/v1beta1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: "https://pass.example.com"
    discoveryURL: "https://keys.internal:8443/kubepass/openid-configuration"
    certificateAuthority: |
      -----BEGIN CERTIFICATE-----
      MIIB
      -----END CERTIFICATE-----
    audiences:
    - "prod"
    - "prod-admin"
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - expression: 'claims.token_use == "upstream"'
    message: not a token that kubepass makes for API servers
  - expression: 'claims.nbf == claims.iat && claims.exp - claims.iat <= 3600'
    message: the token lives longer than kubepass makes any for this cluster
  claimMappings:
    username:
      expression: 'claims.username'
    groups:
      expression: 'claims.groups'
    uid:
      expression: 'claims.?uid.orValue("")'
    extra:
    - key: "kubepass.dev/session"
      valueExpression: 'claims.kubepass_session'
    - key: "kubepass.dev/policy"
      valueExpression: 'claims.kubepass_policy'
    - key: "example.com/team"
      valueExpression: 'claims.?extra[?"example.com/team"].orValue([])'
  userValidationRules:
  - expression: 'user.username != ""'
    message: the user has no name
  - expression: '!user.username.startsWith("system:") || user.username in ["system:masters", "system:monitoring"]'
    message: no user of Kubernetes itself comes from kubepass
  - expression: 'user.groups.all(group, !group.startsWith("system:") || group in ["system:masters", "system:monitoring"])'
    message: no group of Kubernetes itself comes from kubepass
"#
    );
}

/// Whatever a name holds, it stays one scalar, and one string of CEL.
#[test]
fn no_text_leaves_its_place() {
    for name in ["a'b", "a\"b", "a\\b", "a\nkind: x", "a\u{2028}b", "# x", "{a}", "ä: [", "'\"\n- x"] {
        let input =
            AuthenticationInput { audiences: vec![name], extra_keys: vec![name], allow_system: vec![name], routes: vec![name], ..input() };
        let entry = entry_of(&input);
        assert_eq!(entry["issuer"]["audiences"], json!([name]));
        assert_eq!(entry["claimMappings"]["extra"][2]["key"], name);
        let literal = serde_json::to_string(name).unwrap();
        assert_eq!(entry["claimMappings"]["extra"][2]["valueExpression"], format!("claims.?extra[?{literal}].orValue([])"), "{name}");
        let rule = format!("!user.username.startsWith(\"system:\") || user.username in [{literal}]");
        assert_eq!(entry["userValidationRules"][1]["expression"], rule, "{name}");
    }
}

const OTHER: &str = "\
- issuer:
    url: https://idp.example.com # the company's
    audiences: [kubernetes]
    certificateAuthority: |
      -----BEGIN CERTIFICATE-----
      # not a comment
      -----END CERTIFICATE-----
  claimMappings:
    username: {claim: sub, prefix: \"idp:\"}
";

fn file(jwt: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n# whoever probes\nanonymous: {{enabled: true, conditions: [{{path: /livez}}]}}\n{jwt}"
    )
}

/// Without our comments at its head.
fn merged(existing: &str) -> String {
    let text = merge(&input(), None, existing).unwrap_or_else(|error| panic!("{error}\n{existing}"));
    assert!(text.starts_with(FIRST_COMMENT), "{text}");
    text.lines().skip_while(|line| line.starts_with(FIRST_COMMENT) || line.starts_with(COMMENT)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn our_entry_is_added_and_the_rest_stays() {
    let ours = entry(&input());
    let indented: String = ours.lines().map(|line| format!("    {line}\n")).collect();
    let other_indented: String = OTHER.lines().map(|line| format!("    {line}\n")).collect();
    let check = |before: &str, after: &str| assert_eq!(merged(&file(before)), file(after), "from\n{before}");
    check("", &format!("jwt:\n{ours}"));
    check("jwt: []\n", &format!("jwt:\n{ours}"));
    check("jwt: # none yet\n", &format!("jwt: # none yet\n{ours}"));
    check("jwt: null\n# the end\n", &format!("jwt:\n{ours}# the end\n"));
    check(&format!("jwt:\n{OTHER}"), &format!("jwt:\n{OTHER}{ours}"));
    check(&format!("jwt: # who\n# first\n{OTHER}\n# the end\n"), &format!("jwt: # who\n# first\n{OTHER}{ours}\n# the end\n"));
    check(&format!("jwt:\n{other_indented}"), &format!("jwt:\n{other_indented}{indented}"));
    check(&format!("jwt:\n{OTHER}# more\nx: 1\n"), &format!("jwt:\n{OTHER}{ours}# more\nx: 1\n"));
}

#[test]
fn our_entry_is_replaced_where_it_stands() {
    let ours = entry(&input());
    let old = "- # ours\n  issuer:\n    # an old audience\n    audiences: [old, prod]\n    url: \"https://pass.example.com\"\n  claimMappings: {}\n  # the end of it\n";
    for (before, after) in [("", ""), (OTHER, ""), ("", OTHER), (OTHER, "\n# another one\n- {issuer: {url: https://third.example.com}}\n")]
    {
        assert_eq!(merged(&file(&format!("jwt:\n{before}{old}{after}"))), file(&format!("jwt:\n{before}{ours}{after}")));
    }
    let text = merge(&input(), None, &file(&format!("jwt:\n{old}"))).unwrap();
    assert!(text.contains("#   NOTE: the entry that was replaced also took the audience \"old\"; this one does not.\n"), "{text}");
    assert!(!text.contains("audience \"prod\";"), "{text}");
}

#[test]
fn a_second_merge_changes_nothing() {
    let whole = authentication_configuration(&input(), ApiVersion::V1);
    assert_eq!(merge(&input(), Some(ApiVersion::V1), &whole).unwrap(), whole);
    let once = merge(&input(), None, &file(&format!("jwt:\n{OTHER}"))).unwrap();
    assert_eq!(merge(&input(), None, &once).unwrap(), once);
}

#[test]
fn an_entry_is_found_by_its_issuer_alone() {
    let slash = OTHER.replace("idp.example.com", "pass.example.com/");
    assert_eq!(parsed(&merged(&file(&format!("jwt:\n{slash}"))))["jwt"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let twice = format!("jwt:\n{OTHER}{OTHER}");
    let many: String = (0..64).map(|number| format!("- issuer: {{url: \"https://{number}.example.com\"}}\n")).collect();
    let same_discovery = OTHER.replace("    audiences", "    discoveryURL: https://keys.internal/d\n    audiences");
    let anchor = "jwt:\n- issuer: &i\n    url: https://pass.example.com\n- issuer: {url: https://idp.example.com, x: *i}\n";
    let check = |text: &str, expected: &str| {
        let input = AuthenticationInput { discovery_url: Some("https://keys.internal/d"), ..input() };
        let refusal = merge(&input, None, text).map_err(|error| error.to_string());
        assert!(refusal.as_ref().is_err_and(|message| message.contains(expected) && !message.contains('\n')), "{refusal:?}\n{text}");
    };
    check(&file(&twice), "has two entries with the issuer https://idp.example.com");
    check(&file(&format!("jwt:\n{many}")), "has 64 entries");
    check(&file(&format!("jwt:\n{same_discovery}")), "for the issuer https://idp.example.com");
    check(&file("jwt:\n- issuer: {audiences: [a]}\n"), "no `issuer.url` in entry 1");
    check(&file("jwt:\n- x\n"), "no `issuer.url` in entry 1");
    check(&file("jwt: {a: b}\n"), "something else than a list");
    check(&file("jwt: [{issuer: {url: https://idp.example.com}}]\n"), "block style");
    check(&file("\"jwt\":\n- issuer: {url: https://idp.example.com}\n"), "block style");
    check(&file("jwt:\n- {issuer: {url: https://idp.example.com}}\njwt: []\n"), "cannot be read as YAML");
    check(&file(anchor), "block style");
    check(&(file("") + "---\na: b\n"), "cannot be read as YAML");
    check(&file("").replace("v1beta1", "v1alpha1"), "apiVersion \"apiserver.config.k8s.io/v1alpha1\"");
    check(&file("").replace("AuthenticationConfiguration", "EncryptionConfiguration"), "but \"EncryptionConfiguration\"");
    check("a: b\n", "something without a `kind`");
    check("", "something without a `kind`");
    check("a: [", "cannot be read as YAML");
    check(&"#".repeat(1024 * 1024 + 1), "is larger than");
    let json = r#"{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": []}"#;
    check(json, "block style");
    let other = merge(&input(), Some(ApiVersion::V1), &file("")).unwrap_err().to_string();
    assert!(other.contains("has the apiVersion apiserver.config.k8s.io/v1beta1, not apiserver.config.k8s.io/v1:"), "{other}");
}
