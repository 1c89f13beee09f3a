//! `listeners`: where Envoy listens, and the certificates that it shows there.

use std::collections::HashSet;

use super::certificate;
use super::error::At;
use super::model::{Listener, ServingCertificate};
use super::reader::{Item, Reading};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use super::service::socket_address;

#[derive(Debug)]
pub(super) struct ListenerDraft {
    address: Option<At<String>>,
    certificates: Vec<CertificateDraft>,
}

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
        section.finish(reading);
        Some(Self { address, certificates: certificates.unwrap_or_default() })
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<Listener> {
        let address = self.address.as_ref().and_then(|address| socket_address(address, resolving));
        let certificates: Vec<_> = self.certificates.iter().map(|draft| draft.resolve(resolving)).collect();
        Some(Listener { address: address?, certificates: certificates.into_iter().collect::<Option<_>>()? })
    }
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
