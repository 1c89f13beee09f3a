//! kubepass inside a cluster: the manifests on a real API server that admits `restricted` pods only, the images started with exactly what the
//! manifests say, and their service accounts, which may do what they need and nothing else.
//!
//! There is no container engine here: `tests/tools/stages` runs the Dockerfile's stages, `tests/tools/pod` the pod.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::support::cluster::{Cluster, ClusterOptions};
use super::support::kubectl::Kubectl;
use super::support::leash;
use super::support::pki::Authority;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, World, WorldOptions};

const NAMESPACE: &str = "kubepass";
const OVERLAYS: [(&str, &str); 2] = [("gateway", "kubepass-server"), ("sidecar", "kubepass")];
/// A first build of the image's dependencies takes its time.
const BUILD: Duration = Duration::from_secs(1800);

#[test]
fn the_manifests_are_admitted_and_allow_no_more_than_they_need() {
    let run = Run::new("hosting");
    let cluster = namespace(&run);
    for (overlay, account) in OVERLAYS {
        apply(&cluster, overlay);
        admitted(&cluster, overlay);
        permissions(&cluster, overlay, account);
    }
}

#[test]
#[ignore = "builds images and changes root and user as a container runtime does, so it needs Linux and root: make test-images"]
fn the_images_run_as_the_manifests_say() {
    let run = Run::new("images");
    let images = images(Tools::ensure(), &run);
    let cluster = namespace(&run);
    for (overlay, account) in OVERLAYS {
        apply(&cluster, overlay);
        runs(&cluster, &run, &images, overlay, account);
    }
}

/// A cluster with kubepass's namespace, and in it what an operator makes by hand.
fn namespace(run: &Run) -> Cluster {
    let cluster = Cluster::start(Tools::ensure(), run, ClusterOptions::default());
    cluster.apply(&std::fs::read_to_string(repository().join("config/kubernetes/base/namespace.yaml")).unwrap());
    made_by_hand(&cluster);
    cluster
}

fn apply(cluster: &Cluster, overlay: &str) {
    let manifests = rendered(cluster, overlay);
    cluster.admin().run_with(&["apply", "--validate=strict", "-f", "-"], manifests.as_bytes()).ok();
}

fn rendered(cluster: &Cluster, overlay: &str) -> String {
    let folder = repository().join("config/kubernetes/overlays").join(overlay);
    cluster.admin().run(&["kustomize", folder.to_str().unwrap()]).ok()
}

/// The template's pod under the namespace's `restricted`, which also refuses what it should.
fn admitted(cluster: &Cluster, overlay: &str) {
    let deployment: Value = get(cluster, "deployment/kubepass");
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("try-{overlay}"), "namespace": NAMESPACE}});
    pod["spec"] = deployment["spec"]["template"]["spec"].clone();
    let create = |pod: &Value| {
        let args = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        cluster.admin().run_with(&args, pod.to_string().as_bytes())
    };
    create(&pod).ok();
    let check = |path: &str, value: Value| {
        let mut loose = pod.clone();
        *loose.pointer_mut(path).unwrap() = value;
        let refused = create(&loose).err();
        assert!(refused.contains("violates PodSecurity"), "{path}: {refused}");
    };
    check("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true));
    check("/spec/initContainers/0/securityContext/capabilities", json!({}));
    check("/spec/securityContext/seccompProfile", json!(null));
    check("/spec/securityContext/runAsNonRoot", json!(false));
}

fn permissions(cluster: &Cluster, overlay: &str, account: &str) {
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let check = |expected: bool, words: &[&str]| {
        let said = cluster.kubectl_admin(&[&["auth", "can-i", &who], words].concat()).stdout;
        assert_eq!(said.trim(), if expected { "yes" } else { "no" }, "{overlay}: {words:?}");
    };
    let gateway = overlay == "gateway";
    for kind in ["routes.kubepass.dev", "policies.kubepass.dev", "gateways.kubepass.dev", "grants.kubepass.dev", "secrets", "configmaps"] {
        check(gateway, &["watch", kind, "-n", NAMESPACE]);
        check(false, &["watch", kind, "-n", "default"]);
        check(false, &["create", kind, "-n", NAMESPACE]);
        check(false, &["delete", kind, "-n", NAMESPACE]);
    }
    check(gateway, &["patch", "routes.kubepass.dev", "--subresource=status", "-n", NAMESPACE]);
    check(gateway, &["update", "leases.coordination.k8s.io/kubepass", "-n", NAMESPACE]);
    check(false, &["update", "leases.coordination.k8s.io/other", "-n", NAMESPACE]);
    check(!gateway, &["impersonate", "users"]);
    check(!gateway, &["impersonate", "groups/developers"]);
    for words in [
        ["impersonate", "groups/system:masters"],
        ["list", "pods"],
        ["create", "pods"],
        ["get", "nodes"],
        ["create", "serviceaccounts/token"],
    ] {
        check(false, &[&words[..], &["-A"]].concat());
    }
}

/// The pod as a kubelet would start it, with the account's own token; where the configuration stands in the cluster as objects, the account's
/// rights are what it lives by.
fn runs(cluster: &Cluster, run: &Run, images: &Images, overlay: &str, account: &str) {
    let work = run.dir(&format!("pod-{overlay}"));
    let objects = work.join("objects.json");
    std::fs::write(&objects, cluster.kubectl_admin(&["get", "deployments,configmaps,secrets", "-n", NAMESPACE, "-o", "json"]).ok())
        .unwrap();
    let token = work.join("token");
    std::fs::write(&token, cluster.create_token(NAMESPACE, account)).unwrap();
    let mut command = leash::command(repository().join("tests/tools/pod"));
    command.arg("--objects").arg(&objects).args(["--deployment", "kubepass"]).arg("--work").arg(&work).arg("--token").arg(&token);
    command.arg("--image").arg(format!("registry.example.com/kubepass-server={}", images.server.display()));
    command.arg("--image").arg(format!("docker.io/envoyproxy/envoy={}", images.envoy.display()));
    let service = [("HOST", "127.0.0.1".to_owned()), ("PORT", cluster.port().to_string())];
    for (name, value) in service {
        command.arg("--env").arg(format!("KUBERNETES_SERVICE_{name}={value}"));
    }
    let mut pod = run.start(&format!("pod-{overlay}"), command);
    pod.until_log("ready\n", Duration::from_secs(120));
    for answered in ["kubepass startupProbe", "kubepass readinessProbe", "kubepass livenessProbe", "envoy readinessProbe"] {
        assert!(pod.log().contains(&format!("answered {answered}")), "{}", pod.log());
    }
    if overlay == "gateway" {
        let policy = "apiVersion: kubepass.dev/v1alpha1\nkind: Policy\nmetadata: {name: hosted, namespace: kubepass}\n\
                      spec: {rules: [{name: nobody, deny: \"true\"}]}\n";
        cluster.apply(policy);
        eventually("the policy has a status, by the account's own right", Duration::from_secs(20), || {
            let conditions = &get(cluster, "policy.kubepass.dev/hosted")["status"]["conditions"];
            conditions.as_array().is_some_and(|all| !all.is_empty()).then_some(())
        });
        assert!(get(cluster, "lease/kubepass")["spec"]["holderIdentity"].is_string());
    }
    pod.stop();
    // In the order of a sidecar's end.
    assert!(pod.log().contains("ended envoy"), "{}", pod.log());
}

/// What an operator makes: keys, a certificate, the clusters' tokens; and what a controller manager would.
fn made_by_hand(cluster: &Cluster) {
    let authority = Authority::new("hosting");
    let pair = authority.server(&["pass.example.com", "prod.k8s.example.com", "here.k8s.example.com"]);
    let secret = |name: &str, data: &[(&str, &str)]| {
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let data: serde_json::Map<String, Value> = data.iter().map(|(key, text)| ((*key).to_owned(), encoded(text).into())).collect();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data})
    };
    let secrets = [
        secret(
            "kubepass-keys",
            &[("secret", "a secret for tests only, long enough for keys to derive from it"), ("client-secret", "client")],
        ),
        secret("kubepass-tls", &[("tls.crt", &pair.cert), ("tls.key", &pair.key)]),
        secret("kubepass-clusters", &[("prod-ca.crt", cluster.ca_pem()), ("prod-token", "token")]),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": NAMESPACE}, "data": {"ca.crt": cluster.ca_pem()}}),
    ];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": secrets});
    cluster.apply(&list.to_string());
}

/// Image folders as `tests/tools/pod` takes them.
struct Images {
    server: PathBuf,
    envoy: PathBuf,
}

/// The server's image by the Dockerfile; what stands in for Envoy's own holds the pinned binary and nothing of ours.
fn images(tools: &Tools, run: &Run) -> Images {
    let (server, envoy) = (run.dir("image-server"), run.dir("image-envoy"));
    let mut command = leash::command(repository().join("tests/tools/stages"));
    command
        .args(["--target", "server", "--build-arg", "PROFILE=dev", "--cache"])
        .arg(format!("/src/target={}", repository().join("target").display()));
    command.arg(&server).current_dir(repository());
    let mut build = run.start("stages", command);
    build.until("the image is built", BUILD, || server.join("config.json").exists().then_some(()));
    let config: Value = serde_json::from_str(&std::fs::read_to_string(server.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["User"], &config["Cmd"]), (&json!("65532:65532"), &json!(["serve"])));
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/kubepass-server"]));
    for absent in ["bin", "usr/bin", "src", "out", "usr/local/bin/kubepass", "etc/kubepass"] {
        assert!(!server.join("rootfs").join(absent).exists(), "the image holds /{absent}");
    }
    let copied = Command::new("cp").arg("-a").arg(server.join("rootfs")).arg(&envoy).status().unwrap();
    assert!(copied.success());
    std::fs::remove_file(envoy.join("rootfs/usr/local/bin/kubepass-server")).unwrap();
    std::fs::copy(tools.envoy(), envoy.join("rootfs/usr/local/bin/envoy")).unwrap();
    std::fs::write(
        envoy.join("config.json"),
        json!({"Env": {}, "User": "", "Entrypoint": ["/usr/local/bin/envoy"], "Cmd": []}).to_string(),
    )
    .unwrap();
    Images { server, envoy }
}

/// The overlay for the cluster that kubepass runs in: the printed rights are the manifest's, and a request goes through by them.
#[test]
fn the_sidecars_account_impersonates_those_whom_it_may_and_nobody_else() {
    let options = WorldOptions {
        users: json!({
            "foo": {"email": "foo@example.com", "email_verified": true, "name": "Foo", "groups": ["developers", "others"]},
        }),
        prod_kubernetes: "groups: {allow: [developers, sre]}".to_owned(),
        ..WorldOptions::default()
    };
    let mut world = World::prepare(Tools::ensure(), Run::new("hosting-sidecar"), options);
    let file = repository().join("config/kubernetes/overlays/sidecar/rbac.yaml");
    let manifest = std::fs::read_to_string(&file).unwrap();
    let printed = world.operator(&["cluster", "rbac", "prod"]).ok();
    let roles = |text: &str| text.split("---\n").filter(|part| part.contains("kind: ClusterRole")).map(uncommented).collect::<Vec<_>>();
    assert_eq!(roles(&manifest), roles(&printed), "{} is not what `cluster rbac` prints", file.display());

    world.prod.apply(&std::fs::read_to_string(repository().join("config/kubernetes/base/namespace.yaml")).unwrap());
    world.prod.create_service_account(NAMESPACE, "kubepass");
    world.prod.apply(&manifest);
    world.secret("prod-token", &world.prod.create_token(NAMESPACE, "kubepass"));
    world.permit("staging", &world.staging);
    world.start_kubepass();
    let foo = world.person("foo");
    foo.set_up(&world.url(PROD_HOST)).ok();
    let who: Value = serde_json::from_str(&foo.kubectl(&["auth", "whoami", "-o", "json"]).ok()).unwrap();
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["developers", "system:authenticated"]));
    let event = world.prod.audit_find("foo's whoami", |event| event["objectRef"]["resource"] == "selfsubjectreviews");
    assert_eq!(event["user"]["username"], "system:serviceaccount:kubepass:kubepass");
    // The same rights under the user's own hand, without kubepass: not a masters' group, and nothing without impersonation.
    let token = std::fs::read_to_string(world.run.file("kubepass/prod-token")).unwrap();
    let direct = |more: &[&str]| {
        let (server, ca) = (world.prod.url(), world.prod.ca_file().display().to_string());
        let kubectl = Kubectl::command(&world.tools().kubectl(), &world.run.dir("thief")).env("KUBECONFIG", "/dev/null");
        kubectl.run(&[&["--server", &server, "--certificate-authority", &ca, "--token", token.trim()], more].concat())
    };
    direct(&["get", "pods", "--as", "foo@example.com", "--as-group", "system:masters"]).err();
    direct(&["get", "pods"]).err();
}

fn uncommented(part: &str) -> String {
    part.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn get(cluster: &Cluster, what: &str) -> Value {
    serde_json::from_str(&cluster.kubectl_admin(&["get", what, "-n", NAMESPACE, "-o", "json"]).ok()).unwrap()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
