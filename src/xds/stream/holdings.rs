//! What the client holds of one type, as far as this side can know.

use std::collections::{BTreeMap, BTreeSet};

/// A version that no resource has: the client may hold anything.
const UNKNOWN: &str = "";

/// The last that the client was told about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holding {
    /// `None`: it was told that the resource does not exist.
    pub(super) version: Option<String>,
    /// The client refused the response that told it, and may or may not have taken this part.
    pub(super) doubtful: bool,
}

#[derive(Debug, Default)]
pub(super) struct Holdings(BTreeMap<String, Holding>);

impl Holdings {
    /// What the client lists when it connects, and the names that an earlier stream left in doubt.
    pub(super) fn start(&mut self, listed: impl IntoIterator<Item = (String, String)>, doubts: BTreeSet<String>) {
        self.0 = listed.into_iter().map(|(name, version)| (name, Holding { version: Some(version), doubtful: false })).collect();
        let unknown = Holding { version: Some(UNKNOWN.to_owned()), doubtful: true };
        self.0.extend(doubts.into_iter().map(|name| (name, unknown.clone())));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Holding)> {
        self.0.iter().map(|(name, holding)| (name.as_str(), holding))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Holding> {
        self.0.get(name)
    }

    /// The client knows exactly this version of `name`, or was told so and refused.
    pub(super) fn was_told(&self, name: &str, version: &str) -> bool {
        self.get(name).is_some_and(|holding| holding.version.as_deref() == Some(version))
    }

    pub(super) fn tell(&mut self, name: &str, version: Option<String>) {
        self.0.insert(name.to_owned(), Holding { version, doubtful: false });
    }

    pub(super) fn doubt(&mut self, name: &str) {
        if let Some(holding) = self.0.get_mut(name) {
            holding.doubtful = true;
        }
    }

    /// The client took everything that it was told.
    pub(super) fn trust(&mut self) {
        self.0.retain(|_, holding| holding.version.is_some());
        self.0.values_mut().for_each(|holding| holding.doubtful = false);
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    pub(super) fn doubtful(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|(_, holding)| holding.doubtful).map(|(name, _)| name)
    }
}
