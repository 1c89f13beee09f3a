#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::config::model::{Config, Method};
use crate::config::reference::{MaterialKind, Reference};
use crate::config::{Contents, parse, resolve};
use secrecy::ExposeSecret;

const NOW: u64 = 1_767_225_600;
const CA: &[u8] = include_bytes!("../../../tests/it/fixture/ca.crt");
const CHAIN: &[u8] = include_bytes!("../../../tests/it/fixture/tls.crt");
const KEY: &[u8] = include_bytes!("../../../tests/it/fixture/tls.key");

const FILE: &str = r#"
public_url: https://pass.example.com
listeners: [{address: "127.0.0.1:443", certificates: [{chain: {file: tls.crt}, key: {file: tls.key}}]}]
secrets: [{file: secret}]
identity_providers: [{name: corp, issuer: "https://idp.example.com", client_id: x, client_secret: {file: x}, identity: {username: claims.email}}]
sessions: {store: {embedded: {path: kubepass.db}}}
routes:
- name: prod
  host: prod.k8s.example.com
  kubernetes: {server: "https://10.0.0.1", ca: {file: ca.crt}, jwt: {audience: prod, shared_audience: true}}
  policy: [{allow: "true"}]
audit: {sinks: [{file: {path: audit.jsonl}}]}
cluster_source: {namespace: kubepass}
"#;

const GATEWAY: &str = "{hosts: ['*.k8s.example.com'], namespaces: [shop, bank]}";
const ROUTE: &str = r#"{host: HOST, kubernetes: {server: "https://10.0.0.2", ca: {config_map: {name: ca, key: ca.crt}}, impersonate: {token: {secret: {name: token, key: token}}}}, policy: [{name: staff, allow: RULE}]}"#;

/// An API server's objects, the file beside them, and what kubepass remembers.
struct Scene {
    file: Config,
    objects: Objects,
    memory: Memory,
    made: u32,
}

impl Scene {
    /// With a Gateway for `shop` and `bank`, and what routes of `shop` refer to.
    fn new() -> Self {
        let mut scene = Self { file: file(FILE), objects: Objects::default(), memory: Memory::default(), made: 0 };
        scene.put("Gateway kubepass/main", GATEWAY);
        for namespace in ["shop", "bank"] {
            scene.material(MaterialKind::ConfigMap, namespace, "ca", "1", &[("ca.crt", CA)]);
            scene.material(MaterialKind::Secret, namespace, "token", "1", &[("token", b"first-token")]);
        }
        scene
    }

    /// Makes or changes an object: a new spec is a new generation; who is made later is younger.
    fn put(&mut self, id: &str, spec: &str) {
        let id = id_of(id);
        let spec: serde_json::Value = serde_yaml::from_str(spec).unwrap();
        self.made += 1;
        let before = self.objects.objects.get(&id);
        let object = match before {
            Some(before) => Object { spec, generation: before.generation + 1, ..Object::clone(before) },
            None => Object { id: id.clone(), uid: format!("uid-{}", self.made), generation: 1, created_at: self.made.into(), spec },
        };
        self.objects.objects.insert(id, Arc::new(object));
    }

    fn route(&mut self, name: &str, host: &str, rule: &str) {
        self.put(&format!("Route {name}"), &ROUTE.replace("HOST", host).replace("RULE", &format!("{rule:?}")));
    }

    fn delete(&mut self, id: &str) {
        self.objects.objects.remove(&id_of(id)).unwrap();
    }

    fn material(&mut self, kind: MaterialKind, namespace: &str, name: &str, version: &str, data: &[(&str, &[u8])]) {
        let id = MaterialId { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        self.objects.materials.insert(id, Arc::new(Material { version: version.to_owned(), data }));
    }

    fn token(&mut self, version: &str) {
        self.material(MaterialKind::Secret, "shop", "token", version, &[("token", version.as_bytes())]);
    }

    fn merge(&mut self) -> Merged {
        let source = self.file.cluster_source.clone().unwrap();
        merge(&self.file, &source, &self.objects, &Roots(Err("none here".to_owned())), &mut self.memory, NOW)
    }

    /// What is served, as `name host rules` and a token; and what is said of an object, as `TYPE=REASON`, the messages below.
    fn check(&mut self, what: &str, served: &[&str], said: &[(&str, &str)]) {
        let merged = self.merge();
        let routes: Vec<String> = merged.config.routes.iter().skip(1).map(|route| show(route)).collect();
        assert_eq!(routes, served, "{what}; verdicts: {:#?}", merged.verdicts);
        for (id, want) in said {
            let verdict = merged.verdicts.iter().find(|verdict| verdict.id.to_string() == *id).unwrap();
            let acknowledged = vec!["edge-1".to_owned()];
            let conditions = conditions(verdict, &Programmed { acknowledged, ..Programmed::default() });
            let words: Vec<String> = conditions.iter().map(|condition| format!("{}={}", condition.kind, condition.reason)).collect();
            let messages: Vec<&str> = verdict.errors().collect();
            let got = [vec![words.join(" ")], messages.iter().map(|&message| message.to_owned()).collect()].concat().join("\n");
            assert_eq!(got, *want, "{what}: {id}");
        }
    }
}

fn show(route: &crate::config::Route) -> String {
    let rules: Vec<&str> = route.policy.rules().iter().map(|rule| rule.name()).collect();
    let token = match route.kubernetes().map(|target| &target.method) {
        Some(Method::Impersonate(method)) => method.token.expose_secret().to_owned(),
        _ => String::new(),
    };
    format!("{} {} {} {token}", route.name, route.host, rules.join(",")).trim_end().to_owned()
}

fn id_of(text: &str) -> ObjectId {
    let (kind, rest) = text.split_once(' ').unwrap();
    let (namespace, name) = rest.split_once('/').unwrap();
    let kind = Kind::ALL.into_iter().find(|of| of.name() == kind).unwrap();
    ObjectId { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn file(text: &str) -> Config {
    let draft = parse(text, "kubepass.yaml").unwrap();
    let content = |reference: &Reference| match reference.to_string().as_str() {
        "tls.crt" => CHAIN.to_vec(),
        "tls.key" => KEY.to_vec(),
        "ca.crt" => CA.to_vec(),
        other => format!("test-only-content-of-{other}-0123456789abcdef").into_bytes(),
    };
    let contents = Contents(draft.references().keys().map(|reference| (reference.clone(), Ok(content(reference)))).collect());
    resolve(draft, &contents, NOW).unwrap_or_else(|errors| panic!("{errors}"))
}

const GOOD: &str = "Accepted=Accepted ResolvedRefs=ResolvedRefs Programmed=Programmed";

#[test]
fn a_route_lives_as_long_as_its_object() {
    let mut scene = Scene::new();
    scene.check("none", &[], &[("Gateway kubepass/main", "Accepted=Accepted ResolvedRefs=ResolvedRefs")]);
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.check("made", &["shop/web web.k8s.example.com staff first-token"], &[("Route shop/web", GOOD)]);
    scene.token("second-token");
    scene.check("the token is rotated", &["shop/web web.k8s.example.com staff second-token"], &[("Route shop/web", GOOD)]);
    scene.delete("Route shop/web");
    scene.check("deleted", &[], &[]);
}

#[test]
fn a_mistake_leaves_the_last_good_version_and_reads_as_in_the_file() {
    let mut scene = Scene::new();
    let served = &["shop/web web.k8s.example.com staff first-token"];
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.check("good", served, &[]);
    scene.route("shop/web", "web.k8s.example.com", "user.emial == \"a\"");
    let said = "Accepted=Invalid ResolvedRefs=ResolvedRefs Programmed=PreviousInForce\n\
                Route shop/web: spec.policy[0].allow:1:6: unknown field `emial`\n    did you mean `email`?";
    scene.check("broken", served, &[("Route shop/web", said)]);
    scene.put("Route shop/web", "{host: web.k8s.example.com, kubernetes: {server: 'http://x', impersonat: {}}, policy: []}");
    let merged = scene.merge();
    let verdict = merged.verdicts.iter().find(|verdict| verdict.id.kind == Kind::Route).unwrap();
    let text = verdict.errors().collect::<Vec<_>>().join("\n");
    for part in [
        "Route shop/web: spec.kubernetes: unknown key `impersonat`\n    did you mean `impersonate`?",
        "Route shop/web: spec.kubernetes: the key `ca` is missing",
        "Route shop/web: spec.policy: is empty",
        "Route shop/web: spec.kubernetes.server: must be an https URL",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    scene.route("shop/web", "web.k8s.example.com", "false");
    scene.check("repaired", served, &[("Route shop/web", GOOD)]);
    scene.delete("Route shop/web");
    scene.check("deleted", &[], &[]);
    scene.route("shop/web", "web.k8s.example.com", "user.emial");
    scene.check("made anew with a mistake, it inherits nothing", &[], &[]);
}

#[test]
fn a_bad_object_stops_no_other() {
    let mut scene = Scene::new();
    scene.route("shop/bad", "bad.k8s.example.com", "nonsense(");
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.put("Gateway kubepass/broken", "{hosts: [UPPER], namespaces: [shop]}");
    scene.put("Policy shop/broken", "{rules: [{allow: 'nope'}]}");
    scene.check("others", &["shop/web web.k8s.example.com staff first-token"], &[]);
}

#[test]
fn what_it_refers_to_must_be_there_and_permitted() {
    let mut scene = Scene::new();
    let spec =
        |token: &str| ROUTE.replace("HOST", "web.k8s.example.com").replace("RULE", "'true'").replace("{name: token, key: token}", token);
    let unresolved = |reason: &str, message: &str| {
        format!(
            "Accepted=Accepted ResolvedRefs={reason} Programmed=NotInForce\nRoute shop/web: spec.kubernetes.impersonate.token: cannot read {message}"
        )
    };
    scene.put("Route shop/web", &spec("{name: other, key: token}"));
    let said = unresolved("RefNotFound", "`token` of Secret shop/other: it is not there, or lacks the label kubepass.dev/use: \"true\"");
    scene.check("no such Secret", &[], &[("Route shop/web", &said)]);
    scene.put("Route shop/web", &spec("{name: token, key: other}"));
    let said = unresolved("RefNotFound", "`other` of Secret shop/token: it has no such key");
    scene.check("no such key", &[], &[("Route shop/web", &said)]);
    scene.put("Route shop/web", &spec("{name: token, key: token, namespace: bank}"));
    let said =
        unresolved("RefNotPermitted", "`token` of Secret bank/token: no Grant in the namespace bank lets a Route of shop refer to it");
    scene.check("not permitted", &[], &[("Route shop/web", &said)]);

    let served = &["shop/web web.k8s.example.com staff first-token"];
    for (what, grant, permits) in [
        ("another kind", "{from: [{kind: Gateway, namespace: shop}], to: [{kind: Secret, name: token}]}", false),
        ("another namespace", "{from: [{kind: Route, namespace: other}], to: [{kind: Secret, name: token}]}", false),
        ("another Secret", "{from: [{kind: Route, namespace: shop}], to: [{kind: Secret, name: other}]}", false),
        ("a ConfigMap", "{from: [{kind: Route, namespace: shop}], to: [{kind: ConfigMap, name: token}]}", false),
        ("a mistake", "{from: [{kind: Route, namespace: shop}], to: [{kind: Secret, name: token}, {kind: Pod, name: token}]}", false),
        ("the grant", "{from: [{kind: Route, namespace: shop}], to: [{kind: Secret, name: token}]}", true),
    ] {
        scene.put("Grant bank/for-shop", grant);
        scene.check(what, if permits { served } else { &[] }, &[]);
    }
    scene.put("Grant shop/for-shop", "{from: [{kind: Route, namespace: shop}], to: [{kind: Secret, name: token}]}");
    scene.delete("Grant bank/for-shop");
    scene.check("a Grant in another namespace than the target's", &[], &[("Route shop/web", &said)]);
}

#[test]
fn a_permission_that_was_taken_back_keeps_nothing_alive() {
    let mut scene = Scene::new();
    let spec = ROUTE.replace("HOST", "web.k8s.example.com").replace("RULE", "'true'");
    let granted = spec.replace("{name: token, key: token}", "{name: token, key: token, namespace: bank}");
    scene.put("Grant bank/for-shop", "{from: [{kind: Route, namespace: shop}], to: [{kind: Secret, name: token}]}");
    scene.put("Route shop/web", &granted);
    scene.merge();
    scene.put("Route shop/web", &granted.replace("'true'", "'nonsense('"));
    scene.check("the last good version", &["shop/web web.k8s.example.com staff first-token"], &[]);
    scene.delete("Grant bank/for-shop");
    scene.check("its Grant is gone", &[], &[]);
    scene.put("Grant bank/for-shop", "{from: [{kind: Route, namespace: shop}], to: [{kind: Secret, name: token}]}");
    scene.check("and nothing comes back by itself", &[], &[]);

    scene.put("Route shop/web", &granted);
    scene.merge();
    scene.put("Route shop/web", &granted.replace("'true'", "'nonsense('"));
    scene.check("the last good version again", &["shop/web web.k8s.example.com staff first-token"], &[]);
    scene.put("Gateway kubepass/main", "{hosts: ['*.k8s.example.com'], namespaces: [bank]}");
    let said = "Accepted=NotServed ResolvedRefs=ResolvedRefs Programmed=NotInForce\n\
                Route shop/web: spec.host: no Gateway serves the host `web.k8s.example.com` for the namespace shop";
    let verdict = scene.merge().verdicts.into_iter().find(|verdict| verdict.id.kind == Kind::Route).unwrap();
    assert!(verdict.errors().next().unwrap().starts_with(said.lines().nth(1).unwrap()), "{verdict:?}");
    scene.check("its Gateway serves others", &[], &[]);
    scene.put("Gateway kubepass/main", GATEWAY);
    scene.check("serves it again, but it is broken", &[], &[]);

    scene.put("Route shop/web", &spec);
    scene.merge();
    scene.token("two\nlines");
    scene.check("a Secret that cannot be used", &["shop/web web.k8s.example.com staff first-token"], &[]);
    scene.objects.materials.retain(|id, _| id.kind == MaterialKind::ConfigMap);
    scene.check("it is gone, or lost its label", &[], &[]);
    scene.token("second-token");
    scene.check("it is back", &["shop/web web.k8s.example.com staff second-token"], &[]);
}

#[test]
fn a_gateway_decides_what_is_served() {
    let mut scene = Scene::new();
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.route("other/web", "other.k8s.example.com", "true");
    scene.route("shop/wide", "pass2.example.com", "true");
    scene.check("by host and namespace", &["shop/web web.k8s.example.com staff first-token"], &[]);
    scene.put("Gateway shop/own", "{hosts: ['pass2.example.com'], namespaces: ['*']}");
    let said = "Accepted=ForeignNamespace ResolvedRefs=ResolvedRefs\nGateway shop/own: Gateways are taken from the namespace kubepass only";
    scene.check("not one of somebody else", &["shop/web web.k8s.example.com staff first-token"], &[("Gateway shop/own", said)]);
    scene.put("Gateway kubepass/main", "{hosts: ['UPPER'], namespaces: [bank]}");
    let said = "Accepted=Invalid ResolvedRefs=ResolvedRefs\n\
                Gateway kubepass/main: spec.hosts[0]: `UPPER` must be in lower case\n    write a DNS name, or for every host below one *.k8s.example.com";
    scene.check("a broken change is none", &["shop/web web.k8s.example.com staff first-token"], &[("Gateway kubepass/main", said)]);
    scene.delete("Gateway kubepass/main");
    scene.check("without one nothing is", &[], &[]);
}

#[test]
fn a_gateways_rules_hold_for_all_at_once() {
    let mut scene = Scene::new();
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.route("shop/old", "old.k8s.example.com", "true");
    scene.merge();
    scene.route("shop/old", "old.k8s.example.com", "nonsense(");
    scene.put("Policy kubepass/base", "{rules: [{name: bar, deny: 'false'}, {deny: 'false'}]}");
    scene.put("Gateway kubepass/main", &GATEWAY.replace("namespaces", "policies: [base], namespaces"));
    let with = |rules: &str| ["old", "web"].map(|name| format!("shop/{name} {name}.k8s.example.com {rules}staff first-token"));
    let by_age = |[old, web]: [String; 2]| [web, old];
    let check = |scene: &mut Scene, what: &str, rules: &str| {
        let served = by_age(with(rules));
        scene.check(what, &served.each_ref().map(String::as_str), &[]);
    };
    check(&mut scene, "a new rule, also for a Route that keeps its last good version", "main:base/bar,main:base/rule-2,");
    scene.put("Policy kubepass/base", "{rules: [{name: bar, deny: 'nonsense('}]}");
    check(&mut scene, "broken, it stays as it was", "main:base/bar,main:base/rule-2,");
    scene.put("Policy kubepass/base", "{rules: [{name: other, deny: 'false'}]}");
    check(&mut scene, "changed", "main:base/other,");
    scene.put("Gateway kubepass/second", &GATEWAY.replace("namespaces", "policies: [absent], namespaces"));
    let said = "Accepted=Accepted ResolvedRefs=InvalidRef\nGateway kubepass/second: spec.policies[0]: there is no policy `absent` in the namespace kubepass";
    let served = by_age(with("main:base/other,"));
    scene.check("a Gateway without its rules serves nothing", &served.each_ref().map(String::as_str), &[("Gateway kubepass/second", said)]);
    scene.delete("Gateway kubepass/main");
    scene.check("and keeps nothing open", &[], &[]);
}

#[test]
fn policies_are_taken_in_by_name() {
    let mut scene = Scene::new();
    scene.put("Policy shop/team", "{rules: [{name: a, allow: 'true'}, {deny: 'false'}]}");
    scene.put(
        "Route shop/web",
        &ROUTE.replace("HOST", "web.k8s.example.com").replace("RULE", "'true'").replace("policy:", "policies: [team], policy:"),
    );
    scene.check(
        "before its own",
        &["shop/web web.k8s.example.com team/a,team/rule-2,staff first-token"],
        &[("Policy shop/team", "Accepted=Accepted")],
    );
    scene.put("Policy shop/team", "{rules: [{name: a, allow: 'true'}, {deny: 'nope'}]}");
    let said = "Accepted=Accepted ResolvedRefs=InvalidRef Programmed=PreviousInForce\nRoute shop/web: spec.policies[0]: the policy `team` has mistakes";
    scene.check("broken", &["shop/web web.k8s.example.com team/a,team/rule-2,staff first-token"], &[("Route shop/web", said)]);
    scene.delete("Policy shop/team");
    scene.put("Policy bank/team", "{rules: [{name: a, allow: 'true'}]}");
    let said = "Accepted=Accepted ResolvedRefs=InvalidRef Programmed=PreviousInForce\nRoute shop/web: spec.policies[0]: there is no policy `team` in the namespace shop";
    scene.check("gone", &["shop/web web.k8s.example.com team/a,team/rule-2,staff first-token"], &[("Route shop/web", said)]);
}

#[test]
fn of_two_that_do_not_go_together_the_older_wins_and_the_file_before_all() {
    let mut scene = Scene::new();
    scene.route("shop/younger", "web.k8s.example.com", "true");
    scene.route("bank/older", "web.k8s.example.com", "true");
    for (name, age) in [("Route shop/younger", 9), ("Route bank/older", 5)] {
        let object = scene.objects.objects.get_mut(&id_of(name)).unwrap();
        Arc::make_mut(object).created_at = age;
    }
    let refused = |message: &str| format!("Accepted=Conflicted ResolvedRefs=ResolvedRefs Programmed=NotInForce\n{message}");
    let said = refused("Route shop/younger: spec.host: another route has the host `web.k8s.example.com` already, in Route bank/older");
    scene.check(
        "by age",
        &["bank/older web.k8s.example.com staff first-token"],
        &[("Route shop/younger", &said), ("Route bank/older", GOOD)],
    );
    Arc::make_mut(scene.objects.objects.get_mut(&id_of("Route shop/younger")).unwrap()).created_at = 5;
    scene.check("of one age, by name", &["bank/older web.k8s.example.com staff first-token"], &[("Route shop/younger", &said)]);
    scene.delete("Route bank/older");
    scene.check("the older is gone", &["shop/younger web.k8s.example.com staff first-token"], &[("Route shop/younger", GOOD)]);
    scene.route("shop/prod", "prod.k8s.example.com", "true");
    let said = refused("Route shop/prod: spec.host: another route has the host `prod.k8s.example.com` already, in the configuration file");
    scene.check("the file wins", &["shop/younger web.k8s.example.com staff first-token"], &[("Route shop/prod", &said)]);
}

#[test]
fn audiences_belong_to_one_namespace() {
    let mut scene = Scene::new();
    let jwt = |host: &str, server: &str, jwt: &str| {
        format!(
            "{{host: {host}.k8s.example.com, kubernetes: {{server: 'https://{server}', ca: {{config_map: {{name: ca, key: ca.crt}}}}, jwt: {{{jwt}}}}}, policy: [{{allow: 'true'}}]}}"
        )
    };
    scene.put("Gateway kubepass/main", &GATEWAY.replace("bank]", "bank, kubepass]"));
    scene.material(MaterialKind::ConfigMap, "kubepass", "ca", "1", &[("ca.crt", CA)]);
    scene.put("Route shop/a", &jwt("a", "10.0.0.5", "audience: shop/one, shared_audience: true"));
    scene.put("Route shop/b", &jwt("b", "10.0.0.6", "audience: shop/one, shared_audience: true"));
    scene.put("Route shop/c", &jwt("c", "10.0.0.7", "audience: shop/one"));
    scene.put("Route bank/d", &jwt("d", "10.0.0.5", "audience: shop/one, shared_audience: true"));
    scene.put("Route kubepass/e", &jwt("e", "10.0.0.1", "audience: prod, shared_audience: true"));
    scene.put("Route kubepass/f", &jwt("f", "10.0.0.8", "audience: 'https://prod.k8s.example.com'"));
    scene.put("Route kubepass/g", &jwt("g", "10.0.0.9", "audience: late.k8s.example.com"));
    scene.route("bank/late", "late.k8s.example.com", "true");
    let said = |id: &str| {
        let verdict =
            Scene::merge(&mut Scene { memory: Memory::default(), objects: scene.objects.clone(), file: scene.file.clone(), made: 0 });
        let verdict = verdict.verdicts.into_iter().find(|verdict| verdict.id.to_string() == id).unwrap();
        verdict.errors().collect::<Vec<_>>().join("\n")
    };
    assert!(
        said("Route shop/c").contains("spec.kubernetes.jwt.audience: another cluster has the audience `shop/one` already, in Route shop/a")
    );
    assert!(
        said("Route bank/d").contains("another cluster has the audience `shop/one` already, in Route shop/a"),
        "the same cluster, by another policy"
    );
    assert!(said("Route kubepass/e").contains("already, in the configuration file"));
    assert!(said("Route kubepass/f").contains("names the host prod.k8s.example.com"));
    assert!(said("Route bank/late").contains("another route has the audience `late.k8s.example.com`, which names this host"));
    scene.check(
        "the others",
        &["shop/a a.k8s.example.com rule-1", "shop/b b.k8s.example.com rule-1", "kubepass/g g.k8s.example.com rule-1"],
        &[],
    );
}

/// A cluster takes tokens for its audience whoever brings them, also while its own route is not there.
#[test]
fn no_namespace_gets_tokens_for_what_is_anothers() {
    let mut scene = Scene::new();
    let mut check = |namespace: &str, target: &str, taken: bool| {
        scene.put("Gateway kubepass/main", "{hosts: ['*.k8s.example.com'], namespaces: [shop, kubepass]}");
        for of in ["shop", "kubepass"] {
            scene.material(MaterialKind::ConfigMap, of, "ca", "1", &[("ca.crt", CA)]);
        }
        let id = format!("Route {namespace}/web");
        scene.put(&id, &format!("{{host: web.k8s.example.com, {target}, policy: [{{allow: 'true'}}]}}"));
        let merged = scene.merge();
        let verdict = merged.verdicts.iter().find(|verdict| verdict.id.to_string() == id).unwrap();
        let text = verdict.errors().collect::<Vec<_>>().join("\n");
        assert_eq!(merged.config.routes.len() == 2, taken, "{namespace} {target}: {text}");
        assert_eq!(text.contains("is none of the namespace"), !taken, "{namespace} {target}: {text}");
        scene.delete(&id);
    };
    let jwt = |audience: &str| {
        format!(
            "kubernetes: {{server: 'https://10.9.9.9', ca: {{config_map: {{name: ca, key: ca.crt}}}}, jwt: {{audience: '{audience}'}}}}"
        )
    };
    let http = |audience: &str| format!("http: {{upstream: 'http://10.9.9.9', audience: '{audience}'}}");
    for audience in ["lab", "shop", "shopping/lab", "Shop/lab", "bank/lab", "/shop/lab"] {
        check("shop", &jwt(audience), false);
        check("shop", &http(audience), false);
        check("kubepass", &jwt(audience), true);
    }
    check("shop", &jwt("shop/lab"), true);
    check("shop", &http("shop/lab"), true);
    check("shop", &http("https://web.k8s.example.com"), true);
    check("shop", &http("https://late.k8s.example.com"), false);
    check("shop", "http: {upstream: 'http://10.9.9.9'}", true);
}

#[test]
fn a_host_stays_with_its_oldest_route_while_that_cannot_be_in_force() {
    let mut scene = Scene::new();
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.route("bank/squatter", "web.k8s.example.com", "true");
    let said = "Accepted=Conflicted ResolvedRefs=ResolvedRefs Programmed=NotInForce\n\
                Route bank/squatter: spec.host: another route has the host `web.k8s.example.com` already, in Route shop/web";
    let said = [("Route bank/squatter", said)];
    scene.check("two", &["shop/web web.k8s.example.com staff first-token"], &said);
    let token = MaterialId { kind: MaterialKind::Secret, namespace: "shop".to_owned(), name: "token".to_owned() };
    let kept = scene.objects.materials.remove(&token).unwrap();
    scene.check("its Secret is made anew", &[], &said);
    scene.objects.materials.insert(token, kept);
    scene.check("and is there", &["shop/web web.k8s.example.com staff first-token"], &said);
    scene.route("shop/web", "web.k8s.example.com", "nonsense(");
    scene.memory = Memory::default();
    scene.check("a mistake, and a start", &[], &said);
    scene.put("Gateway kubepass/main", "{hosts: ['*.k8s.example.com'], namespaces: [bank]}");
    scene.check("it may have the host no more", &["bank/squatter web.k8s.example.com staff first-token"], &[("Route bank/squatter", GOOD)]);
    scene.put("Gateway kubepass/main", GATEWAY);
    scene.delete("Route shop/web");
    scene.check("it is gone", &["bank/squatter web.k8s.example.com staff first-token"], &[("Route bank/squatter", GOOD)]);
}

/// The rules that are missing may be those that keep people out.
#[test]
fn without_the_rules_of_one_of_its_gateways_a_route_does_not_begin() {
    let mut scene = Scene::new();
    scene.route("shop/web", "web.k8s.example.com", "true");
    scene.route("bank/web", "other.k8s.example.com", "true");
    let both = ["shop/web web.k8s.example.com staff first-token", "bank/web other.k8s.example.com staff first-token"];
    scene.check("one Gateway", &both, &[]);
    let strict = "{hosts: ['*.k8s.example.com'], namespaces: [shop], policies: [strict]}";
    scene.put("Gateway kubepass/strict", strict);
    let said = |in_force: &str| {
        format!(
            "Accepted=Invalid ResolvedRefs=ResolvedRefs Programmed={in_force}\nRoute shop/web: spec.host: the Gateway strict serves it too, \
             and has mistakes: its rules may be what keeps people out"
        )
    };
    scene.check(
        "one more with a mistake changes nothing",
        &both,
        &[("Route shop/web", &said("PreviousInForce")), ("Route bank/web", GOOD)],
    );
    scene.memory = Memory::default();
    scene.check("but after a start", &[both[1]], &[("Route shop/web", &said("NotInForce"))]);
    scene.put("Gateway kubepass/strict", &strict.replace("policies:", "polices:"));
    scene.memory = Memory::default();
    scene.check("whatever the mistake", &[both[1]], &[("Route shop/web", &said("NotInForce"))]);
    scene.put("Gateway kubepass/strict", strict);
    scene.put("Policy kubepass/strict", "{rules: [{name: nobody, deny: 'true'}]}");
    let repaired = ["shop/web web.k8s.example.com strict:strict/nobody,staff first-token", both[1]];
    scene.check("repaired", &repaired, &[("Route shop/web", GOOD)]);
}

/// Rules are compiled for every Route: what one namespace asks for must not keep the changes of others waiting.
#[test]
fn one_namespace_has_room_for_so_many_rules() {
    let mut scene = Scene::new();
    // About 8 KiB each: 31 of them fit into a Route, and 33 of such Routes into the namespace.
    let long = |count: usize| {
        let rule = format!("{{allow: '\"{}\" == user.name'}}", "x".repeat(8_000));
        format!("{{rules: [{}]}}", vec![rule; count].join(", "))
    };
    scene.put("Policy shop/long", &long(31));
    scene.put("Policy shop/longer", &long(33));
    let naming = |host: &str, policy: &str| {
        let spec = ROUTE.replace("HOST", host).replace("policy: [{name: staff, allow: RULE}]", &format!("policies: [{policy}]"));
        assert!(spec.contains("policies"));
        spec
    };
    scene.put("Route shop/longer", &naming("longer.k8s.example.com", "longer"));
    for number in 0..34 {
        scene.put(&format!("Route shop/r{number:02}"), &naming(&format!("r{number}.k8s.example.com"), "long"));
    }
    scene.route("bank/web", "web.k8s.example.com", "true");
    let merged = scene.merge();
    let said = |id: &str| {
        let verdict = merged.verdicts.iter().find(|verdict| verdict.id.to_string() == id).unwrap();
        verdict.errors().collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        said("Route shop/longer"),
        "Route shop/longer: spec.policy: the rules of this Route and of its policies are together longer than 256 KiB"
    );
    assert_eq!((said("Route shop/r31").as_str(), said("Route bank/web").as_str()), ("", ""));
    assert!(said("Route shop/r33").contains("of the older Routes of the namespace shop"), "{}", said("Route shop/r33"));
    assert!(merged.config.routes.iter().any(|route| &*route.name == "bank/web"), "the youngest, of another namespace");
}

#[test]
fn equal_rules_are_compiled_once_for_all_routes() {
    let mut scene = Scene::new();
    scene.route("shop/web", "web.k8s.example.com", "user.name == 'a'");
    scene.route("shop/same", "same.k8s.example.com", "user.name == 'a'");
    scene.route("shop/other", "other.k8s.example.com", "user.name == 'b'");
    let rules = |merged: &Merged, name: &str| {
        let route = merged.config.routes.iter().find(|route| route.name == name).unwrap();
        route.policy.rules().as_ptr()
    };
    let first = scene.merge();
    assert_eq!(rules(&first, "shop/web"), rules(&first, "shop/same"));
    assert_ne!(rules(&first, "shop/web"), rules(&first, "shop/other"));
    scene.route("shop/later", "later.k8s.example.com", "user.name == 'b'");
    assert_eq!(rules(&scene.merge(), "shop/later"), rules(&first, "shop/other"), "and for those that come later");
}

#[test]
fn a_host_needs_a_certificate_which_a_gateway_can_bring() {
    let mut scene = Scene::new();
    scene.put("Gateway kubepass/apps", "{hosts: ['*.apps.example.com', pass.example.com], namespaces: [shop]}");
    scene.route("shop/app", "a.apps.example.com", "true");
    scene.route("shop/login", "pass.example.com", "true");
    let said = "Accepted=NoCertificate ResolvedRefs=ResolvedRefs Programmed=NotInForce\n\
                Route shop/app: spec.host: no certificate of the listener 127.0.0.1:443 covers `a.apps.example.com`\n    \
                a Gateway that serves the host can bring one under `certificates`";
    let login = "Accepted=Conflicted ResolvedRefs=ResolvedRefs Programmed=NotInForce\n\
                 Route shop/login: spec.host: `pass.example.com` is the host of `public_url`\n    \
                 login pages and routes must not share a host, or a cluster could read login cookies";
    scene.check("no certificate", &[], &[("Route shop/app", said), ("Route shop/login", login)]);
    let certificates = "certificates: [{chain: {secret: {name: tls, key: tls.crt}}, key: {secret: {name: tls, key: tls.key}}}], hosts";
    scene.put("Gateway kubepass/apps", &format!("{{{certificates}: ['*.apps.example.com'], namespaces: [shop]}}"));
    assert_eq!(scene.merge().config.listeners[0].certificates.len(), 1, "not there");
    scene.material(MaterialKind::Secret, "kubepass", "tls", "1", &[("tls.crt", CHAIN), ("tls.key", KEY)]);
    let merged = scene.merge();
    assert_eq!(merged.config.listeners[0].certificates.len(), 2);
    scene.material(MaterialKind::Secret, "kubepass", "tls", "2", &[("tls.crt", b"broken"), ("tls.key", KEY)]);
    let merged = scene.merge();
    assert_eq!(merged.config.listeners[0].certificates.len(), 2, "the last good one stays");
    let verdict = merged.verdicts.iter().find(|verdict| verdict.id.name == "apps").unwrap();
    assert!(
        verdict
            .errors()
            .next()
            .unwrap()
            .starts_with("Gateway kubepass/apps: spec.certificates[0].chain: `tls.crt` of Secret kubepass/tls holds no"),
        "{verdict:?}"
    );
}

#[test]
fn a_gateway_says_where_its_routes_are_served() {
    let mut scene = Scene::new();
    let nodes = "nodes: [{name: edge-1, identity: {uid: 1}}, {name: edge-2, identity: {uid: 2}}]\n";
    let listener = "listeners: [{address: \"127.0.0.1:444\", certificates: [{chain: {file: tls.crt}, key: {file: tls.key}}]}]";
    scene.file = file(&format!("{FILE}{nodes}gateways: [{{name: public, selector: {{nodes: [edge-1]}}, {listener}}}]\n"));
    scene.material(MaterialKind::Secret, "kubepass", "tls", "1", &[("tls.crt", CHAIN), ("tls.key", KEY)]);
    scene.route("shop/web", "web.k8s.example.com", "true");
    let certificates = "certificates: [{chain: {secret: {name: tls, key: tls.crt}}, key: {secret: {name: tls, key: tls.key}}}]";
    let mut check = |what: &str, scope: &str, want: &str, said: &str| {
        scene.put("Gateway kubepass/main", &GATEWAY.replace("hosts", &format!("{certificates}, {scope}hosts")));
        let Merged { config, verdicts, .. } = scene.merge();
        let route = &config.routes[1];
        let at = |listeners: &[crate::config::Listener]| listeners[0].certificates.len();
        let got = format!("{:?} {:?} {}+{}", route.nodes, route.gateways, at(&config.listeners), at(&config.gateways[0].listeners));
        assert_eq!(got, want, "{what}");
        let verdict = verdicts.iter().find(|verdict| verdict.id.kind == Kind::Gateway).unwrap();
        assert_eq!(verdict.errors().collect::<Vec<_>>().join("\n"), said, "{what}");
    };
    check("everywhere", "", "None None 2+2", "");
    check("one node", "nodes: [edge-2], ", r#"Some(["edge-2"]) None 2+1"#, "");
    check("one in a gateway", "nodes: [edge-1], ", r#"Some(["edge-1"]) None 1+2"#, "");
    check("a gateway", "gateways: [public], ", r#"None Some(["public"]) 1+2"#, "");
    let said = "Gateway kubepass/main: spec.nodes[0]: there is no node `edge-3`\n    did you mean `edge-1`?";
    check("nowhere", "nodes: [edge-3], ", "Some([]) None 1+1", said);
    scene.put("Route shop/web", &ROUTE.replace("HOST", "web.k8s.example.com, nodes: [edge-1]").replace("RULE", "'true'"));
    let errors =
        scene.merge().verdicts.iter().flat_map(|verdict| verdict.errors().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>();
    assert!(errors.iter().any(|error| error.contains("unknown key `nodes`")), "not for a Route to say: {errors:?}");
}

#[test]
fn what_did_not_change_is_not_made_again() {
    let mut scene = Scene::new();
    scene.route("shop/a", "a.k8s.example.com", "true");
    scene.route("shop/b", "b.k8s.example.com", "true");
    let before = scene.merge();
    scene.route("shop/b", "b.k8s.example.com", "false");
    let after = scene.merge();
    assert!(Arc::ptr_eq(&before.config.routes[1], &after.config.routes[1]), "a was made again");
    assert!(!Arc::ptr_eq(&before.config.routes[2], &after.config.routes[2]));
    assert_ne!(before.identity, after.identity);
    let identity = scene.merge().identity;
    assert_eq!(after.identity, identity);
    scene.memory = Memory::default();
    assert_eq!(scene.merge().identity, identity, "another replica finds the same");
}

#[test]
fn an_object_brings_in_no_file_no_variable_and_no_secret_in_clear() {
    let mut scene = Scene::new();
    let check = |scene: &mut Scene, token: &str, want: &str| {
        let spec =
            ROUTE.replace("HOST", "web.k8s.example.com").replace("RULE", "'true'").replace("{secret: {name: token, key: token}}", token);
        scene.put("Route shop/web", &spec);
        let merged = scene.merge();
        assert_eq!(merged.config.routes.len(), 1, "{token}");
        let text = merged.verdicts.iter().flat_map(|verdict| verdict.errors()).collect::<Vec<_>>().join("\n");
        assert!(text.contains(want) && !text.contains("hunter2"), "{text}");
    };
    check(&mut scene, "{file: /etc/shadow}", "unknown key `file`\n    keys that may stand here: secret");
    check(&mut scene, "{env: HOME}", "unknown key `env`");
    check(
        &mut scene,
        "hunter2",
        "a secret must not stand in the configuration itself\n    put the secret into a Secret and write {secret: {name: NAME, key: KEY}}",
    );
    check(&mut scene, "{config_map: {name: ca, key: ca.crt}}", "unknown key `config_map`");
}
