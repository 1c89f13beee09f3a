//! What a client wants of one type: a wildcard, names, or both. Knows nothing of what was sent.

use std::collections::BTreeSet;

use super::super::resource::{MAX_NAME_LENGTH, TypeUrl};
use super::{Limits, StreamError};

const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub(super) struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
}

/// What a request changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The wildcard was asked for: everything is wanted, and an answer is due even when there is nothing.
    pub(super) wildcard_asked: bool,
    pub(super) wildcard_ended: bool,
    /// Names that must be answered, whatever the client is believed to hold.
    pub(super) asked: BTreeSet<String>,
    /// Names that the client no longer wants in any way, and forgets.
    pub(super) dropped: BTreeSet<String>,
}

impl Subscription {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(super) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Takes the lists of a delta request. `first`: the first request for this type on its stream, where no names at all mean the
    /// wildcard for listeners and clusters; later, or for other types, no names mean no change.
    /// A name in both lists ends up wanted.
    pub(super) fn apply(
        &mut self,
        kind: TypeUrl,
        first: bool,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        limits: Limits,
    ) -> Result<Change, StreamError> {
        let mut change = Change::default();
        if first && subscribe.is_empty() && matches!(kind, TypeUrl::Cluster | TypeUrl::Listener) {
            self.wildcard = true;
            change.wildcard_asked = true;
        }
        for name in unsubscribe {
            self.unsubscribe(name, &mut change);
        }
        for name in subscribe {
            self.subscribe(kind, name, &mut change)?;
            if self.names.len() > limits.names_per_type {
                return Err(StreamError::TooManyNames { kind, limit: limits.names_per_type });
            }
        }
        Ok(change)
    }

    fn unsubscribe(&mut self, name: String, change: &mut Change) {
        if name == WILDCARD {
            change.wildcard_ended |= std::mem::take(&mut self.wildcard);
            change.wildcard_asked = false;
        } else if self.names.remove(&name) {
            // The client forgets the name at once, so where the wildcard still covers it, it needs it again.
            if self.wildcard {
                change.asked.insert(name)
            } else {
                change.dropped.insert(name)
            };
        }
    }

    fn subscribe(&mut self, kind: TypeUrl, name: String, change: &mut Change) -> Result<(), StreamError> {
        if name.is_empty() || name.len() > MAX_NAME_LENGTH {
            return Err(StreamError::InvalidName { kind });
        }
        if name == WILDCARD {
            self.wildcard = true;
            change.wildcard_asked = true;
        } else {
            change.dropped.remove(&name);
            self.names.insert(name.clone());
            change.asked.insert(name);
        }
        Ok(())
    }
}
