//! What the client holds of one type, as far as this side can know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The last that the client was told about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holding {
    Version(Arc<str>),
    /// It was told that the resource does not exist.
    Nothing,
    /// It may hold any version.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Holdings {
    told: BTreeMap<Arc<str>, Holding>,
    /// Names of `told` about which the client refused the last response, and may or may not have taken this part.
    doubtful: BTreeSet<Arc<str>>,
}

impl Holdings {
    /// What the client lists when it connects, and the names that an earlier stream left in doubt.
    pub(super) fn start(&mut self, listed: impl IntoIterator<Item = (Arc<str>, String)>, doubts: BTreeSet<Arc<str>>) {
        self.told = listed.into_iter().map(|(name, version)| (name, Holding::Version(version.into()))).collect();
        self.told.extend(doubts.iter().map(|name| (Arc::clone(name), Holding::Unknown)));
        self.doubtful = doubts;
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.told.keys()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Holding> {
        self.told.get(name)
    }

    /// The client knows exactly this version of `name`, or was told so and refused.
    pub(super) fn was_told(&self, name: &str, version: &str) -> bool {
        matches!(self.get(name), Some(Holding::Version(told)) if **told == *version)
    }

    /// The client may have something under this name.
    pub(super) fn may_have(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Holding::Version(_) | Holding::Unknown))
    }

    /// `None`: there is nothing.
    pub(super) fn tell(&mut self, name: &Arc<str>, version: Option<&Arc<str>>) {
        self.doubtful.remove(name);
        self.told.insert(Arc::clone(name), version.map_or(Holding::Nothing, |version| Holding::Version(Arc::clone(version))));
    }

    pub(super) fn doubt(&mut self, name: &Arc<str>) {
        if self.told.contains_key(name) {
            self.doubtful.insert(Arc::clone(name));
        }
    }

    /// The client took everything that it was told.
    pub(super) fn trust(&mut self) {
        for name in std::mem::take(&mut self.doubtful) {
            if self.get(&name) == Some(&Holding::Nothing) {
                self.told.remove(&name);
            }
        }
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.told.remove(name);
        self.doubtful.remove(name);
    }

    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.told.retain(|name, _| wanted(name));
        self.doubtful.retain(|name| wanted(name));
    }

    pub(super) fn doubtful(&self) -> &BTreeSet<Arc<str>> {
        &self.doubtful
    }
}
