//! A configuration of many routes, each with a host, an API server, a CA and a token of its own, and the changes that are measured.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::super::support::pki::Authority;
use super::super::support::ports::free_port;
use super::super::support::run::Run;

const PUBLIC_HOST: &str = "pass.k8s.example.com";

/// Two rules that all routes share, and one of the route's own.
const SHARED: &str = r#"
  - {name: no-secrets, deny: 'k8s.resource == "secrets" && !("sre" in user.groups)', message: "ask the SRE on call"}
  - {name: staff-reads, allow: 'user.email.endsWith("@example.com") && k8s.read_only'}
"#;

/// What changes about one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Its API server has another address.
    Endpoint,
    /// Its API server takes tokens where it took impersonation, or the other way round: the cluster has other filters.
    Cluster,
    Host,
    /// Its service account has another token.
    Token,
}

impl Change {
    pub(super) const ALL: [Self; 4] = [Self::Endpoint, Self::Cluster, Self::Host, Self::Token];

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Cluster => "cluster",
            Self::Host => "host",
            Self::Token => "token",
        }
    }
}

#[derive(Debug, Clone)]
struct Route {
    /// How often each part was changed.
    endpoint: usize,
    host: usize,
    tokens: bool,
}

pub(super) struct Scene {
    folder: PathBuf,
    admin_port: u16,
    port: u16,
    routes: Vec<Route>,
    /// Of new tokens.
    rounds: usize,
}

impl Scene {
    /// Writes everything below `name` in the run's folder.
    pub(super) fn write(run: &Run, name: &str, routes: usize) -> Self {
        let routes = vec![Route { endpoint: 0, host: 0, tokens: false }; routes];
        let scene = Self { folder: run.dir(name), admin_port: free_port(), port: free_port(), routes, rounds: 0 };
        for folder in ["ca", "token"] {
            std::fs::create_dir_all(scene.folder.join(folder)).expect("a folder");
        }
        for number in 0..scene.routes.len() {
            scene.plain(&format!("ca/{number}.crt"), Authority::new(&format!("cluster {number}")).pem());
            scene.secret(&format!("token/{number}"), &token(number, 0));
        }
        let pair = Authority::new("edge").server(&[PUBLIC_HOST, "*.k8s.example.com"]);
        scene.plain("tls.crt", &pair.cert);
        scene.secret("tls.key", &pair.key);
        scene.secret("secret", "a secret for benchmarks only, long enough");
        scene.secret("client-secret", "unused");
        scene.store();
        scene
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("kubepass.yaml")
    }

    pub(super) fn socket_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    pub(super) fn admin_port(&self) -> u16 {
        self.admin_port
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes route `number`, and stores what must be stored for it.
    pub(super) fn change(&mut self, change: Change, number: usize) {
        let route = &mut self.routes[number];
        match change {
            Change::Endpoint => route.endpoint += 1,
            Change::Cluster => route.tokens = !route.tokens,
            Change::Host => route.host += 1,
            Change::Token => {
                self.rounds += 1;
                return self.secret(&format!("token/{number}"), &token(number, self.rounds));
            }
        }
        self.store();
    }

    fn store(&self) {
        let part = self.folder.join("kubepass.part");
        std::fs::write(&part, self.text()).and_then(|()| std::fs::rename(&part, self.config())).expect("the configuration");
    }

    fn text(&self) -> String {
        format!(
            "public_url: https://{PUBLIC_HOST}\n\
             listeners:\n- {{address: 127.0.0.1:{}, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
             control_plane: {{socket_dir: {}}}\nadmin: {{address: 127.0.0.1:{}}}\n\
             secrets: [{{file: secret}}]\n\
             identity_providers:\n- name: corp\n  issuer: https://127.0.0.1:1\n  client_id: kubepass\n  client_secret: {{file: client-secret}}\n  \
             identity: {{username: claims.email, groups: claims.groups}}\n\
             sessions: {{lifetime: 12h, store: {{embedded: {{path: kubepass.db}}}}}}\n\
             audit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n\
             routes:\n{}",
            self.port,
            self.socket_dir().display(),
            self.admin_port,
            self.routes.iter().enumerate().map(|(number, route)| route.text(number)).collect::<String>()
        )
    }

    fn plain(&self, name: &str, content: &str) {
        std::fs::write(self.folder.join(name), content).expect("a file");
    }

    fn secret(&self, name: &str, content: &str) {
        let part = self.folder.join("secret.part");
        std::fs::write(&part, content).expect("a file");
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).expect("the mode");
        std::fs::rename(part, self.folder.join(name)).expect("the file");
    }
}

impl Route {
    fn text(&self, number: usize) -> String {
        let host = if self.host == 0 { format!("c{number:05}") } else { format!("c{number:05}-{}", self.host) };
        let method = if self.tokens {
            format!("jwt: {{audience: cluster-{number}}}")
        } else {
            format!("impersonate: {{token: {{file: token/{number}}}}}")
        };
        format!(
            "- name: cluster-{number:05}\n  host: {host}.k8s.example.com\n  kubernetes:\n    server: https://10.{}.{}.{}:6443\n    \
             server_name: kubernetes.default.svc\n    ca: {{file: ca/{number}.crt}}\n    {method}\n  policy:{SHARED}  \
             - {{name: team, allow: '\"team-{number}\" in user.groups && k8s.namespace == \"team-{number}\"'}}\n",
            self.endpoint,
            number / 250,
            number % 250,
        )
    }
}

/// As long as a service account's usual one.
fn token(number: usize, round: usize) -> String {
    let word = format!("token-of-{number}-{round}.");
    word.chars().cycle().take(900).collect()
}
