//! What changes from one resource set to the next, and what a change does to open connections. Knows nothing of streams.

use std::fmt;

use envoy_types::pb::envoy::config::listener::v3::Listener;
use prost::Message;

use super::resource::{Resource, ResourceSet, TypeUrl};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Added,
    Changed,
    Removed,
}

/// One resource that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub kind: TypeUrl,
    pub name: String,
    pub what: What,
    pub drained: Drained,
}

/// Which open connections Envoy drains: they may go on for its drain time, and are closed then. Listeners alone drain anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    Nothing,
    /// Those of these filter chains.
    Chains(Vec<String>),
    /// Those of the whole listener.
    Everything,
}

impl Difference {
    pub fn drains(&self) -> bool {
        self.drained != Drained::Nothing
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Chains(names) => write!(f, "filter chain {}", names.join(", ")),
            Self::Everything => f.write_str("all of it"),
        }
    }
}

/// In the order of types and names.
pub fn between(before: &ResourceSet, after: &ResourceSet) -> Vec<Difference> {
    TypeUrl::ALL.into_iter().flat_map(|kind| of_kind(kind, before, after)).collect()
}

/// Those that drain something. Looks at the listeners alone, of which there are few.
pub fn drains(before: &ResourceSet, after: &ResourceSet) -> Vec<Difference> {
    of_kind(TypeUrl::Listener, before, after).into_iter().filter(Difference::drains).collect()
}

fn of_kind(kind: TypeUrl, before: &ResourceSet, after: &ResourceSet) -> Vec<Difference> {
    let mut differences: Vec<Difference> = Vec::new();
    let mut note = |resource: &Resource, what, drained| {
        differences.push(Difference { kind, name: resource.name.to_string(), what, drained });
    };
    for resource in after.resources(kind) {
        match before.get(kind, &resource.name) {
            None => note(resource, What::Added, Drained::Nothing),
            Some(old) if old.version != resource.version => note(resource, What::Changed, drained(kind, old, resource)),
            Some(_) => {}
        }
    }
    for old in before.resources(kind).filter(|old| after.get(kind, &old.name).is_none()) {
        note(old, What::Removed, if kind == TypeUrl::Listener { Drained::Everything } else { Drained::Nothing });
    }
    differences.sort_by(|one, other| one.name.cmp(&other.name));
    differences
}

/// Envoy changes a listener in place where its filter chains alone differ, and leaves those that are the same.
fn drained(kind: TypeUrl, before: &Resource, after: &Resource) -> Drained {
    if kind != TypeUrl::Listener {
        return Drained::Nothing;
    }
    let (Ok(mut before), Ok(mut after)) = (Listener::decode(before.body.bytes()), Listener::decode(after.body.bytes())) else {
        return Drained::Everything;
    };
    let (old, new) = (std::mem::take(&mut before.filter_chains), std::mem::take(&mut after.filter_chains));
    if before != after {
        return Drained::Everything;
    }
    let gone: Vec<String> = old.into_iter().filter(|chain| !new.contains(chain)).map(|chain| chain.name).collect();
    if gone.is_empty() { Drained::Nothing } else { Drained::Chains(gone) }
}
