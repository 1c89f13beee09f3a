//! `bootstrap`: prints what an Envoy beside kubepass starts from.

use std::path::Path;

use crate::server::publisher;
use crate::xds::bootstrap::{self, BootstrapInput, NodeName};

/// The bootstrap of `node`, as YAML. `socket_dir`: otherwise that of the configuration file, of which only this part must be right.
///
/// # Errors
/// A text for the operator.
pub fn run(config: &Path, node: &NodeName, socket_dir: Option<&Path>) -> Result<String, String> {
    let socket_dir = match socket_dir {
        Some(socket_dir) => socket_dir.to_owned(),
        None => publisher::socket_dir(config).map_err(|error| format!("{error}\nor name the folder of sockets with --socket-dir"))?,
    };
    let socket_dir = std::path::absolute(socket_dir).map_err(|error| error.to_string())?;
    let text = socket_dir.to_str().ok_or_else(|| format!("{} is not UTF-8", socket_dir.display()))?;
    bootstrap::beside(node, &BootstrapInput { socket_dir: text.trim_end_matches('/') }).map_err(|error| error.to_string())
}
