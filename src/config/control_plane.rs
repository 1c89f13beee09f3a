//! `control_plane`: where Envoys reach kubepass. Always over Unix sockets; over TCP where it says so, and then by mutual TLS or on loopback alone.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::certificate;
use super::envoy_versions::EnvoyVersions;
use super::error::{At, Spot};
use super::listener::CertificateDraft;
use super::model::{ControlPlane, ControlPlaneTcp, ControlPlaneTls};
use super::names::{host_fault, quote};
use super::reader::{Item, Reading, Section};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use super::service::{path, socket_address};

const DEFAULT_SOCKET_DIR: &str = "/run/kubepass";
/// `sun_path` holds 108 bytes with the final NUL; the longest name in the folder is `envoy-admin.sock`.
const MAX_SOCKET_DIR_BYTES: usize = 90;

/// What an Envoy needs, each with the port that the documentation gives it.
const SERVICES: [(&str, u16); 4] = [("xds", 18000), ("ext_authz", 18001), ("access_log", 18002), ("web", 18003)];

const TLS_HINT: &str = "write tls: {host: HOST, certificate: {chain: {file: control-plane.crt}, key: {file: control-plane.key}}, client_ca: {file: nodes-ca.crt}}; \
                        for plain TCP among processes of this machine: insecure_loopback: true";

#[derive(Debug)]
pub(super) struct ControlPlaneDraft {
    socket_dir: PathBuf,
    allow_envoy_versions: EnvoyVersions,
    tcp: Option<TcpDraft>,
}

#[derive(Debug)]
pub(super) struct TcpDraft {
    /// In the order of `SERVICES`.
    addresses: Vec<At<String>>,
    security: Option<SecurityDraft>,
}

#[derive(Debug)]
enum SecurityDraft {
    Tls(Box<TlsDraft>),
    InsecureLoopback,
}

#[derive(Debug)]
struct TlsDraft {
    spot: Spot,
    host: Option<At<String>>,
    certificate: Option<CertificateDraft>,
    client_ca: Option<At<Reference>>,
}

impl ControlPlaneDraft {
    /// What holds when the section is left out.
    pub(super) fn usual() -> Self {
        Self { socket_dir: PathBuf::from(DEFAULT_SOCKET_DIR), allow_envoy_versions: EnvoyVersions::default(), tcp: None }
    }

    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let mut draft = Self::usual();
        if let Some(item) = section.required("socket_dir", reading)
            && let Some(path) = path(&item, reading)
        {
            if path.as_os_str().len() > MAX_SOCKET_DIR_BYTES {
                let message = format!("the path is longer than {MAX_SOCKET_DIR_BYTES} bytes, too long for a Unix socket");
                reading.faults.add(&item.spot(), message);
            }
            draft.socket_dir = path;
        }
        let versions = section.optional("allow_envoy_versions").and_then(|item| EnvoyVersions::read(&item, reading));
        draft.allow_envoy_versions = versions.unwrap_or_default();
        draft.tcp = TcpDraft::read(&mut section, reading);
        section.finish(reading);
        Some(draft)
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(super) fn tcp(&self) -> Option<&TcpDraft> {
        self.tcp.as_ref()
    }

    /// `nodes`: whether the configuration says which Envoys may connect.
    pub(super) fn resolve(&self, nodes: bool, resolving: &mut Resolving<'_>) -> Option<ControlPlane> {
        let tcp = match &self.tcp {
            Some(tcp) => Some(tcp.resolve(nodes, resolving)?),
            None => None,
        };
        Some(ControlPlane { socket_dir: self.socket_dir.clone(), allow_envoy_versions: self.allow_envoy_versions.clone(), tcp })
    }
}

impl TcpDraft {
    /// `None` when the section speaks of sockets only, or has a mistake.
    fn read(section: &mut Section<'_>, reading: &mut Reading) -> Option<Self> {
        let items = SERVICES.map(|(name, port)| (name, port, section.optional(name)));
        let security = SecurityDraft::read(section, items.iter().any(|(_, _, item)| item.is_some()), reading);
        if items.iter().all(|(_, _, item)| item.is_none()) {
            return None;
        }
        let mut addresses = Vec::new();
        for (name, port, item) in items {
            match item {
                Some(item) => addresses.push(read_address(&item, reading)),
                None => {
                    let message = format!("the key `{name}` is missing: an Envoy that comes over TCP needs all four services");
                    reading.faults.add_with_hint(section.spot(), message, format!("write {name}: {{address: 0.0.0.0:{port}}}"));
                    addresses.push(None);
                }
            }
        }
        Some(Self { addresses: addresses.into_iter().collect::<Option<_>>()?, security })
    }

    /// Whether connections have TLS.
    pub(super) fn has_tls(&self) -> Option<bool> {
        self.security.as_ref().map(|security| matches!(security, SecurityDraft::Tls(_)))
    }

    /// In the order of `SERVICES`.
    pub(super) fn addresses(&self) -> Option<Vec<SocketAddr>> {
        self.addresses.iter().map(|written| written.value.parse().ok()).collect()
    }

    pub(super) fn host(&self) -> Option<&str> {
        match &self.security {
            Some(SecurityDraft::Tls(tls)) => tls.host.as_ref().map(|host| host.value.as_str()),
            _ => None,
        }
    }

    fn resolve(&self, nodes: bool, resolving: &mut Resolving<'_>) -> Option<ControlPlaneTcp> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for written in &self.addresses {
            let Some(address) = socket_address(written, resolving) else { continue };
            if address.port() == 0 {
                resolving.faults.add(&written.spot, "the port 0 stands for any port, but nodes must be told which one");
            } else if addresses.contains(&address) {
                resolving.faults.add(&written.spot, format!("another service has the address {address} already"));
            }
            if matches!(self.security, Some(SecurityDraft::InsecureLoopback)) && !address.ip().is_loopback() {
                let message = format!("{address} is not on loopback: whoever reaches it could read the tokens of every cluster");
                resolving.faults.add_with_hint(
                    &written.spot,
                    message,
                    "write `tls` instead of `insecure_loopback`, or listen on 127.0.0.1",
                );
            }
            addresses.push(address);
        }
        let tls = match self.security.as_ref()? {
            SecurityDraft::Tls(tls) => Some(tls.resolve(nodes, resolving)?),
            SecurityDraft::InsecureLoopback => None,
        };
        let &[xds, ext_authz, access_log, web] = addresses.as_slice() else { return None };
        Some(ControlPlaneTcp { xds, ext_authz, access_log, web, tls })
    }
}

impl SecurityDraft {
    fn read(section: &mut Section<'_>, addresses: bool, reading: &mut Reading) -> Option<Self> {
        let (tls, insecure) = (section.optional("tls"), section.optional("insecure_loopback"));
        let is_insecure = insecure.as_ref().map(|item| item.boolean(reading));
        if let Some(item) = tls.as_ref().or(insecure.as_ref()).filter(|_| !addresses) {
            let names = SERVICES.map(|(name, _)| format!("`{name}`")).join(", ");
            reading.faults.add(&item.spot(), format!("says how the addresses {names} are reached, but none of them is given"));
            return None;
        }
        match (tls, is_insecure) {
            (Some(item), None | Some(Some(false))) => TlsDraft::read(&item, reading).map(Box::new).map(Self::Tls),
            (Some(_), Some(Some(true))) => {
                let spot = insecure.map(|item| item.spot()).unwrap_or_default();
                reading.faults.add(&spot, "`insecure_loopback` beside `tls`: an address takes one of them only");
                None
            }
            (None, Some(Some(true))) => Some(Self::InsecureLoopback),
            (None, None | Some(Some(false))) if addresses => {
                let message = "the key `tls` is missing: over plain TCP anybody on the network could read the tokens of every cluster";
                reading.faults.add_with_hint(section.spot(), message, TLS_HINT);
                None
            }
            _ => None,
        }
    }
}

impl TlsDraft {
    fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let host = section.required("host", reading).and_then(|item| item.text(reading));
        let certificate = section.required("certificate", reading).and_then(|item| CertificateDraft::read(&item, reading));
        let client_ca = section.required("client_ca", reading).and_then(|item| reference::read_public(&item, reading));
        section.finish(reading);
        Some(Self { spot: item.spot(), host, certificate, client_ca })
    }

    fn resolve(&self, nodes: bool, resolving: &mut Resolving<'_>) -> Option<ControlPlaneTls> {
        if !nodes {
            resolving.faults.add_with_hint(
                &self.spot,
                "needs `nodes`: without them every certificate of the client CA would be given every token",
                "write for example nodes: [{name: edge-1, identity: {uri: \"spiffe://example.com/kubepass/edge-1\"}}]",
            );
        }
        let host = self.host.as_ref().and_then(|host| checked_host(host, resolving));
        let certificate = self.certificate.as_ref().and_then(|certificate| certificate.resolve_server(resolving));
        let client_ca_pem = self.client_ca.as_ref().and_then(|reference| certificate::resolve_client_ca(reference, resolving));
        let (host, certificate) = (host?, certificate?);
        let by_address = host.parse::<IpAddr>().ok();
        let covered = match by_address {
            Some(address) => certificate.ip_addresses.contains(&address),
            None => certificate::covers(&certificate.dns_names.iter().map(String::as_str).collect(), &host),
        };
        if let (false, Some(written)) = (covered, &self.host) {
            let addresses = certificate.ip_addresses.iter().map(ToString::to_string);
            let names: Vec<String> = certificate.dns_names.iter().cloned().chain(addresses).collect();
            resolving.faults.add_with_hint(
                &written.spot,
                format!("the certificate does not carry {}, which nodes will demand", quote(&host)),
                format!("its subject alternative names are: {}", names.join(", ")),
            );
        }
        Some(ControlPlaneTls { host, certificate, client_ca_pem: client_ca_pem? })
    }
}

/// `{address: IP:PORT}`.
fn read_address(item: &Item<'_>, reading: &mut Reading) -> Option<At<String>> {
    let mut section = item.section(reading)?;
    let address = section.required("address", reading).and_then(|item| item.text(reading));
    section.finish(reading);
    address
}

fn checked_host(host: &At<String>, resolving: &mut Resolving<'_>) -> Option<String> {
    if let Ok(address) = host.value.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    if let Some(fault) = host_fault(&host.value) {
        let hint = "write the DNS name or the IP address by which nodes reach kubepass, for example kubepass.internal.example.com";
        resolving.faults.add_with_hint(&host.spot, format!("{} {fault}", quote(&host.value)), hint);
        return None;
    }
    Some(host.value.clone())
}
