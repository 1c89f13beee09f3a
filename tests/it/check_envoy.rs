//! `check-envoy`: the example for hand-written Envoys passes, each mistake planted into it is found by its own word, and what is not understood is
//! never passed over. The end-to-end story beside it runs that example, and what kubepass itself configures, in a real Envoy.

mod plants;

use std::process::Command;

use kubepass::envoy_check::{Finding, Kind, check};
use kubepass::operator::check_envoy;
use serde_json::{Value, json};

use self::plants::{MANAGER, rows};
use crate::fixture;
use crate::support::pki::Authority;
use crate::support::tools::Tools;

fn own_text() -> String {
    std::fs::read_to_string(fixture::root().join("envoy/own.yaml")).unwrap()
}

fn own() -> Value {
    serde_yaml::from_str(&own_text()).unwrap()
}

fn findings(document: &Value) -> Vec<Finding> {
    check(document).unwrap().findings
}

fn codes(document: &Value) -> Vec<&'static str> {
    let mut codes: Vec<_> = findings(document).iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[test]
fn the_example_has_no_findings() {
    let report = check(&own()).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.protected, ["prod", "kubepass-web"]);
}

#[test]
fn the_pinned_envoy_accepts_the_example() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let authority = Authority::new("own");
    let pair = authority.server(&["prod.k8s.example.com", "pass.example.com"]);
    for (name, content) in
        [("tls.crt", pair.cert.as_str()), ("tls.key", &pair.key), ("prod-ca.crt", authority.pem()), ("prod-token.yaml", "resources: []")]
    {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let file = folder.path().join("own.yaml");
    std::fs::write(&file, own_text().replace("/etc/envoy", path)).unwrap();
    let output = Command::new(Tools::ensure().envoy()).args(["--mode", "validate", "-l", "warn", "-c"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("eprecated"), "{said}");
}

/// Planted into a file and, spelt in the other way, again.
#[test]
fn each_planted_mistake_is_found_by_its_own_word() {
    let mut wrong = Vec::new();
    let rows = rows();
    for row in &rows {
        let mut document = own();
        (row.plant)(&mut document);
        for (spelling, document) in [("snake_case", document.clone()), ("camelCase", camel(&document))] {
            let found = codes(&document);
            if found != row.codes {
                wrong.push(format!("{} ({spelling}): expected {:?}, found {found:?}: {:#?}", row.what, row.codes, findings(&document)));
            }
        }
    }
    assert!(rows.len() >= 40, "mistakes are gone");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Extensions whose type is hidden or unknown: none is passed over.
#[test]
fn what_is_wrapped_or_unknown_is_a_finding_everywhere() {
    let types = judged();
    assert!(types.len() > 15, "{types:?}");
    for pointer in types {
        for disguise in ["type.googleapis.com/xds.type.v3.TypedStruct", "type.googleapis.com/envoy.extensions.something.v3.New"] {
            let mut document = own();
            document.pointer_mut(&pointer).unwrap()["@type"] = disguise.into();
            assert!(!codes(&document).is_empty(), "{pointer} as {disguise}");
        }
    }
}

/// A field that this check has never heard of, in every message on the way of a request.
#[test]
fn an_unknown_field_is_a_finding_everywhere() {
    let more = [
        "/static_resources",
        "/static_resources/listeners/0",
        "/static_resources/listeners/0/filter_chains/0",
        "/static_resources/listeners/0/filter_chains/0/filters/0",
        "/static_resources/clusters/0",
        "/layered_runtime/layers/0",
    ];
    let manager =
        ["/http_filters/0", "/http_filters/1", "/route_config", "/route_config/virtual_hosts/1", "/route_config/virtual_hosts/1/routes/1"];
    let manager =
        manager.iter().map(|rest| format!("{MANAGER}{rest}")).chain([format!("{MANAGER}/route_config/virtual_hosts/1/routes/1/route")]);
    let all: Vec<String> = judged().into_iter().chain(more.map(str::to_owned)).chain(manager).collect();
    for pointer in all {
        let mut document = own();
        document.pointer_mut(&pointer).unwrap()["switch_it_off"] = json!(true);
        let found = findings(&document);
        assert!(
            found.iter().any(|finding| finding.kind == Kind::NotUnderstood && finding.at.ends_with("switch_it_off")),
            "{pointer}: {found:?}"
        );
    }
}

#[test]
fn a_part_of_a_dump_is_not_taken_for_the_whole() {
    let bootstrap = json!({"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": own()});
    let found = findings(&json!({"configs": [bootstrap]}));
    let missing: Vec<_> = found.iter().filter(|finding| finding.code == "incomplete").collect();
    assert_eq!(missing.len(), 3, "{found:?}");
    let sidecar: Value = serde_yaml::from_str(&std::fs::read_to_string(fixture::root().join("envoy/sidecar.yaml")).unwrap()).unwrap();
    assert_eq!(codes(&sidecar), ["elsewhere", "nothing-protected"], "its listeners come over xDS");
}

#[test]
fn the_verb_says_what_is_wrong_and_exits_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, content: Option<&str>| {
        let file = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check_envoy::check_envoy(file.to_str().unwrap(), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (code, out, _) = run("good.yaml", Some(&own_text()));
    assert!(
        code == check_envoy::GOOD && out.contains("good: 1 listener(s), 4 cluster(s), of which behind kubepass: prod, kubepass-web"),
        "{out}"
    );
    assert_eq!(run("good.json", Some(&own().to_string())).0, check_envoy::GOOD);

    let (code, out, _) = run(
        "bad.yaml",
        Some(
            &own_text()
                .replace("timeout: 1s}\n              # 403", "timeout: 0s}\n              failure_mode_allow: true\n              # 403"),
        ),
    );
    assert_eq!(code, check_envoy::FINDINGS);
    let expected = "UNSAFE failure-mode-allow at static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config\n  \
                    why: while kubepass is away, slow or answers nonsense, everybody passes unchecked.\n  \
                    instead: failure_mode_allow: false, or leave it out\n";
    assert!(out.contains(expected) && out.contains("ext-authz-timeout") && out.contains("2 finding(s)"), "{out}");

    // What Envoy leaves out, and of two the one that it takes, is not what a reader sees.
    let ignored = own_text().replace("encode_raw_headers: true", "!ignore encode_raw_headers: true");
    let twice = own_text().replace("encode_raw_headers: true", "encode_raw_headers: true\n              encode_raw_headers: false");
    for (name, content, said) in [
        ("none.yaml", None, "No such file"),
        ("other.yaml", Some("apiVersion: v1\nkind: Pod\n"), "no configuration of Envoy"),
        ("broken.json", Some("{\"static_resources\": "), "not JSON"),
        ("broken.yaml", Some("a: [b"), "neither YAML nor JSON"),
        ("ignored.yaml", Some(ignored.as_str()), "`!ignore`"),
        ("twice.yaml", Some(twice.as_str()), "neither YAML nor JSON"),
    ] {
        let (code, _, err) = run(name, content);
        assert!(code == check_envoy::UNREADABLE && err.contains(said), "{name}: {code} {err}");
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(check_envoy::check_envoy("unix:/nowhere.sock", &mut out, &mut err), check_envoy::UNREADABLE);
    assert_eq!(check_envoy::check_envoy("http://127.0.0.1:1", &mut out, &mut err), check_envoy::UNREADABLE);
    assert_eq!(check_envoy::check_envoy("https://127.0.0.1:1", &mut out, &mut err), check_envoy::UNREADABLE);
}

/// The example as a file in which somebody writes fields as protobuf's JSON does.
fn camel(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(camel).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (camel_key(key), camel(value))).collect(),
        other => other.clone(),
    }
}

fn camel_key(key: &str) -> String {
    // Keys of maps are no fields: names of filters and of types.
    if key.contains('.') || key.contains('@') {
        return key.to_owned();
    }
    let mut upper = false;
    key.chars()
        .filter_map(|c| {
            if c == '_' {
                upper = true;
                None
            } else if std::mem::take(&mut upper) {
                Some(c.to_ascii_uppercase())
            } else {
                Some(c)
            }
        })
        .collect()
}

/// Pointers to every typed message that matters: the cluster of the access log decides nothing.
fn judged() -> Vec<String> {
    typed(&own(), "")
        .into_iter()
        .filter(|pointer| !pointer.starts_with("/static_resources/clusters/2/") && !pointer.contains("/access_log/"))
        .collect()
}

/// Pointers to every typed message outside of the overload manager.
fn typed(value: &Value, at: &str) -> Vec<String> {
    let own = value.get("@type").map(|_| at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let inner: Vec<String> = match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| *key != "overload_manager")
            .flat_map(|(key, value)| typed(value, &format!("{at}/{}", escaped(key))))
            .collect(),
        Value::Array(items) => items.iter().enumerate().flat_map(|(index, value)| typed(value, &format!("{at}/{index}"))).collect(),
        _ => Vec::new(),
    };
    own.into_iter().chain(inner).collect()
}

/// The document at a path, for people who plant.
fn at<'v>(document: &'v mut Value, pointer: &str) -> &'v mut Value {
    document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in the example"))
}
