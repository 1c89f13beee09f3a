//! All resources of one scope at one time. A set that was made from another shares with it what is equal, and knows what is not: what follows
//! from a change costs as much as the change, however large the set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest;

use super::{MAX_NAME_LENGTH, Resource, TypeUrl, content_hash};

/// How many sets back a set knows what changed. Who has seen an older one compares everything.
const REMEMBERED: usize = 64;

/// Why a resource cannot stand in a set. Envoy would reject the whole response, or take the resource under a name that nobody can remove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResource {
    #[error("two resources of type {kind} are named {name:?}")]
    Duplicate { kind: TypeUrl, name: String },
    #[error("a resource of type {kind} has the name {name:?}: names have 1 to 1024 bytes and are not \"*\"")]
    Name { kind: TypeUrl, name: String },
}

/// Collects the resources of one set.
#[derive(Debug, Default)]
pub struct ResourceSetBuilder {
    types: BTreeMap<TypeUrl, Arc<OfType>>,
    /// The set that it began with.
    before: Option<ResourceSet>,
    touched: BTreeMap<TypeUrl, BTreeSet<Arc<str>>>,
}

impl ResourceSetBuilder {
    /// # Errors
    /// A name that is taken, empty, too long or the wildcard.
    pub fn insert(&mut self, kind: TypeUrl, resource: impl Into<Arc<Resource>>) -> Result<(), InvalidResource> {
        let resource = resource.into();
        let name = Arc::clone(&resource.name);
        if name.is_empty() || &*name == "*" || name.len() > MAX_NAME_LENGTH {
            return Err(InvalidResource::Name { kind, name: name.to_string() });
        }
        let of = Arc::make_mut(self.types.entry(kind).or_default());
        if of.resources.contains_key(&name) {
            return Err(InvalidResource::Duplicate { kind, name: name.to_string() });
        }
        of.sum.add(&resource);
        of.resources.insert(Arc::clone(&name), resource);
        self.touched.entry(kind).or_default().insert(name);
        Ok(())
    }

    /// Takes a resource out that the set began with; another may be put in under its name.
    pub fn remove(&mut self, kind: TypeUrl, name: &str) {
        let Some(of) = self.types.get_mut(&kind).filter(|of| of.resources.contains_key(name)) else { return };
        let of = Arc::make_mut(of);
        if let Some((name, resource)) = of.resources.remove_entry(name) {
            of.sum.subtract(&resource);
            self.touched.entry(kind).or_default().insert(name);
        }
    }

    pub fn build(mut self) -> ResourceSet {
        for kind in TypeUrl::ALL {
            let of = self.types.entry(kind).or_default();
            if self.before.is_none() || self.touched.contains_key(&kind) {
                let version = of.sum.version(of.resources.len());
                Arc::make_mut(of).version = version;
            }
        }
        let parts: Vec<&[u8]> = self.types.values().map(|of| of.version.as_bytes()).collect();
        let version: Arc<str> = content_hash(&parts).into();
        let history = self.before.as_ref().map(|before| self.history(before, &version)).unwrap_or_default();
        ResourceSet { version, types: Arc::new(self.types), history: history.into() }
    }

    /// What this set knows of those before it: what was touched and is another now, then what the one before it knew.
    fn history(&self, before: &ResourceSet, version: &Arc<str>) -> Vec<Arc<Step>> {
        let known = before.history.iter().cloned();
        if before.version == *version {
            return known.collect();
        }
        let differs = |kind: TypeUrl, name: &Arc<str>| {
            let now = self.types.get(&kind).and_then(|of| of.resources.get(name));
            before.get(kind, name).map(|resource| &resource.version) != now.map(|resource| &resource.version)
        };
        let changed = |(kind, names): (&TypeUrl, &BTreeSet<Arc<str>>)| {
            (*kind, names.iter().filter(|name| differs(*kind, name)).cloned().collect::<Vec<_>>())
        };
        let step = Step { from: Arc::clone(&before.version), changed: self.touched.iter().map(changed).collect() };
        std::iter::once(Arc::new(step)).chain(known).take(REMEMBERED).collect()
    }
}

/// All resources of one scope, ordered by type and name. Cheap to clone; two sets with equal content are equal.
#[derive(Debug, Clone)]
pub struct ResourceSet {
    version: Arc<str>,
    types: Arc<BTreeMap<TypeUrl, Arc<OfType>>>,
    /// The newest first.
    history: Arc<[Arc<Step>]>,
}

#[derive(Debug, Clone, Default)]
struct OfType {
    version: Arc<str>,
    sum: Sum,
    resources: BTreeMap<Arc<str>, Arc<Resource>>,
}

/// What changed from one set to the next.
#[derive(Debug)]
struct Step {
    /// Version of the set before.
    from: Arc<str>,
    changed: BTreeMap<TypeUrl, Vec<Arc<str>>>,
}

impl ResourceSet {
    pub fn builder() -> ResourceSetBuilder {
        ResourceSetBuilder::default()
    }

    /// Begins a set with what this one holds.
    pub fn edit(&self) -> ResourceSetBuilder {
        ResourceSetBuilder { types: (*self.types).clone(), before: Some(self.clone()), touched: BTreeMap::new() }
    }

    /// Hash of all names and versions.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Hash of the names and versions of one type.
    pub fn type_version(&self, kind: TypeUrl) -> &str {
        self.types.get(&kind).map_or("", |of| &of.version)
    }

    /// Names of one type that may have changed, come or gone since the set of that version; `None` where that is not known.
    pub fn changed_since(&self, version: &str, kind: TypeUrl) -> Option<impl Iterator<Item = &Arc<str>>> {
        let steps = if *self.version == *version { 0 } else { self.history.iter().position(|step| *step.from == *version)? + 1 };
        Some(self.history.iter().take(steps).filter_map(move |step| step.changed.get(&kind)).flatten())
    }

    pub fn get(&self, kind: TypeUrl, name: &str) -> Option<&Arc<Resource>> {
        self.types.get(&kind).and_then(|of| of.resources.get(name))
    }

    /// In the order of their names.
    pub fn resources(&self, kind: TypeUrl) -> impl Iterator<Item = &Arc<Resource>> {
        self.types.get(&kind).into_iter().flat_map(|of| of.resources.values())
    }

    pub fn len(&self, kind: TypeUrl) -> usize {
        self.types.get(&kind).map_or(0, |of| of.resources.len())
    }

    pub fn is_empty(&self, kind: TypeUrl) -> bool {
        self.len(kind) == 0
    }
}

impl Default for ResourceSet {
    fn default() -> Self {
        ResourceSetBuilder::default().build()
    }
}

impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for ResourceSet {}

/// The sum of the hashes of all names and versions: the same in whatever order they came and went. Wide enough that nobody who may choose
/// some of them finds two sets with one sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sum([u64; 8]);

impl Sum {
    fn add(&mut self, resource: &Resource) {
        self.change(resource, u64::wrapping_add);
    }

    fn subtract(&mut self, resource: &Resource) {
        self.change(resource, u64::wrapping_sub);
    }

    fn change(&mut self, resource: &Resource, with: fn(u64, u64) -> u64) {
        let mut context = digest::Context::new(&digest::SHA512);
        for part in [&resource.name, &resource.version] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let hash = context.finish();
        for (lane, word) in self.0.iter_mut().zip(hash.as_ref().chunks_exact(8)) {
            *lane = with(*lane, word.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
    }

    fn version(&self, count: usize) -> Arc<str> {
        let lanes = self.0.map(u64::to_be_bytes);
        content_hash(&[&(count as u64).to_be_bytes(), lanes.as_flattened()]).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::*;

    const KIND: TypeUrl = TypeUrl::Cluster;

    fn resource(name: &str, version: &str) -> Resource {
        Resource { name: name.into(), version: version.into(), body: Bytes::new().into() }
    }

    /// `a=1 b=2`
    fn set(words: &str) -> ResourceSet {
        let mut builder = ResourceSet::builder();
        for word in words.split_whitespace() {
            let (name, version) = word.split_once('=').unwrap();
            builder.insert(KIND, resource(name, version)).unwrap();
        }
        builder.build()
    }

    /// `+a=1`, `-a`, `~a=2`
    fn edited(set: &ResourceSet, words: &str) -> ResourceSet {
        let mut builder = set.edit();
        for word in words.split_whitespace() {
            let (name, version) = word.get(1..).unwrap().split_once('=').unwrap_or((word.get(1..).unwrap(), ""));
            if !word.starts_with('+') {
                builder.remove(KIND, name);
            }
            if !word.starts_with('-') {
                builder.insert(KIND, resource(name, version)).unwrap();
            }
        }
        builder.build()
    }

    fn since(set: &ResourceSet, version: &str) -> Option<String> {
        set.changed_since(version, KIND).map(|names| names.map(|name| &**name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn names_that_envoy_would_refuse_are_refused() {
        let mut builder = ResourceSet::builder();
        builder.insert(KIND, resource("a", "1")).unwrap();
        let duplicate = InvalidResource::Duplicate { kind: KIND, name: "a".into() };
        assert_eq!(builder.insert(KIND, resource("a", "2")), Err(duplicate.clone()));
        builder.insert(TypeUrl::ClusterLoadAssignment, resource("a", "1")).unwrap();
        for name in ["", "*", &"x".repeat(1025)] {
            assert!(matches!(builder.insert(KIND, resource(name, "1")), Err(InvalidResource::Name { .. })), "{name}");
        }
        assert_eq!(builder.build().edit().insert(KIND, resource("a", "2")), Err(duplicate));
    }

    #[test]
    fn a_set_is_equal_by_content_whatever_it_was_made_from() {
        let whole = set("a=1 b=2 c=3");
        for (from, words) in [("", "+c=3 +a=1 +b=2"), ("a=1 b=1 d=1", "-d ~b=2 +c=3"), ("a=1 b=2 c=3", ""), ("a=1 b=2 c=3", "-a +a=1")] {
            let made = edited(&set(from), words);
            assert_eq!((made.version(), made.type_version(KIND)), (whole.version(), whole.type_version(KIND)), "{from} {words}");
            assert_eq!(made.resources(KIND).collect::<Vec<_>>(), whole.resources(KIND).collect::<Vec<_>>());
        }
        for other in ["a=1 b=2", "a=1 b=2 c=4", "a=1 b=3 c=2", "a=1 b=2 c=3 d=4", "b=1 a=2 c=3"] {
            assert_ne!(set(other), whole, "{other}");
        }
    }

    #[test]
    fn a_set_knows_what_changed_since_those_before_it() {
        let first = set("a=1 b=1");
        let second = edited(&first, "~a=2 +c=1");
        let third = edited(&second, "-b");
        let same = edited(&third, "~a=2");
        assert_eq!(since(&second, first.version()).as_deref(), Some("a c"));
        assert_eq!(since(&third, first.version()).as_deref(), Some("b a c"));
        assert_eq!(since(&third, second.version()).as_deref(), Some("b"));
        assert_eq!(since(&third, third.version()).as_deref(), Some(""));
        assert_eq!((same == third, since(&same, second.version()).as_deref()), (true, Some("b")), "nothing changed");
        assert_eq!(since(&first, second.version()), None, "the future");
        assert_eq!(since(&set("a=2 b=1 c=1"), first.version()), None, "made from nothing");
        assert_eq!(third.changed_since(first.version(), TypeUrl::Listener).unwrap().count(), 0);
    }

    #[test]
    fn a_set_forgets_what_is_long_ago() {
        let first = set("a=0");
        let mut last = first.clone();
        for version in 1..=REMEMBERED {
            last = edited(&last, &format!("~a={version}"));
        }
        assert!(since(&last, first.version()).is_some());
        let next = edited(&last, "~a=x");
        assert_eq!((since(&next, first.version()), since(&next, last.version()).as_deref()), (None, Some("a")));
    }
}
