//! What is measured: one cluster with 500 pods, both floors, and kubepass; all run from the first round to the last.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::envoys::{self, Floor, FloorInput};
use super::kubepass::{Entry, Kubepass, PUBLIC_HOST};
use super::machine;
use super::paths::{self, BASELINE, DIRECT, ENVOY_FLOOR, EXT_AUTHZ_FLOOR, GROUPS, IMPERSONATE, JWT, NAMESPACE, PODS, Path, SeenAs};
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::http;
use super::support::leash::Process;
use super::support::pki::Authority;
use super::support::proxy::Proxy;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually_ok;
use super::support::world::server_binary;

/// Everything that runs. Dropping it ends all.
pub(super) struct Installation {
    // The order of the fields is the order in which the processes end; the directory goes last.
    pub(super) kubepass: Kubepass,
    baseline: Option<Kubepass>,
    envoy_floor: Floor,
    ext_authz_floor: Floor,
    pub(super) cluster: Cluster,
    service_account_token: String,
    /// Signs the certificates of kubepass and of the floors.
    pub(super) authority: String,
    pub(super) run: Run,
}

impl Installation {
    /// `baseline`: another `kubepass-server` (of another version) to be measured beside this one.
    pub(super) fn start(tools: &Tools, run: Run, baseline: Option<PathBuf>) -> Self {
        let proxy = Proxy::start();
        let cluster = start_cluster(tools, &run, &proxy);
        fill(&cluster);
        let authority = Authority::new("kubepass bench authority");
        let start = |name, binary: PathBuf| Kubepass::start(name, &binary, tools, &run, &cluster, &authority);
        let kubepass = start("kubepass", server_binary());
        proxy.map(&format!("{PUBLIC_HOST}:443"), kubepass.port);
        take_tokens(&run, &kubepass, authority.pem());
        let baseline = baseline.map(|binary| start("baseline", binary));
        let service_account_token = cluster.create_token("kubepass", "kubepass");
        let certificate = authority.server(&[envoys::HOST]);
        let input = FloorInput { tools, run: &run, cluster: &cluster, certificate: &certificate, token: &service_account_token };
        let (envoy_floor, ext_authz_floor) = (Floor::plain(&input), Floor::with_ext_authz(&input));
        let authority = authority.pem().to_owned();
        Self { kubepass, baseline, envoy_floor, ext_authz_floor, cluster, service_account_token, authority, run }
    }

    /// All paths that this kubepass has, in the order in which they add to each other.
    pub(super) fn paths(&self) -> Vec<Path> {
        let path = |name, host: &str, port, bearer: &str, processes| Path {
            name,
            host: host.to_owned(),
            port,
            headers: paths::usual_headers(bearer),
            seen_as: SeenAs::Impersonated,
            processes,
            trail: None,
        };
        let (plain, authz) = (&self.envoy_floor, &self.ext_authz_floor);
        let mut direct = path(DIRECT, "127.0.0.1", self.cluster.port(), &self.service_account_token, vec![]);
        direct.headers.extend(paths::impersonation_headers());
        let always_allow = authz.authz.as_ref().map_or(0, Process::id);
        let envoy_floor = path(ENVOY_FLOOR, envoys::HOST, plain.port, "unused", vec![("envoy", plain.envoy.id())]);
        let asking = vec![("envoy", authz.envoy.id()), ("ext_authz", always_allow)];
        let ext_authz_floor = path(EXT_AUTHZ_FLOOR, envoys::HOST, authz.port, "unused", asking);
        let through = |name, kubepass: &Kubepass, entry: &Entry| Path {
            trail: Some(kubepass.trail()),
            ..path(name, &entry.host, kubepass.port, &entry.session_token, kubepass.processes())
        };
        let impersonate = through(IMPERSONATE, &self.kubepass, &self.kubepass.impersonate);
        let jwt = Path { seen_as: SeenAs::Authenticated, ..through(JWT, &self.kubepass, &self.kubepass.jwt) };
        let baseline = self.baseline.as_ref().map(|baseline| through(BASELINE, baseline, &baseline.impersonate));
        [direct, envoy_floor, ext_authz_floor, impersonate, jwt].into_iter().chain(baseline).collect()
    }

    /// The admin socket of a path's Envoy.
    pub(super) fn envoy_admin(&self, path: &Path) -> Option<PathBuf> {
        match path.name {
            ENVOY_FLOOR => Some(self.envoy_floor.admin.clone()),
            EXT_AUTHZ_FLOOR => Some(self.ext_authz_floor.admin.clone()),
            IMPERSONATE | JWT => Some(self.kubepass.envoy_admin()),
            _ => None,
        }
    }

    /// Resident megabytes of kubepass and of its Envoy.
    pub(super) fn memory_mb(&self) -> serde_json::Value {
        let megabytes =
            self.kubepass.processes().into_iter().map(|(name, process)| (name.to_owned(), machine::resident_mb(process).into()));
        serde_json::Value::Object(megabytes.collect())
    }
}

/// What an API server starts with that takes nobody's tokens yet.
const NO_ISSUERS: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
/// A changed file is taken over in ten seconds.
const TAKE_OVER: Duration = Duration::from_secs(60);

/// An API server that reaches kubepass's own host as everyone here does, by the proxy that knows its name.
fn start_cluster(tools: &Tools, run: &Run, proxy: &Proxy) -> Cluster {
    let script = format!("#!/bin/sh\nexec env HTTPS_PROXY={} {} \"$@\"\n", proxy.url(), tools.kube_apiserver().display());
    let api_server = run.write("kube-apiserver", script);
    std::fs::set_permissions(&api_server, std::fs::Permissions::from_mode(0o755)).expect("the mode");
    let flag = format!("--authentication-config={}", store_authentication_config(run, NO_ISSUERS).display());
    let options =
        ClusterOptions { name: "bench".into(), api_server: Some(api_server), api_server_flags: vec![flag], ..ClusterOptions::default() };
    Cluster::start(tools, run, options)
}

fn store_authentication_config(run: &Run, text: &str) -> PathBuf {
    let file = run.file("authentication.yaml");
    std::fs::rename(run.write("authentication.part", text), &file).expect("the file");
    file
}

/// Lets the API server take kubepass's tokens; returns when it does.
fn take_tokens(run: &Run, kubepass: &Kubepass, ca_pem: &str) {
    store_authentication_config(run, &kubepass.authentication_config);
    let proxy = Proxy::start();
    proxy.map(&format!("{}:443", kubepass.jwt.host), kubepass.port);
    let through = reqwest::Proxy::https(proxy.url()).expect("the proxy's URL");
    let client = http::builder(&[ca_pem]).proxy(through).build().expect("a client");
    let ask = || client.get(format!("https://{}/version", kubepass.jwt.host)).bearer_auth(&kubepass.jwt.session_token).send();
    eventually_ok("the API server takes kubepass's tokens", TAKE_OVER, || match ask() {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(answer.text().unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    });
}

/// The pods of the list, and leave to list them.
fn fill(cluster: &Cluster) {
    let role = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: list-pods, namespace: {NAMESPACE}}}\n\
         rules:\n- {{apiGroups: [''], resources: [pods], verbs: [list]}}\n- {{apiGroups: [''], resources: [pods/log, pods/exec], verbs: [get, create]}}\n\
         - {{apiGroups: [''], resources: [configmaps], verbs: [get, list, watch]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: list-pods, namespace: {NAMESPACE}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: list-pods}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: {}}}]\n",
        GROUPS[0]
    );
    cluster.apply(&role);
    let pod = |number| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number:03}, namespace: {NAMESPACE}, labels: {{app: web}}}}\n\
             spec: {{nodeName: node-1, containers: [{{name: web, image: 'registry.example/web:1', ports: [{{containerPort: 80}}]}}]}}\n"
        )
    };
    cluster.apply(&(0..PODS).map(pod).collect::<String>());
    let wait = ["wait", "--for=condition=Ready", "pod", "--all", "-n", NAMESPACE, "--timeout=60s"];
    cluster.kubectl_admin(&wait).ok();
}
