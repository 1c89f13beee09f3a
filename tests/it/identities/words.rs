//! Names and claims as an identity provider that is careless, or hostile, could send them.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// What people and groups are usually called.
const USUAL: [&str; 7] = ["ada@example.com", "bob@example.com", "ada@partner.example", "eve@partner.example", "sre", "team-a", "team-b"];

/// What has broken a header, a comparison or a reader's eye somewhere. Some of it becomes a name of Kubernetes only behind a prefix.
const PIECES: [&str; 48] = [
    "system:",
    "system:masters",
    "System:",
    "SYSTEM:MASTERS",
    "sYsTeM:nodes",
    "\u{455}ystem:masters",
    "system\u{ff1a}masters",
    "sy\u{17f}tem:masters",
    "system :masters",
    "system%3amasters",
    "Sys",
    "tem:masters",
    "system:serviceaccount:kube-system:default",
    "system:monitoring",
    "system:monitorings",
    "kubepass:",
    "Kubepass:admin",
    "corp:",
    "corp:ada@example.com",
    "p:",
    "",
    " ",
    "\t",
    "\r\n",
    "\n",
    "\0",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2003}",
    "\u{3000}",
    "\u{2028}",
    "\u{200b}",
    "\u{200d}",
    "\u{202e}",
    "\u{feff}",
    "\u{ad}",
    ",",
    ", system:masters",
    "%0d%0a",
    "\r\nimpersonate-group: system:masters",
    "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)%",
    "%REQ(authorization)%",
    "@",
    "@evil.example@example.com",
    "\"",
    "\\",
    "e\u{301}",
];

pub(super) fn name() -> BoxedStrategy<String> {
    prop_oneof![
        6 => select(&USUAL[..]).prop_map(str::to_owned),
        2 => select(&PIECES[..]).prop_map(str::to_owned),
        3 => (select(&PIECES[..]), select(&USUAL[..])).prop_map(|(piece, usual)| format!("{piece}{usual}")),
        3 => (select(&USUAL[..]), select(&PIECES[..])).prop_map(|(usual, piece)| format!("{usual}{piece}")),
        2 => (select(&PIECES[..]), select(&PIECES[..])).prop_map(|(one, other)| format!("{one}{other}")),
        1 => "[ -~]{0,12}",
        1 => any::<String>(),
        1 => (1..1200usize).prop_map(|length| "x".repeat(length)),
    ]
    .boxed()
}

/// A claim that should be a text, or that suddenly is something else.
fn text_claim() -> BoxedStrategy<Value> {
    prop_oneof![12 => name().prop_map(Value::String), 1 => other_claim()].boxed()
}

fn groups_claim() -> BoxedStrategy<Value> {
    let list = prop::collection::vec(name(), 0..6).prop_map(|names| json!(names));
    let mixed = prop::collection::vec(prop_oneof![3 => name().prop_map(Value::String), 1 => other_claim()], 0..4).prop_map(Value::Array);
    prop_oneof![8 => list, 1 => mixed, 1 => text_claim()].boxed()
}

fn other_claim() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        Just(json!(1.5)),
        prop::collection::vec(name(), 0..3).prop_map(|names| json!(names)),
        (name(), name()).prop_map(|(key, value)| json!({key: value})),
        Just(json!([["system:masters"]])),
        Just(json!({"system:masters": true})),
    ]
    .boxed()
}

/// The claims of an ID token, without `iss`: everything odd, nothing odd, or one thing.
pub(super) fn claims() -> BoxedStrategy<Map<String, Value>> {
    let one_odd =
        (usual_claims(), odd_claims(), select(vec!["sub", "email", "groups", "groups", "team"])).prop_map(|(mut claims, odd, name)| {
            odd.get(name).map(|value| claims.insert(name.to_owned(), value.clone()));
            claims
        });
    prop_oneof![2 => usual_claims(), 3 => one_odd, 2 => odd_claims()].boxed()
}

fn usual_claims() -> BoxedStrategy<Map<String, Value>> {
    let email = select(vec!["ada@example.com", "bob@example.com", "ada@partner.example", "corp:ada@example.com"]);
    let groups = prop::sample::subsequence(vec!["sre", "team-a", "team-b", "corp:sre"], 0..=4);
    let claims = ("[a-z]{1,3}", email, groups).prop_map(
        |(subject, email, groups)| json!({"sub": subject, "email": email, "email_verified": true, "groups": groups, "team": "blue"}),
    );
    claims.prop_map(|claims| claims.as_object().unwrap().clone()).boxed()
}

fn odd_claims() -> BoxedStrategy<Map<String, Value>> {
    let verified = prop_oneof![12 => Just(json!(true)), 1 => Just(json!("true")), 1 => Just(json!(false)), 1 => other_claim()];
    let subject = prop_oneof![8 => "[a-z]{1,4}".prop_map(Value::String), 1 => text_claim()];
    let claims = (subject, text_claim(), verified, groups_claim(), text_claim());
    (claims, prop::option::weighted(0.1, select(vec!["sub", "email", "email_verified", "groups", "team"])))
        .prop_map(|((subject, email, verified, groups, team), missing)| {
            let all = json!({"sub": subject, "email": email, "email_verified": verified, "groups": groups, "team": team});
            let Value::Object(mut all) = all else { unreachable!() };
            missing.map(|name| all.remove(name));
            all
        })
        .boxed()
}

/// Someone of whom nothing is odd.
pub(super) fn plain_claims(domain: &str, name: &str) -> Map<String, Value> {
    let claims = json!({
        "sub": name, "email": format!("{name}@{domain}"), "email_verified": true, "groups": ["sre", "team-a"], "team": "blue",
    });
    let Value::Object(claims) = claims else { unreachable!() };
    claims
}

/// Headers that a client may try; each is a name that some part on the way could believe.
pub(super) fn forged_headers() -> BoxedStrategy<Vec<(String, Vec<u8>)>> {
    const NAMES: [&str; 42] = [
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
        "impersonate-extra-example.com%2fteam",
        "impersonate-extra-team",
        "impersonate-",
        "impersonate-extra-",
        "x-remote-user",
        "x-remote-group",
        "x-remote-extra-team",
        "x-remote-uid",
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-pomerium-authorization",
        "x-kubepass-authorization",
        "x-kubepass-assertion",
        "x-kubepass-cookie",
        "x-kubepass-scope",
        "x-kubepass-source",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-client-cert",
        "x-real-ip",
        "x-envoy-upstream-stream-duration-ms",
        "x-envoy-original-path",
        "x-original-url",
        "audit-id",
        "x-request-id",
        "traceparent",
        "via",
        "forwarded",
        "connection",
        "upgrade",
        "sec-websocket-protocol",
        "accept",
        "user-agent",
        "x-user",
        "x-impersonate-user",
        "impersonateuser",
        "x-anything",
        "te",
    ];
    const VALUES: [&str; 12] = [
        "admin",
        "system:masters",
        "system:admin",
        "",
        " ",
        "Bearer abc",
        "Upgrade",
        "upgrade, impersonate-user",
        "base64url.bearer.authorization.k8s.io.QQ",
        "v5.channel.k8s.io",
        "text/html",
        "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)%",
    ];
    let value = prop_oneof![
        4 => select(&VALUES[..]).prop_map(|value| value.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec((select(&NAMES[..]).prop_map(str::to_owned), value), 0..4).boxed()
}
