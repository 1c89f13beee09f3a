#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    Compiled, Effect, Policy, PolicyInput, RequestView, RouteView, RuleFault, RuleResult, RuleSource, UserExpression, UserView, Verdict,
};
use crate::expression::EvaluationError;
use crate::kubernetes::RequestInfo;

/// What a test decides on; `input` borrows from it as the service borrows from session and request.
struct Case {
    groups: Vec<String>,
    claims: Map<String, Value>,
    labels: BTreeMap<String, String>,
}

impl Case {
    fn new() -> Self {
        let claims = json!({"department": "ops", "level": 3, "roles": ["a", "b"]});
        Self {
            groups: ["dev", "sre"].map(str::to_owned).to_vec(),
            claims: claims.as_object().unwrap().clone(),
            labels: BTreeMap::from([("stage".to_owned(), "prod".to_owned())]),
        }
    }

    fn user(&self) -> UserView<'_> {
        let (groups, claims) = (&self.groups, &self.claims);
        UserView { name: "ann", email: "ann@example.com", groups, claims, idp: "corp", session_age: 3 * 3600 }
    }

    fn with<T>(&self, method: &str, path_and_query: &str, use_input: impl FnOnce(&PolicyInput<'_>) -> T) -> T {
        let info = RequestInfo::parse(method, path_and_query).unwrap();
        // 2026-01-31T09:30:00Z, a Saturday.
        let time = 1_769_851_800;
        let request =
            RequestView { method, info: &info, host: "prod.example.com", source_ip: "10.1.2.3", user_agent: "kubectl/v1.36.3", time };
        use_input(&PolicyInput { user: self.user(), request, route: RouteView { name: "prod", labels: &self.labels } })
    }
}

fn compile(rules: &[(&str, Effect, &str)]) -> Policy {
    let sources: Vec<RuleSource<'_>> =
        rules.iter().map(|(name, effect, source)| RuleSource { name, effect: *effect, source, message: Some("because") }).collect();
    Policy::compile(&sources).unwrap()
}

fn condition(source: &str, method: &str, path: &str) -> RuleResult {
    let policy = compile(&[("rule", Effect::Allow, source)]);
    Case::new().with(method, path, |input| policy.explain(input).remove(0).result)
}

#[test]
fn equal_rules_are_compiled_once() {
    let rule = |name, source, message| RuleSource { name, effect: Effect::Allow, source, message };
    let (staff, slow) = ("'staff' in user.groups", "user.email.endsWith('@example.com')");
    let mut compiled = Compiled::default();
    let mut policy = |sources: &[RuleSource<'_>]| Policy::compile_with(sources, &mut compiled).unwrap();
    let first = policy(&[rule("a", staff, None), rule("b", slow, None)]);
    let again = policy(&[rule("a", staff, None), rule("b", slow, None)]);
    assert!(std::sync::Arc::ptr_eq(&first.rules, &again.rules), "the whole policy");
    // Each of these is another policy, of conditions that are there already.
    let others = [
        vec![rule("a", staff, None)],
        vec![rule("b", slow, None), rule("a", staff, None)],
        vec![rule("a", staff, Some("x")), rule("b", slow, None)],
        vec![RuleSource { effect: Effect::Deny, ..rule("a", staff, None) }, rule("b", slow, None)],
    ];
    for sources in others {
        let other = policy(&sources);
        assert_ne!((&first.rules, first.content_hash()), (&other.rules, other.content_hash()));
        assert_eq!(other, Policy::compile(&sources).unwrap());
    }
    // The next configuration begins with what this one has.
    let mut next = Compiled::of([&first]);
    let again = Policy::compile_with(&[rule("a", staff, None), rule("b", slow, None)], &mut next).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first.rules, &again.rules), "after a reload");
    let changed = Policy::compile_with(&[rule("a", "true", None), rule("b", slow, None)], &mut next).unwrap();
    assert_eq!(changed.rules().iter().map(|rule| rule.source()).collect::<Vec<_>>(), ["true", slow]);
    // A hash that lies finds nothing.
    assert!(next.policy(first.content_hash(), &[rule("a", "true", None)]).is_none());
}

#[test]
fn conditions() {
    let pods = "/api/v1/namespaces/web/pods";
    let exec = "/api/v1/namespaces/web/pods/web-0/exec?command=sh";
    let cases = [
        // every variable
        ("user.name == 'ann' && user.email == 'ann@example.com' && user.idp == 'corp'", "GET", pods, true),
        ("'sre' in user.groups && !('admin' in user.groups) && user.claims.level >= 3", "GET", pods, true),
        ("user.session_age < duration('4h') && user.session_age > duration('2h')", "GET", pods, true),
        ("request.method == 'GET' && request.path.startsWith('/api/v1/') && request.host == 'prod.example.com'", "GET", pods, true),
        ("inCIDR(request.source_ip, '10.0.0.0/8') && request.user_agent.startsWith('kubectl/')", "GET", pods, true),
        ("request.time > timestamp('2026-01-31T00:00:00Z') && request.time.getHours('Europe/Berlin') == 10", "GET", pods, true),
        ("request.time.getDayOfWeek() in [0, 6]", "GET", pods, true),
        ("k8s.verb == 'list' && k8s.group == '' && k8s.version == 'v1' && k8s.resource == 'pods'", "GET", pods, true),
        ("k8s.namespace == 'web' && k8s.name == '' && k8s.subresource == '' && k8s.read_only", "GET", pods, true),
        ("route.name == 'prod' && route.labels.stage == 'prod' && !has(route.labels.zone)", "GET", pods, true),
        ("request.path == '/api/v1/pods'", "GET", "/api/v1/pods?limit=1", true),
        ("request.path == '/api/v1/pods' && k8s.resource == 'pods'", "GET", "/%61pi/v1/%70ods", true),
        // policy's view of verbs
        ("k8s.verb == 'exec' && k8s.subresource == 'exec' && k8s.name == 'web-0' && !k8s.read_only", "GET", exec, true),
        ("k8s.verb == 'exec'", "POST", exec, true),
        ("k8s.verb == 'proxy' && !k8s.read_only", "GET", "/api/v1/nodes/n1/proxy/metrics", true),
        ("k8s.verb == 'watch' && k8s.read_only", "GET", "/api/v1/pods?watch=1", true),
        (
            "k8s.verb == 'delete' && k8s.group == 'apps' && k8s.name == 'web'",
            "DELETE",
            "/apis/apps/v1/namespaces/web/deployments/web",
            true,
        ),
        // paths that are no resource: empty texts and the method as verb
        ("k8s.verb == 'get' && k8s.resource == '' && k8s.namespace == '' && k8s.read_only", "GET", "/apis", true),
        ("k8s.verb == 'post' && !k8s.read_only", "POST", "/healthz", true),
        ("k8s.resource == 'secrets' || k8s.namespace.startsWith('kube-')", "GET", "/version", false),
    ];
    for (source, method, path, expected) in cases {
        let expected = if expected { RuleResult::Matched } else { RuleResult::NotMatched };
        assert_eq!(condition(source, method, path), expected, "{source} for {method} {path}");
    }
}

#[test]
fn a_missing_claim_is_an_error_that_has_can_avoid() {
    let pods = "/api/v1/pods";
    assert_eq!(condition("user.claims.team == 'x'", "GET", pods), RuleResult::Error("`team` is missing".to_owned()));
    assert_eq!(condition("has(user.claims.team) && user.claims.team == 'x'", "GET", pods), RuleResult::NotMatched);
    assert_eq!(condition("has(user.claims.department) && user.claims.department == 'ops'", "GET", pods), RuleResult::Matched);
}

const TRUE: &str = "true";
const FALSE: &str = "false";
const ERROR: &str = "user.claims.nowhere == 'x'";

#[test]
fn deny_beats_allow_and_errors_fail_closed() {
    use Effect::{Allow, Deny};
    let fault = |rule: &str| RuleFault { rule: rule.into(), error: "`nowhere` is missing".to_owned() };
    let check = |rules: &[(&str, Effect, &str)], allowed: bool, rule: Option<&str>, errors: &[RuleFault]| {
        let verdict = Case::new().with("GET", "/api/v1/pods", |input| compile(rules).evaluate(input));
        let message = (!allowed).then_some(rule).flatten().map(|_| "because".into());
        let expected = Verdict { allowed, rule: rule.map(Into::into), message, errors: errors.to_vec() };
        assert_eq!(verdict, expected, "{rules:?}");
    };
    check(&[], false, None, &[]);
    check(&[("a", Allow, FALSE)], false, None, &[]);
    check(&[("a", Allow, TRUE)], true, Some("a"), &[]);
    check(&[("a", Allow, FALSE), ("b", Allow, TRUE), ("c", Allow, TRUE)], true, Some("b"), &[]);
    check(&[("d", Deny, FALSE)], false, None, &[]);
    check(&[("a", Allow, TRUE), ("d", Deny, TRUE)], false, Some("d"), &[]);
    check(&[("d", Deny, TRUE), ("a", Allow, TRUE), ("e", Deny, TRUE)], false, Some("d"), &[]);
    check(&[("a", Allow, TRUE), ("d", Deny, FALSE)], true, Some("a"), &[]);
    check(&[("a", Allow, ERROR)], false, None, &[fault("a")]);
    check(&[("a", Allow, ERROR), ("b", Allow, TRUE)], true, Some("b"), &[fault("a")]);
    check(&[("a", Allow, TRUE), ("d", Deny, ERROR)], false, Some("d"), &[fault("d")]);
    check(&[("d", Deny, ERROR), ("e", Deny, TRUE)], false, Some("d"), &[fault("d")]);
    check(&[("d", Deny, TRUE), ("e", Deny, ERROR), ("a", Allow, ERROR)], false, Some("d"), &[]);
}

#[test]
fn every_rule_is_explained() {
    use Effect::{Allow, Deny};
    let policy = compile(&[("a", Allow, TRUE), ("d", Deny, FALSE), ("e", Deny, ERROR)]);
    let traces = Case::new().with("GET", "/api/v1/pods", |input| policy.explain(input));
    let found: Vec<_> = traces.iter().map(|trace| (&*trace.rule, trace.effect, trace.result.clone())).collect();
    let error = RuleResult::Error("`nowhere` is missing".to_owned());
    assert_eq!(found, [("a", Allow, RuleResult::Matched), ("d", Deny, RuleResult::NotMatched), ("e", Deny, error)]);
}

#[test]
fn faults_name_their_rule() {
    let rule = |source| RuleSource { name: "r", effect: Effect::Allow, source, message: None };
    let errors = Policy::compile(&[rule("true"), rule("usr.name == 'x'"), rule("user.email"), rule("k8s.verbs == 'x'")]).unwrap_err();
    let found: Vec<String> = errors.iter().map(|fault| format!("{}: {}", fault.rule, fault.error)).collect();
    let expected = [
        "1: unknown variable `usr` (line 1, column 1); did you mean `user`?",
        "2: the result must be true or false (bool), but it is of type string (line 1, column 1)",
        "3: unknown field `verbs` (line 1, column 5); did you mean `verb`?",
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_content_hash_follows_the_rules() {
    let policy = |name, effect, source, message| Policy::compile(&[RuleSource { name, effect, source, message }]).unwrap();
    let hash = policy("a", Effect::Allow, "true", None).content_hash().to_owned();
    assert_eq!(hash.len(), 16);
    assert_eq!(policy("a", Effect::Allow, "true", None).content_hash(), hash);
    for other in [
        policy("b", Effect::Allow, "true", None),
        policy("a", Effect::Deny, "true", None),
        policy("a", Effect::Allow, "true ", None),
        policy("a", Effect::Allow, "true", Some("m")),
    ] {
        assert_ne!(other.content_hash(), hash);
    }
}

#[test]
fn user_expressions_give_texts() {
    let case = Case::new();
    let texts = |source: &str| UserExpression::compile(source).unwrap().evaluate(&case.user());
    assert_eq!(texts("user.name"), Ok(vec!["ann".to_owned()]));
    assert_eq!(texts("user.groups"), Ok(vec!["dev".to_owned(), "sre".to_owned()]));
    assert_eq!(texts("user.idp + ':' + user.name"), Ok(vec!["corp:ann".to_owned()]));
    assert_eq!(texts("user.claims.roles"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(texts("user.claims.team"), Err(EvaluationError::Missing("team".to_owned())));
    assert_eq!(texts("user.claims.level"), Err(EvaluationError::WrongType { wanted: "string", found: "int" }));
    for refused in ["user.session_age", "request.path", "user.name == 'x'", "k8s.verb"] {
        assert!(UserExpression::compile(refused).is_err(), "{refused}");
    }
}

fn any_rule() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "user.groups.exists(g, g.matches('^s')) && user.claims.roles.exists(r, r in user.groups)",
        "inCIDR(request.source_ip, '10.0.0.0/8')",
        "user.claims.a.b.c == user.claims['x'].y || user.claims.?z.orValue('q') == 'q'",
        "user.claims.level + 1 > 3 && user.claims.level / user.claims.zero == 0 || user.claims.level - 2.5 < 1.0",
        "user.email.split('@')[1] in ['example.com'] && user.name.replace('a', user.name) != user.email",
        "request.time + user.session_age > timestamp('2026-01-01T00:00:00Z') && request.time.getHours('Europe/Berlin') < 20",
        "size(user.claims) + size(user.groups) > 2 && user.claims.all(k, user.claims[k] != null)",
        "size(user.groups + user.claims.roles) > 9 || user.claims.roles.map(r, string(r)).join(',') == 'x'",
        "k8s.read_only && route.labels.exists(l, route.labels[l] == k8s.namespace)",
        "int(user.claims.n) == 5 || double(user.claims.n) == 5.0 || bool(user.claims.flag) || user.claims.flag",
    ])
}

fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec!["a", "b", "c", "x", "y", "z", "roles", "level", "zero", "n", "flag"]);
    scalar.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No request and no claims break the engine: each rule matches, does not match, or says why not.
    #[test]
    fn evaluation_is_total(
        source in any_rule(),
        claims in prop::collection::btree_map(prop::sample::select(vec!["a", "x", "z", "roles", "level", "zero", "n", "flag"]), any_json(), 0..8),
        (name, email, source_ip, host) in (any::<String>(), any::<String>(), any::<String>(), any::<String>()),
        groups in prop::collection::vec(any::<String>(), 0..6),
        (time, session_age) in (any::<u64>(), any::<u64>()),
    ) {
        let claims: Map<String, Value> = claims.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let info = RequestInfo::default();
        let input = PolicyInput {
            user: UserView { name: &name, email: &email, groups: &groups, claims: &claims, idp: "corp", session_age },
            request: RequestView { info: &info, method: "GET", host: &host, source_ip: &source_ip, user_agent: "", time },
            route: RouteView { name: "prod", labels: &labels },
        };
        for effect in [Effect::Allow, Effect::Deny] {
            let policy = compile(&[("rule", effect, source)]);
            let verdict = policy.evaluate(&input);
            let result = policy.explain(&input).remove(0).result;
            prop_assert!(result != RuleResult::Error(EvaluationError::Internal.to_string()));
            let matched = match effect {
                Effect::Allow => result == RuleResult::Matched,
                Effect::Deny => result != RuleResult::NotMatched,
            };
            prop_assert_eq!(verdict.rule.is_some(), matched);
            prop_assert_eq!(verdict.allowed, matched && effect == Effect::Allow);
        }
    }
}
