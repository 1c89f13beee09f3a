//! What changes from one resource set to the next, and whether a change reaches open connections. Knows nothing of streams.

use super::resource::{ResourceSet, TypeUrl};

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
}

impl Difference {
    /// Envoy drains what a changed or removed listener carries; every other change cuts nothing.
    pub fn drains(&self) -> bool {
        self.kind == TypeUrl::Listener && self.what != What::Added
    }
}

/// In the order of types and names.
pub fn between(before: &ResourceSet, after: &ResourceSet) -> Vec<Difference> {
    let mut differences = Vec::new();
    for kind in TypeUrl::ALL {
        let mut of_kind: Vec<(String, What)> = Vec::new();
        for resource in after.resources(kind) {
            match before.get(kind, &resource.name) {
                None => of_kind.push((resource.name.to_string(), What::Added)),
                Some(old) if old.version != resource.version => of_kind.push((resource.name.to_string(), What::Changed)),
                Some(_) => {}
            }
        }
        let gone = before.resources(kind).filter(|old| after.get(kind, &old.name).is_none());
        of_kind.extend(gone.map(|old| (old.name.to_string(), What::Removed)));
        of_kind.sort_by(|(one, _), (other, _)| one.cmp(other));
        differences.extend(of_kind.into_iter().map(|(name, what)| Difference { kind, name, what }));
    }
    differences
}
