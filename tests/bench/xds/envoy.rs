//! A real Envoy beside a control plane.

use std::path::Path;
use std::process::Command;

use super::super::support::leash::{self, Process};
use super::super::support::run::Run;
use super::super::support::tools::Tools;
use super::super::support::world::server_binary;

pub(super) const NODE: &str = "envoy";

/// go-control-plane's delta cache does not send the endpoints of a cluster again when the cluster changed, without which an Envoy waits 15 s
/// (`initial_fetch_timeout`) before it uses the cluster. This tells Envoy to take those that it knows.
pub(super) const KEEP_ENDPOINTS: &str =
    "layered_runtime: {layers: [{name: endpoints, static_layer: {envoy.restart_features.use_eds_cache_for_ads: true}}]}";

/// Starts it from the bootstrap that `kubepass-server bootstrap` prints for the sockets in `folder`, with `more` merged into it.
pub(super) fn start(run: &Run, tools: &Tools, folder: &Path, more: Option<&str>) -> Process {
    let output = Command::new(server_binary()).args(["bootstrap", "--node", NODE, "--socket-dir"]).arg(folder).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = run.write("envoy.yaml", &output.stdout);
    let mut command = leash::command(tools.envoy());
    command.arg("--config-path").arg(file).args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]);
    command.args(more.into_iter().flat_map(|more| ["--config-yaml", more]));
    run.start("envoy", command)
}
