//! Objects of several namespaces beside each other: none takes what is another's.

use super::*;

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
