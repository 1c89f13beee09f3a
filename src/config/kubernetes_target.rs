//! `routes[].kubernetes`: the API server behind a route, and what it is told about the user.

use url::Url;

use super::certificate;
use super::error::At;
use super::method::{JwtDraft, MethodDraft};
use super::model::{GroupSettings, KubernetesTarget, ServerAddress};
use super::names::{host_fault, quote};
use super::reader::{Item, Reading};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use super::service::https_origin;

const DEFAULT_MAX_GROUPS: usize = 64;
/// As many slots as Envoy's listener has for groups at most.
const CEILING_MAX_GROUPS: usize = 256;
const MAX_PREFIX_BYTES: usize = 128;
/// Names that Kubernetes keeps for itself.
pub(super) const SYSTEM: &str = "system:";
/// Names that kubepass keeps for itself.
pub(super) const RESERVED: &str = "kubepass:";

#[derive(Debug)]
pub(super) struct KubernetesDraft {
    server: Option<At<String>>,
    server_name: Option<At<String>>,
    ca: Option<At<Reference>>,
    method: Option<MethodDraft>,
    username_prefix: Option<At<String>>,
    groups: GroupsDraft,
    allow_system: Vec<At<String>>,
}

#[derive(Debug, Default)]
struct GroupsDraft {
    prefix: Option<At<String>>,
    allow: Option<Vec<At<String>>>,
    max: Option<usize>,
}

impl KubernetesDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let server = section.required("server", reading).and_then(|item| item.text(reading));
        let server_name = section.optional("server_name").and_then(|item| item.text(reading));
        let ca = section.required("ca", reading).and_then(|item| reference::read_public(&item, reading));
        let method = MethodDraft::read(&mut section, reading);
        let username_prefix = section.optional("username_prefix").and_then(|item| item.text(reading));
        let groups = section.optional("groups").and_then(|item| GroupsDraft::read(&item, reading));
        let allow_system = section.optional("allow_system").and_then(|item| item.text_list(reading));
        section.finish(reading);
        Some(Self {
            server,
            server_name,
            ca,
            method,
            username_prefix,
            groups: groups.unwrap_or_default(),
            allow_system: allow_system.unwrap_or_default(),
        })
    }

    pub(super) fn server(&self) -> Option<&At<String>> {
        self.server.as_ref()
    }

    pub(super) fn ca(&self) -> Option<&Reference> {
        self.ca.as_ref().map(|ca| &ca.value)
    }

    pub(super) fn jwt(&self) -> Option<&JwtDraft> {
        self.method.as_ref()?.jwt()
    }

    pub(super) fn impersonation_token(&self) -> Option<&Reference> {
        self.method.as_ref()?.impersonation_token()
    }

    pub(super) fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<KubernetesTarget> {
        let server = self.resolve_server(resolving);
        let ca_pem = self.ca.as_ref().and_then(|ca| certificate::resolve_bundle(ca, resolving));
        let method = self.method.as_ref().and_then(|draft| draft.resolve(&self.allow_system, resolving));
        let username_prefix = optional_prefix(self.username_prefix.as_ref(), resolving);
        let groups = self.groups.resolve(resolving);
        for name in self.allow_system.iter().filter(|name| !name.value.starts_with(SYSTEM) || name.value.contains('*')) {
            let message = format!("{} is not the exact name of a `system:` user or group", quote(&name.value));
            resolving.faults.add_with_hint(&name.spot, message, "names begin with `system:` and are taken as they stand, without patterns");
        }
        Some(KubernetesTarget {
            server: server?,
            ca_pem: ca_pem?,
            method: method?,
            username_prefix: username_prefix?,
            groups: groups?,
            allow_system: self.allow_system.iter().map(|name| name.value.clone()).collect(),
        })
    }

    fn resolve_server(&self, resolving: &mut Resolving<'_>) -> Option<ServerAddress> {
        const HINT: &str = "write the API server's address, for example https://10.0.0.1:6443";
        let written = self.server.as_ref()?;
        let (url, _) = https_origin(written, HINT, resolving)?;
        let host = plain_host(&url)?;
        if let Some(name) = &self.server_name
            && name.value.parse::<std::net::IpAddr>().is_err()
            && let Some(fault) = host_fault(&name.value)
        {
            resolving.faults.add(&name.spot, format!("{} {fault}", quote(&name.value)));
            return None;
        }
        let server_name = self.server_name.as_ref().map_or_else(|| host.clone(), |name| name.value.clone());
        Some(ServerAddress { host, port: url.port_or_known_default()?, server_name })
    }
}

impl GroupsDraft {
    fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let prefix = section.optional("prefix").and_then(|item| item.text(reading));
        let allow = section.optional("allow").and_then(|item| item.text_list(reading));
        let max = section.optional("max").and_then(|item| item.count(0, CEILING_MAX_GROUPS, reading));
        section.finish(reading);
        Some(Self { prefix, allow, max })
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<GroupSettings> {
        let prefix = optional_prefix(self.prefix.as_ref(), resolving);
        for pattern in self.allow.iter().flatten() {
            check_pattern(pattern, resolving);
        }
        let allow = self.allow.as_ref().map(|patterns| patterns.iter().map(|pattern| pattern.value.clone()).collect());
        Some(GroupSettings {
            prefix: prefix?,
            allow: allow.unwrap_or_else(|| vec!["*".to_owned()]),
            max: self.max.unwrap_or(DEFAULT_MAX_GROUPS),
        })
    }
}

fn check_pattern(pattern: &At<String>, resolving: &mut Resolving<'_>) {
    let text = &pattern.value;
    let stem = text.strip_suffix('*').unwrap_or(text);
    if text.is_empty() {
        resolving.faults.add(&pattern.spot, "the pattern is empty");
    } else if stem.contains('*') {
        resolving.faults.add_with_hint(
            &pattern.spot,
            format!("{} is not a pattern", quote(text)),
            "`*` may stand at the end only, for example team-*",
        );
    } else if stem.starts_with(SYSTEM) {
        resolving.faults.add_with_hint(
            &pattern.spot,
            format!("{} has no effect: `system:` groups never pass by a pattern", quote(text)),
            "name each exactly under `allow_system`",
        );
    } else if stem.starts_with(RESERVED) {
        resolving.faults.add(&pattern.spot, format!("{} begins with `{RESERVED}`, which is reserved and never mapped", quote(text)));
    }
}

fn optional_prefix(prefix: Option<&At<String>>, resolving: &mut Resolving<'_>) -> Option<String> {
    let Some(prefix) = prefix else { return Some(String::new()) };
    if let Some(fault) = prefix_fault(&prefix.value) {
        resolving.faults.add(&prefix.spot, fault);
        return None;
    }
    Some(prefix.value.clone())
}

/// Why `prefix` cannot stand before names that the API server sees; `None` when it can.
pub(super) fn prefix_fault(prefix: &str) -> Option<String> {
    let reserved = [SYSTEM, RESERVED]
        .into_iter()
        .find(|reserved| prefix.starts_with(reserved) || (!prefix.is_empty() && reserved.starts_with(prefix)));
    if let Some(reserved) = reserved {
        return Some(format!("a prefix must not lead to names that begin with `{reserved}`"));
    }
    if prefix.len() > MAX_PREFIX_BYTES {
        return Some(format!("a prefix may have at most {MAX_PREFIX_BYTES} bytes"));
    }
    if prefix.chars().any(char::is_control) || prefix.starts_with(char::is_whitespace) {
        return Some("a prefix must not hold control characters or begin with a blank".to_owned());
    }
    None
}

/// The host without the brackets of an IPv6 literal.
pub(super) fn plain_host(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}
