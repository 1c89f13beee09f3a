//! One kubepass under the fixed conditions of the benchmark (100 routes, 5 rules of which the fourth allows, 2 groups, 10,000 sessions, the
//! audit trail on with its default durability), set up as an operator would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubepass::identity::{Identity, Principal};
use kubepass::server::store::Store;
use kubepass::server::{clock, publisher};
use kubepass::session::Session;
use kubepass::token::SessionId;

use super::machine;
use super::paths::{GROUPS, USER};
use super::support::cluster::Cluster;
use super::support::http;
use super::support::kubectl::Kubectl;
use super::support::leash::{self, Process};
use super::support::pki::Authority;
use super::support::ports::free_port;
use super::support::run::Run;
use super::support::tools::Tools;

pub(super) const ROUTES: usize = 100;
pub(super) const SESSIONS: usize = 10_000;

/// Where the API server finds the keys that verify tokens.
pub(super) const PUBLIC_HOST: &str = "pass.localhost";
/// The routes that are measured, one for each method.
const ROUTE: &str = "bench";
const JWT_ROUTE: &str = "bench-jwt";
const LIFETIME: u64 = 12 * 3600;

/// Five rules; on the requests of the benchmark the fourth is the first that matches.
pub(super) const POLICY: &str = r#"
  - {name: suspended, deny: '"suspended" in user.groups', message: "this account is suspended"}
  - {name: no-secrets, deny: 'k8s.resource == "secrets" && !("sre" in user.groups)', message: "ask the SRE on call"}
  - {name: on-call, allow: 'user.groups.exists(g, g.startsWith("oncall-"))'}
  - {name: staff-reads, allow: 'user.email.endsWith("@example.com") && (k8s.read_only || k8s.verb == "exec")'}
  - {name: root, allow: 'user.name == "root@example.com"'}
"#;

/// A running kubepass with its Envoy. Dropping it ends both.
pub(super) struct Kubepass {
    process: Process,
    /// The Envoy that it runs.
    envoy: u32,
    folder: PathBuf,
    pub(super) port: u16,
    /// The route whose API server gets `impersonate-*`, and the one whose API server gets a signed token.
    pub(super) impersonate: Entry,
    pub(super) jwt: Entry,
    /// What makes an API server take the tokens.
    pub(super) authentication_config: String,
    pub(super) start_to_ready: Duration,
}

/// How the user comes in by one route.
pub(super) struct Entry {
    pub(super) host: String,
    pub(super) session_token: String,
}

impl Kubepass {
    /// `name` names the folder, `binary` is a `kubepass-server`.
    pub(super) fn start(name: &str, binary: &Path, tools: &Tools, run: &Run, cluster: &Cluster, authority: &Authority) -> Self {
        let (port, admin_port, folder) = (free_port(), free_port(), run.dir(name));
        let files = Files { run, name, folder: &folder };
        files.write(cluster, authority, port, admin_port);
        let operator = Kubectl::command(binary, &run.dir("operator")).env("KUBEPASS_CONFIG", &files.config().display().to_string());
        files.secret("token", &service_account_token(&operator, cluster));
        let ca_file = run.file(&format!("{name}/authority.pem")).display().to_string();
        let authentication_config = operator.run(&["cluster", "authentication-config", JWT_ROUTE, "--discovery-ca", &ca_file]).ok();
        let [impersonate, jwt] = store_sessions(&files);
        let mut command = leash::command(binary);
        command.arg("up").arg("--config").arg(files.config()).arg("--envoy").arg(tools.envoy()).current_dir(&folder);
        let began = Instant::now();
        let mut process = run.start(name, command);
        let (client, url) = (http::client(&[]), format!("http://127.0.0.1:{admin_port}/readyz"));
        process.until("kubepass is ready", Duration::from_secs(60), || client.get(&url).send().ok()?.status().is_success().then_some(()));
        let start_to_ready = began.elapsed();
        let bootstrap = folder.join("run/envoy-bootstrap.yaml").display().to_string();
        let envoy = machine::process_with(&tools.envoy(), &bootstrap).expect("kubepass's Envoy runs");
        Self { process, envoy, port, impersonate, jwt, authentication_config, start_to_ready, folder }
    }

    /// What stands between a client and the API server.
    pub(super) fn processes(&self) -> Vec<(&'static str, u32)> {
        vec![("envoy", self.envoy), ("kubepass", self.process.id())]
    }

    pub(super) fn trail(&self) -> PathBuf {
        self.folder.join("audit.jsonl")
    }

    /// Of its Envoy.
    pub(super) fn envoy_admin(&self) -> PathBuf {
        self.folder.join("run/envoy-admin.sock")
    }
}

struct Files<'a> {
    run: &'a Run,
    name: &'a str,
    folder: &'a Path,
}

impl Files<'_> {
    fn config(&self) -> PathBuf {
        self.folder.join("kubepass.yaml")
    }

    fn plain(&self, name: &str, content: &str) -> PathBuf {
        self.run.write(&format!("{}/{name}", self.name), content)
    }

    fn secret(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(self.plain(name, content), std::fs::Permissions::from_mode(0o600)).expect("the mode");
    }

    fn write(&self, cluster: &Cluster, authority: &Authority, port: u16, admin_port: u16) {
        let pair = authority.server(&[PUBLIC_HOST, "*.k8s.localhost"]);
        self.plain("tls.crt", &pair.cert);
        self.plain("cluster-ca.crt", cluster.ca_pem());
        self.plain("authority.pem", authority.pem());
        self.secret("tls.key", &pair.key);
        self.secret("secret", "a secret for benchmarks only, long enough");
        self.secret("client-secret", "unused");
        let dir = self.folder.join("run");
        let config = configuration(&dir.display().to_string(), port, admin_port, &routes(cluster));
        self.plain("kubepass.yaml", &config);
    }
}

/// `dir`: of the sockets; the files are named from the folder of the configuration.
pub(super) fn configuration(dir: &str, port: u16, admin_port: u16, routes: &str) -> String {
    // The identity provider is never asked: the sessions are there already. One person has all streams of `bench-streams`.
    format!(
        "public_url: https://{PUBLIC_HOST}\n\
         listeners:\n- {{address: 127.0.0.1:{port}, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
         control_plane: {{socket_dir: {dir}}}\n\
         admin: {{address: 127.0.0.1:{admin_port}, socket: {dir}/admin.sock}}\n\
         secrets: [{{file: secret}}]\n\
         identity_providers:\n- name: corp\n  issuer: http://127.0.0.1:{}\n  client_id: kubepass\n  client_secret: {{file: client-secret}}\n  \
         identity: {{username: claims.email, groups: claims.groups}}\n\
         sessions: {{lifetime: 12h, max_streams: 10000, store: {{embedded: {{path: kubepass.db}}}}}}\n\
         routes:\n{routes}\
         audit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n",
        free_port(),
    )
}

fn routes(cluster: &Cluster) -> String {
    let route = |name: &str, method: &str| {
        format!(
            "- name: {name}\n  host: {name}.k8s.localhost\n  kubernetes:\n    server: {}\n    ca: {{file: cluster-ca.crt}}\n    \
             {method}\n  policy:{POLICY}\n",
            cluster.url()
        )
    };
    let impersonate = "impersonate: {token: {file: token}}";
    let mut routes: Vec<String> = (2..ROUTES).map(|number| route(&format!("other-{number}"), impersonate)).collect();
    // Those that are measured stand in the middle of the others.
    routes.insert(ROUTES / 2, route(ROUTE, impersonate));
    routes.insert(ROUTES / 2, route(JWT_ROUTE, "jwt: {audience: bench}"));
    routes.concat()
}

/// Lets kubepass impersonate: applies what `cluster rbac` prints, and makes the token.
fn service_account_token(operator: &Kubectl, cluster: &Cluster) -> String {
    cluster.apply(&operator.run(&["cluster", "rbac", ROUTE]).ok());
    cluster.create_token("kubepass", "kubepass")
}

/// Fills the store as log-ins would have; returns how the first of these people comes in by the routes that are measured.
fn store_sessions(files: &Files<'_>) -> [Entry; 2] {
    let snapshot = publisher::load_once(&files.config()).unwrap_or_else(|error| panic!("{error}"));
    let now = clock::unix_now();
    let sessions: Vec<Session> = (0..SESSIONS).map(|number| session(number, now)).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(&files.folder.join("kubepass.db"), Arc::clone(snapshot.token_keys())).expect("the store");
        store.put_all(&sessions).await.expect("the sessions are stored");
    });
    [ROUTE, JWT_ROUTE].map(|name| {
        let host = snapshot.route(name).expect("the route").host.clone();
        let claims = sessions[0].session_token_claims(&host, "bench".into(), now);
        Entry { session_token: snapshot.token_keys().sign_session_token(&claims).expect("a token"), host }
    })
}

/// Of the first the user of every path, of the others people like them.
pub(super) fn session(number: usize, now: u64) -> Session {
    let email = if number == 0 { USER.to_owned() } else { format!("user-{number}@example.com") };
    let claims = serde_json::json!({
        "sub": format!("00u{number:017}"), "aud": "kubepass", "email": email, "email_verified": true, "name": "A Person",
        "preferred_username": email, "locale": "en", "groups": GROUPS, "auth_time": now, "iat": now, "exp": now + 3600,
    });
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    Session {
        id: SessionId::from_random(id),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: format!("00u{number:017}") },
            username: email.clone(),
            email,
            groups: GROUPS.iter().map(|group| (*group).to_owned()).collect(),
            claims: claims.as_object().expect("an object").clone(),
        },
        created_at: now,
        expires_at: now + LIFETIME,
        client: "kubepass".into(),
        source_ip: "192.0.2.1".into(),
    }
}
