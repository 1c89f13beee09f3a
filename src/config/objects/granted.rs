//! What an object may refer to: Secrets and ConfigMaps of its own namespace, and those of others that a Grant there names for it.

use std::collections::{BTreeSet, HashSet};

use super::{Kind, ObjectId, Objects, Roots, USE_LABEL, Verdict, read};
use crate::config::reference::{Contents, KeyReference, MaterialId, Reference};

/// Every Grant without a mistake: kind and namespace of who may refer, and to what.
#[derive(Debug, Default)]
pub(super) struct Grants(HashSet<(Kind, String, MaterialId)>);

/// Whether the references of one object lead anywhere.
#[derive(Debug)]
pub(super) struct Looked {
    /// The versions of all, for telling whether something changed.
    pub(super) versions: String,
    pub(super) lack: Option<Lack>,
}

/// What the worst of the references that lead nowhere lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    NotThere,
    NotPermitted,
}

impl Grants {
    /// A Grant with a mistake grants nothing. It has no status: what is wrong stands in the log.
    pub(super) fn of(objects: &Objects, verdicts: &mut Vec<Verdict>) -> Self {
        let mut granted = HashSet::new();
        for object in objects.of_kind(Kind::Grant) {
            let drafted = read::grant(object);
            let Some(spec) = drafted.value.filter(|_| drafted.faults.is_empty()) else {
                verdicts.push(Verdict::of(object).with_errors(&drafted.faults.into_errors(), None));
                continue;
            };
            for (kind, namespace) in &spec.from {
                granted.extend(spec.to.iter().map(|(material, name)| {
                    let to = MaterialId { kind: *material, namespace: object.id.namespace.clone(), name: name.clone() };
                    (*kind, namespace.clone(), to)
                }));
            }
        }
        Self(granted)
    }

    fn permit(&self, who: &ObjectId, material: &MaterialId) -> bool {
        material.namespace == who.namespace || self.0.contains(&(who.kind, who.namespace.clone(), material.clone()))
    }

    /// Whether all of it is there and may be referred to now: a Secret that was deleted, or whose label was taken away, is one that may not be used.
    pub(super) fn permit_all(&self, who: &ObjectId, references: &BTreeSet<Reference>, objects: &Objects) -> bool {
        references.iter().all(|reference| match reference {
            Reference::Object(reference) => self.permit(who, &reference.material) && objects.materials.contains_key(&reference.material),
            _ => true,
        })
    }

    /// Looks without taking anything: most objects have not changed.
    pub(super) fn look(&self, who: &ObjectId, references: &BTreeSet<Reference>, objects: &Objects) -> Looked {
        let mut looked = Looked { versions: String::new(), lack: None };
        for reference in references {
            let Reference::Object(key) = reference else { continue };
            let material = objects.materials.get(&key.material);
            let (lack, version) = match material {
                _ if !self.permit(who, &key.material) => (Some(Lack::NotPermitted), "forbidden"),
                Some(material) => ((!material.data.contains_key(&key.key)).then_some(Lack::NotThere), material.version.as_str()),
                None => (Some(Lack::NotThere), "-"),
            };
            looked.lack = looked.lack.max(lack);
            looked.versions.push(';');
            looked.versions.push_str(version);
        }
        looked
    }

    pub(super) fn fetch(&self, who: &ObjectId, references: &BTreeSet<Reference>, objects: &Objects, roots: &Roots) -> Contents {
        let content = |reference: &Reference| match reference {
            Reference::Object(key) => self.content(who, key, objects),
            Reference::SystemRoots => roots.0.clone(),
            // The reader of objects makes no such reference.
            Reference::File(_) | Reference::Environment(_) => Err("an object cannot name it".to_owned()),
        };
        Contents(references.iter().map(|reference| (reference.clone(), content(reference))).collect())
    }

    fn content(&self, who: &ObjectId, reference: &KeyReference, objects: &Objects) -> Result<Vec<u8>, String> {
        let MaterialId { namespace, .. } = &reference.material;
        if !self.permit(who, &reference.material) {
            let (kind, from) = (who.kind.name(), &who.namespace);
            return Err(format!("no Grant in the namespace {namespace} lets a {kind} of {from} refer to it"));
        }
        match objects.materials.get(&reference.material) {
            Some(material) => material.data.get(&reference.key).cloned().ok_or_else(|| "it has no such key".to_owned()),
            None => Err(format!("it is not there, or lacks the label {USE_LABEL}: \"true\"")),
        }
    }
}
