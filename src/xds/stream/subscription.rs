//! What a client wants of one type: a wildcard, names, or both. Knows nothing of what was sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::resource::{MAX_NAME_LENGTH, ResourceSet, TypeUrl};
use super::protocol::Names;
use super::{Limits, NAME_COST, StreamError};

const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub(super) struct Subscription {
    wildcard: bool,
    /// Those of resources that exist share their text with them.
    names: BTreeSet<Arc<str>>,
    /// Names, or the wildcard's own, were sent: from then on, a whole subscription without names is an empty one.
    named: bool,
    /// See `NAME_COST`.
    cost: usize,
}

/// About which type, and at what time, names are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) kind: TypeUrl,
    /// The first request for this type on its stream.
    pub(super) first: bool,
    pub(super) set: &'a ResourceSet,
}

impl Asked<'_> {
    /// One text for all streams where there is a resource of that name.
    pub(super) fn shared(self, name: String) -> Arc<str> {
        self.set.get(self.kind, &name).map_or_else(|| name.into(), |resource| Arc::clone(&resource.name))
    }
}

/// What a request changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The wildcard was asked for: everything is wanted, and an answer is due even when there is nothing.
    pub(super) wildcard_asked: bool,
    pub(super) wildcard_ended: bool,
    /// Names that must be answered, whatever the client is believed to hold.
    pub(super) asked: BTreeSet<Arc<str>>,
    /// Names that the client no longer wants in any way, and forgets.
    pub(super) dropped: BTreeSet<Arc<str>>,
}

impl Subscription {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(super) fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Takes what a request says of names.
    pub(super) fn apply(&mut self, asked: Asked<'_>, names: Names, limits: Limits) -> Result<Change, StreamError> {
        let change = match names {
            Names::Changes { subscribe, unsubscribe } => self.change(asked, subscribe, unsubscribe, limits)?,
            Names::All(names) => self.replace(asked, names)?,
        };
        self.check(asked.kind, limits)?;
        Ok(change)
    }

    /// On the first request no names at all mean the wildcard for listeners, clusters and scopes; later, or for other types, they mean no change.
    /// A name in both lists ends up wanted.
    fn change(
        &mut self,
        asked: Asked<'_>,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        limits: Limits,
    ) -> Result<Change, StreamError> {
        let mut change = Change::default();
        if asked.first && subscribe.is_empty() && has_legacy_wildcard(asked.kind) {
            self.wildcard = true;
            change.wildcard_asked = true;
        }
        for name in unsubscribe {
            self.unsubscribe(name, &mut change);
        }
        for name in subscribe {
            self.subscribe(asked, name, &mut change)?;
            self.check(asked.kind, limits)?;
        }
        Ok(change)
    }

    /// `names` are all that is wanted from now on. For listeners, clusters and scopes no names mean the wildcard until some were sent.
    fn replace(&mut self, asked: Asked<'_>, names: Vec<String>) -> Result<Change, StreamError> {
        self.named |= !names.is_empty();
        let mut wildcard = !self.named && has_legacy_wildcard(asked.kind);
        let mut wanted = BTreeSet::new();
        for name in names {
            check_name(asked.kind, &name)?;
            if name == WILDCARD {
                wildcard = true;
            } else {
                wanted.insert(asked.shared(name));
            }
        }
        let before = std::mem::replace(&mut self.names, wanted);
        let change = Change {
            wildcard_asked: wildcard && !self.wildcard,
            wildcard_ended: self.wildcard && !wildcard,
            asked: self.names.difference(&before).cloned().collect(),
            dropped: before.into_iter().filter(|name| !wildcard && !self.names.contains(name)).collect(),
        };
        self.wildcard = wildcard;
        self.cost = self.names.iter().map(|name| name.len() + NAME_COST).sum();
        Ok(change)
    }

    fn check(&self, kind: TypeUrl, limits: Limits) -> Result<(), StreamError> {
        if self.names.len() > limits.names_per_type {
            return Err(StreamError::TooManyNames { kind, limit: limits.names_per_type });
        }
        Ok(())
    }

    fn unsubscribe(&mut self, name: String, change: &mut Change) {
        if name == WILDCARD {
            change.wildcard_ended |= std::mem::take(&mut self.wildcard);
            change.wildcard_asked = false;
        } else if let Some(name) = self.names.take(&*name) {
            self.cost -= name.len() + NAME_COST;
            // The client forgets the name at once, so where the wildcard still covers it, it needs it again.
            if self.wildcard {
                change.asked.insert(name)
            } else {
                change.dropped.insert(name)
            };
        }
    }

    fn subscribe(&mut self, asked: Asked<'_>, name: String, change: &mut Change) -> Result<(), StreamError> {
        check_name(asked.kind, &name)?;
        if name == WILDCARD {
            self.wildcard = true;
            change.wildcard_asked = true;
        } else {
            let name = asked.shared(name);
            change.dropped.remove(&name);
            if self.names.insert(Arc::clone(&name)) {
                self.cost += name.len() + NAME_COST;
            }
            change.asked.insert(name);
        }
        Ok(())
    }
}

fn has_legacy_wildcard(kind: TypeUrl) -> bool {
    matches!(kind, TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::ScopedRouteConfiguration)
}

fn check_name(kind: TypeUrl, name: &str) -> Result<(), StreamError> {
    if name.is_empty() || name.len() > MAX_NAME_LENGTH {
        return Err(StreamError::InvalidName { kind });
    }
    Ok(())
}
