//! `cluster_source`: the API server whose objects (Route, Policy, Gateway, Grant) are configuration besides this file.

use std::path::PathBuf;

use super::error::At;
use super::model::{ClusterSource, Lease};
use super::names::{name_fault, quote};
use super::reader::{Item, Reading};
use super::resolving::Resolving;
use super::service::path;

const DEFAULT_LEASE: &str = "kubepass";
const DEFAULT_LEASE_SECONDS: u64 = 15;
/// Shorter, and a slow API server would cost the lease; longer, and statuses would stand still when a replica dies.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 3..=300;

#[derive(Debug)]
pub(super) struct ClusterSourceDraft {
    namespace: Option<At<String>>,
    namespaces: Option<Vec<At<String>>>,
    kubeconfig: Option<PathBuf>,
    lease_name: Option<At<String>>,
    lease_seconds: Option<u64>,
}

impl ClusterSourceDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let namespace = section.required("namespace", reading).and_then(|item| item.text(reading));
        let namespaces = section.optional("namespaces");
        let namespaces = namespaces.and_then(|item| {
            item.filled_list("nothing would be watched; leave the key out to watch every namespace", reading, |item, reading| {
                item.text(reading)
            })
        });
        let kubeconfig = section.optional("kubeconfig").and_then(|item| path(&item, reading));
        let (mut lease_name, mut lease_seconds) = (None, None);
        if let Some(item) = section.optional("lease") {
            let mut section = item.section(reading)?;
            lease_name = section.optional("name").and_then(|item| item.text(reading));
            lease_seconds =
                section.optional("duration").and_then(|item| item.duration(*LEASE_SECONDS.start(), *LEASE_SECONDS.end(), reading));
            section.finish(reading);
        }
        section.finish(reading);
        Some(Self { namespace, namespaces, kubeconfig, lease_name, lease_seconds })
    }

    pub(super) fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<ClusterSource> {
        let names = self.namespace.iter().chain(self.namespaces.iter().flatten()).chain(&self.lease_name);
        let mut good = true;
        for name in names {
            if let Some(fault) = name_fault(&name.value) {
                resolving.faults.add(&name.spot, format!("{} {fault}", quote(&name.value)));
                good = false;
            }
        }
        let namespace = self.namespace.as_ref().filter(|_| good)?.value.clone();
        let namespaces = self.namespaces.as_ref().map(|names| {
            let mut names: Vec<String> = names.iter().map(|name| name.value.clone()).chain([namespace.clone()]).collect();
            names.sort_unstable();
            names.dedup();
            names
        });
        Some(ClusterSource {
            namespace,
            namespaces,
            kubeconfig: self.kubeconfig.clone(),
            lease: Lease {
                name: self.lease_name.as_ref().map_or_else(|| DEFAULT_LEASE.to_owned(), |name| name.value.clone()),
                seconds: self.lease_seconds.unwrap_or(DEFAULT_LEASE_SECONDS),
            },
        })
    }
}
