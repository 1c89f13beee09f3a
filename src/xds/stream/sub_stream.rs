//! One type on one stream: what the client wants and holds, what it is owed, and the one response that may be in flight.
//! Decides what to send; when it may be sent relative to other types is `machine`'s part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::resource::{Resource, ResourceSet, TypeUrl};
use super::holdings::{Holding, Holdings};
use super::protocol::{Dialect, Names, Push};
use super::subscription::{Asked, Subscription};
use super::unsettled::Unsettled;
use super::whole::Whole;
use super::{Limits, NAME_COST, StreamError};

#[derive(Debug)]
pub(super) struct SubStream {
    kind: TypeUrl,
    form: Form,
    subscription: Subscription,
    holdings: Holdings,
    unsettled: Unsettled,
    /// Names to answer whatever the client holds.
    owed: BTreeSet<Arc<str>>,
    /// A response is due even if it is empty.
    answer_owed: bool,
    requested: bool,
    last_nonce: Option<String>,
    in_flight: Option<InFlight>,
    /// Names of the response that the request at hand answers.
    answered: Vec<Arc<str>>,
    /// Version of the whole set of which a response was refused: what was refused is not sent again before the set has another version.
    refused_at: Option<Arc<str>>,
    acknowledged: Option<String>,
    /// Of the names and versions that the client listed; see `NAME_COST`.
    listed_cost: usize,
}

/// What a response holds.
#[derive(Debug)]
enum Form {
    /// What changed, and the names of what is gone.
    Changes,
    /// What changed. That something is gone is not told.
    Additions,
    /// Everything: what is absent is gone.
    Whole(Whole),
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    set_version: Arc<str>,
    type_version: String,
    names: Vec<Arc<str>>,
    has_resources: bool,
}

/// What must wait for another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hold {
    /// New versions of what the client has; answers to what it asked for never wait.
    pub(super) changes: bool,
    pub(super) removals: bool,
}

/// The content of one response.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    resources: BTreeMap<&'a str, &'a Arc<Resource>>,
    removed: BTreeSet<Arc<str>>,
    /// To be sent even if empty.
    answer: bool,
}

impl Plan<'_> {
    fn is_empty(&self) -> bool {
        self.has_no_content() && !self.answer
    }

    fn has_no_content(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values().copied()
    }

    pub(super) fn resource_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.values().map(|resource| &resource.name)
    }

    pub(super) fn removed_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.removed.iter()
    }

    pub(super) fn resource_count(&self) -> usize {
        self.resources.len()
    }
}

/// How a request answered the response in flight.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No answer, or one to something else than the response in flight.
    Nothing,
    Acked {
        version: String,
    },
    Nacked,
}

impl SubStream {
    pub(super) fn new(kind: TypeUrl, dialect: Dialect) -> Self {
        Self {
            kind,
            form: match (dialect, kind) {
                (Dialect::Delta, _) => Form::Changes,
                (Dialect::StateOfTheWorld, TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::ScopedRouteConfiguration) => {
                    Form::Whole(Whole::default())
                }
                (Dialect::StateOfTheWorld, _) => Form::Additions,
            },
            subscription: Subscription::default(),
            holdings: Holdings::default(),
            unsettled: Unsettled::default(),
            owed: BTreeSet::new(),
            answer_owed: false,
            requested: false,
            last_nonce: None,
            in_flight: None,
            answered: Vec::new(),
            refused_at: None,
            acknowledged: None,
            listed_cost: 0,
        }
    }

    pub(super) fn requested(&self) -> bool {
        self.requested
    }

    pub(super) fn acknowledged(&self) -> Option<&str> {
        self.acknowledged.as_deref()
    }

    pub(super) fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// A response that gives the client something, as opposed to one that only removes.
    pub(super) fn resources_in_flight(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|response| response.has_resources)
    }

    pub(super) fn name_cost(&self) -> usize {
        self.subscription.cost() + self.listed_cost
    }

    /// `nonce` is not of the last response. On a new stream there was none: a client may still speak of another stream's.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && self.last_nonce.as_deref().is_some_and(|last| last != nonce)
    }

    pub(super) fn doubtful_count(&self) -> usize {
        self.holdings.doubtful().len()
    }

    /// See `Doubts`.
    pub(super) fn doubts(&self) -> impl Iterator<Item = &Arc<str>> {
        let in_flight = self.in_flight.iter().flat_map(|response| &response.names);
        in_flight.filter(|name| self.holdings.get(name).is_some()).chain(self.holdings.doubtful())
    }

    /// Takes the ACK or NACK in a request. Only the nonce in flight counts: an older one was answered before.
    pub(super) fn take_answer(&mut self, nonce: &str, refused: bool) -> Answer {
        self.answered.clear();
        let Some(response) = self.in_flight.take_if(|response| !nonce.is_empty() && response.nonce == nonce) else {
            return Answer::Nothing;
        };
        if refused {
            response.names.iter().for_each(|name| self.holdings.doubt(name));
            self.refused_at = Some(response.set_version);
            self.answered = response.names;
            return Answer::Nacked;
        }
        for name in &response.names {
            // What is gone is over. A name that was asked for stays in the subscription, so it is pushed when it appears.
            if self.holdings.get(name) == Some(&Holding::Nothing) {
                self.holdings.forget(name);
            }
        }
        if matches!(self.form, Form::Whole(_)) {
            // The response repeated whatever was refused before.
            self.holdings.trust();
        }
        self.answered = response.names;
        Answer::Acked { version: response.type_version }
    }

    /// Takes the subscription in a request; it counts whatever the nonce says. `listed` and `doubts` count on the first request only.
    pub(super) fn subscribe(
        &mut self,
        names: Names,
        listed: HashMap<String, String>,
        doubts: BTreeSet<Arc<str>>,
        set: &ResourceSet,
        limits: Limits,
    ) -> Result<(), StreamError> {
        let asked = Asked { kind: self.kind, first: !std::mem::replace(&mut self.requested, true), set };
        let change = self.subscription.apply(asked, names, limits)?;
        for name in &change.dropped {
            self.holdings.forget(name);
            self.owed.remove(name);
        }
        if asked.first {
            self.start(asked, listed, doubts, limits)?;
        } else if change.wildcard_asked {
            // The client may have dropped all of it. It may also have kept, for the wildcard's sake, what it had unsubscribed by name
            // while a response was on its way.
            let on_its_way = self.in_flight.iter().flat_map(|response| &response.names).chain(&self.answered);
            self.owed.extend(self.holdings.names().chain(on_its_way).cloned());
        }
        if change.wildcard_ended {
            self.holdings.retain(|name| self.subscription.wants(name));
            self.owed.retain(|name| self.subscription.wants(name));
            self.answer_owed = false;
        }
        self.answer_owed |= change.wildcard_asked;
        for name in &change.asked {
            self.owe(name);
        }
        if change.wildcard_asked || change.wildcard_ended {
            self.unsettled.begin_again();
        }
        if let (true, Form::Whole(whole)) = (change.wildcard_asked || change.wildcard_ended || !change.dropped.is_empty(), &mut self.form) {
            whole.retain(|name| self.subscription.wants(name));
        }
        Ok(())
    }

    fn start(
        &mut self,
        asked: Asked<'_>,
        listed: HashMap<String, String>,
        doubts: BTreeSet<Arc<str>>,
        limits: Limits,
    ) -> Result<(), StreamError> {
        if listed.len() > limits.names_per_type {
            return Err(StreamError::TooManyNames { kind: self.kind, limit: limits.names_per_type });
        }
        self.listed_cost = listed.iter().map(|(name, version)| name.len() + version.len() + NAME_COST).sum();
        self.holdings.start(listed.into_iter().map(|(name, version)| (asked.shared(name), version)), doubts);
        self.holdings.retain(|name| self.subscription.wants(name));
        self.unsettled.begin_again();
        Ok(())
    }

    /// The client needs `name` again, if it wants it at all: its parent was pushed.
    pub(super) fn owe(&mut self, name: &Arc<str>) {
        if self.subscription.wants(name) {
            self.owed.insert(Arc::clone(name));
        }
    }

    /// As `owe`, for all names of the subscription.
    pub(super) fn owe_all_named(&mut self) {
        self.owed.extend(self.subscription.names().iter().cloned());
    }

    /// Compares what the client holds with `set`. To be called before the questions that follow, which are about the same set.
    pub(super) fn look(&mut self, set: &ResourceSet) {
        if !self.requested {
            return;
        }
        self.unsettled.look(self.kind, set, &self.subscription, &self.holdings);
        if !self.tells_removals() && !self.in_flight() {
            // Should it come back, it is news, and not an answer that is due.
            let gone: Vec<Arc<str>> = self.unsettled.names().filter(|name| set.get(self.kind, name).is_none()).cloned().collect();
            for name in gone {
                self.holdings.forget(&name);
                self.unsettled.settle(&name);
            }
            self.owed.retain(|name| set.get(self.kind, name).is_some());
        }
    }

    /// Something is on its way, or would be if nothing held it back.
    pub(super) fn is_busy(&self, set: &ResourceSet) -> bool {
        self.in_flight() || (self.requested && !self.plan(set, Hold::default()).is_empty())
    }

    /// The client will be given something as soon as no response is in flight.
    pub(super) fn has_news(&self, set: &ResourceSet) -> bool {
        self.requested && self.plan(set, Hold { changes: false, removals: true }).resource_count() > 0
    }

    /// What to send now, if anything. Also notes when the client has all that it should have.
    pub(super) fn next<'a>(&mut self, set: &'a ResourceSet, hold: Hold) -> Option<Plan<'a>> {
        if !self.requested || self.in_flight() {
            return None;
        }
        let plan = self.plan(set, hold);
        if !plan.is_empty() {
            return Some(plan);
        }
        let has_all = self.holdings.doubtful().is_empty() && (hold == Hold::default() || self.plan(set, Hold::default()).is_empty());
        if has_all && self.acknowledged.as_deref() != Some(set.type_version(self.kind)) {
            self.acknowledged = Some(set.type_version(self.kind).to_owned());
        }
        None
    }

    fn plan<'a>(&self, set: &'a ResourceSet, hold: Hold) -> Plan<'a> {
        let mut plan = Plan { answer: self.answer_owed, ..Plan::default() };
        for name in &self.owed {
            match set.get(self.kind, name) {
                Some(resource) => plan.resources.extend([by_name(resource)]),
                None if self.tells_removals() => plan.removed.extend([Arc::clone(name)]),
                None => {}
            }
        }
        let may_change = !hold.changes || self.answer_owed;
        let may_remove = !hold.removals && self.tells_removals();
        for name in self.unsettled.names() {
            match set.get(self.kind, name) {
                Some(resource) if may_change => plan.resources.extend([by_name(resource)]),
                None if may_remove => plan.removed.extend([Arc::clone(name)]),
                _ => {}
            }
        }
        if self.refused_at.as_ref() != Some(set.version()) {
            self.try_again(set, hold, may_remove, &mut plan);
        }
        plan
    }

    /// Adds what was refused. Resources go again by themselves, after all else was taken: one bad resource would let a whole response be
    /// refused.
    fn try_again<'a>(&self, set: &'a ResourceSet, hold: Hold, may_remove: bool, plan: &mut Plan<'a>) {
        let doubtful = self.holdings.doubtful();
        if may_remove {
            plan.removed.extend(doubtful.iter().filter(|name| set.get(self.kind, name).is_none()).cloned());
        }
        if plan.has_no_content() && !hold.changes {
            plan.resources.extend(doubtful.iter().filter_map(|name| set.get(self.kind, name)).map(by_name));
        }
    }

    fn tells_removals(&self) -> bool {
        !matches!(self.form, Form::Additions)
    }

    /// Records `plan` as sent under `nonce`.
    pub(super) fn send(&mut self, plan: &Plan<'_>, set: &ResourceSet, nonce: String) -> Push {
        for resource in plan.resources() {
            self.holdings.tell(&resource.name, Some(&resource.version));
        }
        for name in plan.removed_names() {
            self.holdings.tell(name, None);
        }
        let names: Vec<Arc<str>> = plan.resource_names().chain(plan.removed_names()).cloned().collect();
        for name in &names {
            self.owed.remove(name);
            self.unsettled.settle(name);
        }
        self.answer_owed = false;
        let type_version = set.type_version(self.kind).to_owned();
        self.in_flight = Some(InFlight {
            nonce: nonce.clone(),
            set_version: Arc::clone(set.version()),
            type_version: type_version.clone(),
            names,
            has_resources: plan.resource_count() > 0,
        });
        self.last_nonce = Some(nonce.clone());
        let (resources, removed) = match &mut self.form {
            Form::Whole(whole) => (whole.send(plan), Vec::new()),
            Form::Changes | Form::Additions => (plan.resources().cloned().collect(), plan.removed_names().cloned().collect()),
        };
        Push { kind: self.kind, nonce, version: type_version, resources, removed }
    }
}

fn by_name(resource: &Arc<Resource>) -> (&str, &Arc<Resource>) {
    (&resource.name, resource)
}
