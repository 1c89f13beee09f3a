//! `bootstrap`: prints what an Envoy starts from that somebody else runs: beside kubepass over its sockets, or elsewhere over TCP.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Reach;
use crate::server::publisher;
use crate::xds::bootstrap::{self, BootstrapInput, GatewayInput, GatewayTls, NodeName};

/// What the operator says besides the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    pub node: NodeName,
    /// Otherwise that of the configuration.
    pub socket_dir: Option<PathBuf>,
    /// Where nodes reach kubepass; otherwise `control_plane.tls.host`.
    pub host: Option<String>,
    /// Folders on the machine of the Envoy: its `tls.crt`, `tls.key` and `ca.crt`, and one for its admin socket.
    pub tls_dir: PathBuf,
    pub run_dir: PathBuf,
    /// The folder that bootstrap and the files for following certificates are written to instead.
    pub write: Option<PathBuf>,
}

/// The bootstrap of the node, as YAML, or what was written. Of the configuration file only `control_plane` and `nodes` must be right.
///
/// # Errors
/// A text for the operator.
pub fn run(config: &Path, options: &Options) -> Result<String, String> {
    let reach = match &options.socket_dir {
        Some(socket_dir) => Reach::Sockets(socket_dir.clone()),
        None => publisher::reach(config, &options.node.to_string())
            .map_err(|error| format!("{error}\nor name the folder of sockets with --socket-dir"))?,
    };
    let (host, ports, tls) = match reach {
        Reach::Sockets(socket_dir) => return beside(options, &socket_dir),
        Reach::Tcp { host, ports, tls } => (options.host.clone().unwrap_or(host), ports, tls),
    };
    let folder = |path: &Path| {
        path.to_str().map(|text| text.trim_end_matches('/').to_owned()).ok_or_else(|| format!("{} is not UTF-8", path.display()))
    };
    let (tls_dir, run_dir) = (folder(&options.tls_dir)?, folder(&options.run_dir)?);
    let write = match &options.write {
        Some(write) => Some((write, folder(&std::path::absolute(write).map_err(|error| error.to_string())?)?)),
        None => None,
    };
    let tls = tls.then_some(GatewayTls { dir: &tls_dir, followed_from: write.as_ref().map(|(_, text)| text.as_str()) });
    let text = bootstrap::gateway(&options.node, &GatewayInput { host: &host, ports, run_dir: &run_dir, tls });
    let Some((write, _)) = write else { return Ok(text) };
    let followed = tls.map(|tls| bootstrap::followed_files(&tls).to_vec()).unwrap_or_default();
    let files: Vec<(&str, String)> = [("bootstrap.yaml", text)].into_iter().chain(followed).collect();
    for (name, text) in &files {
        fs::write(write.join(name), text).map_err(|error| format!("{}: {error}", write.join(name).display()))?;
    }
    Ok(files.iter().map(|(name, _)| format!("written: {}", write.join(name).display())).collect::<Vec<_>>().join("\n"))
}

fn beside(options: &Options, socket_dir: &Path) -> Result<String, String> {
    if options.write.is_some() {
        return Err(format!("the node {} comes over the sockets and has no certificates to follow: leave --write out", options.node));
    }
    let socket_dir = std::path::absolute(socket_dir).map_err(|error| error.to_string())?;
    let text = socket_dir.to_str().ok_or_else(|| format!("{} is not UTF-8", socket_dir.display()))?;
    bootstrap::beside(&options.node, &BootstrapInput { socket_dir: text.trim_end_matches('/') }).map_err(|error| error.to_string())
}
