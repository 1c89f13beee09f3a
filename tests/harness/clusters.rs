//! A cluster does what a person's cluster does.

use std::sync::OnceLock;
use std::time::Duration;

use super::support::cluster::{Cluster, ClusterOptions};
use super::support::kubectl::Kubectl;
use super::support::proxy::Proxy;
use super::support::raw::Connection;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;

struct Shared {
    run: Run,
    cluster: Cluster,
}

/// One cluster for all tests here; it ends with the process.
fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let run = Run::new("shared");
        let cluster = Cluster::start(Tools::ensure(), &run, ClusterOptions::default());
        Shared { run, cluster }
    })
}

#[test]
fn whoami_is_answered_and_in_the_audit_log() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let who = cluster.kubectl_admin(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"]).ok();
    assert_eq!(who, r#"kubernetes-admin ["system:masters","system:authenticated"]"#);
    let event = cluster.audit_find("whoami", |event| {
        event["objectRef"]["resource"] == "selfsubjectreviews" && event["user"]["username"] == "kubernetes-admin"
    });
    assert!(event["userAgent"].as_str().unwrap().starts_with("kubectl/v1.36.3 "), "{event}");
    let id = event["auditID"].as_str().unwrap();
    assert_eq!(cluster.audit_by_id(id).len(), 1);
}

#[test]
fn exec_passes_input_output_and_the_exit_code() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let web_socket = cluster.admin();
    let spdy = cluster.admin().env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
    for kubectl in [web_socket, spdy] {
        let output = kubectl.run_with(&["exec", "-i", "web", "--", "sh", "-c", "tr a-z A-Z; echo to-stderr >&2; exit 7"], b"hello\n");
        assert_eq!((output.code, output.stdout.as_str()), (Some(7), "HELLO\n"), "{}", output.stderr);
        assert!(output.stderr.contains("to-stderr"), "{}", output.stderr);
    }
}

#[test]
fn cp_brings_bytes_there_and_back() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let bytes: Vec<u8> = (0..64_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (there, back) = (run.write("cp/there.bin", &bytes), run.file("cp/back.bin"));
    let in_pod = cluster.work_dir().join("there.bin");
    let remote = format!("web:{}", in_pod.display());
    cluster.kubectl_admin(&["cp", there.to_str().unwrap(), &remote]).ok();
    assert!(std::fs::read(&in_pod).unwrap() == bytes, "the copy in the pod differs");
    cluster.kubectl_admin(&["cp", &remote, back.to_str().unwrap()]).ok();
    assert!(std::fs::read(&back).unwrap() == bytes, "the copy that came back differs");
}

#[test]
fn logs_follow_and_attach_show_what_is_appended() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let mut logs = cluster.admin().start(&["logs", "-f", "web"]);
    cluster.append_log("first");
    logs.wait_text("first");
    // What is attached to sees only what comes after, so lines are added until one is seen.
    let mut attached = cluster.admin().start(&["attach", "web"]);
    eventually("the attached terminal shows a line", Duration::from_secs(30), || {
        cluster.append_log("second");
        attached.seen().contains("second").then_some(())
    });
    logs.wait_text("second");
    assert!(logs.is_running() && attached.is_running());
}

#[test]
fn port_forward_reaches_the_server_behind_the_pod() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    for switch in ["true", "false"] {
        let mut forward = cluster.admin().env("KUBECTL_PORT_FORWARD_WEBSOCKETS", switch).start(&["port-forward", "pod/web", ":80"]);
        let line = forward.wait_text("Forwarding from 127.0.0.1:");
        let port: u16 = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let answer = super::support::http::client(&[]).get(format!("http://127.0.0.1:{port}/over/there")).send().unwrap().text().unwrap();
        assert_eq!(answer, "hello from /over/there\n");
    }
}

#[test]
fn a_watch_sees_a_change() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let mut watch = cluster.admin().start(&["get", "pods", "-w", "-o", "jsonpath={.metadata.labels}{'\\n'}"]);
    watch.wait_text("\"app\":\"web\"");
    cluster.kubectl_admin(&["label", "pod", "web", "seen=yes"]).ok();
    watch.wait_text("\"seen\":\"yes\"");
    assert!(watch.is_running());
}

#[test]
fn tokens_and_manifests() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    cluster.create_service_account("default", "robot");
    let token = cluster.create_token("default", "robot");
    let client = super::support::http::client(&[cluster.ca_pem()]);
    let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", cluster.url());
    let body = r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}"#;
    let answer = client.post(url).bearer_auth(token).header("content-type", "application/json").body(body).send().unwrap().text().unwrap();
    assert!(answer.contains("system:serviceaccount:default:robot"), "{answer}");
}

#[test]
fn helm_installs_a_chart() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    run.write("chart/Chart.yaml", "apiVersion: v2\nname: small\nversion: 1.0.0\n");
    run.write(
        "chart/templates/map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\ndata: {a: '{{ .Values.a }}'}\n",
    );
    let chart = run.file("chart");
    let helm = Kubectl::new(&Tools::ensure().helm(), &cluster.admin_kubeconfig(), &run.dir("helm-home"));
    helm.run(&["install", "first", chart.to_str().unwrap(), "--set", "a=one"]).ok();
    helm.run(&["upgrade", "first", chart.to_str().unwrap(), "--set", "a=two"]).ok();
    assert_eq!(cluster.kubectl_admin(&["get", "configmap", "first", "-o", "jsonpath={.data.a}"]).ok(), "two");
}

#[test]
fn raw_requests_reach_the_server_as_written() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let mut connection = Connection::open(cluster.port(), "kubernetes.default.svc", cluster.ca_pem());
    let headers =
        [("Host", "kubernetes.default.svc"), ("Audit-ID", "raw-1"), ("authorization", "Bearer no"), ("Authorization", "Bearer yes")];
    let answer = connection.request("GET", "/api/v1//pods?x=%zz", &headers).answer().unwrap();
    assert_eq!((answer.status, answer.header("audit-id")), (401, Some("raw-1")), "{}", answer.text());
    assert!(answer.text().contains(r#""reason":"Unauthorized""#), "{}", answer.text());
    assert_eq!(cluster.audit_by_id("raw-1")[0]["requestURI"], "/api/v1//pods?x=%zz");
    // The same connection serves another one, in chunks if it likes.
    let answer = connection.request("GET", "/version", &headers[..2]).answer().unwrap();
    assert!(answer.status == 200 && answer.text().contains("v1.36.3"), "{answer:?}");
    let broken = connection.send(b"GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").answer();
    assert!(broken.is_none_or(|answer| answer.status == 400));
}

#[test]
fn kubectl_goes_through_the_proxy_by_name() {
    let Shared { run, cluster } = shared();
    let _logs = run.watch();
    let proxy = Proxy::start();
    proxy.map("kubernetes.default.svc:443", cluster.port());
    let direct = std::fs::read_to_string(cluster.admin_kubeconfig()).unwrap();
    let through = direct.replace(
        &format!("server: '{}'", cluster.url()),
        &format!("server: 'https://kubernetes.default.svc', proxy-url: '{}'", proxy.url()),
    );
    assert_ne!(direct, through);
    let kubectl = Kubectl::new(&Tools::ensure().kubectl(), &run.write("through.kubeconfig", through), &run.dir("through-home"));
    assert_eq!(kubectl.run(&["get", "pods", "-o", "name"]).ok(), "pod/web\n");
    let output = kubectl.run(&["exec", "web", "--", "echo", "through"]);
    assert_eq!(output.ok(), "through\n");
    proxy.map("kubernetes.default.svc:443", 1);
    kubectl.run(&["get", "pods"]).err();
}

#[test]
fn two_clusters_at_once_and_a_restart() {
    let Shared { cluster: first, .. } = shared();
    let run = Run::new("second");
    let began = std::time::Instant::now();
    let options =
        ClusterOptions { name: "second".into(), api_server_flags: vec!["--request-timeout=59s".into()], ..ClusterOptions::default() };
    let second = Cluster::start(Tools::ensure(), &run, options);
    println!("a cluster in {:?}", began.elapsed());
    second.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: only-in-second}\n");
    first.kubectl_admin(&["get", "configmap", "only-in-second"]).err();
    assert_ne!(first.url(), second.url());
    second.restart_api_server();
    second.kubectl_admin(&["get", "configmap", "only-in-second"]).ok();
    second.stop_api_server();
    let error = second.kubectl_admin(&["get", "pods"]).err();
    assert!(error.contains("refused"), "{error}");
}

/// A cluster for a person to look at: `cargo test --test harness -- --ignored --nocapture cluster_to_look_at`, ended by Ctrl-C.
#[test]
#[ignore = "runs until interrupted"]
fn cluster_to_look_at() {
    let Shared { run, cluster } = shared();
    println!(
        "export KUBECONFIG={}\nkubectl: {}\nfiles: {}",
        cluster.admin_kubeconfig().display(),
        Tools::ensure().kubectl().display(),
        run.path().display()
    );
    std::thread::park();
}
