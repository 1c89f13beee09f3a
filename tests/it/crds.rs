//! The custom resource definitions: printed as the file for people has them, and of the very fields that the configuration's reader knows.

use std::collections::BTreeSet;

use kubepass::config::objects::{Kind, Object, ObjectId, shape_errors};
use kubepass::server::cluster_source::crds;
use serde_json::{Map, Value, json};

use crate::fixture;

/// Resembles no key, so that the reader names all that may stand beside it.
const STRANGER: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";

#[test]
fn the_printed_definitions_are_those_in_the_file() {
    fixture::compare_golden("config/kubernetes/crds/crds.yaml", &crds::yaml().unwrap());
}

/// In both directions, at every depth: a field that only one of them knew would be refused by the other, or silently pruned.
#[test]
fn the_schema_has_the_fields_that_the_reader_knows() {
    let mut compared = 0;
    for definition in crds::definitions().unwrap() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        compare(&kind, spec, &mut Vec::new(), &mut compared);
    }
    assert!(compared >= 18, "only {compared} mappings were compared");
}

/// A step into the tree.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    First,
}

fn compare(kind: &str, schema: &Value, path: &mut Vec<Step>, compared: &mut usize) {
    if let Some(items) = schema.get("items") {
        path.push(Step::First);
        compare(kind, items, path, compared);
        path.pop();
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let (known, required) = known_to_the_reader(kind, path);
    let keys: BTreeSet<String> = properties.keys().cloned().collect();
    assert_eq!(keys, known, "{kind} {path:?}");
    let of_schema = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let of_schema: BTreeSet<String> = of_schema.map(|key| key.as_str().unwrap().to_owned()).collect();
    assert_eq!(of_schema, required, "required: {kind} {path:?}");
    *compared += 1;
    for (key, schema) in properties {
        path.push(Step::Key(key.clone()));
        compare(kind, schema, path, compared);
        path.pop();
    }
}

/// The keys that the reader names beside one that it does not know, and those that it misses.
fn known_to_the_reader(kind: &str, path: &[Step]) -> (BTreeSet<String>, BTreeSet<String>) {
    let leaf = json!({STRANGER: 1});
    let spec = path.iter().rev().fold(leaf, |inner, step| match step {
        Step::Key(key) => Value::Object(Map::from_iter([(key.clone(), inner)])),
        Step::First => json!([inner]),
    });
    let place = path.iter().fold("spec".to_owned(), |place, step| match step {
        Step::Key(key) => format!("{place}.{key}"),
        Step::First => format!("{place}[0]"),
    });
    let errors = shape_errors(&object(kind, spec)).0;
    let stranger = errors.iter().find(|error| error.path == place && error.message.contains(STRANGER));
    let stranger = stranger.unwrap_or_else(|| panic!("{place}: {errors:?}"));
    let known = stranger.hint.as_ref().unwrap().strip_prefix("keys that may stand here: ").unwrap();
    let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
    // Of a reference it misses one of the sources; where there is one, that one.
    if known.len() == 1 && errors.iter().any(|error| error.path == place && error.message == "names no source") {
        return (known.clone(), known);
    }
    let missing = errors.iter().filter(|error| error.path == place).filter_map(|error| {
        let key = error.message.strip_prefix("the key `")?.strip_suffix("` is missing")?;
        Some(key.to_owned())
    });
    let missing = missing.collect();
    (known, missing)
}

fn object(kind: &str, spec: Value) -> Object {
    let kind = Kind::ALL.into_iter().find(|of| of.name() == kind).unwrap();
    let id = ObjectId { kind, namespace: "shop".to_owned(), name: "web".to_owned() };
    Object { id, uid: "uid".to_owned(), generation: 1, created_at: 0, spec }
}

fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z:/.*{}\"' -]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        proptest::sample::select(vec![
            "host",
            "kubernetes",
            "http",
            "policy",
            "allow",
            "deny",
            "secret",
            "name",
            "key",
            "rules",
            "from",
            "to"
        ])
        .prop_map(str::to_owned),
        "[a-z]{0,4}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(400))]

    /// An API server without our schema could send anything: it ends in messages that name the object and a place below its spec.
    #[test]
    fn whatever_an_object_says_ends_in_messages(spec in any_json(), kind in proptest::sample::select(vec!["Route", "Policy", "Gateway", "Grant"])) {
        for error in shape_errors(&object(kind, spec)).0 {
            proptest::prop_assert_eq!(&error.file, &format!("{kind} shop/web"));
            proptest::prop_assert!(error.path.starts_with("spec") && error.line == 0 && !error.message.is_empty(), "{}", error);
        }
    }
}
