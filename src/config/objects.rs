//! Configuration that stands as objects in an API server (Route, Policy, Gateway, Grant), put on top of that of the file.
//!
//! An object goes through the very readers of the file's YAML (`read`), so there is one truth about what may be written and what is said about a
//! mistake. Then, object by object (`merge`): what may it refer to (`granted`), which Gateway serves it (`gateway`), does it meet another that was
//! there before it (`together`). One with a mistake is left out, or stays as it was when it was last good; the others notice nothing.
//!
//! Permissions are never remembered: what a Gateway or a Grant no longer allows is out at once. Knows nothing of the API server's protocol.

mod condition;
mod gateway;
mod granted;
mod memory;
mod merge;
mod read;
mod room;
mod route;
mod scope;
mod together;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::reference::MaterialId;

pub use condition::{Condition, ConditionStatus, Programmed, conditions};
pub use memory::Memory;
pub use merge::{Merged, Roots, merge};
pub use read::shape_errors;
pub use verdict::{InForce, Judged, Refusal, Verdict};

/// The label of Secrets and ConfigMaps that kubepass may read: who may write Routes must not get at every Secret of the namespace.
pub const USE_LABEL: &str = "kubepass.dev/use";

/// The kinds of objects, in the order in which they are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Grant,
    Policy,
    Gateway,
    Route,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Grant, Self::Policy, Self::Gateway, Self::Route];

    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grant => "Grant",
            Self::Policy => "Policy",
            Self::Gateway => "Gateway",
            Self::Route => "Route",
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl ObjectId {
    /// The name of a Route's route. No route of the file has one with a slash.
    pub fn route_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// One object as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub id: ObjectId,
    /// Another for an object that was deleted and made again.
    pub uid: String,
    /// Another with each change of the spec.
    pub generation: i64,
    /// Unix seconds.
    pub created_at: i64,
    pub spec: serde_json::Value,
}

/// What a Secret or ConfigMap holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Another with each change.
    pub version: String,
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Material {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Material").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Everything that the API server has for kubepass, as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    pub objects: BTreeMap<ObjectId, Arc<Object>>,
    pub materials: BTreeMap<MaterialId, Arc<Material>>,
}

impl Objects {
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values().filter(move |object| object.id.kind == kind)
    }
}
