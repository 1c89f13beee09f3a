//! Envoys by name, the listeners of some of them, and the addresses where they reach kubepass.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Listener, ServingCertificate};
use crate::config::EnvoyVersions;

#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// A folder (0700) for the sockets `xds.sock`, `ext_authz.sock`, `access_log.sock`, `web.sock` and Envoy's `envoy-admin.sock`.
    pub socket_dir: PathBuf,
    /// Of the Envoys that others run, those that are served besides the tested ones.
    pub allow_envoy_versions: EnvoyVersions,
    /// For Envoys on other machines; the sockets are there all the same.
    pub tcp: Option<ControlPlaneTcp>,
}

/// An address for each service that an Envoy needs.
#[derive(Debug, Clone)]
pub struct ControlPlaneTcp {
    pub xds: SocketAddr,
    pub ext_authz: SocketAddr,
    pub access_log: SocketAddr,
    pub web: SocketAddr,
    /// `None`: plain TCP; then every address is one of loopback.
    pub tls: Option<ControlPlaneTls>,
}

impl ControlPlaneTcp {
    /// Each with its key in the configuration.
    pub fn addresses(&self) -> [(&'static str, SocketAddr); 4] {
        [("xds", self.xds), ("ext_authz", self.ext_authz), ("access_log", self.access_log), ("web", self.web)]
    }
}

/// Mutual TLS: both sides show a certificate.
#[derive(Debug, Clone)]
pub struct ControlPlaneTls {
    /// By what nodes reach all the addresses: a DNS name or an IP address, which `certificate` carries.
    pub host: String,
    pub certificate: ServingCertificate,
    /// PEM bundle that a node's certificate must chain to.
    pub client_ca_pem: String,
}

/// An Envoy that may connect, or several that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique; `node.id` of the Envoy.
    pub name: String,
    /// Unique as well.
    pub identity: NodeIdentity,
}

/// By what a node is known: what the kernel or its certificate says of it, never what it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeIdentity {
    /// The user of a process on this machine that opened one of the Unix sockets.
    Uid(u32),
    /// A name in its certificate (subject alternative name), exactly.
    Uri(String),
    Dns(String),
    /// Whoever comes over plain TCP: some process on this machine.
    InsecureLoopback,
}

impl std::fmt::Display for NodeIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uid(uid) => write!(formatter, "uid {uid}"),
            Self::Uri(name) | Self::Dns(name) => formatter.write_str(name),
            Self::InsecureLoopback => formatter.write_str("insecure_loopback"),
        }
    }
}

/// Listeners that some nodes have instead of the top-level ones.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Unique.
    pub name: String,
    /// Names of its nodes; none of them has another gateway.
    pub nodes: Vec<String>,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Whether the host of `public_url` is served there too.
    pub login_pages: bool,
}
