//! A whole installation on loopback: clusters, an identity provider, kubepass with its Envoy, and people who use it.
//!
//! It is set up as the README tells an operator to: a configuration file; on each cluster `cluster rbac` applied and a token made, or the API
//! server started with what `cluster authentication-config` prints; `up`.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::cluster::{Cluster, ClusterOptions};
use super::http;
use super::idp::{CLIENT_ID, CLIENT_SECRET, Idp, IdpOptions};
use super::jwt::Signer;
use super::kubectl::{Kubectl, Output};
use super::leash::{self, Process};
use super::manifests;
use super::person::{Person, Place};
use super::pki::{self, Authority};
use super::ports::free_port;
use super::proxy::Proxy;
use super::run::Run;
use super::tools::Tools;
use super::wait::{eventually, eventually_ok};

pub const PUBLIC_HOST: &str = "pass.localhost";
pub const PROD_HOST: &str = "prod.k8s.localhost";
pub const STAGING_HOST: &str = "staging.k8s.localhost";

/// The namespace and name of kubepass's service account on each cluster.
pub const NAMESPACE: &str = "kubepass";
pub const SERVICE_ACCOUNT: &str = "kubepass";

/// The audience of the route `staging` where it uses tokens.
pub const STAGING_AUDIENCE: &str = "staging-cluster";

/// The policy of both routes unless a test brings its own.
pub const POLICY: &str = r#"
  - {name: staff, allow: user.email.endsWith("@example.com")}
  - {name: no-secrets, deny: 'k8s.resource == "secrets" && !("sre" in user.groups)', message: "ask the SRE on call"}
"#;

/// How kubepass gets into a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By a service account that may impersonate.
    Impersonate,
    /// By tokens that kubepass signs and the API server verifies.
    Jwt,
}

/// How an installation differs from the usual one.
#[derive(Clone)]
pub struct WorldOptions {
    /// 0 for a free port. With another one the URLs of the installation carry it (for a person's own browser).
    pub port: u16,
    /// Whether URLs carry the listener's port instead of relying on the harness's proxy.
    pub port_in_urls: bool,
    pub users: Value,
    /// Of the route `staging`; `prod` always impersonates.
    pub staging: Method,
    /// YAML list items under `policy:`, indented by two.
    pub policy: String,
    /// Further keys of the route `prod`, and of its `kubernetes` section, one-line YAML each.
    pub prod_route: String,
    pub prod_kubernetes: String,
    /// Further top-level keys.
    pub top_level: String,
    /// Of both clusters.
    pub api_server_flags: Vec<String>,
    /// kubepass's environment besides this process's own.
    pub server_env: Vec<(String, String)>,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            port: 0,
            port_in_urls: false,
            users: json!({
                "foo": {"email": "foo@example.com", "email_verified": true, "name": "Foo", "groups": ["group1", "group2"]},
                "bar": {"email": "bar@example.com", "email_verified": true, "name": "Bar", "groups": ["sre"]},
                "eve": {"email": "eve@evil.example", "email_verified": true, "name": "Eve", "groups": []},
            }),
            staging: Method::Impersonate,
            policy: POLICY.to_owned(),
            prod_route: String::new(),
            prod_kubernetes: String::new(),
            top_level: String::new(),
            api_server_flags: Vec::new(),
            server_env: Vec::new(),
        }
    }
}

/// A running installation. Dropping it ends everything.
pub struct World {
    // The order of the fields is the order in which the processes end; the directory goes last.
    server: Option<Process>,
    pub idp: Idp,
    pub prod: Arc<Cluster>,
    pub staging: Arc<Cluster>,
    pub proxy: Proxy,
    /// The same names as seen by the API server of `staging`, which reads kubepass's keys.
    pub cluster_proxy: Proxy,
    pub authority: Authority,
    pub port: u16,
    pub admin_port: u16,
    options: WorldOptions,
    tools: Tools,
    pub run: Run,
}

impl World {
    /// Everything but kubepass itself: see [`World::start_kubepass`].
    pub fn prepare(tools: &Tools, run: Run, options: WorldOptions) -> Self {
        let port = if options.port == 0 { free_port() } else { options.port };
        let (proxy, cluster_proxy) = (Proxy::start(), Proxy::start());
        for host in [PUBLIC_HOST, PROD_HOST, STAGING_HOST] {
            proxy.map(&format!("{host}:443"), port);
            proxy.map(&format!("{host}:{port}"), port);
        }
        for port_in_url in [443, port] {
            cluster_proxy.map(&format!("{PUBLIC_HOST}:{port_in_url}"), port);
        }
        let url_port = if options.port_in_urls { format!(":{port}") } else { String::new() };
        let idp_options = IdpOptions {
            redirect_uris: vec![format!("https://{PUBLIC_HOST}{url_port}/callback")],
            users: options.users.clone(),
            ..IdpOptions::default()
        };
        let (prod, staging, idp) = std::thread::scope(|scope| {
            let prod = scope.spawn(|| Cluster::start(tools, &run, prod_options(&options)));
            let staging = scope.spawn(|| Cluster::start(tools, &run, staging_options(&options, &cluster_proxy)));
            let idp = Idp::start(tools, &run, idp_options);
            (prod.join().expect("the cluster prod"), staging.join().expect("the cluster staging"), idp)
        });
        let world = Self {
            authority: Authority::new("kubepass test authority"),
            prod: Arc::new(prod),
            staging: Arc::new(staging),
            admin_port: free_port(),
            tools: tools.clone(),
            server: None,
            run,
            proxy,
            cluster_proxy,
            idp,
            port,
            options,
        };
        world.write_files();
        world
    }

    /// A running installation: prepared, permitted on its clusters, started.
    pub fn start(tools: &Tools, run: Run, options: WorldOptions) -> Self {
        let mut world = Self::prepare(tools, run, options);
        world.permit("prod", &world.prod);
        match world.options.staging {
            Method::Impersonate => {
                world.permit("staging", &world.staging);
                world.start_kubepass();
            }
            Method::Jwt => {
                world.start_kubepass();
                world.trust("staging", &world.staging);
            }
        }
        world
    }

    /// `https://HOST`, with the port where URLs carry it.
    pub fn url(&self, host: &str) -> String {
        if self.options.port_in_urls { format!("https://{host}:{}", self.port) } else { format!("https://{host}") }
    }

    pub fn config_path(&self) -> PathBuf {
        self.run.file("kubepass/kubepass.yaml")
    }

    pub fn audit_path(&self) -> PathBuf {
        self.run.file("kubepass/audit.jsonl")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.run.file("kubepass/run/admin.sock")
    }

    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    fn write_files(&self) {
        let pair = self.authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST]);
        self.run.write("kubepass/tls.crt", &pair.cert);
        self.secret("tls.key", &pair.key);
        self.run.write("kubepass/ca.pem", self.authority.pem());
        self.secret("secret", "a secret for tests only, long enough for keys to derive from it");
        self.secret("client-secret", CLIENT_SECRET);
        if self.options.staging == Method::Jwt {
            self.secret("signing.pem", &pki::key_pair().0);
        }
        self.run.write("kubepass/prod-ca.crt", self.prod.ca_pem());
        self.run.write("kubepass/staging-ca.crt", self.staging.ca_pem());
        self.write_config(&self.config(&self.options.policy));
    }

    /// Writes a file that only its owner may read, in one step.
    pub fn secret(&self, name: &str, content: &str) {
        let part = self.run.write(&format!("kubepass/{name}.part"), content);
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).expect("the mode");
        std::fs::rename(part, self.run.file(&format!("kubepass/{name}"))).expect("a secret file");
    }

    /// Replaces the configuration file in one step, as an editor does.
    pub fn write_config(&self, text: &str) {
        let part = self.run.write("kubepass/kubepass.yaml.part", text);
        std::fs::rename(part, self.config_path()).expect("the configuration");
    }

    /// The configuration with a policy for both routes.
    pub fn config(&self, policy: &str) -> String {
        let WorldOptions { prod_route, prod_kubernetes, top_level, .. } = &self.options;
        let (port, admin_port, issuer, public) = (self.port, self.admin_port, self.idp.issuer(), self.url(PUBLIC_HOST));
        // Not made here: kubepass makes it, private.
        let dir = self.run.file("kubepass/run");
        let dir = dir.display();
        let route = |name: &str, host: &str, cluster: &Cluster, more: &str, kubernetes: &str| {
            format!(
                "- name: {name}\n  host: {host}\n{more}  kubernetes:\n    server: {}\n    ca: {{file: {name}-ca.crt}}\n\
                 {kubernetes}  policy:{policy}",
                cluster.url()
            )
        };
        let impersonate = |name: &str| format!("    impersonate: {{token: {{file: {name}-token}}}}\n");
        let (staging_method, signing_keys) = match self.options.staging {
            Method::Impersonate => (impersonate("staging"), ""),
            Method::Jwt => (format!("    jwt: {{audience: {STAGING_AUDIENCE}}}\n"), "signing_keys: [{file: signing.pem}]\n"),
        };
        let indent = |text: &str, by: &str| text.lines().map(|line| format!("{by}{line}\n")).collect::<String>();
        let prod =
            route("prod", PROD_HOST, &self.prod, &indent(prod_route, "  "), &(impersonate("prod") + &indent(prod_kubernetes, "    ")));
        let staging = route("staging", STAGING_HOST, &self.staging, "", &staging_method);
        format!(
            "public_url: {public}\n\
             listeners:\n- {{address: 127.0.0.1:{port}, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
             control_plane: {{socket_dir: {dir}}}\n\
             admin: {{address: 127.0.0.1:{admin_port}, socket: {dir}/admin.sock}}\n\
             secrets: [{{file: secret}}]\n{signing_keys}\
             identity_providers:\n- name: corp\n  issuer: {issuer}\n  client_id: {CLIENT_ID}\n  client_secret: {{file: client-secret}}\n  \
             scopes: [openid, email, profile, groups]\n  identity: {{username: claims.email, groups: claims.groups}}\n\
             sessions: {{lifetime: 12h, store: {{embedded: {{path: kubepass.db}}}}}}\n\
             routes:\n{prod}\n{staging}\n\
             audit: {{sinks: [{{file: {{path: audit.jsonl}}}}], on_failure: deny}}\n{top_level}\n"
        )
    }

    /// Lets kubepass impersonate on a cluster: applies what `cluster rbac` prints, and makes the token.
    pub fn permit(&self, route: &str, cluster: &Cluster) {
        let manifest = self.operator(&["cluster", "rbac", route]).ok();
        cluster.apply(&manifest);
        let token = cluster.create_token(NAMESPACE, SERVICE_ACCOUNT);
        self.secret(&format!("{route}-token"), &token);
    }

    /// Lets a cluster trust kubepass's tokens: adds what `cluster authentication-config` prints to the API server's configuration, and starts
    /// it with that.
    pub fn trust(&self, route: &str, cluster: &Cluster) {
        cluster.set_authentication_config(&self.authentication_config(route, cluster, &[]));
        cluster.restart_api_server();
        self.until_trusted(cluster);
    }

    /// The same without a restart.
    pub fn trust_while_running(&self, route: &str, cluster: &Cluster) {
        cluster.reload_authentication_config(&self.authentication_config(route, cluster, &[]));
        self.until_trusted(cluster);
    }

    /// What `cluster authentication-config ROUTE` makes of the cluster's present configuration.
    pub fn authentication_config(&self, route: &str, cluster: &Cluster, more: &[&str]) -> String {
        let (present, ca) = (cluster.authentication_config().display().to_string(), self.run.file("kubepass/ca.pem").display().to_string());
        let args = ["cluster", "authentication-config", route, "--merge", &present, "--discovery-ca", &ca];
        self.operator(&[&args, more].concat()).ok()
    }

    /// Waits until the API server of `staging` takes a token: it reads the keys beside its start. It leaves this out of its audit log.
    pub fn until_trusted(&self, cluster: &Cluster) {
        let (client, url) = (http::client(&[cluster.ca_pem()]), format!("{}{}", cluster.url(), manifests::PROBE));
        let signer = self.signer();
        let header = json!({"alg": "ES256", "typ": "kubepass-upstream+jwt", "kid": signer.kid()});
        eventually_ok("the API server takes kubepass's tokens", Duration::from_secs(30), || {
            let token = signer.sign(&header, &self.upstream_claims("harness"));
            let answer = client.get(&url).bearer_auth(token).send().map_err(|error| error.to_string())?;
            // It knows who asks, and that they may not.
            if answer.status() == 403 { Ok(()) } else { Err(format!("{} {}", answer.status(), answer.text().unwrap_or_default())) }
        });
    }

    /// kubepass's first signing key, where the harness made it.
    pub fn signer(&self) -> Signer {
        Signer::from_pem(&std::fs::read_to_string(self.run.file("kubepass/signing.pem")).expect("the signing key"))
    }

    /// The claims of a good token for `staging`, as kubepass would write them, valid for a minute.
    pub fn upstream_claims(&self, username: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        json!({
            "iss": self.url(PUBLIC_HOST), "aud": STAGING_AUDIENCE, "sub": format!("corp:{username}"), "iat": now, "nbf": now, "exp": now + 60,
            "jti": format!("{username}-{now}"), "token_use": "upstream", "username": username, "groups": [],
            "kubepass_session": "made-by-the-harness", "kubepass_policy": "none",
        })
    }

    /// `kubepass-server VERB ...` on this installation's configuration.
    pub fn operator(&self, args: &[&str]) -> Output {
        let config = self.config_path().display().to_string();
        let command = Kubectl::command(&server_binary(), &self.run.dir("operator")).env("KUBEPASS_CONFIG", &config);
        self.options.server_env.iter().fold(command, |command, (name, value)| command.env(name, value)).run(args)
    }

    /// `kubepass-server up`; returns when it is ready.
    pub fn start_kubepass(&mut self) {
        let envoy = self.tools.envoy().display().to_string();
        self.start_server(&["up", "--envoy", &envoy]);
    }

    /// `kubepass-server VERB ...`; returns when it is ready.
    pub fn start_server(&mut self, verb: &[&str]) {
        self.launch_server(verb);
        self.until_ready();
    }

    /// The same by a program that becomes kubepass.
    pub fn start_server_as(&mut self, program: &[&str], verb: &[&str]) {
        self.launch(program, verb);
        self.until_ready();
    }

    /// The same without the wait.
    pub fn launch_server(&mut self, verb: &[&str]) {
        self.launch(&[], verb);
    }

    fn launch(&mut self, program: &[&str], verb: &[&str]) {
        let binary = server_binary();
        let words: Vec<&OsStr> = program.iter().map(OsStr::new).chain([binary.as_os_str()]).collect();
        let mut command = leash::command(words[0]);
        command.args(&words[1..]).args(verb).arg("--config").arg(self.config_path());
        command.envs(self.options.server_env.iter().cloned()).current_dir(self.run.dir("kubepass"));
        self.server = Some(self.run.start("kubepass-server", command));
    }

    pub fn until_ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin_port);
        let client = http::client(&[]);
        let ready = || client.get(&url).send().ok()?.status().is_success().then_some(());
        self.server().until("kubepass is ready", Duration::from_secs(30), ready);
    }

    /// kubepass's environment besides, from its next start on.
    pub fn set_server_env(&mut self, server_env: Vec<(String, String)>) {
        self.options.server_env = server_env;
    }

    pub fn server(&mut self) -> &mut Process {
        self.server.as_mut().expect("kubepass runs")
    }

    /// SIGTERM and the end; with `kill`, SIGKILL.
    pub fn stop_kubepass(&mut self, kill: bool) {
        if let Some(mut server) = self.server.take() {
            if kill {
                server.kill()
            } else {
                server.stop()
            };
        }
    }

    /// A person with a home, kubectl, the CLI and a browser. `login` is the name at the identity provider.
    pub fn person(&self, login: &str) -> Person {
        let ca_file = self.run.file("kubepass/ca.pem");
        Person::new(&Place { run: &self.run, tools: &self.tools, proxy: &self.proxy, ca_file, issuer: self.idp.issuer() }, login)
    }

    /// kubepass's audit trail, oldest first.
    pub fn audit_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.audit_path()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Waits for an audit line.
    pub fn audit_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("an audit line: {what}"), Duration::from_secs(10), || {
            self.audit_lines().into_iter().rev().find(|line| wanted(line))
        })
    }

    /// A metric's text lines that contain all of `parts`.
    pub fn metric(&self, parts: &[&str]) -> Vec<String> {
        let text = http::client(&[]).get(format!("http://127.0.0.1:{}/metrics", self.admin_port)).send().unwrap().text().unwrap();
        text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
    }

    /// A client that speaks to the installation by name, as anything but kubectl would. Trusts its certificate.
    pub fn client(&self) -> reqwest::blocking::Client {
        let proxy = reqwest::Proxy::https(self.proxy.url()).expect("the proxy's URL");
        http::builder(&[self.authority.pem()]).proxy(proxy).build().expect("a client")
    }
}

fn prod_options(options: &WorldOptions) -> ClusterOptions {
    ClusterOptions { name: "prod".to_owned(), api_server_flags: options.api_server_flags.clone(), ..ClusterOptions::default() }
}

/// The API server reads kubepass's keys by name, for which it needs the proxy.
fn staging_options(options: &WorldOptions, proxy: &Proxy) -> ClusterOptions {
    let (name, api_server_flags) = ("staging".to_owned(), options.api_server_flags.clone());
    match options.staging {
        Method::Impersonate => ClusterOptions { name, api_server_flags, ..ClusterOptions::default() },
        Method::Jwt => ClusterOptions {
            name,
            api_server_flags,
            structured_authentication: true,
            // `localhost` would stand for every name below it as well.
            api_server_env: vec![("HTTPS_PROXY".to_owned(), proxy.url()), ("NO_PROXY".to_owned(), "127.0.0.1".to_owned())],
            ..ClusterOptions::default()
        },
    }
}

/// The binary under test, built by cargo together with this test.
pub fn server_binary() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kubepass-server")).to_owned()
}

/// The user's CLI.
pub fn cli_binary() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kubepass")).to_owned()
}
