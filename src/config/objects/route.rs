//! From the draft of a Route to the route that it makes: as it says now, or as it said when it was last good.

use std::cell::RefCell;
use std::sync::Arc;

use super::gateway::{Policies, Serving};
use super::granted::{Grants, Looked};
use super::memory::{Good, RouteMemory};
use super::read::{Drafted, RouteSpec, below_root};
use super::room::{self, Room};
use super::scope::Scope;
use super::{InForce, Object, ObjectId, Objects, Roots, Verdict};
use crate::config::error::{ConfigErrors, Faults};
use crate::config::model::Route;
use crate::config::reference::Contents;
use crate::config::resolving::Resolving;
use crate::config::route::RuleDraft;
use crate::policy::Compiled;

/// What routes are made from.
pub(super) struct Making<'a> {
    pub(super) objects: &'a Objects,
    pub(super) grants: &'a Grants,
    pub(super) policies: &'a Policies,
    pub(super) gateways: &'a [Serving],
    pub(super) roots: &'a Roots,
    /// Rules of the routes in force, and of those that are made: equal ones are compiled once.
    pub(super) compiled: RefCell<Compiled>,
    pub(super) now: u64,
}

/// What the Gateways that serve a Route bring to it.
struct FromGateways<'a> {
    all: Vec<&'a Serving>,
    scope: Scope,
    /// Tells it from anything else that they could bring.
    stamp: String,
    /// One that serves it too, and whose rules nobody knows.
    lacking: Option<&'a str>,
}

/// What a Route comes to.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) candidate: Option<Candidate>,
    /// Its host, where a Gateway serves that for its namespace: it has the host also while it cannot be in force.
    pub(super) host: Option<String>,
    pub(super) verdict: Verdict,
}

/// A route that could be in force, if nothing else has its host.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) in_force: InForce,
    /// Tells its content from others, over restarts too.
    pub(super) stamp: String,
}

impl Making<'_> {
    /// The route of an object, and what is to be said of it.
    pub(super) fn make(
        &self,
        object: &Object,
        drafted: &Arc<Drafted<RouteSpec>>,
        own_stamp: &str,
        memory: &mut RouteMemory,
        room: &mut Room<'_>,
    ) -> Made {
        let verdict = Verdict { in_force: Some(InForce::No), ..Verdict::of(object) };
        let nothing = |verdict| Made { candidate: None, host: None, verdict };
        let Some(host) = host_of(drafted).or_else(|| memory.good.as_ref().and_then(|good| host_of(&good.drafted))) else {
            return nothing(verdict.with_errors(&drafted.faults.clone().into_errors(), None));
        };
        let Some(serving) = self.serving(&object.id.namespace, &host) else {
            // What was permitted once is not kept.
            *memory = RouteMemory::default();
            let verdict = verdict.with_errors(&drafted.faults.clone().into_errors(), None);
            return nothing(verdict.refused("NotServed", not_served(&object.id, &host)));
        };
        let Looked { versions, lack } = self.grants.look(&object.id, &drafted.references, self.objects);
        let own_stamp = format!("{own_stamp}|{versions}");
        let (tried, stamp) = self.attempt(object, drafted, &own_stamp, &serving, memory, room);
        let (candidate, verdict) = match tried {
            Ok(route) => (Some(Candidate { in_force: InForce::Current(route), stamp }), verdict),
            Err(errors) => (self.previous(&object.id, &serving, memory), verdict.with_errors(&errors, lack)),
        };
        Made { candidate, host: Some(host), verdict }
    }

    /// What the Gateways that serve the host for the namespace bring; `None` when none does.
    fn serving(&self, namespace: &str, host: &str) -> Option<FromGateways<'_>> {
        let (all, lacking): (Vec<&Serving>, Vec<&Serving>) =
            self.gateways.iter().filter(|gateway| gateway.serves(namespace, host)).partition(|gateway| gateway.is_whole());
        let scope = all.iter().map(|gateway| gateway.scope.clone()).reduce(|scope, other| scope.or(&other))?;
        let stamp = all.iter().map(|gateway| format!("{}={}", gateway.name(), gateway.stamp)).collect();
        Some(FromGateways { all, scope, stamp, lacking: lacking.first().map(|gateway| gateway.name()) })
    }

    /// The route as the object says now; the same answer as before when nothing that goes into it has changed.
    fn attempt(
        &self,
        object: &Object,
        drafted: &Arc<Drafted<RouteSpec>>,
        own_stamp: &str,
        serving: &FromGateways<'_>,
        memory: &mut RouteMemory,
        room: &mut Room<'_>,
    ) -> (Result<Arc<Route>, ConfigErrors>, String) {
        let mut faults = drafted.faults.clone();
        let named = drafted.value.as_ref().map(|spec| spec.policies.as_slice()).unwrap_or_default();
        let own = format!("{own_stamp}|{}", self.policies.stamp(&object.id.namespace, named, &mut faults));
        let mut stamp = format!("{own}|{}", serving.stamp);
        if let Some(name) = serving.lacking {
            faults.add(
                &below_root("host"),
                format!("the Gateway {name} serves it too, and has mistakes: its rules may be what keeps people out"),
            );
            stamp.push_str(&format!("|{name}!"));
        }
        let own_rules = drafted.value.as_ref().map(|spec| spec.route.rules()).unwrap_or_default();
        let bytes = self.policies.bytes(&object.id.namespace, named) + room::bytes_of(own_rules);
        if let Err(message) = room.take_rules(&object.id, bytes) {
            // Not even tried: to try them is what takes the time.
            faults.add(&below_root("policy"), message);
            return (Err(faults.into_errors()), stamp);
        }
        if let Some((before, tried)) = &memory.tried
            && *before == stamp
        {
            return (tried.clone(), stamp);
        }
        let mut rules = self.policies.rules(&object.id.namespace, named, "");
        rules.extend(own_rules.iter().cloned());
        let contents = Arc::new(self.grants.fetch(&object.id, &drafted.references, self.objects, self.roots));
        let tried = serving.resolve(&object.id, drafted, faults, &rules, &contents, self);
        if let Ok(route) = &tried {
            let (drafted, route, gateways) = (Arc::clone(drafted), Arc::clone(route), serving.stamp.clone());
            memory.good = Some(Good { drafted, rules, contents, own, gateways, route });
        }
        memory.tried = Some((stamp.clone(), tried.clone()));
        (tried, stamp)
    }

    /// The route as it was last good, under the Gateways' rules of now. What it may no longer use, it does not keep.
    fn previous(&self, id: &ObjectId, serving: &FromGateways<'_>, memory: &mut RouteMemory) -> Option<Candidate> {
        let good = memory.good.as_mut()?;
        if !self.grants.permit_all(id, &good.drafted.references, self.objects) {
            memory.good = None;
            return None;
        }
        if good.gateways != serving.stamp {
            let faults = good.drafted.faults.clone();
            let Ok(route) = serving.resolve(id, &good.drafted, faults, &good.rules, &good.contents, self) else {
                memory.good = None;
                return None;
            };
            (good.route, good.gateways) = (route, serving.stamp.clone());
        }
        Some(Candidate { in_force: InForce::Previous(Arc::clone(&good.route)), stamp: format!("{}|{}", good.own, good.gateways) })
    }
}

fn host_of(drafted: &Drafted<RouteSpec>) -> Option<String> {
    drafted.value.as_ref()?.route.host.as_ref().map(|host| host.value.clone())
}

fn not_served(id: &ObjectId, host: &str) -> String {
    format!("{id}: spec.host: no Gateway serves the host `{host}` for the namespace {}", id.namespace)
}

impl FromGateways<'_> {
    fn resolve(
        &self,
        id: &ObjectId,
        drafted: &Drafted<RouteSpec>,
        faults: Faults,
        own_rules: &[RuleDraft],
        contents: &Contents,
        making: &Making<'_>,
    ) -> Result<Arc<Route>, ConfigErrors> {
        let mut resolving = Resolving::new(faults, contents, "", making.now);
        resolving.compiled = making.compiled.take();
        let rules: Vec<RuleDraft> = self.all.iter().flat_map(|gateway| &gateway.rules).chain(own_rules).cloned().collect();
        let rules = (!rules.is_empty()).then_some(rules.as_slice());
        let route = drafted.value.as_ref().and_then(|spec| spec.route.resolve_named(Some(id.route_name()), rules, &mut resolving));
        making.compiled.replace(resolving.compiled);
        let errors = resolving.faults.into_errors();
        let Scope { nodes, gateways } = self.scope.clone();
        match route {
            Some(route) if errors.0.is_empty() => Ok(Arc::new(Route { nodes, gateways, ..route })),
            _ => Err(errors),
        }
    }
}
