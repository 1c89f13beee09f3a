//! What is known of the Envoys that are connected: for readiness, metrics and the state page.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::watch;

use crate::server::telemetry::Metrics;
use crate::xds::resource::{ResourceSet, TypeUrl};
use crate::xds::stream::{Dialect, Doubts, Machine, StreamEvent, TypeState};

/// Nodes whose doubts are kept for their next stream, and bytes of memory for them. Beyond that they are forgotten: an Envoy may then keep
/// a resource too many.
const MAX_REMEMBERED_NODES: usize = 256;
const MAX_REMEMBERED_COST: usize = 16 << 20;

/// Nodes whose refusal is kept for people to see; of more, those that came last.
const MAX_REFUSED_NODES: usize = 64;

/// The registry of streams. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct AdsState(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    registry: Mutex<Registry>,
    listener_acknowledged: watch::Sender<bool>,
    responses: Family<ResponseLabels, Counter>,
    bytes: Family<TypeLabel, Counter>,
    connected: Gauge,
    nodes: Gauge,
    in_flight: Gauge,
    convergence: Convergence,
}

/// From the change of what an Envoy should have of a type until it had acknowledged it.
#[derive(Debug)]
struct Convergence(Histogram);

impl Default for Convergence {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.000_5, 2.0, 16)))
    }
}

impl Convergence {
    fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

impl Inner {
    fn add_in_flight(&self, before: usize, after: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.in_flight.inc_by(count(after) - count(before));
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    streams: BTreeMap<u64, StreamView>,
    /// By node id.
    doubts: HashMap<String, Doubts>,
    last_refusals: BTreeMap<TypeUrl, String>,
    /// By node id: a claim, so they are few.
    turned_away: BTreeMap<String, TurnedAway>,
}

/// An Envoy that gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnedAway {
    pub node: String,
    /// As it says; empty when it does not.
    pub version: String,
    pub reason: String,
    /// How often it came, and when last.
    pub times: u64,
    pub last: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    r#type: &'static str,
    result: &'static str,
}

/// One connected Envoy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamView {
    /// `node.id` and `node.cluster`, as the Envoy says: a claim, empty until its first request.
    pub node: String,
    pub cluster: String,
    /// Its version, as it says; empty when it does not.
    pub version: String,
    pub protocol: Dialect,
    /// The type of a stream that serves one type.
    pub only: Option<TypeUrl>,
    /// How many it has sent.
    pub requests: u64,
    pub types: BTreeMap<TypeUrl, TypeView>,
}

/// One type on one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeView {
    pub state: TypeState,
    /// The version that the Envoy should have, as of the stream's last turn; all is well when `state.acknowledged` is the same.
    pub wanted: String,
    /// Why the Envoy refused this type, until it has acknowledged `wanted`.
    pub refusal: Option<String>,
    /// When `wanted` last became another, or was first asked for.
    pub changed_at: Option<Instant>,
    /// How long the Envoy took from then until it had acknowledged it.
    pub converged_in: Option<Duration>,
}

impl TypeView {
    /// How long the Envoy has been without what it should have.
    pub fn waiting(&self) -> Option<Duration> {
        self.changed_at.filter(|_| self.converged_in.is_none()).map(|at| at.elapsed())
    }

    /// Notes the stream's turn. True when the Envoy has just come to have all that it should.
    fn turn(&mut self, state: TypeState, wanted: &str, refusal: Option<String>) -> bool {
        if self.wanted != wanted || !self.state.requested {
            wanted.clone_into(&mut self.wanted);
            (self.changed_at, self.converged_in) = (state.requested.then(Instant::now), None);
        }
        self.state = state;
        let settled = self.state.acknowledged.as_ref() == Some(&self.wanted);
        self.refusal = refusal.or(self.refusal.take()).filter(|_| !settled);
        let converged = settled && self.converged_in.is_none();
        if converged {
            self.converged_in = self.changed_at.map(|at| at.elapsed());
        }
        converged
    }
}

/// How far one Envoy is with what it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taker {
    pub node: String,
    pub has_all: bool,
    /// What it said when it refused.
    pub refusal: Option<String>,
}

/// Since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeCounts {
    pub pushed: u64,
    pub acked: u64,
    pub nacked: u64,
    /// Answers to responses that others had followed already.
    pub stale: u64,
    /// The last refusal by any Envoy, whether settled since or not.
    pub last_refusal: Option<String>,
}

impl AdsState {
    /// All streams that are open.
    pub fn streams(&self) -> Vec<StreamView> {
        self.registry().streams.values().cloned().collect()
    }

    /// Whether every connected Envoy, at least one, has acknowledged all of `set`.
    pub fn is_taken(&self, set: &ResourceSet) -> bool {
        let takers = self.takers(|_| set.clone());
        !takers.is_empty() && takers.iter().all(|taker| taker.has_all)
    }

    /// How far each connected Envoy is with what it should have, by its `node.id`. One may have several streams, each with a part of the types.
    pub fn takers(&self, wanted: impl Fn(&str) -> ResourceSet) -> Vec<Taker> {
        let registry = self.registry();
        let mut nodes: BTreeMap<&str, Vec<&StreamView>> = BTreeMap::new();
        for view in registry.streams.values() {
            nodes.entry(&view.node).or_default().push(view);
        }
        let has = |set: &ResourceSet, streams: &[&StreamView], kind: TypeUrl| {
            let mut asking = streams.iter().filter_map(|view| view.types.get(&kind)).filter(|view| view.state.requested).peekable();
            (asking.peek().is_some() || set.is_empty(kind))
                && asking.all(|view| view.state.acknowledged.as_deref() == Some(set.type_version(kind)))
        };
        let taker = |(node, streams): (&str, Vec<&StreamView>)| {
            let set = wanted(node);
            Taker {
                node: node.to_owned(),
                has_all: TypeUrl::ALL.into_iter().all(|kind| has(&set, &streams, kind)),
                refusal: streams.iter().flat_map(|view| view.types.values()).find_map(|of| of.refusal.clone()),
            }
        };
        nodes.into_iter().map(taker).collect()
    }

    pub fn counts(&self, kind: TypeUrl) -> TypeCounts {
        TypeCounts {
            pushed: self.counter(kind, "pushed").get(),
            acked: self.counter(kind, "acked").get(),
            nacked: self.counter(kind, "nacked").get(),
            stale: self.counter(kind, "stale").get(),
            last_refusal: self.registry().last_refusals.get(&kind).cloned(),
        }
    }

    /// True while a connected Envoy has acknowledged listeners, at least one: it accepts traffic. For readiness.
    pub fn listener_acknowledged(&self) -> watch::Receiver<bool> {
        self.0.listener_acknowledged.subscribe()
    }

    /// Envoys that came and got nothing, and have not been let in since.
    pub fn turned_away(&self) -> Vec<TurnedAway> {
        self.registry().turned_away.values().cloned().collect()
    }

    /// Adds the metrics, all with the prefix `kubepass_xds_`.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register("xds_responses", "Responses sent to Envoys, and their acknowledgements and refusals", self.0.responses.clone());
        metrics.register("xds_pushed_bytes", "Bytes of resources sent to Envoys", self.0.bytes.clone());
        metrics.register("xds_streams", "Open xDS streams", self.0.connected.clone());
        metrics.register("xds_nodes", "Envoys connected over xDS", self.0.nodes.clone());
        metrics.register("xds_in_flight", "Responses that wait for an Envoy's answer", self.0.in_flight.clone());
        let help = "From the change of what an Envoy should have of a type until it has acknowledged it";
        metrics.register("xds_convergence_seconds", help, self.0.convergence.0.clone());
    }

    pub(super) fn opened(&self, protocol: Dialect, only: Option<TypeUrl>) -> u64 {
        let mut registry = self.registry();
        registry.last_id += 1;
        let id = registry.last_id;
        registry.streams.insert(id, StreamView { protocol, only, ..StreamView::default() });
        self.0.connected.inc();
        id
    }

    /// The stream's first request named its node. Returns what the node's last stream left in doubt.
    pub(super) fn identified(&self, id: u64, node: &str, cluster: &str, version: &str) -> Doubts {
        let mut registry = self.registry();
        if let Some(view) = registry.streams.get_mut(&id) {
            node.clone_into(&mut view.node);
            cluster.clone_into(&mut view.cluster);
            version.clone_into(&mut view.version);
        }
        self.count_nodes(&registry);
        registry.turned_away.remove(node);
        registry.doubts.remove(node).unwrap_or_default()
    }

    /// The stream's first request says what this kubepass does not serve. True when that was not known yet.
    pub(super) fn turned_away_now(&self, node: &str, version: &str, reason: &str) -> bool {
        let mut registry = self.registry();
        let known = registry.turned_away.get(node).filter(|known| known.version == version && known.reason == reason);
        let times = known.map_or(0, |known| known.times);
        if registry.turned_away.len() >= MAX_REFUSED_NODES && !registry.turned_away.contains_key(node) {
            let oldest = registry.turned_away.values().min_by_key(|other| other.last).map(|other| other.node.clone());
            oldest.and_then(|oldest| registry.turned_away.remove(&oldest));
        }
        let entry = TurnedAway {
            node: node.to_owned(),
            version: version.to_owned(),
            reason: reason.to_owned(),
            times: times + 1,
            last: Instant::now(),
        };
        registry.turned_away.insert(node.to_owned(), entry);
        times == 0
    }

    pub(super) fn updated(&self, id: u64, machine: &Machine, events: &[StreamEvent], set: &ResourceSet) {
        let mut registry = self.registry();
        for event in events {
            if let StreamEvent::Nacked { kind, message, .. } = event {
                registry.last_refusals.insert(*kind, message.clone());
            }
            self.count(event);
        }
        if let Some(view) = registry.streams.get_mut(&id) {
            view.requests = machine.requests();
            let in_flight = |view: &StreamView| view.types.values().filter(|of| of.state.in_flight).count();
            let before = in_flight(view);
            for kind in TypeUrl::ALL {
                let refusal = events.iter().rev().find_map(|event| match event {
                    StreamEvent::Nacked { kind: refused, message, .. } if *refused == kind => Some(message.clone()),
                    _ => None,
                });
                let of = view.types.entry(kind).or_default();
                if of.turn(machine.state(kind), set.type_version(kind), refusal)
                    && let Some(took) = of.converged_in
                {
                    self.0.convergence.observe(took.as_secs_f64());
                }
            }
            self.0.add_in_flight(before, in_flight(view));
        }
        self.announce(&registry);
    }

    pub(super) fn closed(&self, id: u64, doubts: Doubts) {
        let mut registry = self.registry();
        self.0.connected.dec();
        let view = registry.streams.remove(&id).unwrap_or_default();
        self.0.add_in_flight(view.types.values().filter(|of| of.state.in_flight).count(), 0);
        self.count_nodes(&registry);
        let node = view.node;
        let cost = registry.doubts.values().map(Doubts::cost).sum::<usize>() + doubts.cost();
        if !doubts.is_empty() && registry.doubts.len() < MAX_REMEMBERED_NODES && cost <= MAX_REMEMBERED_COST {
            registry.doubts.insert(node, doubts);
        }
        self.announce(&registry);
    }

    fn count_nodes(&self, registry: &Registry) {
        let nodes: BTreeSet<&str> = registry.streams.values().map(|view| view.node.as_str()).filter(|node| !node.is_empty()).collect();
        self.0.nodes.set(i64::try_from(nodes.len()).unwrap_or(i64::MAX));
    }

    fn announce(&self, registry: &Registry) {
        let none = ResourceSet::default();
        let listens = |view: &StreamView| {
            let acknowledged = view.types.get(&TypeUrl::Listener).and_then(|listeners| listeners.state.acknowledged.as_deref());
            acknowledged.is_some_and(|version| version != none.type_version(TypeUrl::Listener))
        };
        let now = registry.streams.values().any(listens);
        self.0.listener_acknowledged.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    fn count(&self, event: &StreamEvent) {
        match event {
            StreamEvent::Pushed { kind, bytes, .. } => {
                self.counter(*kind, "pushed").inc();
                let bytes = u64::try_from(*bytes).unwrap_or(u64::MAX);
                self.0.bytes.get_or_create(&TypeLabel { r#type: kind.short_name() }).inc_by(bytes);
            }
            StreamEvent::Acked { kind, .. } => drop(self.counter(*kind, "acked").inc()),
            StreamEvent::Nacked { kind, .. } => drop(self.counter(*kind, "nacked").inc()),
            StreamEvent::Stale { kind } => drop(self.counter(*kind, "stale").inc()),
            StreamEvent::UnknownType { .. } => {}
        }
    }

    fn counter(&self, kind: TypeUrl, result: &'static str) -> Counter {
        self.0.responses.get_or_create(&ResponseLabels { r#type: kind.short_name(), result }).clone()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // What a panicking thread left is at worst an old view.
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
