//! The story: a company's developers reach two clusters through kubepass, which enters each by another method.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::second_cluster;
use super::support::person::Person;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::{Method, POLICY, PROD_HOST, STAGING_HOST, World, WorldOptions};
use super::teller::Teller;

pub(super) const READ_PODS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pod-reader, namespace: default}
rules:
- {apiGroups: [""], resources: [pods, pods/log], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: foo-reads-pods, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pod-reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: foo@example.com}]
"#;

pub(super) const GROUP_MAY_EXEC: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: pod-exec, namespace: default}
rules:
- {apiGroups: [""], resources: [pods/exec, pods/portforward, pods/attach], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: group2-may-exec, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pod-exec}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: group2}]
"#;

pub(super) fn run() -> ExitCode {
    let tools = Tools::ensure();
    let dir = evidence_dir();
    let mut teller = Teller::new();
    teller.note("kubepass: plain kubectl, company login, one policy, one audit trail. All parts below are the real ones.");
    let world = start(&mut teller, tools);
    let foo = world.person("foo");
    log_in(&mut teller, &world, &foo);
    rbac_does_the_rest(&mut teller, &world, &foo);
    streams(&mut teller, &foo);
    policy(&mut teller, &world, &foo);
    second_cluster::visit(&mut teller, &world, &foo);
    attacks(&mut teller, &world, &foo);
    audit(&mut teller, &world);
    log_out(&mut teller, &world, &foo);
    keep_evidence(&mut teller, &world, &dir);
    drop(world);
    teller.end()
}

fn start(teller: &mut Teller, tools: &Tools) -> World {
    teller.step("Two Kubernetes clusters, an OpenID Connect provider, kubepass and its Envoy start on this machine");
    teller.note("(etcd + kube-apiserver + kwok twice, about ten seconds; nothing leaves loopback)");
    let options = WorldOptions { staging: Method::Jwt, ..WorldOptions::default() };
    let mut world = World::prepare(tools, Run::new("demo"), options);
    let version = world.prod.kubectl_admin(&["version"]);
    teller.command("kubectl version        # as the cluster's administrator, straight to the API server", &version);
    teller.check("kube-apiserver 1.36.3 answers", version.stdout.contains("v1.36.3"));

    teller.step("The operator checks the configuration, lets kubepass impersonate on the first cluster, and starts it");
    world.permit("prod", &world.prod);
    let checked = world.operator(&["check-config"]);
    teller.command("kubepass-server check-config --config kubepass.yaml", &checked);
    teller.check("the configuration is good", checked.code == Some(0));
    teller.note("$ kubepass-server cluster rbac prod | kubectl apply -f -; kubectl create token kubepass -n kubepass > prod-token");
    teller.note("$ kubepass-server up --config kubepass.yaml");
    let began = Instant::now();
    world.start_kubepass();
    teller.check(
        &format!("kubepass is ready after {:.1} s: Envoy passed its header self-test and has the listener", began.elapsed().as_secs_f32()),
        true,
    );
    second_cluster::trust(teller, &world);
    world
}

fn log_in(teller: &mut Teller, world: &World, foo: &Person) {
    teller.step("A developer sets kubectl up, once");
    let url = world.url(PROD_HOST);
    let set_up = foo.set_up(&url);
    teller.command(&format!("kubepass kubeconfig {url}"), &set_up);
    teller.check("the kubeconfig has a context for the cluster", set_up.code == Some(0));

    teller.step("First use: the browser opens, the developer logs in at the company's provider; the API server sees their name and groups");
    let whoami = foo.kubectl(&["auth", "whoami"]);
    for hop in &foo.last_page().hops {
        teller.note(&format!("browser: {} {} -> {}", hop.method, hop.url.split('?').next().unwrap_or_default(), hop.status));
    }
    teller.command("kubectl auth whoami", &whoami);
    teller.check("the user is foo@example.com", whoami.stdout.contains("foo@example.com"));
    teller.check("the groups are group1 and group2", whoami.stdout.contains("[group1 group2 system:authenticated]"));
    teller.check("one browser window was opened", foo.logins() == 1);
}

fn rbac_does_the_rest(teller: &mut Teller, world: &World, foo: &Person) {
    teller.step("Plain RBAC on the cluster does the fine-grained part");
    let pods = foo.kubectl(&["get", "pods"]);
    teller.command("kubectl get pods", &pods);
    let forbidden = r#"Error from server (Forbidden): pods is forbidden: User "foo@example.com" cannot list resource "pods""#;
    teller.check("the API server refuses foo@example.com by name", pods.stderr.contains(forbidden));
    let cannot = foo.kubectl(&["auth", "can-i", "list", "pods"]);
    teller.command("kubectl auth can-i list pods", &cannot);
    teller.check("no", cannot.stdout.trim() == "no");
    teller.note("the cluster's administrator binds a Role to the User foo@example.com");
    world.prod.apply(READ_PODS);
    let can = foo.kubectl(&["auth", "can-i", "list", "pods"]);
    teller.command("kubectl auth can-i list pods", &can);
    teller.check("yes", can.stdout.trim() == "yes");
    let pods = foo.kubectl(&["get", "pods"]);
    teller.command("kubectl get pods", &pods);
    teller.check("the pod web is listed", pods.stdout.contains("web"));
    teller.note("... and another Role to the Group group2");
    world.prod.apply(GROUP_MAY_EXEC);
}

fn streams(teller: &mut Teller, foo: &Person) {
    teller.step("exec, cp, logs and port-forward work, over WebSocket and over SPDY");
    let exec = foo.kubectl(&["exec", "web", "--", "sh", "-c", "echo hello from $0; exit 7"]);
    teller.command("kubectl exec web -- sh -c 'echo hello from $0; exit 7'", &exec);
    teller.check("output and exit code come back", exec.stdout.contains("hello from sh") && exec.code == Some(7));
    let spdy =
        foo.kubectl_command().env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").run_with(&["exec", "-i", "web", "--", "cat"], b"by SPDY\n");
    teller.command("echo by SPDY | KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec -i web -- cat", &spdy);
    teller.check("standard input comes back", spdy.stdout == "by SPDY\n");
    let payload = foo.home.join("payload");
    let bytes: Vec<u8> = (0..4 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&payload, &bytes).expect("the payload");
    let up = foo.kubectl(&["cp", "payload", "web:payload-in-pod"]);
    let down = foo.kubectl(&["cp", "web:payload-in-pod", "payload-back"]);
    teller.command("kubectl cp payload web:payload-in-pod && kubectl cp web:payload-in-pod payload-back", &down);
    let same = std::fs::read(foo.home.join("payload-back")).is_ok_and(|back| back == bytes);
    teller.check("4 MiB went there and back unchanged", up.code == Some(0) && same);
}

fn policy(teller: &mut Teller, world: &World, foo: &Person) {
    teller.step("One central policy over all clusters, in force at the next request");
    let secrets = foo.kubectl(&["get", "secrets"]);
    teller.command("kubectl get secrets", &secrets);
    teller.check(
        "kubepass refuses with the rule's own message",
        secrets.stderr.contains("ask the SRE on call") && secrets.stderr.contains("request id"),
    );
    let explain = world.operator(&[
        "policy",
        "explain",
        "--route",
        "prod",
        "--user",
        "foo@example.com",
        "--group",
        "group1",
        "get secrets -n default",
    ]);
    teller.command("kubepass-server policy explain --route prod --user foo@example.com --group group1 'get secrets -n default'", &explain);
    teller.check("the operator sees which rule decided", explain.stdout.contains("no-secrets"));
    let frozen = format!("{POLICY}  - {{name: freeze, deny: '!k8s.read_only', message: \"change freeze until Monday\"}}\n");
    world.write_config(&world.config(&frozen));
    teller.note("the operator adds to kubepass.yaml:  {name: freeze, deny: '!k8s.read_only', message: \"change freeze until Monday\"}");
    let began = Instant::now();
    let refused = loop {
        let exec = foo.kubectl(&["exec", "web", "--", "true"]);
        if exec.stderr.contains("change freeze") || began.elapsed() > Duration::from_secs(5) {
            break exec;
        }
    };
    teller.command("kubectl exec web -- true", &refused);
    teller.check("exec is a write, and now refused", refused.stderr.contains("change freeze until Monday"));
    world.write_config(&world.config(POLICY));
}

fn attacks(teller: &mut Teller, world: &World, foo: &Person) {
    teller.step("What must not work");
    let masters = foo.kubectl(&["get", "secrets", "--as", "admin", "--as-group", "system:masters"]);
    teller.command("kubectl get secrets --as admin --as-group system:masters", &masters);
    teller.check(
        "impersonation by a client is refused",
        masters.code != Some(0) && masters.stderr.contains("does not let clients impersonate"),
    );
    let token = foo.session_token(&world.url(PROD_HOST));
    let client = world.client();
    let get = |host: &str, token: &str| client.get(format!("{}/api/v1/namespaces", world.url(host))).bearer_auth(token).send();
    let elsewhere = get(STAGING_HOST, &token).expect("an answer");
    let status = elsewhere.status();
    teller.note(&format!("the token of prod at staging: {status} {}", message(elsewhere)));
    teller.check("a token of one cluster is worth nothing at another", status == 401);
    let before = world.prod.audit_events().len();
    let forged = client
        .get(format!("{}/version", world.url(PROD_HOST)))
        .header("Impersonate-User", "admin")
        .header("impersonate-group", "system:masters")
        .send();
    teller.note("$ curl -H 'Impersonate-User: admin' -H 'Impersonate-Group: system:masters' https://prod.../version    # no token at all");
    teller.check(
        "401, and the API server saw nothing of it",
        forged.is_ok_and(|answer| answer.status() == 401) && world.prod.audit_events().len() == before,
    );
}

fn audit(teller: &mut Teller, world: &World) {
    teller.step("One audit trail over all clusters, in Kubernetes words, joined with the API server's own by Audit-ID");
    let line = world.audit_line("the refused secrets", |line| {
        line["event"] == "decision" && line["kubernetes"]["resource"] == "secrets" && line["rule"] == "no-secrets"
    });
    let keys = ["time", "user", "groups", "route", "kubernetes", "outcome", "rule", "request_id", "policy_version"];
    for key in keys {
        teller.note(&format!("{key:>15}: {}", line[key]));
    }
    teller.check(
        "the refusal has a line with user, rule and Kubernetes words",
        line["user"] == "foo@example.com" && line["outcome"] == "deny",
    );
    let exec = world.audit_line("the exec", |line| {
        let of_prod = line["event"] == "decision" && line["outcome"] == "allow" && line["route"] == "prod";
        of_prod && line["kubernetes"]["subresource"] == "exec"
    });
    let id = exec["request_id"].as_str().unwrap_or_default().to_owned();
    let seen = world.prod.audit_by_id(&id);
    let seen = seen.last().cloned().unwrap_or(Value::Null);
    teller.note(&format!("kubepass:   {} allow {} pods/exec", exec["request_id"], exec["user"]));
    teller.note(&format!(
        "API server: {} {} impersonated {}",
        seen["auditID"], seen["user"]["username"], seen["impersonatedUser"]["username"]
    ));
    teller
        .check("the API server's audit log has the same id and the same person", seen["impersonatedUser"]["username"] == "foo@example.com");
    let allowed: Vec<Value> = world
        .audit_lines()
        .into_iter()
        .filter(|line| line["event"] == "decision" && line["outcome"] == "allow" && line["route"] == "prod")
        .collect();
    let ids: Vec<Value> = world.prod.audit_events().into_iter().map(|event| event["auditID"].clone()).collect();
    let gaps = allowed.iter().filter(|line| !ids.contains(&line["request_id"])).count();
    teller.check(
        &format!("all {} allowed requests of kubepass's trail are in the API server's log", allowed.len()),
        gaps == 0 && !allowed.is_empty(),
    );
}

fn log_out(teller: &mut Teller, world: &World, foo: &Person) {
    teller.step("Logging out ends the session at once, everywhere");
    let token = foo.session_token(&world.url(PROD_HOST));
    let out = foo.kubepass(&["logout"]);
    teller.command("kubepass logout", &out);
    let answer = world.client().get(format!("{}/api", world.url(PROD_HOST))).bearer_auth(&token).send().expect("an answer");
    let status = answer.status();
    teller.note(&format!("the token that kubectl had: {status} {}", message(answer)));
    teller.check("a token of the ended session is refused at the next request", status == 401);
    let sessions = world.operator(&["session", "list"]);
    teller.command("kubepass-server session list", &sessions);
    teller.check("the operator sees no session of foo", sessions.code == Some(0) && !sessions.stdout.contains("foo@example.com"));
}

fn message(answer: reqwest::blocking::Response) -> String {
    let status: Value = answer.json().unwrap_or(Value::Null);
    status["message"].as_str().unwrap_or_default().to_owned()
}

fn evidence_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/demo");
    std::fs::create_dir_all(&dir).expect("target/demo");
    dir
}

fn keep_evidence(teller: &mut Teller, world: &World, dir: &Path) {
    teller.step("The evidence stays");
    for (from, name) in [(world.prod.audit_log(), "apiserver-audit.jsonl"), (world.audit_path(), "kubepass-audit.jsonl")] {
        let lines = std::fs::read_to_string(&from).map(|text| text.lines().count()).unwrap_or(0);
        let kept = std::fs::copy(&from, dir.join(name)).is_ok();
        teller.check(&format!("target/demo/{name}: {lines} lines"), kept && lines > 0);
    }
    let trail = std::fs::read_to_string(world.audit_path()).unwrap_or_default();
    teller.check(
        "no token, cookie or secret is in kubepass's trail",
        !["eyJ", "__Host-", "Bearer "].iter().any(|secret| trail.contains(secret)),
    );
}
