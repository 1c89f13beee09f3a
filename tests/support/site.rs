//! An installation of web pages: kubepass with its Envoy, an identity provider, upstreams that verify who asks, and no cluster at all (the one
//! Kubernetes route leads to a closed port).

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::http;
use super::idp::{CLIENT_ID, CLIENT_SECRET, Idp, IdpOptions};
use super::leash::{self, Process};
use super::person::{Person, Place};
use super::pki::Authority;
use super::ports::free_port;
use super::proxy::Proxy;
use super::run::Run;
use super::tools::Tools;
use super::upstream::{Upstream, UpstreamOptions};
use super::wait::eventually;
use super::world::server_binary;

pub const PUBLIC_HOST: &str = "pass.localhost";
/// Plain HTTP, with WebSockets.
pub const WIKI_HOST: &str = "wiki.localhost";
/// TLS, by a CA of its own; another header and audience; no WebSockets.
pub const DOCS_HOST: &str = "docs.localhost";
/// The server of `DOCS_HOST` again, verified by the wrong CA, by the wrong name, and by the system's roots.
pub const WRONG_CA_HOST: &str = "wrong-ca.localhost";
pub const WRONG_NAME_HOST: &str = "wrong-name.localhost";
pub const SYSTEM_ROOTS_HOST: &str = "system-roots.localhost";
pub const CLUSTER_HOST: &str = "prod.k8s.localhost";
const HOSTS: [&str; 7] = [PUBLIC_HOST, WIKI_HOST, DOCS_HOST, WRONG_CA_HOST, WRONG_NAME_HOST, SYSTEM_ROOTS_HOST, CLUSTER_HOST];

/// The name in the certificate of the docs' upstream.
const DOCS_SERVER: &str = "docs.internal";

/// A running installation. Dropping it ends everything.
pub struct Site {
    // The order of the fields is the order in which the processes end; the directory goes last.
    server: Option<Process>,
    pub wiki: Upstream,
    pub docs: Upstream,
    pub idp: Idp,
    pub proxy: Proxy,
    pub authority: Authority,
    pub port: u16,
    admin_port: u16,
    tools: Tools,
    pub run: Run,
}

impl Site {
    pub fn start(tools: &Tools, run: Run) -> Self {
        let (port, proxy, authority) = (free_port(), Proxy::start(), Authority::new("kubepass test authority"));
        HOSTS.iter().for_each(|host| proxy.map(&format!("{host}:443"), port));
        let idp_options = IdpOptions {
            redirect_uris: vec![format!("https://{PUBLIC_HOST}/callback")],
            users: json!({
                "foo": {"email": "foo@example.com", "email_verified": true, "name": "Foo", "groups": ["group1", "group2"]},
                "bar": {"email": "bar@example.com", "email_verified": true, "name": "Bar", "groups": []},
                "eve": {"email": "eve@evil.example", "email_verified": true, "name": "Eve", "groups": []},
            }),
            ..IdpOptions::default()
        };
        let idp = Idp::start(tools, &run, idp_options);
        let internal = Authority::new("internal authority");
        let issuer = format!("https://{PUBLIC_HOST}");
        let of =
            |name, tls, audience, header| UpstreamOptions { name, tls, issuer: &issuer, port, ca_pem: authority.pem(), audience, header };
        let wiki = Upstream::start(tools, &run, &of("wiki", None, "https://wiki.localhost", "x-kubepass-jwt-assertion"));
        let docs = Upstream::start(tools, &run, &of("docs", Some(internal.server(&[DOCS_SERVER])), "docs-audience", "x-identity"));
        let mut site = Self { server: None, wiki, docs, idp, proxy, authority, port, admin_port: free_port(), tools: tools.clone(), run };
        site.write_files(internal.pem());
        site.start_kubepass();
        site
    }

    fn write_files(&self, internal_ca: &str) {
        let pair = self.authority.server(&HOSTS);
        self.run.write("kubepass/tls.crt", &pair.cert);
        self.run.write("kubepass/ca.pem", self.authority.pem());
        self.run.write("kubepass/internal-ca.crt", internal_ca);
        for (name, content) in [
            ("tls.key", pair.key.as_str()),
            ("secret", "a secret for tests only, long enough for keys to derive from it"),
            ("client-secret", CLIENT_SECRET),
            ("prod-token", "no-token"),
        ] {
            let path = self.run.write(&format!("kubepass/{name}"), content);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("the mode");
        }
        self.run.write("kubepass/kubepass.yaml", self.config());
    }

    fn config(&self) -> String {
        let (port, admin_port, issuer) = (self.port, self.admin_port, self.idp.issuer());
        let dir = self.run.file("kubepass/run");
        let dir = dir.display();
        let (wiki, docs, closed) = (self.wiki.port, self.docs.port, free_port());
        let policy = "policy: [{name: staff, allow: 'user.email.endsWith(\"@example.com\")'}]";
        let docs_route = |host: &str, tls: &str| {
            let name = host.split('.').next().expect("a name");
            format!(
                "- {{name: {name}, host: {host}, http: {{upstream: 'https://127.0.0.1:{docs}', {tls}identity_header: X-Identity, audience: {name}-audience}}, {policy}}}"
            )
        };
        let (wrong_ca, wrong_name, system_roots) = (
            docs_route(WRONG_CA_HOST, "ca: {file: ca.pem}, server_name: docs.internal, "),
            docs_route(WRONG_NAME_HOST, "ca: {file: internal-ca.crt}, server_name: other.internal, "),
            docs_route(SYSTEM_ROOTS_HOST, "server_name: docs.internal, "),
        );
        format!(
            "public_url: https://{PUBLIC_HOST}\n\
             listeners:\n- {{address: 127.0.0.1:{port}, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
             control_plane: {{socket_dir: {dir}}}\n\
             admin: {{address: 127.0.0.1:{admin_port}, socket: {dir}/admin.sock}}\n\
             secrets: [{{file: secret}}]\n\
             identity_providers:\n- name: corp\n  issuer: {issuer}\n  client_id: {CLIENT_ID}\n  client_secret: {{file: client-secret}}\n  \
             scopes: [openid, email, profile, groups]\n  identity: {{username: claims.email, groups: claims.groups}}\n\
             sessions: {{lifetime: 12h, store: {{embedded: {{path: kubepass.db}}}}}}\n\
             routes:\n\
             - name: wiki\n  host: {WIKI_HOST}\n  http: {{upstream: 'http://127.0.0.1:{wiki}', websocket: true}}\n  policy:\n  \
             - {{name: staff, allow: 'user.email.endsWith(\"@example.com\")'}}\n  \
             - {{name: no-admin, deny: 'request.path.startsWith(\"/admin\") && !(\"group1\" in user.groups)', message: \"ask <the> admins\"}}\n  \
             - {{name: no-delete, deny: 'k8s.verb == \"delete\" || k8s.resource != \"\"'}}\n\
             - {{name: docs, host: {DOCS_HOST}, http: {{upstream: 'https://127.0.0.1:{docs}', ca: {{file: internal-ca.crt}}, server_name: {DOCS_SERVER}, \
             identity_header: X-Identity, audience: docs-audience}}, {policy}}}\n\
             {wrong_ca}\n{wrong_name}\n{system_roots}\n\
             - {{name: prod, host: {CLUSTER_HOST}, kubernetes: {{server: 'https://127.0.0.1:{closed}', ca: {{file: ca.pem}}, \
             impersonate: {{token: {{file: prod-token}}}}}}, {policy}}}\n\
             audit: {{sinks: [{{file: {{path: audit.jsonl}}}}], on_failure: deny}}\n"
        )
    }

    fn start_kubepass(&mut self) {
        let mut command = leash::command(server_binary());
        command.arg("up").arg("--config").arg(self.run.file("kubepass/kubepass.yaml")).arg("--envoy").arg(self.tools.envoy());
        command.current_dir(self.run.dir("kubepass"));
        let mut process = self.run.start("kubepass-server", command);
        let url = format!("http://127.0.0.1:{}/readyz", self.admin_port);
        let client = http::client(&[]);
        process.until("kubepass is ready", Duration::from_secs(30), || client.get(&url).send().ok()?.status().is_success().then_some(()));
        self.server = Some(process);
    }

    /// A person with a browser and the CLI. `login` is the name at the identity provider.
    pub fn person(&self, login: &str) -> Person {
        let ca_file = self.run.file("kubepass/ca.pem");
        Person::new(&Place { run: &self.run, tools: &self.tools, proxy: &self.proxy, ca_file, issuer: self.idp.issuer() }, login)
    }

    /// kubepass's audit trail, oldest first.
    pub fn audit_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.run.file("kubepass/audit.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Waits for an audit line.
    pub fn audit_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("an audit line: {what}"), Duration::from_secs(10), || {
            self.audit_lines().into_iter().rev().find(|line| wanted(line))
        })
    }
}
