//! `nodes` and `gateways`: which Envoys may connect, by what they are known, and which listeners they have.

use std::collections::HashMap;

use super::error::At;
use super::listener::{self, ListenerDraft};
use super::model::{Gateway, Node, NodeIdentity};
use super::names::{host_fault, quote};
use super::provider::checked_name;
use super::reader::{Item, Reading};
use super::resolving::Resolving;

const IDENTITY_HINT: &str = "write one of: uri: \"spiffe://example.com/kubepass/edge-1\" or dns: edge-1.example.com (a name in its certificate), \
                             uid: 1000 (a user of this machine), insecure_loopback: true";
const MAX_URI_BYTES: usize = 2048;

#[derive(Debug)]
pub(super) struct NodeDraft {
    pub(super) name: Option<At<String>>,
    identity: Option<At<NodeIdentity>>,
}

#[derive(Debug)]
pub(super) struct GatewayDraft {
    pub(super) name: Option<At<String>>,
    pub(super) nodes: Vec<At<String>>,
    pub(super) login_pages: bool,
    listeners: Vec<ListenerDraft>,
}

impl NodeDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let name = section.required("name", reading).and_then(|item| item.text(reading));
        let identity = section.required("identity", reading).and_then(|item| read_identity(&item, reading));
        section.finish(reading);
        Some(Self { name, identity })
    }

    pub(super) fn identity(&self) -> Option<&NodeIdentity> {
        self.identity.as_ref().map(|identity| &identity.value)
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<Node> {
        let name = self.name.as_ref().and_then(|name| checked_name(name, resolving));
        let identity = self.identity.as_ref().and_then(|identity| checked_identity(identity, resolving));
        Some(Node { name: name?, identity: identity? })
    }
}

impl GatewayDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let name = section.required("name", reading).and_then(|item| item.text(reading));
        let nodes = section.required("selector", reading).and_then(|item| {
            let mut section = item.section(reading)?;
            let nodes = section.required("nodes", reading);
            let nodes =
                nodes.and_then(|item| item.filled_list("the gateway would be nowhere", reading, |item, reading| item.text(reading)));
            section.finish(reading);
            nodes
        });
        let login_pages = section.optional("login_pages").and_then(|item| item.boolean(reading));
        let listeners = section.required("listeners", reading);
        let listeners = listeners.and_then(|item| item.filled_list("at least one listener is needed", reading, ListenerDraft::read));
        section.finish(reading);
        Some(Self {
            name,
            nodes: nodes.unwrap_or_default(),
            login_pages: login_pages.unwrap_or(true),
            listeners: listeners.unwrap_or_default(),
        })
    }

    /// `hosts`: all that are served there.
    fn resolve(&self, hosts: &[At<String>], resolving: &mut Resolving<'_>) -> Option<Gateway> {
        let name = self.name.as_ref().and_then(|name| checked_name(name, resolving));
        let listeners = listener::resolve(&self.listeners, hosts, resolving);
        Some(Gateway {
            name: name?,
            nodes: self.nodes.iter().map(|name| name.value.clone()).collect(),
            listeners: listeners?,
            login_pages: self.login_pages,
        })
    }
}

/// All nodes; no two are known by the same.
pub(super) fn resolve(drafts: &[NodeDraft], resolving: &mut Resolving<'_>) -> Option<Vec<Node>> {
    let mut seen: HashMap<&NodeIdentity, usize> = HashMap::new();
    for written in drafts.iter().filter_map(|draft| draft.identity.as_ref()) {
        if let Some(line) = seen.get(&written.value) {
            let message = format!("the node in line {line} has this identity already: an Envoy that shows it would be both");
            resolving.faults.add(&written.spot, message);
        } else {
            seen.insert(&written.value, written.spot.place.line);
        }
    }
    let nodes: Vec<_> = drafts.iter().map(|draft| draft.resolve(resolving)).collect();
    nodes.into_iter().collect()
}

/// All gateways. `hosts`: those that are served at one of them.
pub(super) fn resolve_gateways(
    drafts: &[GatewayDraft],
    hosts: impl Fn(&GatewayDraft) -> Vec<At<String>>,
    resolving: &mut Resolving<'_>,
) -> Option<Vec<Gateway>> {
    let gateways: Vec<_> = drafts.iter().map(|draft| draft.resolve(&hosts(draft), resolving)).collect();
    gateways.into_iter().collect()
}

fn read_identity(item: &Item<'_>, reading: &mut Reading) -> Option<At<NodeIdentity>> {
    let mut section = item.section(reading)?;
    let uri = section.optional("uri").map(|item| item.text(reading).map(|text| NodeIdentity::Uri(text.value)));
    let dns = section.optional("dns").map(|item| item.text(reading).map(|text| NodeIdentity::Dns(text.value)));
    let uid = section.optional("uid").map(|item| {
        let uid = item.count(0, u32::MAX as usize, reading)?;
        u32::try_from(uid).ok().map(NodeIdentity::Uid)
    });
    let loopback = section.optional("insecure_loopback").map(|item| {
        let insecure = item.boolean(reading)?;
        if !insecure {
            reading.faults.add_with_hint(&item.spot(), "is no identity when it is false", IDENTITY_HINT);
        }
        insecure.then_some(NodeIdentity::InsecureLoopback)
    });
    section.finish(reading);
    let mut given = [uri, dns, uid, loopback].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(identity), None) => Some(At { value: identity?, spot: item.spot() }),
        (Some(_), Some(_)) => {
            reading.faults.add(&item.spot(), "a node is known by one thing only; make two nodes");
            None
        }
        (None, _) => {
            reading.faults.add_with_hint(&item.spot(), "says nothing by which the node is known", IDENTITY_HINT);
            None
        }
    }
}

fn checked_identity(identity: &At<NodeIdentity>, resolving: &mut Resolving<'_>) -> Option<NodeIdentity> {
    let mut refuse = |message: String, hint: &str| resolving.faults.add_with_hint(&identity.spot, message, hint);
    match &identity.value {
        NodeIdentity::Uri(uri) if !is_uri(uri) => {
            let hint = "write it exactly as the certificate has it, for example spiffe://example.com/kubepass/edge-1";
            refuse(format!("{} is not a URI that a certificate can carry", quote(uri)), hint);
            None
        }
        NodeIdentity::Dns(name) => {
            if let Some(fault) = host_fault(name) {
                refuse(format!("{} {fault}", quote(name)), "write a DNS name of the node's certificate, for example edge-1.example.com");
                return None;
            }
            Some(identity.value.clone())
        }
        _ => Some(identity.value.clone()),
    }
}

fn is_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, rest)| (scheme, !rest.is_empty()));
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    text.len() <= MAX_URI_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && scheme.is_some_and(|(scheme, rest)| rest && is_scheme(scheme))
}

#[cfg(test)]
mod tests {
    use super::is_uri;

    #[test]
    fn uris_are_whole_and_printable() {
        for good in ["spiffe://example.com/kubepass/edge-1", "urn:uuid:f81d4fae", "https://a"] {
            assert!(is_uri(good), "{good}");
        }
        for bad in [
            "",
            "edge-1",
            "spiffe:",
            "://x",
            "1a://x",
            "spiffe://a b",
            "spiffe://a\u{0}b",
            "spiffe://\u{e9}",
            &format!("a:{}", "x".repeat(2048)),
        ] {
            assert!(!is_uri(bad), "{bad:?}");
        }
    }
}
