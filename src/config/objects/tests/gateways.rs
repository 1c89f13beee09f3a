//! What gateways decide: which routes are served, where, by which rules and with which certificates.

use super::*;

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
