//! `kubepass-server serve` with some routes to nowhere, and Envoys beside it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http;
use crate::support::kubectl::{Kubectl, Output};
use crate::support::leash::{self, Process};
use crate::support::pki::Authority;
use crate::support::ports::free_port;
use crate::support::run::Run;
use crate::support::tools::Tools;
use crate::support::world::server_binary;

/// Routes that are always there.
pub(super) const ROUTES: usize = 20;
/// The route that comes and goes.
pub(super) const EXTRA: &str = "extra";

pub(super) struct Installation {
    // The order of the fields is the order in which they end.
    envoys: BTreeMap<usize, Process>,
    server: Process,
    authority: Authority,
    pub(super) wanted: Wanted,
    admin_port: u16,
    listener_port: u16,
    run: Run,
}

/// What the configuration says, besides what it always does.
pub(super) struct Wanted {
    pub(super) extra: bool,
    /// Of the first route's server.
    pub(super) port: u16,
    /// Told from others by its message.
    pub(super) rule: usize,
}

/// What kubepass says of one stream.
pub(super) struct Stream {
    pub(super) node: String,
    /// Types of which it lacks something, with what kubepass says of them.
    pub(super) late: Vec<String>,
}

impl Installation {
    pub(super) fn start() -> Self {
        let run = Run::new("many");
        let (admin_port, listener_port, authority) = (free_port(), free_port(), Authority::new("kubepass test authority"));
        let wanted = Wanted { extra: false, port: 6443, rule: 0 };
        secret(&run, "secret", "a secret for tests only, long enough for keys to derive from it");
        secret(&run, "client-secret", "client-secret");
        secret(&run, "token", "first-token");
        run.write("kubepass/ca.crt", authority.pem());
        serve_certificate(&run, &authority);
        write_config(&run, &wanted, admin_port, listener_port);
        let mut command = leash::command(server_binary());
        command.args(["serve", "--config"]).arg(run.file("kubepass/kubepass.yaml")).current_dir(run.dir("kubepass"));
        let mut server = run.start("kubepass-server", command);
        let (client, url) = (http::client(&[]), format!("http://127.0.0.1:{admin_port}/readyz"));
        server.until("kubepass is ready", Duration::from_secs(30), || client.get(&url).send().ok()?.status().is_success().then_some(()));
        Self { envoys: BTreeMap::new(), server, authority, wanted, admin_port, listener_port, run }
    }

    /// `envoy-NUMBER`. All listen at one port: the kernel lets them.
    pub(super) fn start_envoy(&mut self, number: usize) {
        let node = format!("envoy-{number}");
        let bootstrap = self.run.write(&format!("{node}.yaml"), self.operator(&["bootstrap", "--node", &node]));
        let mut command = leash::command(Tools::ensure().envoy());
        command.arg("--config-path").arg(bootstrap).args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        self.envoys.insert(number, self.run.start(&node, command));
    }

    pub(super) fn signal_envoy(&mut self, number: usize, signal: Signal) {
        match signal {
            Signal::KILL => drop(self.envoys.remove(&number).unwrap().kill()),
            signal => self.envoys[&number].signal(signal),
        }
    }

    pub(super) fn xds_socket(&self) -> PathBuf {
        self.run.file("kubepass/run/xds.sock")
    }

    /// Writes the configuration that is wanted.
    pub(super) fn write(&self) {
        write_config(&self.run, &self.wanted, self.admin_port, self.listener_port);
    }

    pub(super) fn rotate_certificate(&self) {
        serve_certificate(&self.run, &self.authority);
    }

    pub(super) fn rotate_token(&self) {
        let before = std::fs::read_to_string(self.run.file("kubepass/token")).unwrap();
        secret(&self.run, "token", &format!("{before}-again"));
    }

    pub(super) fn streams(&self) -> Vec<Stream> {
        let state: Value = serde_json::from_str(&self.operator(&["state"])).unwrap();
        let late = |stream: &Value| {
            let types = stream["types"].as_object().unwrap().iter().filter(|(_, of)| of["requested"] == true);
            let lacks = |of: &Value| of["acknowledged"] != of["wanted"] || !of["refusal"].is_null();
            let late: Vec<String> = types.clone().filter(|(_, of)| lacks(of)).map(|(kind, of)| format!("{kind}: {of}")).collect();
            if types.count() < 5 { vec!["it has not asked for everything yet".to_owned()] } else { late }
        };
        let stream = |stream: &Value| Stream { node: stream["node"].as_str().unwrap().to_owned(), late: late(stream) };
        state["xds"]["streams"].as_array().unwrap().iter().map(stream).collect()
    }

    /// Of the configuration in force.
    pub(super) fn version(&self) -> Vec<String> {
        self.lines("kubepass_config_info{", "")
    }

    /// The sum of a metric's values whose lines begin and go on like this.
    pub(super) fn metric(&self, begin: &str, part: &str) -> u64 {
        let lines = self.lines(begin, part);
        assert!(!lines.is_empty(), "no metric {begin}");
        lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    fn lines(&self, begin: &str, part: &str) -> Vec<String> {
        let text = http::client(&[]).get(format!("http://127.0.0.1:{}/metrics", self.admin_port)).send().unwrap().text().unwrap();
        text.lines().filter(|line| line.starts_with(begin) && line.contains(part)).map(str::to_owned).collect()
    }

    pub(super) fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// What an operator sees of what an Envoy is given, and that it is nowhere else to be had.
    pub(super) fn is_shown_to_the_operator_alone(&self) {
        let given: Value = serde_json::from_str(&self.operator(&["xds", "dump", "--node", "envoy-1"])).unwrap();
        let configs = given["configs"].as_array().unwrap();
        let of = |name: &str| configs.iter().find(|config| config["@type"].as_str().unwrap().ends_with(name)).unwrap();
        assert_eq!(of("ClustersConfigDump")["dynamic_active_clusters"].as_array().unwrap().len(), ROUTES);
        let text = given.to_string();
        for secret in ["first-token", "PRIVATE KEY"] {
            assert!(!text.contains(secret), "{secret} is shown");
        }
        let secrets = self.operator(&["xds", "dump", "--type", "sds"]);
        assert_eq!(secrets.matches("[redacted]").count(), ROUTES + 1, "a token for each route, and a key");
        let part: Value = serde_json::from_str(&self.operator(&["xds", "dump", "--type", "sds", "--name", "token:r07"])).unwrap();
        assert_eq!(part["configs"][0]["dynamic_active_secrets"].as_array().unwrap().len(), 1, "{part}");
        for (args, said) in [
            (&["--node", "nobody"][..], "no Envoy is connected as \"nobody\""),
            (&["--name", "nothing"], "it is given no such resource"),
            (&["--type", "vhds"], "invalid value 'vhds'"),
        ] {
            let error = self.run_operator(&[&["xds", "dump"], args].concat()).err();
            assert!(error.contains(said), "{error}");
        }
        let url = format!("http://127.0.0.1:{}/kubepass.admin.v1.Admin/DumpResources", self.admin_port);
        assert_eq!(http::client(&[]).post(url).send().unwrap().status().as_u16(), 404);
        let socket = self.xds_socket().display().to_string();
        let elsewhere = self.run_operator(&["xds", "dump", "--socket", &socket]).err();
        assert!(!elsewhere.contains("configs"), "{elsewhere}");
    }

    fn operator(&self, args: &[&str]) -> String {
        self.run_operator(args).ok()
    }

    fn run_operator(&self, args: &[&str]) -> Output {
        let config = self.run.file("kubepass/kubepass.yaml").display().to_string();
        Kubectl::command(&server_binary(), &self.run.dir("operator")).env("KUBEPASS_CONFIG", &config).run(args)
    }
}

fn secret(run: &Run, name: &str, content: &str) {
    let part = run.write(&format!("kubepass/{name}.part"), content);
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(part, run.file(&format!("kubepass/{name}"))).unwrap();
}

/// Another one each time. What is read between the two does not fit together, and changes nothing.
fn serve_certificate(run: &Run, authority: &Authority) {
    let pair = authority.server(&["pass.localhost", "*.k8s.localhost"]);
    secret(run, "tls.key", &pair.key);
    secret(run, "tls.crt", &pair.cert);
}

fn write_config(run: &Run, wanted: &Wanted, admin_port: u16, listener_port: u16) {
    let route = |name: &str, port: u16| {
        format!(
            "- name: {name}\n  host: {name}.k8s.localhost\n  kubernetes: {{server: 'https://127.0.0.1:{port}', ca: {{file: ca.crt}}, \
             impersonate: {{token: {{file: token}}}}}}\n  policy: [{{allow: 'true'}}, {{deny: 'false', message: 'rule {}'}}]\n",
            wanted.rule
        )
    };
    let mut routes: String =
        (0..ROUTES).map(|number| route(&format!("r{number:02}"), if number == 0 { wanted.port } else { 6443 })).collect();
    if wanted.extra {
        routes += &route(EXTRA, 6443);
    }
    let dir = run.file("kubepass/run");
    let dir = dir.display();
    let text = format!(
        "public_url: https://pass.localhost\n\
         listeners:\n- {{address: 127.0.0.1:{listener_port}, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
         control_plane: {{socket_dir: {dir}}}\nadmin: {{address: 127.0.0.1:{admin_port}, socket: {dir}/admin.sock}}\n\
         secrets: [{{file: secret}}]\n\
         identity_providers:\n- {{name: corp, issuer: 'http://127.0.0.1:9', client_id: kubepass, client_secret: {{file: client-secret}}, \
         scopes: [openid], identity: {{username: claims.sub}}}}\n\
         sessions: {{store: {{embedded: {{path: kubepass.db}}}}}}\n\
         routes:\n{routes}\
         audit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n"
    );
    let part = run.write("kubepass/kubepass.yaml.part", text);
    std::fs::rename(part, run.file("kubepass/kubepass.yaml")).unwrap();
}
