#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::super::{Expected, Expression, FieldValue, Fields, Schema, Type};

/// `user` and `route`, each an object as policies have it.
#[derive(Debug)]
struct Variables {
    user: User,
    route: Route,
}

#[derive(Debug)]
struct User {
    name: String,
    email: String,
    groups: Vec<String>,
    claims: serde_json::Map<String, serde_json::Value>,
    admin: bool,
}

#[derive(Debug)]
struct Route(BTreeMap<String, String>);

impl Fields for Variables {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        match name {
            "user" => Some(FieldValue::Object(&self.user)),
            "route" => Some(FieldValue::Object(&self.route)),
            _ => None,
        }
    }
}

impl Fields for User {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        Some(match name {
            "name" => FieldValue::Text(&self.name),
            "email" => FieldValue::Text(&self.email),
            "groups" => FieldValue::TextList(&self.groups),
            "claims" => FieldValue::JsonMap(&self.claims),
            "admin" => FieldValue::Bool(self.admin),
            _ => return None,
        })
    }
}

impl Fields for Route {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        (name == "labels").then_some(FieldValue::TextMap(&self.0))
    }
}

fn compile(source: &str) -> Expression {
    let user = Type::object([
        ("name", Type::Text),
        ("email", Type::Text),
        ("groups", Type::list(Type::Text)),
        ("claims", Type::map(Type::Dynamic)),
        ("admin", Type::Bool),
    ]);
    let schema = Schema::new([("user", user), ("route", Type::object([("labels", Type::map(Type::Text))]))]);
    Expression::compile(source, &schema, Expected::Bool).unwrap_or_else(|faults| panic!("{source}: {faults:?}"))
}

fn variables() -> Variables {
    let claims = json!({"a": "b", "n": 1, "l": ["a"], "none": null}).as_object().unwrap().clone();
    let user = User { name: "ab".into(), email: "a@b".into(), groups: vec!["a".into(), "ab".into()], claims, admin: true };
    Variables { user, route: Route(BTreeMap::from([("a".to_owned(), "ab".to_owned())])) }
}

/// What comes out without the engine; the engine must say the same.
#[track_caller]
fn check(source: &str, expected: Option<bool>) {
    let (expression, variables) = (compile(source), variables());
    let plain = expression.plain.as_ref().and_then(|plain| plain.holds(&variables));
    assert_eq!(plain, expected, "{source}");
    if let Some(plain) = plain {
        assert_eq!(expression.evaluate_by_engine(&variables), Ok(plain), "{source}");
    }
}

#[test]
fn usual_rules_need_no_engine() {
    for (source, expected) in [
        ("true", true),
        ("user.admin && !user.admin", false),
        ("user.name == 'ab' && user.email != user.name", true),
        ("'a' in user.groups || user.name == 'x'", true),
        ("!('a' in user.groups)", false),
        ("user.name in ['x', 'ab']", true),
        ("user.email.endsWith('@b') && user.email.startsWith('a') && user.email.contains('@')", true),
        ("user.groups.exists(g, g.startsWith('ab'))", true),
        ("user.groups.all(g, g.startsWith('ab'))", false),
        ("user.groups.all(g, g in user.groups && g != user.email)", true),
        ("route.labels.a == user.name && user.claims.a == 'b'", true),
    ] {
        check(source, Some(expected));
    }
}

#[test]
fn the_rest_is_left_to_the_engine() {
    for source in [
        // other forms
        "size(user.groups) == 2",
        "user.name.matches('a')",
        "user.admin ? user.name == 'ab' : false",
        "user.name + 'c' == 'abc'",
        "user.groups.exists(g, user.groups.exists(h, g == h))",
        "user.groups.exists_one(g, g == 'a')",
        "has(user.claims.a)",
        "user.name < 'b'",
        "user.name in {'ab': 1}",
        "user.claims.n == 1",
        "1 in [1, 2]",
        "user.claims.?x.orValue('') == ''",
        // values that are missing or of another type
        "user.claims.missing == 'x'",
        "user.claims.missing == 'x' || true",
        "user.claims.n == 'x'",
        "user.claims.none == user.name",
        "route.labels.missing == 'x' && user.name == 'ab'",
    ] {
        check(source, None);
    }
    let (expression, variables) = (compile("user.claims.missing == 'x' || user.admin"), variables());
    assert_eq!(expression.evaluate_bool(&variables), Ok(true), "the engine takes what holds whatever is missing");
}

#[test]
fn what_takes_too_much_work_has_no_value() {
    let mut variables = variables();
    variables.user.name = "x".repeat(60_000);
    variables.user.groups = (0..4_000).map(|number| format!("group-{number}")).collect();
    let long_list = |item: &str| vec![item; 80].join(" || ");
    for source in [
        "user.groups.exists(g, user.name.contains(g))",
        &format!("user.groups.exists(g, {})", long_list("g == 'a'")),
        &long_list("user.name == user.email && user.name in user.groups"),
        &long_list("user.email in user.groups"),
    ] {
        let expression = compile(source);
        assert!(expression.plain.is_some(), "{source}");
        let _allowance = super::super::Allowance::begin();
        let mut last = Ok(false);
        for _ in 0..200 {
            last = expression.evaluate_bool(&variables);
        }
        assert_eq!(last, Err(super::super::EvaluationError::TooMuchWork), "{source}");
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "user.name",
        "user.email",
        "route.labels.a",
        "route.labels.b",
        "user.claims.a",
        "user.claims.b",
        "''",
        "'a'",
        "'ab'",
        "\"b\"",
    ])
    .prop_map(str::to_owned)
}

fn conditions(text: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    let call = prop::sample::select(vec!["startsWith", "endsWith", "contains"]);
    let leaf = prop_oneof![
        Just("user.admin".to_owned()),
        Just("false".to_owned()),
        (text.clone(), text.clone()).prop_map(|(left, right)| format!("{left} == {right}")),
        (text.clone(), text.clone()).prop_map(|(left, right)| format!("{left} != {right}")),
        (text.clone(), call, text.clone()).prop_map(|(text, call, part)| format!("{text}.{call}({part})")),
        text.clone().prop_map(|text| format!("{text} in user.groups")),
        text.prop_map(|text| format!("{text} in ['a', 'ba']")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| format!("!({one})")),
            (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("({one}) && ({two})")),
            (inner.clone(), inner).prop_map(|(one, two)| format!("({one}) || ({two})")),
        ]
    })
}

fn sources() -> impl Strategy<Value = String> {
    let inner = conditions(prop_oneof![texts(), Just("g".to_owned())].boxed());
    prop_oneof![
        2 => conditions(texts().boxed()),
        1 => (prop::sample::select(vec!["exists", "all"]), inner).prop_map(|(which, inner)| format!("user.groups.{which}(g, {inner})")),
    ]
}

fn any_variables() -> impl Strategy<Value = Variables> {
    let text = || "[ab]{0,3}";
    let claim = prop_oneof![4 => text().prop_map(|text| json!(text)), 1 => Just(json!(1)), 1 => Just(json!(null)), 1 => Just(json!(["a"]))];
    let claims = prop::collection::btree_map("[ab]", claim, 0..3);
    let labels = prop::collection::btree_map("[ab]", text(), 0..3);
    (text(), text(), prop::collection::vec(text(), 0..4), claims, any::<bool>(), labels).prop_map(
        |(name, email, groups, claims, admin, labels)| Variables {
            user: User { name, email, groups, claims: claims.into_iter().collect(), admin },
            route: Route(labels),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_says_the_same(source in sources(), variables in any_variables()) {
        let expression = compile(&source);
        let plain = expression.plain.as_ref();
        prop_assert!(plain.is_some(), "{source} is plain");
        if let Some(plain) = plain.and_then(|plain| plain.holds(&variables)) {
            prop_assert_eq!(expression.evaluate_by_engine(&variables), Ok(plain), "{}", source);
        }
    }
}
