//! `listeners`: where Envoy listens, the certificates that it shows there, and who may tell it there where a request came from.

use std::collections::HashSet;

use super::certificate;
use super::error::At;
use super::model::{Listener, ServingCertificate, Sources};
use super::network::networks;
use super::reader::{Item, Reading, Section};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use super::service::socket_address;

#[derive(Debug)]
pub(super) struct ListenerDraft {
    address: Option<At<String>>,
    certificates: Vec<CertificateDraft>,
    sources: Sources,
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct CertificateDraft {
    chain: Option<At<Reference>>,
    key: Option<At<Reference>>,
}

impl ListenerDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let address = section.required("address", reading).and_then(|item| item.text(reading));
        let certificates = section.required("certificates", reading);
        let certificates = certificates.and_then(|item| item.filled_list("a listener serves TLS only", reading, CertificateDraft::read));
        let sources = read_sources(&mut section, reading);
        section.finish(reading);
        Some(Self { address, certificates: certificates.unwrap_or_default(), sources })
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<Listener> {
        let address = self.address.as_ref().and_then(|address| socket_address(address, resolving));
        let certificates: Vec<_> = self.certificates.iter().map(|draft| draft.resolve(resolving)).collect();
        let certificates = certificates.into_iter().collect::<Option<_>>()?;
        Some(Listener { address: address?, certificates, sources: self.sources.clone() })
    }
}

/// What is wrong is noted; a mistake never widens who is believed.
fn read_sources(section: &mut Section<'_>, reading: &mut Reading) -> Sources {
    let proxy_protocol = section.optional("proxy_protocol").and_then(|item| {
        let mut section = item.section(reading)?;
        let from = section.required("from", reading);
        let from = from.and_then(|item| networks(&item, "then nobody could connect; leave `proxy_protocol` out", reading));
        section.finish(reading);
        from
    });
    let trusted_proxies = section.optional("trusted_proxies");
    let trusted_proxies = trusted_proxies.and_then(|item| networks(&item, "leave it out where no proxy stands before Envoy", reading));
    Sources { proxy_protocol, trusted_proxies: trusted_proxies.unwrap_or_default() }
}

impl CertificateDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let chain = section.required("chain", reading).and_then(|item| reference::read_public(&item, reading));
        let key = section.required("key", reading).and_then(|item| reference::read_secret(&item, reading));
        section.finish(reading);
        Some(Self { chain, key })
    }

    pub(super) fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<ServingCertificate> {
        certificate::resolve_serving(self.chain.as_ref()?, self.key.as_ref()?, resolving)
    }

    /// The same of a server that may be known by an address alone.
    pub(super) fn resolve_server(&self, resolving: &mut Resolving<'_>) -> Option<ServingCertificate> {
        certificate::resolve_server(self.chain.as_ref()?, self.key.as_ref()?, resolving)
    }
}

/// All listeners; each must be able to prove every one of `hosts` to a TLS client.
pub(super) fn resolve(drafts: &[ListenerDraft], hosts: &[At<String>], resolving: &mut Resolving<'_>) -> Option<Vec<Listener>> {
    let mut addresses = HashSet::new();
    let mut listeners = Vec::new();
    for draft in drafts {
        let listener = draft.resolve(resolving);
        if let (Some(listener), Some(written)) = (&listener, &draft.address) {
            if !addresses.insert(listener.address) {
                resolving.faults.add(&written.spot, format!("another listener has the address {} already", listener.address));
            }
            check_hosts(draft, listener, hosts, resolving);
        }
        listeners.push(listener);
    }
    listeners.into_iter().collect()
}

fn check_hosts(draft: &ListenerDraft, listener: &Listener, hosts: &[At<String>], resolving: &mut Resolving<'_>) {
    let names: HashSet<&str> = listener.certificates.iter().flat_map(|certificate| &certificate.dns_names).map(String::as_str).collect();
    for host in hosts.iter().filter(|host| !certificate::covers(&names, &host.value)) {
        let describe = |(draft, certificate): (&CertificateDraft, &ServingCertificate)| {
            let file = draft.chain.as_ref().map(|chain| chain.value.to_string()).unwrap_or_default();
            format!("{file} names {}", certificate.dns_names.join(", "))
        };
        let names: Vec<_> = draft.certificates.iter().zip(&listener.certificates).map(describe).collect();
        let message = format!("no certificate of the listener {} covers `{}`", listener.address, host.value);
        resolving.faults.add_with_hint(&host.spot, message, names.join("; "));
    }
}
