//! Where what the client holds of one type may differ from what it should have. While nothing changes this is empty, and a change adds the
//! names that changed: nobody looks at the others again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::resource::{ResourceSet, TypeUrl};
use super::holdings::Holdings;
use super::subscription::Subscription;

#[derive(Debug, Default)]
pub(super) struct Unsettled {
    names: BTreeSet<Arc<str>>,
    /// Version of the set that was looked at last; `None` when everything has to be compared.
    seen: Option<Arc<str>>,
}

impl Unsettled {
    /// Everything has to be compared: the subscription or what the client holds is another.
    pub(super) fn begin_again(&mut self) {
        self.seen = None;
    }

    /// Takes in what is another in `set`, and drops what is settled.
    pub(super) fn look(&mut self, kind: TypeUrl, set: &ResourceSet, subscription: &Subscription, holdings: &Holdings) {
        let seen = self.seen.replace(Arc::clone(set.version()));
        if seen.as_ref() == Some(set.version()) && self.names.is_empty() {
            return;
        }
        match seen.as_ref().and_then(|seen| set.changed_since(seen, kind)) {
            Some(changed) => self.names.extend(changed.filter(|name| subscription.wants(name) || holdings.get(name).is_some()).cloned()),
            None => {
                let wanted = |name: &&Arc<str>| subscription.is_wildcard() || subscription.names().contains(*name);
                self.names = holdings.names().chain(set.resources(kind).map(|resource| &resource.name).filter(wanted)).cloned().collect();
            }
        }
        self.names.retain(|name| match set.get(kind, name) {
            Some(resource) => subscription.wants(name) && !holdings.was_told(name, &resource.version),
            None => holdings.may_have(name),
        });
    }

    /// The client was told about it.
    pub(super) fn settle(&mut self, name: &str) {
        self.names.remove(name);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }
}
