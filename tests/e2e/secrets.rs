//! Secrets that cannot be mistaken stand in every place where one can, an installation is used with every log open, and then everything that it
//! said, wrote or left behind is searched for them, in every form in which a secret comes along.

mod needles;
mod places;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use self::needles::Needles;
use super::objects;
use super::support::idp::CLIENT_SECRET;
use super::support::person::Person;
use super::support::pki;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{Method, POLICY, PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};

/// What keys of kubepass's own derive from.
const SECRET: &str = "PLANTED-secret-u7Jq2vXw9Lk4Rt6Zb1Nc8Md3Fs5Gh0Py";
const CLIENT_SECRET_VARIABLE: &str = "PLANTED_CLIENT_SECRET_VARIABLE";
/// Stands in the wrong places of configurations that are refused.
const MISPLACED: &str = "PLANTED-misplaced-Xc5Vb7Nm1Qw3Er9Ty2Ui4Op6As8Df";
const SOURCE: &str = "assertion_keys: [{file: assertion.pem}]\n\
    cluster_source: {namespace: kubepass, namespaces: [shop, bank], kubeconfig: source.kubeconfig, lease: {duration: 3s}}";
/// Files of kubepass's folder that an operator put there, for the secrets in them.
const HELD: [&str; 8] =
    ["secret", "client-secret", "signing.pem", "assertion.pem", "tls.key", "prod-token", "staging-token", "source.kubeconfig"];

#[test]
fn nothing_that_is_said_or_left_behind_holds_a_secret() {
    let mut world = planted();
    world.start_server(&["up", "--envoy", &world.tools().envoy().display().to_string(), "--log", "trace"]);
    world.trust("staging", &world.staging);
    let people = ["foo", "bar"].map(|name| world.person(name));
    let mut said = use_it(&world, &people);
    said.extend(go_wrong(&world));

    let needles = needles(&world, &people);
    assert!(needles.count() >= 20, "{} secrets were planted", needles.count());
    let places = places::of(&mut world, said);
    let empty: Vec<&str> =
        places.iter().filter(|place| place.bytes.is_empty() && !place.may_be_empty).map(|place| place.name.as_str()).collect();
    assert!(empty.is_empty(), "looked at in vain: {empty:?}");
    let findings: Vec<String> = places.iter().flat_map(|place| needles.find(place)).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));

    no_core_files(&mut world);
    world.stop_kubepass(false);
    let left = places::files(&world);
    let findings: Vec<String> = left.iter().flat_map(|place| needles.find(place)).collect();
    assert!(findings.is_empty(), "left behind:\n{}", findings.join("\n"));
}

/// Everything but kubepass, with a secret wherever there can be one.
fn planted() -> World {
    let run = Run::new("secrets");
    let environment = [
        (CLIENT_SECRET_VARIABLE, CLIENT_SECRET.to_owned()),
        ("TMPDIR", run.dir("kubepass/tmp").display().to_string()),
        ("RUST_BACKTRACE", "full".to_owned()),
    ];
    let options = WorldOptions {
        staging: Method::Jwt,
        top_level: SOURCE.to_owned(),
        server_env: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..WorldOptions::default()
    };
    let world = World::prepare(Tools::ensure(), run, options);
    world.secret("secret", SECRET);
    world.secret("assertion.pem", &pki::key_pair().0);
    let text = configuration(&world);
    world.write_config(&text);
    world.permit("prod", &world.prod);
    for cluster in [&world.prod, &world.staging] {
        let who = ["--user=foo@example.com", "--user=bar@example.com"];
        cluster.kubectl_admin(&["create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", who[0], who[1]]).ok();
    }
    objects::install(&world, &world.staging);
    world
}

fn configuration(world: &World) -> String {
    let text = world.config(POLICY);
    let with_variable = text.replace("client_secret: {file: client-secret}", &format!("client_secret: {{env: {CLIENT_SECRET_VARIABLE}}}"));
    assert_ne!(text, with_variable);
    with_variable
}

/// What people and an operator do on a usual day; returns what the operator was shown.
fn use_it(world: &World, people: &[Person; 2]) -> Vec<(String, String)> {
    for person in people {
        for host in [STAGING_HOST, PROD_HOST] {
            person.set_up(&world.url(host)).ok();
            person.kubectl(&["get", "pods"]).ok();
            person.kubectl(&["exec", "web", "--", "echo", "hello"]).ok();
            let _ = person.kubectl(&["get", "secrets"]);
            let _ = person.kubectl(&["get", "pods", "--as", "someone"]);
        }
        person.visit(&format!("{}/", world.url(PUBLIC_HOST)));
    }
    // What does not verify, and what is in the wrong place.
    let token = people[0].session_token(&world.url(PROD_HOST));
    let get = |host: &str| world.client().get(format!("https://{host}/api/v1/namespaces/default/pods"));
    let answers = [
        get(PROD_HOST).bearer_auth(format!("{}x", &token[..token.len() - 1])),
        get(STAGING_HOST).bearer_auth(&token),
        get(PROD_HOST).bearer_auth(&token).header("sec-websocket-protocol", format!("base64url.bearer.authorization.k8s.io.{token}")),
        get(PROD_HOST).bearer_auth(&token).header("authorization", format!("Bearer {token}")),
        get(PROD_HOST).header("cookie", format!("__Host-kubepass={token}")),
        get(PROD_HOST).basic_auth("foo", Some(&token)),
        get(PUBLIC_HOST).bearer_auth(&token),
    ];
    let mut said = Vec::new();
    for (number, request) in answers.into_iter().enumerate() {
        let answer = request.send().unwrap();
        assert_ne!(answer.status(), 200, "request {number}");
        said.push((format!("the answer to wrong request {number}"), format!("{answer:?}") + &answer.text().unwrap_or_default()));
    }
    let changed = world.run.write("kubepass/changed.yaml", configuration(world).replace("name: staging", "name: other"));
    let changed = changed.display().to_string();
    let verbs: [&[&str]; 13] = [
        &["state"],
        &["session", "list"],
        &["keys", "list"],
        &["xds", "status"],
        &["xds", "dump"],
        &["xds", "diff", &changed],
        &["check-config"],
        &["bootstrap", "--node", "one"],
        &["crds"],
        &["cluster", "rbac", "prod"],
        &["cluster", "source-rbac"],
        &["cluster", "authentication-config", "staging"],
        &["policy", "explain", "--route", "prod", "--user", "foo@example.com", "get", "pods"],
    ];
    said.extend(verbs.iter().map(|verb| (format!("kubepass-server {}", verb.join(" ")), world.operator(verb).ok())));
    said
}

/// Configurations with secrets in the wrong places, an identity provider that refuses, and a kubeconfig that is none; returns what was said.
fn go_wrong(world: &World) -> Vec<(String, String)> {
    let good = configuration(world);
    let wrong = [
        ("a secret as the value", good.replace(&format!("{{env: {CLIENT_SECRET_VARIABLE}}}"), MISPLACED)),
        ("a secret as the name of a variable", good.replace(CLIENT_SECRET_VARIABLE, &format!("\"{MISPLACED} \""))),
        ("a quote that does not end", good.replace(&format!("{{env: {CLIENT_SECRET_VARIABLE}}}"), &format!("\"{MISPLACED}"))),
        ("a secret in a list", good.replace("[{file: secret}]", &format!("[{MISPLACED}]"))),
        ("a key that does not exist", good.replace("{file: secret}", &format!("{{file: secret, value: {MISPLACED}}}"))),
        ("a token inline", good.replace("{file: prod-token}", MISPLACED)),
        ("two lines as a token", good.replace("{file: prod-token}", "{file: two-lines}")),
        ("no PEM", good.replace("{file: tls.key}", "{file: no-pem}")),
        ("broken PEM", good.replace("{file: signing.pem}", "{file: broken.pem}")),
        ("too short", good.replace("secrets: [{file: secret}]", "secrets: [{file: short}]")),
        ("the key where the certificate belongs", good.replace("{file: tls.crt}", "{file: tls.key}")),
        ("the configuration is the key", std::fs::read_to_string(world.run.file("kubepass/signing.pem")).unwrap()),
        ("the configuration is the secret", SECRET.to_owned()),
    ];
    world.secret("two-lines", &format!("{MISPLACED}\n{MISPLACED}\n"));
    world.secret("no-pem", MISPLACED);
    world.secret("short", &MISPLACED[..30]);
    world.secret("broken.pem", &format!("-----BEGIN PRIVATE KEY-----\n{MISPLACED}\n-----END PRIVATE KEY-----\n"));
    let mut said = Vec::new();
    let rejected = || world.metric(&["kubepass_config_reloads_total", "rejected"]).concat();
    for (what, text) in wrong {
        assert_ne!(text, good, "{what}");
        let before = rejected();
        world.write_config(&text);
        eventually(what, std::time::Duration::from_secs(10), || (rejected() != before).then_some(()));
        said.push((what.to_owned(), world.operator(&["check-config"]).err()));
        let state = world.operator(&["state"]);
        said.push((format!("the state after: {what}"), state.stdout + &state.stderr));
    }
    let (kubeconfig, away) = (world.run.file("kubepass/source.kubeconfig"), world.run.file("kubepass/source.away"));
    std::fs::rename(&kubeconfig, &away).unwrap();
    world.write_config(&good);
    for text in [format!("users: [{{name: x, user: {{token: {MISPLACED}"), MISPLACED.to_owned(), format!("token: \"{MISPLACED}\"\n\t- x")] {
        world.secret("source.kubeconfig", &text);
        said.push(("a kubeconfig that is none".to_owned(), world.operator(&["serve", "--log", "trace"]).err()));
    }
    std::fs::rename(&away, &kubeconfig).unwrap();
    ["two-lines", "no-pem", "short", "broken.pem"]
        .iter()
        .for_each(|name| std::fs::remove_file(world.run.file(&format!("kubepass/{name}"))).unwrap());

    let newcomer = world.person("foo");
    for failure in
        [json!({"token": {"status": 401, "body": {"error": "invalid_client"}}}), json!({"token": {"status": 200, "body": "no JSON"}})]
    {
        world.idp.set(&json!({"fail": failure}));
        let page = newcomer.visit(&format!("{}/login", world.url(PUBLIC_HOST)));
        assert_ne!(page.status, 200, "{page}");
        said.push(("a login that failed".to_owned(), page.body));
    }
    world.idp.behave();
    said
}

fn needles(world: &World, people: &[Person; 2]) -> Needles {
    let mut needles = Needles::default();
    needles.text("the secret", SECRET);
    needles.text("the client secret", CLIENT_SECRET);
    needles.text("the misplaced secret", &MISPLACED[..28]);
    for name in ["signing.pem", "assertion.pem", "tls.key"] {
        needles.private_key(name, &std::fs::read_to_string(world.run.file(&format!("kubepass/{name}"))).unwrap());
    }
    needles.jwt("prod-token", &std::fs::read_to_string(world.run.file("kubepass/prod-token")).unwrap());
    let kubeconfig = std::fs::read_to_string(world.run.file("kubepass/source.kubeconfig")).unwrap();
    needles.jwt("the token of the kubeconfig", kubeconfig.split("token: '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap());
    for (number, issued) in world.idp.issued().iter().enumerate() {
        needles.jwt(&format!("ID token {number}"), issued["id_token"].as_str().unwrap());
        needles.text(&format!("access token {number}"), issued["access_token"].as_str().unwrap());
    }
    for person in people {
        for (name, token) in places::cached_tokens(&person.home) {
            needles.jwt(&format!("{}'s {name}", person.login), &token);
        }
        for hop in person.last_page().hops {
            let url = url::Url::parse(&hop.url).unwrap();
            let secret = url.query_pairs().find(|(key, _)| key == "code").map(|(_, value)| value.into_owned());
            if let Some(code) = secret {
                needles.text(&format!("{}'s code at {}", person.login, url.path()), &code);
            }
        }
        person.browse(|browser| {
            for cookie in browser.jar.cookies.iter().filter(|cookie| cookie.name.contains("kubepass")) {
                needles.text(&format!("{}'s cookie {}", person.login, cookie.name), &cookie.value);
            }
        });
    }
    needles
}

/// Neither of kubepass nor of its Envoy; and nobody but them reads their environment.
fn no_core_files(world: &mut World) {
    let server = world.server().id();
    let mut all = super::support::processes::envoys(world);
    assert_eq!(all.len(), 1);
    all.push(server);
    for pid in all {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{pid}: {core}");
        let mode = std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{pid}");
    }
}
