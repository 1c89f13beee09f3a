//! Configuration by objects of a real API server: applied, changed, broken, repaired, deleted; what they refer to; what they must not; the API
//! server away; two kubepass and one Lease. kubepass runs with the service account that `cluster source-rbac` prints, and no other right.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::support::cluster::Cluster;
use super::support::http;
use super::support::jwt;
use super::support::kubectl::Kubectl;
use super::support::pki::Authority;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::{eventually, eventually_ok};
use super::support::world::{NAMESPACE, PROD_HOST, PUBLIC_HOST, SERVICE_ACCOUNT, STAGING_HOST, World, WorldOptions, server_binary};

mod outage;
mod replicas;

pub(super) const WEB: &str = "web.obj.localhost";
pub(super) const OTHER: &str = "other.obj.localhost";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
/// By when a change must be in force.
const IN_FORCE: Duration = Duration::from_secs(3);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The objects stand in `staging`; the routes that they make lead to `prod`.
pub(super) struct Stage {
    pub(super) world: World,
}

impl Stage {
    /// Everything but kubepass itself and its Routes.
    pub(super) fn prepare(name: &str) -> Self {
        let source =
            "cluster_source: {namespace: kubepass, namespaces: [shop, bank], kubeconfig: source.kubeconfig, lease: {duration: 3s}}";
        let options = WorldOptions { top_level: source.to_owned(), ..WorldOptions::default() };
        let world = World::prepare(Tools::ensure(), Run::new(name), options);
        world.permit("prod", &world.prod);
        world.permit("staging", &world.staging);
        for host in [WEB, OTHER, "shop.obj.localhost"] {
            world.proxy.map(&format!("{host}:443"), world.port);
        }
        let pair = world.authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST, "*.obj.localhost"]);
        world.run.write("kubepass/tls.crt", &pair.cert);
        world.secret("tls.key", &pair.key);
        let stage = Self { world };
        install(&stage.world, stage.cluster());
        stage
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.world.staging
    }

    pub(super) fn apply(&self, object: &Value) {
        self.cluster().apply(&object.to_string());
    }

    pub(super) fn gateway(&self, spec: &Value) {
        self.apply(&object("Gateway", "kubepass", "main", spec));
    }

    fn token(&self, namespace: &str, token: &str) {
        self.apply(&token_secret(namespace, token));
    }

    /// A Route to `prod` with one rule besides `staff`.
    pub(super) fn route(&self, namespace: &str, name: &str, host: &str, deny: &str) {
        self.apply(&object("Route", namespace, name, &route_spec(&self.world.prod, host, "shop", deny)));
    }

    /// A condition of an object: status, reason, message.
    pub(super) fn condition(&self, kind: &str, namespace: &str, name: &str, condition: &str) -> Option<[String; 3]> {
        let text = self.cluster().kubectl_admin(&["get", kind, "-n", namespace, name, "-o", "json"]).ok();
        let object: Value = serde_json::from_str(&text).unwrap();
        if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
            return None;
        }
        let found = object["status"]["conditions"].as_array()?.iter().find(|found| found["type"] == condition)?.clone();
        Some(["status", "reason", "message"].map(|key| found[key].as_str().unwrap_or_default().to_owned()))
    }

    /// Waits for `TYPE=STATUS REASON`, then returns the message.
    pub(super) fn until_says(&self, kind: &str, id: &str, wanted: &str) -> String {
        let (namespace, name) = id.split_once('/').unwrap();
        let (condition, says) = wanted.split_once('=').unwrap();
        eventually_ok(&format!("{kind} {id} says {wanted}"), PATIENCE, || {
            let Some([status, reason, message]) = self.condition(kind, namespace, name, condition) else {
                return Err("no status of this generation".to_owned());
            };
            if format!("{status} {reason}") == says { Ok(message) } else { Err(format!("{status} {reason}: {message}")) }
        })
    }

    pub(super) fn get(&self, host: &str, token: Option<&str>, path: &str) -> (u16, String) {
        let mut request = self.world.client().get(format!("https://{host}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        match request.send() {
            Ok(answer) => (answer.status().as_u16(), answer.text().unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }

    pub(super) fn until_answers(&self, what: &str, host: &str, token: Option<&str>, path: &str, status: u16) -> String {
        eventually_ok(what, IN_FORCE, || {
            let (got, body) = self.get(host, token, path);
            if got == status { Ok(body) } else { Err(format!("{got} {body}")) }
        })
    }
}

/// As the README says: the definitions, the service account, and what it is reached by; and what Routes to `prod` need.
pub(super) fn install(world: &World, cluster: &Cluster) {
    cluster.apply(&world.operator(&["crds"]).ok());
    let crds = ["routes", "policies", "gateways", "grants"].map(|plural| format!("crd/{plural}.kubepass.dev"));
    let wait = [&["wait", "--for=condition=Established", "--timeout=30s"], crds.each_ref().map(String::as_str).as_slice()].concat();
    cluster.kubectl_admin(&wait).ok();
    for namespace in ["shop", "bank"] {
        cluster.kubectl_admin(&["create", "namespace", namespace]).ok();
    }
    cluster.apply(&world.operator(&["cluster", "source-rbac"]).ok());
    let token = cluster.create_token("kubepass", "kubepass-server");
    let ca = cluster.ca_file();
    world.secret(
        "source.kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: source\n\
             clusters: [{{name: source, cluster: {{server: '{}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: source, user: {{token: '{token}'}}}}]\n\
             contexts: [{{name: source, context: {{cluster: source, user: source}}}}]\n",
            cluster.url(),
            ca.display()
        ),
    );
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": labelled("shop", "prod-ca"), "data": {"ca.crt": world.prod.ca_pem()},
    });
    cluster.apply(&config_map.to_string());
    cluster.apply(&token_secret("shop", &world.prod.create_token(NAMESPACE, SERVICE_ACCOUNT)).to_string());
    let gateway = object("Gateway", "kubepass", "main", &json!({"hosts": ["*.obj.localhost"], "namespaces": ["shop", "bank"]}));
    cluster.apply(&gateway.to_string());
}

fn token_secret(namespace: &str, token: &str) -> Value {
    let value = base64::engine::general_purpose::STANDARD.encode(token);
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": labelled(namespace, "prod-token"), "data": {"token": value}})
}

pub(super) fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "kubepass.dev/v1alpha1", "kind": kind, "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn labelled(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name, "labels": {"kubepass.dev/use": "true"}})
}

/// `from`: the namespace of what it refers to.
pub(super) fn route_spec(prod: &Cluster, host: &str, from: &str, deny: &str) -> Value {
    json!({
        "host": host,
        "kubernetes": {
            "server": prod.url(),
            "ca": {"config_map": {"name": "prod-ca", "key": "ca.crt", "namespace": from}},
            "impersonate": {"token": {"secret": {"name": "prod-token", "key": "token", "namespace": from}}},
        },
        "policy": [{"name": "staff", "allow": "user.email.endsWith(\"@example.com\")"}, {"name": "more", "deny": deny, "message": "not today"}],
    })
}

#[test]
fn objects_are_configuration() {
    let mut stage = Stage::prepare("objects");
    let admin = ["create", "clusterrolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com"];
    stage.world.prod.kubectl_admin(&admin).ok();
    stage.world.start_kubepass();
    the_api_server_refuses_what_it_can(&stage);
    the_example_of_the_readme(&stage);
    let token = apply_and_use(&stage);
    change_break_and_repair(&stage, &token);
    rotate_the_token(&stage, &token);
    conflicts(&stage);
    squatters(&stage);
    grants(&stage);
    certificates(&stage);
    delete(&stage);
    stage.world.stop_kubepass(false);
}

fn the_api_server_refuses_what_it_can(stage: &Stage) {
    let refused = |what: &str, change: &dyn Fn(&mut Value), says: &str| {
        let mut spec = route_spec(&stage.world.prod, WEB, "shop", "false");
        change(&mut spec);
        let text = object("Route", "shop", "refused", &spec).to_string();
        let error = stage.cluster().admin().run_with(&["apply", "--dry-run=server", "-f", "-"], text.as_bytes()).err();
        assert!(error.contains(says), "{what}: {error}");
    };
    refused("two methods", &|spec| spec["kubernetes"]["jwt"] = json!({"audience": "x"}), "give one of `impersonate` and `jwt`");
    refused(
        "no method",
        &|spec| drop(spec["kubernetes"].as_object_mut().unwrap().remove("impersonate")),
        "give one of `impersonate` and `jwt`",
    );
    refused("two targets", &|spec| spec["http"] = json!({"upstream": "http://x"}), "a route leads to one of `kubernetes` and `http`");
    refused("no host", &|spec| spec["host"] = json!("UPPER"), "spec.host");
    refused("a file", &|spec| spec["kubernetes"]["impersonate"]["token"] = json!({"file": "/etc/passwd"}), "unknown field");
    refused("an unknown key", &|spec| spec["polcy"] = json!([]), "unknown field \"spec.polcy\"");
    refused("both effects", &|spec| spec["policy"][0]["deny"] = json!("true"), "a rule has one of `allow` and `deny`");
    refused("two rules of one name", &|spec| spec["policy"][0]["name"] = json!("more"), "two rules have one name");
    refused("no rules", &|spec| drop(spec.as_object_mut().unwrap().remove("policy")), "without a rule everything is denied");
}

/// Every command and every object, in the order of the text.
fn the_example_of_the_readme(stage: &Stage) {
    let world = &stage.world;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block =
        |fence: &str| readme.split(&format!("```{fence} objects\n")).nth(1).expect("the block").split("\n```").next().unwrap().to_owned();
    stage.cluster().kubectl_admin(&["delete", "-n", "shop", "secret/prod-token", "configmap/prod-ca"]).ok();
    let folder = world.run.dir("kubepass");
    let bash = Kubectl::command(std::path::Path::new("/bin/bash"), &folder)
        .path_first(Tools::ensure().bin())
        .path_first(server_binary().parent().unwrap())
        .env("KUBECONFIG", &stage.cluster().admin_kubeconfig().display().to_string());
    bash.run(&["-ec", &format!("set -o pipefail\n{}", block("sh"))]).ok();
    let objects = block("yaml").replace("https://10.0.0.1:6443", &world.prod.url()).replace("k8s.example.com", "obj.localhost");
    stage.cluster().apply(&objects);
    stage.until_says("route", "shop/prod", "Programmed=True Programmed");
    assert_eq!(stage.get("shop.obj.localhost", None, "/api").0, 401);
    stage.cluster().kubectl_admin(&["delete", "route", "-n", "shop", "prod"]).ok();
    stage.gateway(&json!({"hosts": ["*.obj.localhost"], "namespaces": ["shop", "bank"]}));
}

fn apply_and_use(stage: &Stage) -> String {
    assert_eq!(stage.get(WEB, None, "/api").0, 404, "no such route yet");
    stage.route("shop", "web", WEB, "false");
    stage.until_answers("the route is served", WEB, None, "/api", 401);
    let foo = stage.world.person("foo");
    foo.set_up(&stage.world.url(WEB)).ok();
    let who = foo.kubectl(&["--context", WEB, "auth", "whoami", "-o", "json"]).ok();
    assert!(who.contains("foo@example.com"), "{who}");
    stage.world.prod.audit_find("foo's whoami", |event| {
        event["objectRef"]["resource"] == "selfsubjectreviews" && event["impersonatedUser"]["username"] == "foo@example.com"
    });
    stage.until_says("route", "shop/web", "Accepted=True Accepted");
    stage.until_says("route", "shop/web", "ResolvedRefs=True ResolvedRefs");
    let message = stage.until_says("route", "shop/web", "Programmed=True Programmed");
    assert!(message.starts_with("acknowledged by "), "{message}");
    stage.until_says("gateway", "kubepass/main", "Accepted=True Accepted");
    foo.session_token(&stage.world.url(WEB))
}

fn change_break_and_repair(stage: &Stage, token: &str) {
    stage.until_answers("allowed", WEB, Some(token), SERVICES, 200);
    stage.route("shop", "web", WEB, "k8s.resource == \"services\"");
    let body = stage.until_answers("the policy is changed", WEB, Some(token), SERVICES, 403);
    assert!(body.contains("not today"), "{body}");
    stage.route("shop", "web", WEB, "user.emial == \"x\"");
    let message = stage.until_says("route", "shop/web", "Accepted=False Invalid");
    assert_eq!(message, "Route shop/web: spec.policy[1].deny:1:6: unknown field `emial`\n    did you mean `email`?");
    stage.until_says("route", "shop/web", "Programmed=False PreviousInForce");
    assert_eq!(stage.get(WEB, Some(token), SERVICES).0, 403, "what was in force stays");
    assert_eq!(stage.get(WEB, Some(token), CONFIG_MAPS).0, 200);
    let line = stage.world.audit_line("the refused object", |line| line["event"] == "config_changed" && line["outcome"] == "rejected");
    assert!(line["errors"].to_string().contains("emial"), "{line}");
    assert_eq!(stage.world.metric(&["kubepass_objects_with_mistakes"]).last().unwrap(), "kubepass_objects_with_mistakes 1");
    stage.route("shop", "web", WEB, "false");
    stage.until_answers("repaired", WEB, Some(token), SERVICES, 200);
    stage.until_says("route", "shop/web", "Accepted=True Accepted");
    // Everybody's rule, by the operator's Gateway.
    stage.apply(&object(
        "Policy",
        "kubepass",
        "base",
        &json!({"rules": [{"name": "no-services", "deny": "k8s.resource == \"services\""}]}),
    ));
    stage.gateway(&json!({"hosts": ["*.obj.localhost"], "namespaces": ["shop", "bank"], "policies": ["base"]}));
    stage.until_answers("the Gateway's rule holds", WEB, Some(token), SERVICES, 403);
    stage.gateway(&json!({"hosts": ["*.obj.localhost"], "namespaces": ["shop", "bank"]}));
    stage.until_answers("and is gone", WEB, Some(token), SERVICES, 200);
}

fn rotate_the_token(stage: &Stage, token: &str) {
    let fresh = stage.world.prod.create_token(NAMESPACE, SERVICE_ACCOUNT);
    let wanted = format!("JTI={}", jwt::claims(&fresh)["jti"].as_str().unwrap());
    stage.token("shop", &fresh);
    let mut limit = 0;
    eventually("the new service-account token is used", IN_FORCE, || {
        limit += 1;
        let path = format!("{CONFIG_MAPS}?limit={limit}");
        assert_eq!(stage.get(WEB, Some(token), &path).0, 200);
        let event = stage.world.prod.audit_find(&path, |event| event["requestURI"] == path && event["stage"] == "ResponseComplete");
        (event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0] == wanted).then_some(())
    });
    let generation = stage.cluster().kubectl_admin(&["get", "route", "-n", "shop", "web", "-o", "jsonpath={.metadata.generation}"]).ok();
    assert!(!generation.is_empty());
}

fn conflicts(stage: &Stage) {
    stage.route("shop", "younger", WEB, "false");
    let message = stage.until_says("route", "shop/younger", "Accepted=False Conflicted");
    assert_eq!(message, format!("Route shop/younger: spec.host: another route has the host `{WEB}` already, in Route shop/web"));
    stage.gateway(&json!({"hosts": ["*.obj.localhost", PROD_HOST], "namespaces": ["shop", "bank"]}));
    stage.route("shop", "prod", PROD_HOST, "false");
    let message = stage.until_says("route", "shop/prod", "Accepted=False Conflicted");
    assert!(message.ends_with("already, in the configuration file"), "{message}");
    stage.route("shop", "outside", "outside.localhost", "false");
    let message = stage.until_says("route", "shop/outside", "Accepted=False NotServed");
    assert!(message.contains("no Gateway serves the host `outside.localhost` for the namespace shop"), "{message}");
    let change = r#"{"spec": {"host": "web2.obj.localhost"}}"#;
    let error = stage.cluster().kubectl_admin(&["patch", "route", "-n", "shop", "web", "--type=merge", "-p", change]).err();
    assert!(error.contains("the host of a route does not change"), "{error}");
    stage.cluster().kubectl_admin(&["delete", "route", "-n", "shop", "younger", "prod", "outside"]).ok();
}

/// Who may write Routes in `bank` waits for what is `shop`'s to be free for a moment.
fn squatters(stage: &Stage) {
    let rules = json!([{"name": "everybody", "allow": "true"}]);
    let to_own_server = |audience: Option<&str>| {
        let mut http = json!({"upstream": "http://127.0.0.1:1"});
        audience.into_iter().for_each(|audience| http["audience"] = json!(audience));
        http
    };
    let squat = |name: &str, host: &str, audience: Option<&str>| {
        stage.apply(&object("Route", "bank", name, &json!({"host": host, "http": to_own_server(audience), "policy": rules})));
    };
    squat("host", WEB, None);
    stage.until_says("route", "bank/host", "Accepted=False Conflicted");
    stage.cluster().kubectl_admin(&["delete", "secret", "-n", "shop", "prod-token"]).ok();
    stage.until_answers("the host serves nothing while its Secret is made anew", WEB, None, "/api", 404);
    stage.until_says("route", "shop/web", "ResolvedRefs=False RefNotFound");
    let message = stage.until_says("route", "bank/host", "Accepted=False Conflicted");
    assert!(message.ends_with("already, in Route shop/web"), "{message}");
    assert_eq!(stage.get(WEB, None, "/api").0, 404);
    stage.token("shop", &stage.world.prod.create_token(NAMESPACE, SERVICE_ACCOUNT));
    stage.until_answers("and is back", WEB, None, "/api", 401);
    squat("audience", OTHER, Some("https://payments.example.com"));
    let message = stage.until_says("route", "bank/audience", "Accepted=False Conflicted");
    assert!(message.contains("is none of the namespace bank"), "{message}");
    squat("audience", OTHER, Some("bank/payments"));
    stage.until_says("route", "bank/audience", "Accepted=True Accepted");
    stage.cluster().kubectl_admin(&["delete", "route", "-n", "bank", "host", "audience"]).ok();
}

fn grants(stage: &Stage) {
    stage.route("bank", "other", OTHER, "false");
    let message = stage.until_says("route", "bank/other", "ResolvedRefs=False RefNotPermitted");
    assert!(message.contains("no Grant in the namespace shop lets a Route of bank refer to it"), "{message}");
    assert_eq!(stage.get(OTHER, None, "/api").0, 404);
    let to = json!([{"kind": "Secret", "name": "prod-token"}, {"kind": "ConfigMap", "name": "prod-ca"}]);
    stage.apply(&object("Grant", "shop", "bank", &json!({"from": [{"kind": "Route", "namespace": "bank"}], "to": to})));
    stage.until_answers("it is granted", OTHER, None, "/api", 401);
    stage.until_says("route", "bank/other", "ResolvedRefs=True ResolvedRefs");
    stage.cluster().kubectl_admin(&["delete", "grant", "-n", "shop", "bank"]).ok();
    stage.until_answers("it is taken back", OTHER, None, "/api", 404);
}

/// A Gateway brings the certificate of hosts that the listener's own do not cover; it is renewed without a touch of any object.
fn certificates(stage: &Stage) {
    const HOST: &str = "app.extra.localhost";
    stage.world.proxy.map(&format!("{HOST}:443"), stage.world.port);
    let reference = |key: &str| json!({"secret": {"name": "extra-tls", "key": key}});
    let certificates = json!([{"chain": reference("tls.crt"), "key": reference("tls.key")}]);
    let spec = json!({"hosts": ["*.extra.localhost"], "namespaces": ["shop"], "certificates": certificates});
    stage.apply(&object("Gateway", "kubepass", "extra", &spec));
    stage.route("shop", "extra", HOST, "false");
    stage.until_says("gateway", "kubepass/extra", "ResolvedRefs=False RefNotFound");
    stage.until_says("route", "shop/extra", "Accepted=False NoCertificate");
    let put = |authority: &Authority| {
        let pair = authority.server(&["*.extra.localhost"]);
        let data = json!({"tls.crt": pair.cert, "tls.key": pair.key});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": labelled("kubepass", "extra-tls"), "stringData": data});
        stage.apply(&secret);
    };
    let served_by = |authority: &Authority| {
        let proxy = reqwest::Proxy::https(stage.world.proxy.url()).unwrap();
        let client = http::builder(&[authority.pem()]).proxy(proxy).build().unwrap();
        client.get(format!("https://{HOST}/api")).send().is_ok_and(|answer| answer.status() == 401)
    };
    let next = Authority::new("the next authority");
    put(&stage.world.authority);
    stage.until_says("gateway", "kubepass/extra", "ResolvedRefs=True ResolvedRefs");
    eventually("the Gateway's certificate is served", PATIENCE, || served_by(&stage.world.authority).then_some(()));
    assert!(!served_by(&next));
    put(&next);
    eventually("the renewed certificate is served", PATIENCE, || served_by(&next).then_some(()));
    assert_eq!(stage.get(WEB, None, "/api").0, 401, "the other hosts have theirs");
    stage.cluster().kubectl_admin(&["delete", "gateway.kubepass.dev", "-n", "kubepass", "extra"]).ok();
    stage.until_says("route", "shop/extra", "Accepted=False NotServed");
    stage.cluster().kubectl_admin(&["delete", "route", "-n", "shop", "extra"]).ok();
}

fn delete(stage: &Stage) {
    stage.cluster().kubectl_admin(&["delete", "route", "-n", "shop", "web"]).ok();
    stage.until_answers("the host is gone", WEB, None, "/api", 404);
    assert_eq!(stage.get(PROD_HOST, None, "/api").0, 401, "the file's routes stay");
}
