//! A Kubernetes cluster on loopback in a few seconds: etcd, a real kube-apiserver with an audit log, and kwok in the kubelet's place.
//!
//! `exec`, `attach`, `cp`, `logs -f` and `port-forward` work through the API server: commands run on this machine in [`Cluster::work_dir`].
//! There is no controller manager and no scheduler: namespaces never finish deleting, and a pod starts only with `nodeName: node-1`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::kubectl::{Kubectl, Output};
use super::leash::{self, Process};
use super::manifests;
use super::pki::{self, Authority, Pair};
use super::ports::free_port;
use super::run::Run;
use super::tools::Tools;
use super::wait::{eventually, eventually_ok};
use super::{echo, http};

const START: Duration = Duration::from_secs(60);

const AUTHENTICATION_CONFIG: &str = "authentication.yaml";

/// What a cluster may differ in.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Names the directory, the logs and the contexts; `cluster` when empty. Two clusters of one run need two names.
    pub name: String,
    /// Further flags of kube-apiserver (`--feature-gates=...`); a later flag overrides an earlier one.
    pub api_server_flags: Vec<String>,
    /// Another binary of kube-apiserver: [`Tools::kube_apiserver_of`].
    pub api_server: Option<PathBuf>,
    /// Structured authentication, at first without an issuer: see [`Cluster::authentication_config`].
    pub structured_authentication: bool,
    /// The API server's environment besides: proxies.
    pub api_server_env: Vec<(String, String)>,
}

/// A running cluster. Dropping it ends its processes.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    dir: PathBuf,
    log: PathBuf,
    port: u16,
    ca_pem: String,
    api_server: PathBuf,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    echo_port: u16,
    kubectl: PathBuf,
    kwok: Option<Process>,
    api: Mutex<Option<Process>>,
    etcd: Process,
    etcd_url: String,
}

impl Cluster {
    /// Starts everything and returns when the pod `web` runs.
    pub fn start(tools: &Tools, run: &Run, options: ClusterOptions) -> Self {
        let name = if options.name.is_empty() { "cluster".to_owned() } else { options.name.clone() };
        let dir = run.dir(&name);
        let authority = Authority::new(&format!("{name} test authority"));
        let (etcd, etcd_url) = start_etcd(tools, run, &name, &dir);
        let port = free_port();
        let flags = api_server_flags(&dir, &authority, port, &etcd_url, &options);
        let mut cluster = Self {
            log: run.log_path(&format!("{name}-kube-apiserver")),
            port,
            ca_pem: authority.pem().to_owned(),
            api_server: options.api_server.unwrap_or_else(|| tools.kube_apiserver_under_test()),
            flags,
            env: options.api_server_env,
            echo_port: echo::start(),
            kubectl: tools.kubectl(),
            kwok: None,
            api: Mutex::new(None),
            etcd,
            etcd_url,
            name,
            dir,
        };
        cluster.write_kubeconfigs(&authority);
        cluster.start_api_server();
        cluster.kwok = Some(cluster.start_kwok(tools, run, &authority));
        cluster.start_pod();
        cluster
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Signs the API server's certificate (kubernetes.default.svc, localhost, 127.0.0.1).
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A kubeconfig for a user in `system:masters`, straight to the API server.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// kubectl as that administrator, straight to the API server.
    pub fn admin(&self) -> Kubectl {
        Kubectl::new(&self.kubectl, &self.admin_kubeconfig(), &self.dir.join("admin-home"))
    }

    pub fn kubectl_admin(&self, args: &[&str]) -> Output {
        self.admin().run(args)
    }

    /// Applies manifests as the administrator.
    pub fn apply(&self, manifests: &str) {
        self.admin().run_with(&["apply", "-f", "-"], manifests.as_bytes()).ok();
    }

    /// A pod of one container on the node, and the wait until it runs; harmless when it does already. Its namespace must be there.
    pub fn run_pod(&self, namespace: &str, name: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\n\
             spec:\n  nodeName: node-1\n  containers: [{{name: {name}, image: 'registry.example/{name}:1', ports: [{{containerPort: 80}}]}}]\n"
        ));
        self.kubectl_admin(&["wait", "-n", namespace, "--for=condition=Ready", &format!("pod/{name}"), "--timeout=30s"]).ok();
    }

    pub fn create_service_account(&self, namespace: &str, name: &str) {
        self.apply(&format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n"));
    }

    /// A token of a service account, valid for 720 hours.
    pub fn create_token(&self, namespace: &str, name: &str) -> String {
        self.kubectl_admin(&["create", "token", name, "-n", namespace, "--duration=720h"]).ok().trim().to_owned()
    }

    /// The audit log, one JSON object (`audit.k8s.io/v1` Event) for each line, oldest first.
    pub fn audit_events(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.audit_log()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the events with an audit id until the last one is there, and returns all of them. That is `ResponseComplete` or `Panic`; for
    /// a request that was not authenticated (401) the API server logs `ResponseStarted` only.
    pub fn audit_by_id(&self, id: &str) -> Vec<serde_json::Value> {
        eventually(&format!("the audit event {id}"), Duration::from_secs(5), || {
            let events: Vec<_> = self.audit_events().into_iter().filter(|event| event["auditID"] == id).collect();
            let last = |event: &serde_json::Value| event["stage"] != "ResponseStarted" || event["responseStatus"]["code"] == 401;
            events.iter().any(last).then_some(events)
        })
    }

    /// Waits for an event for which `is_it` holds, and returns the first.
    pub fn audit_find(&self, what: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually(&format!("the audit event of {what}"), Duration::from_secs(5), || self.audit_events().into_iter().find(&is_it))
    }

    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.jsonl")
    }

    /// Appends a line to what every pod logs.
    pub fn append_log(&self, line: &str) {
        self.append("pod.log", line);
    }

    fn append(&self, file: &str, line: &str) {
        let mut file = File::options().append(true).create(true).open(self.dir.join(file)).expect("the pod's log");
        writeln!(file, "2026-01-01T00:00:00.000000000Z stdout F {line}").expect("the pod's log");
    }

    /// Appends a line to what pods called `quiet` log.
    pub fn append_quiet_log(&self, line: &str) {
        self.append("quiet.log", line);
    }

    /// The file of `--authentication-config`.
    pub fn authentication_config(&self) -> PathBuf {
        self.dir.join(AUTHENTICATION_CONFIG)
    }

    /// Replaces that file in one step, as an operator does.
    pub fn set_authentication_config(&self, text: &str) {
        let part = write(&self.dir, "authentication.part", text);
        std::fs::rename(part, self.authentication_config()).expect("the authentication configuration");
    }

    /// The same, and the wait until the API server has taken it over while it runs. With an issuer that is ten seconds: it asks at once whether
    /// the keys are there, which they never are yet, and then every ten seconds; the old configuration serves meanwhile.
    pub fn reload_authentication_config(&self, text: &str) {
        let before = ["success", "failure"].map(|result| self.authentication_reloads(result));
        self.set_authentication_config(text);
        eventually("the API server reads its authentication configuration again", Duration::from_secs(60), || {
            let now = ["success", "failure"].map(|result| self.authentication_reloads(result));
            assert_eq!(now[1], before[1], "it refused the file; its log is {}", self.log.display());
            (now[0] > before[0]).then_some(())
        });
    }

    /// How often the API server took over a changed `--authentication-config` since its start, or failed to.
    fn authentication_reloads(&self, result: &str) -> u64 {
        let metrics = self.kubectl_admin(&["get", "--raw", "/metrics"]).ok();
        let lines = metrics.lines().filter(|line| {
            line.starts_with("apiserver_authentication_config_controller_automatic_reloads_total{")
                && line.contains(&format!("\"{result}\""))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map(|count| count as u64).sum()
    }

    /// Where `exec` runs; `cp` to a relative path ends up here.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("pod")
    }

    /// The server that every forwarded port of a pod leads to (see [`echo`]).
    pub fn echo_port(&self) -> u16 {
        self.echo_port
    }

    /// Ends kube-apiserver at once, as a crash would; its data stays.
    pub fn stop_api_server(&self) {
        if let Some(mut process) = self.api.lock().unwrap().take() {
            process.kill();
        }
    }

    /// Starts kube-apiserver on the same port, with the same keys and data; returns when it is ready.
    pub fn start_api_server(&self) {
        let mut command = leash::command(&self.api_server);
        command.args(&self.flags).envs(self.env.iter().cloned()).current_dir(&self.dir);
        let mut process = Process::start("kube-apiserver", &self.log, command);
        let client = http::client(&[self.ca_pem.as_str()]);
        let url = format!("{}/readyz", self.url());
        process.until("kube-apiserver is ready", START, || client.get(&url).send().ok()?.status().is_success().then_some(()));
        *self.api.lock().unwrap() = Some(process);
    }

    pub fn restart_api_server(&self) {
        self.stop_api_server();
        self.start_api_server();
    }

    /// Lets etcd forget the history: who watches from an old resource version is told 410 and must list again.
    pub fn compact(&self) {
        let client = http::client(&[]);
        let ask = |path: &str, body: serde_json::Value| -> serde_json::Value {
            let answer = client.post(format!("{}{path}", self.etcd_url)).json(&body).send().expect("etcd answers");
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.json().expect("JSON")
        };
        let revision = ask("/v3/kv/range", serde_json::json!({"key": "AA=="}))["header"]["revision"].clone();
        ask("/v3/kv/compaction", serde_json::json!({"revision": revision, "physical": true}));
    }

    fn write_kubeconfigs(&self, authority: &Authority) {
        for (user, file) in [("kubernetes-admin", "admin"), ("kwok", "kwok")] {
            let (cert, key) = write_pair(&self.dir, file, &authority.client(user, &["system:masters"]));
            let content = manifests::kubeconfig(&self.name, &self.url(), &self.ca_file(), &cert, &key);
            write(&self.dir, &format!("{file}.kubeconfig"), &content);
        }
    }

    fn start_kwok(&self, tools: &Tools, run: &Run, authority: &Authority) -> Process {
        let work_dir = self.work_dir();
        std::fs::create_dir_all(&work_dir).expect("the pod's directory");
        let (logs, quiet_logs) = (write(&self.dir, "pod.log", ""), write(&self.dir, "quiet.log", ""));
        let config = manifests::kwok_config(&stages(&tools.kwok_stages()), &work_dir, &logs, &quiet_logs, self.echo_port);
        let config = write(&self.dir, "kwok.yaml", &config);
        let (cert, key) = write_pair(&self.dir, "kubelet", &authority.server(&["localhost", "127.0.0.1"]));
        let port = free_port();
        let mut command = leash::command(tools.kwok());
        command.args(["--manage-all-nodes", "--node-ip=127.0.0.1", "--node-name=localhost"]);
        command.arg(format!("--node-port={port}")).arg(format!("--server-address=127.0.0.1:{port}"));
        command.arg(flag("--tls-cert-file", &cert)).arg(flag("--tls-private-key-file", &key));
        command.arg(flag("--config", &config)).arg(flag("--kubeconfig", &self.dir.join("kwok.kubeconfig")));
        command.env("HOME", &self.dir).current_dir(&work_dir);
        run.start(&format!("{}-kwok", self.name), command)
    }

    /// The namespace `default` comes a moment after readiness, so the first tries may be refused.
    fn start_pod(&self) {
        let admin = self.admin();
        eventually_ok("node and pod are created", START, || {
            let output = admin.run_with(&["apply", "--validate=false", "-f", "-"], manifests::NODE_AND_POD.as_bytes());
            if output.code == Some(0) { Ok(()) } else { Err(output.stderr) }
        });
        admin.run(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    }
}

/// Nothing of a test cluster is worth a slow, orderly end.
impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(kwok) = &mut self.kwok {
            kwok.kill();
        }
        self.stop_api_server();
        self.etcd.kill();
    }
}

fn start_etcd(tools: &Tools, run: &Run, name: &str, dir: &Path) -> (Process, String) {
    let url = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = leash::command(tools.etcd());
    command.arg(flag("--data-dir", &dir.join("etcd"))).args(["--unsafe-no-fsync", "--log-level=warn"]);
    command.arg(format!("--listen-client-urls={url}")).arg(format!("--advertise-client-urls={url}"));
    command.arg(format!("--listen-peer-urls={peer}")).arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=default={peer}"));
    let mut process = run.start(&format!("{name}-etcd"), command);
    let client = http::client(&[]);
    let health = format!("{url}/health");
    process.until("etcd is healthy", START, || client.get(&health).send().ok()?.status().is_success().then_some(()));
    (process, url)
}

fn api_server_flags(dir: &Path, authority: &Authority, port: u16, etcd: &str, options: &ClusterOptions) -> Vec<String> {
    let ca = write(dir, "ca.pem", authority.pem());
    let names = ["kubernetes.default.svc", "kubernetes.default", "kubernetes", "localhost", "127.0.0.1"];
    let (cert, key) = write_pair(dir, "apiserver", &authority.server(&names));
    let (kubelet_cert, kubelet_key) = write_pair(dir, "kubelet-client", &authority.client("kube-apiserver", &["system:masters"]));
    let (private, public) = pki::key_pair();
    let mut flags = vec![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        flag("--tls-cert-file", &cert),
        flag("--tls-private-key-file", &key),
        flag("--client-ca-file", &ca),
        flag("--kubelet-client-certificate", &kubelet_cert),
        flag("--kubelet-client-key", &kubelet_key),
        flag("--service-account-key-file", &write(dir, "service-account.pub", &public)),
        flag("--service-account-signing-key-file", &write(dir, "service-account.key", &private)),
        flag("--audit-policy-file", &write(dir, "audit-policy.yaml", manifests::AUDIT_POLICY)),
        flag("--audit-log-path", &dir.join("audit.jsonl")),
    ];
    let fixed = [
        "--bind-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        // It would begin a new file after 100 MB, and the log is the judge.
        "--audit-log-maxsize=1000000",
        "--audit-log-mode=blocking",
        "--disable-admission-plugins=ServiceAccount",
        "--shutdown-delay-duration=0s",
    ];
    flags.extend(fixed.map(str::to_owned));
    if options.structured_authentication {
        flags.push(flag("--authentication-config", &write(dir, AUTHENTICATION_CONFIG, manifests::NO_ISSUERS)));
    }
    flags.extend(options.api_server_flags.iter().cloned());
    flags
}

fn stages(dir: &Path) -> String {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).expect("kwok's stages").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).expect("a stage")).collect();
    texts.join("\n---\n")
}

fn flag(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn write(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

fn write_pair(dir: &Path, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
    (write(dir, &format!("{name}.crt"), &pair.cert), write(dir, &format!("{name}.key"), &pair.key))
}
