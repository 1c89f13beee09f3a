//! What is kept from one merge to the next: drafts, so that what did not change is not read and compiled again, and what was last good.

use std::collections::HashMap;
use std::sync::Arc;

use super::read::{Drafted, GatewaySpec, PolicySpec, RouteSpec};
use super::{Object, ObjectId, Objects};
use crate::config::error::ConfigErrors;
use crate::config::model::{Route, ServingCertificate};
use crate::config::reference::Contents;
use crate::config::route::RuleDraft;
use crate::policy::Policy;

/// Empty at the start: then nothing was good before.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) policies: HashMap<ObjectId, Kept<PolicySpec, PolicyMemory>>,
    pub(super) gateways: HashMap<ObjectId, Kept<GatewaySpec, GatewayMemory>>,
    pub(super) routes: HashMap<ObjectId, Kept<RouteSpec, RouteMemory>>,
}

/// One object as it was last seen, and what its kind remembers of it.
#[derive(Debug)]
pub(super) struct Kept<T, M> {
    uid: String,
    generation: i64,
    pub(super) drafted: Arc<Drafted<T>>,
    pub(super) memory: M,
}

#[derive(Debug, Default)]
pub(super) struct PolicyMemory {
    /// Of the draft; `None` before it was checked.
    pub(super) errors: Option<ConfigErrors>,
}

#[derive(Debug, Default)]
pub(super) struct GatewayMemory {
    /// The last spec without a mistake.
    pub(super) good: Option<Arc<Drafted<GatewaySpec>>>,
    /// The rules that its policies had when all were good, and what tells them apart.
    pub(super) rules: Option<(Vec<RuleDraft>, String)>,
    pub(super) certificates: Vec<ServingCertificate>,
}

#[derive(Debug, Default)]
pub(super) struct RouteMemory {
    /// The last attempt: what went into it, and what came out.
    pub(super) tried: Option<(String, Result<Arc<Route>, ConfigErrors>)>,
    pub(super) good: Option<Good>,
}

/// A Route as it was when it was last good: what it was made from, so that it can be made again when a Gateway's rules change.
#[derive(Debug, Clone)]
pub(super) struct Good {
    pub(super) drafted: Arc<Drafted<RouteSpec>>,
    /// Those of the Route and of its Policies.
    pub(super) rules: Vec<RuleDraft>,
    pub(super) contents: Arc<Contents>,
    /// What went into it but for the Gateways' part.
    pub(super) own: String,
    pub(super) gateways: String,
    pub(super) route: Arc<Route>,
}

impl Memory {
    /// The rules of all Routes as they were last good.
    pub(super) fn good_policies(&self) -> impl Iterator<Item = &Policy> {
        self.routes.values().filter_map(|kept| kept.memory.good.as_ref()).map(|good| &good.route.policy)
    }

    /// Forgets what is gone.
    pub(super) fn keep_only(&mut self, objects: &Objects) {
        self.policies.retain(|id, _| objects.objects.contains_key(id));
        self.gateways.retain(|id, _| objects.objects.contains_key(id));
        self.routes.retain(|id, _| objects.objects.contains_key(id));
    }
}

impl<T, M: Default> Kept<T, M> {
    /// What is known of the object, read anew when its spec is another. One that was made anew under an old name inherits nothing; `changed` says
    /// what an old memory keeps when the spec changes.
    pub(super) fn look<'k>(
        all: &'k mut HashMap<ObjectId, Self>,
        object: &Object,
        read: fn(&Object) -> Drafted<T>,
        changed: fn(&mut M),
    ) -> &'k mut Self {
        if all.get(&object.id).is_some_and(|kept| kept.uid != object.uid) {
            all.remove(&object.id);
        }
        let fresh =
            || Self { uid: object.uid.clone(), generation: object.generation, drafted: Arc::new(read(object)), memory: M::default() };
        let kept = all.entry(object.id.clone()).or_insert_with(fresh);
        if kept.generation != object.generation {
            kept.drafted = Arc::new(read(object));
            kept.generation = object.generation;
            changed(&mut kept.memory);
        }
        kept
    }

    /// Tells one spec of one object from every other.
    pub(super) fn stamp(&self) -> String {
        format!("{}/{}", self.uid, self.generation)
    }
}
