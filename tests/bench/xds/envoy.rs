//! A real Envoy beside a control plane.

use std::path::Path;
use std::process::Command;

use super::super::support::leash::{self, Process};
use super::super::support::run::Run;
use super::super::support::tools::Tools;
use super::super::support::world::server_binary;

pub(super) const NODE: &str = "envoy";

/// Starts it from the bootstrap that `kubepass-server bootstrap` prints for the sockets in `folder`.
pub(super) fn start(run: &Run, tools: &Tools, folder: &Path) -> Process {
    let output = Command::new(server_binary()).args(["bootstrap", "--node", NODE, "--socket-dir"]).arg(folder).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = run.write("envoy.yaml", &output.stdout);
    let mut command = leash::command(tools.envoy());
    command.arg("--config-path").arg(file).args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
    run.start("envoy", command)
}
