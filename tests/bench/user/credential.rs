//! `kubepass k8s exec-credential` with a cached token: kubectl waits for it at each of its calls.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::figures::Timed;
use super::super::support::person::Person;
use super::super::support::world::{PROD_HOST, World, cli_binary};
use super::ONCE;

/// What was promised.
const TARGET_MS: f64 = 10.0;

#[derive(Debug, Serialize)]
pub(super) struct Credential {
    runs: usize,
    /// From the start of the process to its end.
    wall_ms: Timed,
    /// The same of a program that does nothing.
    empty_process_ms: Timed,
    /// Of all runs together.
    connections: usize,
}

/// By turns with a program that does nothing, each run as the child of a process of its own: the same caller is never given the same token twice.
pub(super) fn measure(world: &World, person: &Person, runs: usize) -> Result<Credential, String> {
    let net = Net::start();
    let url = world.url(PROD_HOST);
    let cli = cli_binary();
    let program = cli.to_str().ok_or("a path")?;
    // As kubectl calls it, but for the only way there is to any host of this installation, which leads here.
    let info = exec_info(&url, world.authority.pem());
    let base = person.kubepass_command().env("HTTPS_PROXY", &net.url).env("KUBERNETES_EXEC_INFO", &info);
    let this = base.program(&std::env::current_exe().map_err(|error| error.to_string())?);
    let (mut wall, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (micros, said) = timed(this.bare(&[ONCE, program, "k8s", "exec-credential", &url]))?;
        let credential: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        if !credential["status"]["token"].as_str().is_some_and(|token| token.starts_with("eyJ")) {
            return Err("exec-credential gave no token".to_owned());
        }
        wall.push(micros / 1e3);
        empty.push(timed(this.bare(&[ONCE, "/bin/true"]))?.0 / 1e3);
    }
    let connections = net.accepted.load(Ordering::SeqCst);
    if connections > 0 {
        return Err(format!("exec-credential made {connections} connections for a cached token"));
    }
    Ok(Credential { runs, wall_ms: Timed::of(wall), empty_process_ms: Timed::of(empty), connections })
}

impl Credential {
    pub(super) fn table(&self) -> String {
        let mut text = "\nkubepass k8s exec-credential with a cached token, from the start of the process to its end\n".to_owned();
        let mark = if self.wall_ms.median < TARGET_MS { "[met]" } else { "[MISSED]" };
        let _ = writeln!(text, "  {} ms of {} runs (target: under {TARGET_MS:.0}) {mark}", self.wall_ms.shown(2), self.runs);
        let _ = writeln!(text, "  a process that does nothing: {} ms; connections: {}", self.empty_process_ms.shown(2), self.connections);
        text
    }
}

/// Microseconds, and what it printed.
fn timed(mut command: Command) -> Result<(f64, String), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let (micros, rest) = said.split_once('\n').ok_or_else(|| error.to_string())?;
    Ok((micros.parse().map_err(|_| format!("{said}{error}"))?, rest.to_owned()))
}

/// What kubectl tells the plugin of the cluster.
fn exec_info(url: &str, authority: &str) -> String {
    json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": {"interactive": true, "cluster": {"server": url, "certificate-authority-data": STANDARD.encode(authority)}},
    })
    .to_string()
}

/// Where every connection to the installation would have to come along; it counts them.
struct Net {
    url: String,
    accepted: Arc<AtomicUsize>,
}

impl Net {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let accepted = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&accepted);
        std::thread::spawn(move || listener.incoming().for_each(|_| _ = counting.fetch_add(1, Ordering::SeqCst)));
        Self { url, accepted }
    }
}
