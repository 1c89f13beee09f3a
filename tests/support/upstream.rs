//! A web server that verifies the signed identity header (`tests/tools/upstream/upstream.mjs`, on Node.js) and tells what reached it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::leash::{self, Process};
use super::pki::Pair;
use super::ports::free_port;
use super::run::Run;
use super::tools::Tools;

/// What it is told of the installation before it.
pub struct UpstreamOptions<'a> {
    pub name: &'a str,
    /// Serves TLS with it.
    pub tls: Option<Pair>,
    /// `https://host` of the installation's login pages, where they are on loopback, and who signed their certificate.
    pub issuer: &'a str,
    pub port: u16,
    pub ca_pem: &'a str,
    pub audience: &'a str,
    /// Lower case.
    pub header: &'a str,
}

/// A running upstream. Dropping it ends it.
pub struct Upstream {
    pub port: u16,
    process: Process,
}

impl Upstream {
    pub fn start(tools: &Tools, run: &Run, options: &UpstreamOptions<'_>) -> Self {
        let port = free_port();
        let config = json!({
            "modules": tools.idp_dir().join("node_modules"),
            "port": port,
            "tls": options.tls.as_ref().map(|pair| json!({"cert": pair.cert, "key": pair.key})),
            "jwks": format!("{}/.well-known/kubepass/assertion-jwks.json", options.issuer),
            "connect": {"host": "127.0.0.1", "port": options.port, "ca": options.ca_pem},
            "issuer": options.issuer,
            "audience": options.audience,
            "header": options.header,
        });
        let config = run.write(&format!("upstreams/{}.json", options.name), config.to_string());
        let mut command = leash::command("node");
        // As much as Envoy takes; 16 KiB otherwise.
        command.arg("--max-http-header-size=65536");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/upstream/upstream.mjs")).arg(config);
        let mut process = run.start(options.name, command);
        process.until("the upstream listens", Duration::from_secs(30), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { port, process }
    }

    /// Every request that arrived, in order, with `claims` or the `error` of its identity header.
    pub fn arrivals(&self) -> Vec<Value> {
        self.process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
