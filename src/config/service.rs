//! The parts of the configuration that concern kubepass itself: public URL, secrets, administration, sessions, audit.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use url::Url;

use super::error::At;
use super::model::{Admin, AuditSettings, AuditSink, Durability, OnAuditFailure, PublicUrl, SessionSettings, StoreSettings};
use super::names::{host_fault, quote, suggestion};
use super::reader::{Item, Reading, Section};
use super::reference::Reference;
use super::resolving::Resolving;
use crate::token::Secret;

const DEFAULT_ADMIN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9902);
const DEFAULT_LIFETIME_SECONDS: u64 = 12 * 3600;
const MIN_LIFETIME_SECONDS: u64 = 60;
const MAX_LIFETIME_SECONDS: u64 = 30 * 86400;
/// Far above what a person's programs keep open; the ceiling is what an Envoy has room for.
const DEFAULT_MAX_STREAMS: usize = 1_000;
const CEILING_MAX_STREAMS: usize = 50_000;
const MIN_DIFFERENT_BYTES: usize = 8;

pub(super) const NO_SECRET: &str = "at least one secret is needed; make one with: openssl rand -base64 48 > secret";

/// What the operator asks.
#[derive(Debug)]
pub(super) struct AdminDraft {
    address: Option<At<String>>,
    socket: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct SessionsDraft {
    lifetime_seconds: u64,
    max_streams: usize,
    store: PathBuf,
}

#[derive(Debug)]
pub(super) struct AuditDraft {
    sinks: Vec<AuditSink>,
    on_failure: OnAuditFailure,
    durability: Durability,
}

impl AdminDraft {
    /// Reads `admin`, which may be left out.
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading) -> Option<Self> {
        let Some(item) = section.optional("admin") else { return Some(Self { address: None, socket: None }) };
        let mut section = item.section(reading)?;
        let address = section.optional("address").and_then(|item| item.text(reading));
        let socket = section.optional("socket").and_then(|item| path(&item, reading));
        section.finish(reading);
        Some(Self { address, socket })
    }

    pub(super) fn resolve(&self, socket_dir: &Path, resolving: &mut Resolving<'_>) -> Option<Admin> {
        let address = match &self.address {
            Some(address) => socket_address(address, resolving)?,
            None => DEFAULT_ADMIN_ADDRESS,
        };
        Some(Admin { address, socket: self.socket(socket_dir) })
    }

    pub(super) fn socket(&self, socket_dir: &Path) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| socket_dir.join("admin.sock"))
    }
}

impl SessionsDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let lifetime = section.optional("lifetime").map(|item| item.duration(MIN_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS, reading));
        let max_streams = section.optional("max_streams").map(|item| item.count(1, CEILING_MAX_STREAMS, reading));
        let store = section.required("store", reading).and_then(|item| {
            let mut section = item.section(reading)?;
            let embedded = section.required("embedded", reading).and_then(|item| path_section(&item, reading));
            section.finish(reading);
            embedded
        });
        section.finish(reading);
        Some(Self {
            lifetime_seconds: lifetime.unwrap_or(Some(DEFAULT_LIFETIME_SECONDS))?,
            max_streams: max_streams.unwrap_or(Some(DEFAULT_MAX_STREAMS))?,
            store: store?,
        })
    }

    pub(super) fn resolve(&self) -> SessionSettings {
        SessionSettings {
            lifetime_seconds: self.lifetime_seconds,
            max_streams: self.max_streams,
            store: StoreSettings::Embedded { path: self.store.clone() },
        }
    }
}

impl AuditDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let sinks = section.required("sinks", reading);
        let sinks = sinks.and_then(|item| item.filled_list("at least one is needed, every decision leaves a line", reading, read_sink));
        let on_failure = section
            .optional("on_failure")
            .map(|item| choice(&item, &[("deny", OnAuditFailure::Deny), ("allow", OnAuditFailure::Allow)], reading));
        let durability = section
            .optional("durability")
            .map(|item| choice(&item, &[("written", Durability::Written), ("synced", Durability::Synced)], reading));
        section.finish(reading);
        Some(Self {
            sinks: sinks?,
            on_failure: on_failure.unwrap_or(Some(OnAuditFailure::Deny))?,
            durability: durability.unwrap_or(Some(Durability::Written))?,
        })
    }

    pub(super) fn resolve(&self) -> AuditSettings {
        AuditSettings { sinks: self.sinks.clone(), on_failure: self.on_failure, durability: self.durability }
    }
}

fn read_sink(item: &Item<'_>, reading: &mut Reading) -> Option<AuditSink> {
    let mut section = item.section(reading)?;
    let path = section.required("file", reading).and_then(|item| path_section(&item, reading));
    section.finish(reading);
    Some(AuditSink::File { path: path? })
}

/// `{path: PATH}`.
fn path_section(item: &Item<'_>, reading: &mut Reading) -> Option<PathBuf> {
    let mut section = item.section(reading)?;
    let path = section.required("path", reading).and_then(|item| path(&item, reading));
    section.finish(reading);
    path
}

/// A path that kubepass writes to, relative to the folder of the configuration file.
pub(super) fn path(item: &Item<'_>, reading: &mut Reading) -> Option<PathBuf> {
    let text = item.text(reading)?;
    if text.value.is_empty() {
        reading.faults.add(&text.spot, "the path is empty");
        return None;
    }
    Some(reading.folder().join(text.value))
}

fn choice<T: Copy>(item: &Item<'_>, choices: &[(&'static str, T)], reading: &mut Reading) -> Option<T> {
    let text = item.text(reading)?;
    let found = choices.iter().find(|(name, _)| *name == text.value).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let near = suggestion(&text.value, names.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        reading.faults.add(&text.spot, format!("{} must be one of: {}{near}", quote(&text.value), names.join(", ")));
    }
    found
}

/// The URL of the login pages.
pub(super) fn resolve_public_url(text: &At<String>, resolving: &mut Resolving<'_>) -> Option<PublicUrl> {
    const HINT: &str = "write https://HOST, for example https://pass.example.com";
    let (url, host) = https_origin(text, HINT, resolving)?;
    if let Some(fault) = host_fault(&host) {
        resolving.faults.add_with_hint(&text.spot, format!("the host {} {fault}", quote(&host)), HINT);
        return None;
    }
    Some(PublicUrl { url, host })
}

/// An `https` URL of scheme, host and port only; the host as it was written.
pub(super) fn https_origin(text: &At<String>, hint: &str, resolving: &mut Resolving<'_>) -> Option<(Url, String)> {
    origin(text, &["https"], hint, resolving)
}

/// A URL of one of these schemes, host and port only; the host as it was written.
pub(super) fn origin(text: &At<String>, schemes: &[&str], hint: &str, resolving: &mut Resolving<'_>) -> Option<(Url, String)> {
    let mut refuse = |message: String| resolving.faults.add_with_hint(&text.spot, message, hint);
    let Ok(url) = Url::parse(&text.value) else {
        refuse("is not a URL".to_owned());
        return None;
    };
    if !schemes.contains(&url.scheme()) {
        refuse(format!("must be an {} URL, found scheme `{}`", schemes.join(" or "), url.scheme()));
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        refuse("must not hold a user name or password".to_owned());
        return None;
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        refuse("must be scheme, host and port only, without path, query or fragment".to_owned());
        return None;
    }
    // The parser lowers and decodes the host; what was written must already be in that form, or messages and certificates would differ.
    let scheme = format!("{}://", url.scheme());
    let written = text.value.strip_prefix(&scheme).unwrap_or_default();
    let written = written.strip_suffix('/').unwrap_or(written);
    let host = url.host_str().unwrap_or_default().to_owned();
    let expected = url.port().map_or(host.clone(), |port| format!("{host}:{port}"));
    let with_default_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    if written != expected && Some(written) != with_default_port.as_deref() {
        refuse(format!("is not written in its plain form; that would be `{scheme}{expected}`"));
        return None;
    }
    Some((url, host))
}

pub(super) fn socket_address(text: &At<String>, resolving: &mut Resolving<'_>) -> Option<SocketAddr> {
    let address = text.value.parse().ok();
    if address.is_none() {
        let message = format!("{} is not an address with port", quote(&text.value));
        resolving.faults.add_with_hint(&text.spot, message, "write ADDRESS:PORT, for example 0.0.0.0:443 or [::]:443");
    }
    address
}

/// `secrets`: each long enough, none twice.
pub(super) fn resolve_secrets(references: &[At<Reference>], resolving: &mut Resolving<'_>) -> Vec<Secret> {
    let mut secrets = Vec::new();
    let mut seen: Vec<&[u8]> = Vec::new();
    for reference in references {
        let Some(bytes) = resolving.bytes(reference).map(<[u8]>::trim_ascii) else { continue };
        if seen.contains(&bytes) {
            resolving.faults.add(&reference.spot, format!("{} holds the same secret as an entry before it", reference.value));
            continue;
        }
        seen.push(bytes);
        match Secret::new(bytes) {
            // A short period is a placeholder or a slip, not the output of a random generator.
            Ok(_) if bytes.iter().collect::<HashSet<_>>().len() < MIN_DIFFERENT_BYTES => {
                let message =
                    format!("{} does not look random: it has fewer than {MIN_DIFFERENT_BYTES} different characters", reference.value);
                resolving.faults.add_with_hint(&reference.spot, message, "make one with: openssl rand -base64 48");
            }
            Ok(secret) => secrets.push(secret),
            Err(error) => resolving.faults.add(&reference.spot, format!("{}: {error}", reference.value)),
        }
    }
    secrets
}
