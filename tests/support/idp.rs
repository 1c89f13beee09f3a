//! An OpenID provider on loopback: the certified `oidc-provider` package with its development login pages (any password).
//!
//! It answers on http (loopback) or https, signs with keys that survive [`Idp::stop`], and can be told to misbehave: see
//! `tests/tools/idp/provider.mjs` for what [`Idp::set`] takes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::browser::{Browser, Page};
use super::leash::{self, Process};
use super::pki::Pair;
use super::ports::free_port;
use super::run::Run;
use super::tools::Tools;
use super::{http, wait};

pub const CLIENT_ID: &str = "kubepass";
pub const CLIENT_SECRET: &str = "a client secret for tests only";

const ISSUED: &str = "issued.jsonl";

/// What a provider is started with.
#[derive(Clone, Default)]
pub struct IdpOptions {
    /// Names the directory and the log; `idp` when empty. Two providers of one run need two names.
    pub name: String,
    /// Redirect URIs of the client `kubepass`.
    pub redirect_uris: Vec<String>,
    /// Login name -> claims, e.g. `{"alice": {"email": "alice@example.com", "email_verified": true, "name": "Alice", "groups": ["dev"]}}`.
    pub users: Value,
    /// A server certificate for https, and the authority that signed it.
    pub tls: Option<(Pair, String)>,
    /// The host of the issuer; `127.0.0.1` when empty. Another name must be mapped to [`Idp::port`] by whoever resolves it.
    pub host: String,
}

/// A running provider. Dropping it ends it.
pub struct Idp {
    name: String,
    issuer: String,
    port: u16,
    local_url: String,
    ca_pem: Option<String>,
    dir: PathBuf,
    log: PathBuf,
    script: PathBuf,
    process: Option<Process>,
}

impl Idp {
    pub fn start(tools: &Tools, run: &Run, options: IdpOptions) -> Self {
        let name = if options.name.is_empty() { "idp".to_owned() } else { options.name };
        let host = if options.host.is_empty() { "127.0.0.1".to_owned() } else { options.host };
        let port = free_port();
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let issuer = format!("{scheme}://{host}:{port}");
        let dir = run.dir(&name);
        let tls = options.tls.as_ref().map(|(pair, _)| {
            let cert = run.write(&format!("{name}/tls.crt"), &pair.cert);
            json!({"cert": cert, "key": run.write(&format!("{name}/tls.key"), &pair.key)})
        });
        let client = json!({"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "redirect_uris": options.redirect_uris});
        let config = json!({
            "modules": tools.idp_dir().join("node_modules"), "issuer": issuer, "port": port, "tls": tls, "clients": [client],
            "users": dir.join("users.json"), "keys": dir.join("keys.json"), "issued": dir.join(ISSUED),
        });
        run.write(&format!("{name}/config.json"), config.to_string());
        let mut idp = Self {
            log: run.log_path(&name),
            local_url: format!("{scheme}://127.0.0.1:{port}"),
            ca_pem: options.tls.map(|(_, authority)| authority),
            script: tools.idp_script(),
            name,
            issuer,
            port,
            dir,
            process: None,
        };
        idp.set_users(&options.users);
        idp.start_again();
        idp
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces all users; the next login sees them.
    pub fn set_users(&self, users: &Value) {
        let path = self.dir.join("users.json");
        let part = self.dir.join("users.part");
        std::fs::write(&part, users.to_string()).and_then(|()| std::fs::rename(&part, &path)).expect("the users file");
    }

    /// Every answer of its token endpoint so far: ID tokens, access tokens.
    pub fn issued(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.join(ISSUED)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// A new signing key; the old one is no longer published.
    pub fn rotate_keys(&self) {
        self.set(&json!({"rotate": true}));
    }

    /// From now on the ID token holds `sub` only, and the other claims come from the userinfo endpoint (or in the ID token again).
    pub fn claims_from_userinfo(&self, only: bool) {
        self.set(&json!({"claims_in": if only { "userinfo" } else { "id_token" }}));
    }

    /// Changes what the provider does; keys as in provider.mjs (`delay_ms`, `fail`, `id_token`, `claims_in`, `rotate`).
    pub fn set(&self, settings: &Value) {
        let authorities: Vec<&str> = self.ca_pem.iter().map(String::as_str).collect();
        let request = http::client(&authorities).post(format!("{}/-/settings", self.local_url)).body(settings.to_string());
        let status = request.send().unwrap_or_else(|error| panic!("{}: {error:?}", self.name)).status();
        assert_eq!(status, 204, "{}: settings {settings}", self.name);
    }

    /// Back to right behaviour.
    pub fn behave(&self) {
        self.set(&json!({"delay_ms": 0, "fail": {}, "id_token": null, "claims_in": "id_token"}));
    }

    /// The client's secret is another from now on. Who was logged in at the provider is not any more.
    pub fn set_client_secret(&mut self, secret: &str) {
        let path = self.dir.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("the configuration")).expect("JSON");
        config["clients"][0]["client_secret"] = secret.into();
        std::fs::write(&path, config.to_string()).expect("the configuration");
        self.stop();
        self.start_again();
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the provider on the same port with the same keys; who was logged in there is not any more.
    pub fn start_again(&mut self) {
        let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
        assert!(node, "node is not there: the OIDC provider needs Node.js 20 or later (apt-get install nodejs)");
        let mut command = leash::command("node");
        command.arg(&self.script).arg(self.dir.join("config.json"));
        let mut process = Process::start(&self.name, &self.log, command);
        let port = self.port;
        process.until("the provider listens", Duration::from_secs(30), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        self.process = Some(process);
    }

    /// The provider's log, for what it refused and why.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Logs in as `user` on the provider's login page, agrees on its consent page, and returns the page that the browser ends on.
    /// A provider that still has the person's session shows fewer pages.
    pub fn log_in(&self, browser: &mut Browser, login_page: Page, user: &str) -> Page {
        let mut page = login_page;
        for _ in 0..3 {
            if !page.url.starts_with(&self.issuer) {
                break;
            }
            let Some(form) = page.form_with("prompt") else { break };
            let values: &[(&str, &str)] = if form.value("prompt") == Some("login") { &[("login", user), ("password", "any")] } else { &[] };
            page = browser.submit(&page, &form, values);
        }
        page
    }
}

/// Waits until an issuer answers its discovery document.
pub fn wait_for_discovery(url: &str, authorities: &[&str]) {
    let client = http::client(authorities);
    let url = format!("{url}/.well-known/openid-configuration");
    wait::eventually("discovery", Duration::from_secs(10), || client.get(&url).send().ok()?.status().is_success().then_some(()));
}
