//! How a node reaches kubepass, from the draft alone: who prints a bootstrap need not be able to read the certificates and secrets.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::draft::Draft;
use super::model::NodeIdentity;

/// The way of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The folder of the Unix sockets.
    Sockets(PathBuf),
    Tcp {
        /// Where nodes reach the ports.
        host: String,
        /// Of xds, ext_authz, access_log and web.
        ports: [u16; 4],
        tls: bool,
    },
}

/// Why it cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    #[error("`control_plane`, `admin` or `nodes` cannot be understood; `check-config` says why")]
    NotUnderstood,
    #[error("there is no node {name:?}; there are: {}", known.join(", "))]
    NoNode { name: String, known: Vec<String> },
    #[error("the node {name:?} is known by what it shows over TCP, but `control_plane` has no addresses {kind}")]
    NoAddresses { name: String, kind: &'static str },
}

impl Draft {
    /// Where the configuration has no `nodes`, every name is one of an Envoy beside kubepass.
    ///
    /// # Errors
    /// A name that is none, or a part of the configuration that cannot be read.
    pub fn reach(&self, node: &str) -> Result<Reach, ReachError> {
        let control_plane = self.control_plane.as_ref().ok_or(ReachError::NotUnderstood)?;
        let sockets = || Reach::Sockets(control_plane.socket_dir().to_owned());
        if self.nodes.is_empty() {
            return Ok(sockets());
        }
        let named = |draft: &&super::node::NodeDraft| draft.name.as_ref().is_some_and(|name| name.value == node);
        let Some(found) = self.nodes.iter().find(named) else {
            let known = self.nodes.iter().filter_map(|draft| draft.name.as_ref()).map(|name| name.value.clone()).collect();
            return Err(ReachError::NoNode { name: node.to_owned(), known });
        };
        let tls = match found.identity().ok_or(ReachError::NotUnderstood)? {
            NodeIdentity::Uid(_) => return Ok(sockets()),
            NodeIdentity::Uri(_) | NodeIdentity::Dns(_) => true,
            NodeIdentity::InsecureLoopback => false,
        };
        let kind = if tls { "with `tls`" } else { "with `insecure_loopback: true`" };
        let no_addresses = || ReachError::NoAddresses { name: node.to_owned(), kind };
        let tcp = control_plane.tcp().filter(|tcp| tcp.has_tls() == Some(tls)).ok_or_else(no_addresses)?;
        let addresses: Vec<SocketAddr> = tcp.addresses().ok_or(ReachError::NotUnderstood)?;
        let &[xds, ext_authz, access_log, web] = addresses.as_slice() else { return Err(ReachError::NotUnderstood) };
        let host = if tls { tcp.host().ok_or(ReachError::NotUnderstood)?.to_owned() } else { xds.ip().to_string() };
        Ok(Reach::Tcp { host, ports: [xds, ext_authz, access_log, web].map(|address| address.port()), tls })
    }
}
