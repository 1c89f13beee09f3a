//! What the watches have brought, put together. A list that begins anew replaces what was there only when it is whole. What would take up too
//! much is left out, and who may write in one namespace cannot take up the room of all others. Does no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;

use super::kinds::Status;
use crate::config::objects::{Kind, Material, Object, ObjectId, Objects};
use crate::config::{MaterialId, MaterialKind};

/// Objects, Secrets and ConfigMaps that are held at one time, and their bytes; further ones are left out.
const MAX_HELD: usize = 100_000;
const MAX_BYTES: usize = 256 << 20;
/// Of these, of one namespace other than the operator's.
const MAX_HELD_OF_ONE: usize = 25_000;
const MAX_BYTES_OF_ONE: usize = 32 << 20;
/// About what a value, or an object with nothing in it, takes in memory.
const BYTES_OF_A_VALUE: usize = 32;
const BYTES_OF_AN_OBJECT: usize = 512;

/// Namespace and name.
type Key = (String, String);

/// What one watch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Object(Kind),
    Material(MaterialKind),
}

impl Watched {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.name(),
            Self::Material(kind) => kind.name(),
        }
    }
}

/// What an update changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Specs or contents, or that all is there for the first time.
    pub(super) content: bool,
    /// What stands in statuses.
    pub(super) statuses: bool,
}

impl Changed {
    pub(super) fn and(self, other: Self) -> Self {
        Self { content: self.content || other.content, statuses: self.statuses || other.statuses }
    }
}

/// The status of an object as the API server has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeenStatus {
    pub(super) uid: String,
    /// The object's resource version, by which what we wrote is told from what was before.
    pub(super) version: u64,
    pub(super) status: Option<Status>,
}

/// Everything of every watch.
#[derive(Debug)]
pub(super) struct Held {
    watches: Vec<Watch>,
    /// Its objects are never too many: without them nothing is served.
    operator_namespace: String,
}

#[derive(Debug)]
struct Watch {
    watched: Watched,
    now: Shelf,
    /// The list that is being read.
    coming: Option<Shelf>,
    listed: bool,
}

/// Items, and what they take up.
#[derive(Debug, Default)]
struct Shelf {
    items: BTreeMap<Key, Stored>,
    by_namespace: BTreeMap<String, Taken>,
    all: Taken,
}

#[derive(Debug)]
struct Stored {
    item: Item,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    count: usize,
    bytes: usize,
}

#[derive(Debug, Clone)]
enum Item {
    Object(Arc<Object>, SeenStatus),
    Material(Arc<Material>),
}

impl Held {
    pub(super) fn new(watches: impl IntoIterator<Item = Watched>, operator_namespace: &str) -> Self {
        let watch = |watched| Watch { watched, now: Shelf::default(), coming: None, listed: false };
        Self { watches: watches.into_iter().map(watch).collect(), operator_namespace: operator_namespace.to_owned() }
    }

    /// Whether every watch has brought its first whole list.
    pub(super) fn is_whole(&self) -> bool {
        self.watches.iter().all(|watch| watch.listed)
    }

    /// What is still missing at the start.
    pub(super) fn awaited(&self) -> Vec<&'static str> {
        self.watches.iter().filter(|watch| !watch.listed).map(|watch| watch.watched.name()).collect()
    }

    /// Takes one event of the watch `index`.
    pub(super) fn take(&mut self, index: usize, event: Event<DynamicObject>) -> Changed {
        let fitting = match &event {
            Event::InitApply(object) | Event::Apply(object) => self.fitting(index, object),
            _ => None,
        };
        let Some(watch) = self.watches.get_mut(index) else { return Changed::default() };
        match event {
            Event::Init => {
                watch.coming = Some(Shelf::default());
                Changed::default()
            }
            Event::InitApply(_) => {
                if let (Some((key, stored)), Some(coming)) = (fitting, &mut watch.coming) {
                    coming.insert(key, stored);
                }
                Changed::default()
            }
            Event::InitDone => watch.replace(),
            Event::Apply(object) => match fitting {
                Some((key, stored)) => watch.put(key, stored),
                None => watch.remove(&key_of(&object)),
            },
            Event::Delete(object) => watch.remove(&key_of(&object)),
        }
    }

    /// The object as it is held; `None` when there is no room. One that has grown too large is not kept as it was either: after a restart it
    /// would not be there.
    fn fitting(&self, index: usize, object: &DynamicObject) -> Option<(Key, Stored)> {
        let watch = self.watches.get(index)?;
        let (key, stored) = watch.item(object)?;
        if self.has_room(index, &key, stored.bytes) {
            return Some((key, stored));
        }
        tracing::warn!(object.kind = watch.watched.name(), object.namespace = key.0, object.name = key.1, "cluster_source.too_much");
        None
    }

    fn has_room(&self, index: usize, key: &Key, bytes: usize) -> bool {
        if key.0 == self.operator_namespace {
            return true;
        }
        let (mut all, mut own) = (Taken { count: 1, bytes }, Taken { count: 1, bytes });
        for (number, watch) in self.watches.iter().enumerate() {
            let shelf = if number == index { watch.filling() } else { &watch.now };
            all = all.and(shelf.all);
            own = own.and(shelf.by_namespace.get(&key.0).copied().unwrap_or_default());
            if let Some(before) = shelf.items.get(key).filter(|_| number == index) {
                (all, own) = (all.without(before.bytes), own.without(before.bytes));
            }
        }
        all.is_within(MAX_HELD, MAX_BYTES) && own.is_within(MAX_HELD_OF_ONE, MAX_BYTES_OF_ONE)
    }

    pub(super) fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        for (watched, (namespace, name), item) in self.items() {
            match item {
                Item::Object(object, _) => drop(objects.objects.insert(object.id.clone(), Arc::clone(object))),
                Item::Material(material) => {
                    let Watched::Material(kind) = watched else { continue };
                    let id = MaterialId { kind, namespace: namespace.clone(), name: name.clone() };
                    objects.materials.insert(id, Arc::clone(material));
                }
            }
        }
        objects
    }

    pub(super) fn statuses(&self) -> BTreeMap<ObjectId, SeenStatus> {
        let status = |(_, _, item): (_, _, &Item)| match item {
            Item::Object(object, status) => Some((object.id.clone(), status.clone())),
            Item::Material(_) => None,
        };
        self.items().filter_map(status).collect()
    }

    fn items(&self) -> impl Iterator<Item = (Watched, &Key, &Item)> {
        self.watches.iter().flat_map(|watch| watch.now.items.iter().map(|(key, stored)| (watch.watched, key, &stored.item)))
    }
}

impl Watch {
    fn item(&self, object: &DynamicObject) -> Option<(Key, Stored)> {
        let key = key_of(object);
        let item = match self.watched {
            Watched::Object(kind) => {
                let (object, status) = object_of(kind, object)?;
                Item::Object(Arc::new(object), status)
            }
            Watched::Material(kind) => Item::Material(Arc::new(material_of(kind, object))),
        };
        Some((key, Stored { item, bytes: BYTES_OF_AN_OBJECT + bytes_of(&object.data) }))
    }

    /// Where what comes now is put.
    fn filling(&self) -> &Shelf {
        self.coming.as_ref().unwrap_or(&self.now)
    }

    fn put(&mut self, key: Key, mut stored: Stored) -> Changed {
        let before = self.now.items.get(&key).map(|before| &before.item);
        let changed = stored.item.changed_from(before);
        stored.item.keep_equal(before);
        self.now.insert(key, stored);
        changed
    }

    fn remove(&mut self, key: &Key) -> Changed {
        let gone = self.now.remove(key);
        Changed { content: gone, statuses: gone }
    }

    fn replace(&mut self) -> Changed {
        let Some(mut coming) = self.coming.take() else { return Changed::default() };
        let mut changed = Changed { content: !self.listed || coming.items.len() != self.now.items.len(), statuses: true };
        for (key, stored) in &mut coming.items {
            let before = self.now.items.get(key).map(|before| &before.item);
            changed.content |= stored.item.changed_from(before).content;
            stored.item.keep_equal(before);
        }
        (self.now, self.listed) = (coming, true);
        changed
    }
}

impl Shelf {
    fn insert(&mut self, key: Key, stored: Stored) {
        self.remove(&key);
        let more = Taken { count: 1, bytes: stored.bytes };
        let own = self.by_namespace.entry(key.0.clone()).or_default();
        (*own, self.all) = (own.and(more), self.all.and(more));
        self.items.insert(key, stored);
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(gone) = self.items.remove(key) else { return false };
        self.all = self.all.without(gone.bytes);
        if let Some(own) = self.by_namespace.get_mut(&key.0) {
            *own = own.without(gone.bytes);
        }
        true
    }
}

impl Taken {
    fn and(self, other: Self) -> Self {
        Self { count: self.count.saturating_add(other.count), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// Without one item of so many bytes.
    fn without(self, bytes: usize) -> Self {
        Self { count: self.count.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }

    fn is_within(self, count: usize, bytes: usize) -> bool {
        self.count <= count && self.bytes <= bytes
    }
}

impl Item {
    fn changed_from(&self, before: Option<&Self>) -> Changed {
        match (self, before) {
            (Self::Object(now, status), Some(Self::Object(before, status_before))) => {
                Changed { content: now != before, statuses: status != status_before }
            }
            (Self::Material(now), Some(Self::Material(before))) => Changed { content: now.data != before.data, statuses: false },
            _ => Changed { content: true, statuses: true },
        }
    }

    /// What did not change stays the very same value, so that nothing is made of it again.
    fn keep_equal(&mut self, before: Option<&Self>) {
        match (self, before) {
            (Self::Object(now, _), Some(Self::Object(before, _))) if now == before => *now = Arc::clone(before),
            (Self::Material(now), Some(Self::Material(before))) if now.data == before.data => *now = Arc::clone(before),
            _ => {}
        }
    }
}

fn bytes_of(value: &Value) -> usize {
    BYTES_OF_A_VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(bytes_of).sum(),
            Value::Object(entries) => entries.iter().map(|(key, value)| key.len() + bytes_of(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

fn key_of(object: &DynamicObject) -> Key {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// `None` for what no API server sends: an object without a name.
fn object_of(kind: Kind, object: &DynamicObject) -> Option<(Object, SeenStatus)> {
    let metadata = &object.metadata;
    let uid = metadata.uid.clone()?;
    let status = object.data.get("status").and_then(|status| serde_json::from_value(status.clone()).ok());
    let seen = SeenStatus { uid: uid.clone(), version: version_of(object), status };
    let id = ObjectId { kind, namespace: metadata.namespace.clone()?, name: metadata.name.clone()? };
    let object = Object {
        id,
        uid,
        generation: metadata.generation.unwrap_or_default(),
        created_at: metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
        spec: object.data.get("spec").cloned().unwrap_or(Value::Null),
    };
    Some((object, seen))
}

pub(super) fn version_of(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// A Secret's values are written in base64; a ConfigMap has text, and other bytes under a key of their own.
fn material_of(kind: MaterialKind, object: &DynamicObject) -> Material {
    let texts = |key: &str| {
        let entries = object.data.get(key).and_then(Value::as_object);
        entries.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?)))
    };
    let decode = |(key, text): (String, &str)| Some((key, STANDARD.decode(text).ok()?));
    let data = match kind {
        MaterialKind::Secret => texts("data").filter_map(decode).collect(),
        MaterialKind::ConfigMap => {
            let plain = texts("data").map(|(key, text)| (key, text.as_bytes().to_vec()));
            plain.chain(texts("binaryData").filter_map(decode)).collect()
        }
    };
    let uid = object.metadata.uid.clone().unwrap_or_default();
    Material { version: format!("{uid}@{}", version_of(object)), data }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use kube::core::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn object(namespace: &str, name: &str, bytes: usize) -> DynamicObject {
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(format!("{namespace}/{name}")),
            ..ObjectMeta::default()
        };
        DynamicObject { types: None, metadata, data: json!({"spec": {"text": "x".repeat(bytes)}, "data": {"key": "eHh4"}}) }
    }

    /// Two watches, whose lists are whole and empty.
    fn held() -> Held {
        let mut held = Held::new([Watched::Object(Kind::Policy), Watched::Material(MaterialKind::Secret)], "kubepass");
        for index in [0, 1] {
            held.take(index, Event::Init);
            held.take(index, Event::InitDone);
        }
        held
    }

    fn names(held: &Held) -> Vec<String> {
        held.items().map(|(watched, (namespace, name), _)| format!("{} {namespace}/{name}", watched.name())).collect()
    }

    const MIB: usize = 1 << 20;

    #[test]
    fn one_namespace_does_not_take_the_room_of_others() {
        let mut held = held();
        for number in 0..50 {
            held.take(0, Event::Apply(object("greedy", &format!("p{number:02}"), MIB)));
        }
        let had = names(&held).len();
        assert!((30..=31).contains(&had), "{had} of 32 MiB");
        assert!(!held.take(1, Event::Apply(object("greedy", "further", MIB))).content, "of whatever kind");
        assert!(held.take(0, Event::Apply(object("modest", "p", MIB))).content);
        for number in 0..50 {
            assert!(held.take(0, Event::Apply(object("kubepass", &format!("o{number}"), MIB))).content, "the operator's are not counted");
        }
        held.take(0, Event::Delete(object("greedy", "p00", 0)));
        assert!(held.take(1, Event::Apply(object("greedy", "further", MIB))).content, "there is room again");
    }

    #[test]
    fn what_grows_too_large_is_out_and_a_list_begins_with_the_same() {
        let mut held = held();
        held.take(0, Event::Apply(object("shop", "a", 1)));
        held.take(0, Event::Apply(object("shop", "b", 1)));
        assert!(held.take(0, Event::Apply(object("shop", "b", 33 * MIB))).content);
        assert_eq!(names(&held), ["Policy shop/a"]);
        assert!(held.take(0, Event::Apply(object("shop", "b", 31 * MIB))).content);
        assert!(!held.take(0, Event::Apply(object("shop", "b", 31 * MIB))).content, "it does not count twice");
        held.take(0, Event::Init);
        for (name, bytes) in [("a", 20 * MIB), ("b", 20 * MIB), ("c", MIB)] {
            held.take(0, Event::InitApply(object("shop", name, bytes)));
        }
        assert_eq!(names(&held), ["Policy shop/a", "Policy shop/b"], "until the list is whole");
        held.take(0, Event::InitDone);
        assert_eq!(names(&held), ["Policy shop/a", "Policy shop/c"]);
    }

    #[test]
    fn objects_without_content_are_counted_too() {
        let mut held = held();
        for number in 0..MAX_HELD_OF_ONE + 10 {
            held.take(0, Event::Apply(object("greedy", &number.to_string(), 0)));
        }
        assert_eq!(names(&held).len(), MAX_HELD_OF_ONE);
    }
}
