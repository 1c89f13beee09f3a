#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod gateways;
mod namespaces;

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
