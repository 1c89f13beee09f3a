//! All that a client was told of one type whose responses are complete: what a response leaves out, the client deletes. So whatever must not
//! go yet, and whatever must not change yet, has to be repeated as the client was told it.
//!
//! That includes what it refused: it may have taken a part of it, which would go away and come back. Envoy refuses one bad cluster and
//! takes the others, each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::resource::Resource;
use super::sub_stream::Plan;

#[derive(Debug, Default)]
pub(super) struct Whole(BTreeMap<Arc<str>, Arc<Resource>>);

impl Whole {
    /// The complete response that makes `plan` come true.
    pub(super) fn send(&mut self, plan: &Plan<'_>) -> Vec<Arc<Resource>> {
        plan.removed_names().for_each(|name| drop(self.0.remove(name)));
        self.0.extend(plan.resources().map(|resource| (Arc::clone(&resource.name), Arc::clone(resource))));
        self.0.values().cloned().collect()
    }

    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }
}
