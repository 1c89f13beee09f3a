//! What the watches have brought, put together. A list that begins anew replaces what was there only when it is whole. Does no I/O.

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

/// Objects, Secrets and ConfigMaps that are held at one time; further ones are left out.
const MAX_HELD: usize = 100_000;
/// Bytes of all specs and of all Secrets and ConfigMaps together.
const MAX_BYTES: usize = 256 << 20;

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
}

#[derive(Debug)]
struct Watch {
    watched: Watched,
    now: BTreeMap<(String, String), Item>,
    /// The list that is being read.
    coming: Option<BTreeMap<(String, String), Item>>,
    listed: bool,
}

#[derive(Debug, Clone)]
enum Item {
    Object(Arc<Object>, SeenStatus),
    Material(Arc<Material>),
}

impl Held {
    pub(super) fn new(watches: impl IntoIterator<Item = Watched>) -> Self {
        let watch = |watched| Watch { watched, now: BTreeMap::new(), coming: None, listed: false };
        Self { watches: watches.into_iter().map(watch).collect() }
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
        let is_new = |watch: &Watch| matches!(&event, Event::Apply(object) if !watch.now.contains_key(&key_of(object)));
        let full = self.watches.get(index).is_some_and(is_new) && self.is_full();
        let Some(watch) = self.watches.get_mut(index) else { return Changed::default() };
        match event {
            Event::Init => {
                watch.coming = Some(BTreeMap::new());
                Changed::default()
            }
            Event::InitApply(object) => {
                if let (Some((key, item)), Some(coming)) = (watch.item(&object), &mut watch.coming)
                    && coming.len() < MAX_HELD
                {
                    coming.insert(key, item);
                }
                Changed::default()
            }
            Event::InitDone => watch.replace(),
            Event::Apply(object) => watch.put(&object, full),
            Event::Delete(object) => {
                let gone = watch.now.remove(&key_of(&object)).is_some();
                Changed { content: gone, statuses: gone }
            }
        }
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

    fn items(&self) -> impl Iterator<Item = (Watched, &(String, String), &Item)> {
        self.watches.iter().flat_map(|watch| watch.now.iter().map(|(key, item)| (watch.watched, key, item)))
    }

    fn is_full(&self) -> bool {
        let (count, bytes) = self.items().fold((0, 0), |(count, bytes), (_, _, item)| (count + 1, bytes + item.bytes()));
        count >= MAX_HELD || bytes >= MAX_BYTES
    }
}

impl Watch {
    fn item(&self, object: &DynamicObject) -> Option<((String, String), Item)> {
        let key = key_of(object);
        let item = match self.watched {
            Watched::Object(kind) => {
                let (object, status) = object_of(kind, object)?;
                Item::Object(Arc::new(object), status)
            }
            Watched::Material(kind) => Item::Material(Arc::new(material_of(kind, object))),
        };
        Some((key, item))
    }

    fn put(&mut self, object: &DynamicObject, full: bool) -> Changed {
        let Some((key, mut item)) = self.item(object) else { return Changed::default() };
        let before = self.now.get(&key);
        if before.is_none() && full {
            tracing::warn!(object.kind = self.watched.name(), object.namespace = key.0, object.name = key.1, "cluster_source.too_much");
            return Changed::default();
        }
        let changed = item.changed_from(before);
        item.keep_equal(before);
        self.now.insert(key, item);
        changed
    }

    fn replace(&mut self) -> Changed {
        let Some(mut coming) = self.coming.take() else { return Changed::default() };
        let mut changed = Changed { content: !self.listed || coming.len() != self.now.len(), statuses: true };
        for (key, item) in &mut coming {
            let before = self.now.get(key);
            changed.content |= item.changed_from(before).content;
            item.keep_equal(before);
        }
        (self.now, self.listed) = (coming, true);
        changed
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

    fn bytes(&self) -> usize {
        match self {
            // About: a spec of text.
            Self::Object(..) => 4096,
            Self::Material(material) => material.data.values().map(Vec::len).sum(),
        }
    }
}

fn key_of(object: &DynamicObject) -> (String, String) {
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
