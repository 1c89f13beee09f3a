//! What is known of the Envoys that are connected: for readiness, metrics and the state page.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use crate::server::telemetry::Metrics;
use crate::xds::resource::{ResourceSet, TypeUrl};
use crate::xds::stream::{Doubts, Machine, StreamEvent, TypeState};

/// Nodes whose doubts are kept for their next stream, and bytes of memory for them. Beyond that they are forgotten: an Envoy may then keep
/// a resource too many.
const MAX_REMEMBERED_NODES: usize = 256;
const MAX_REMEMBERED_COST: usize = 16 << 20;

/// The registry of streams. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct AdsState(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    registry: Mutex<Registry>,
    listener_acknowledged: watch::Sender<bool>,
    responses: Family<ResponseLabels, Counter>,
    connected: Gauge,
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    streams: BTreeMap<u64, StreamView>,
    /// By node id.
    doubts: HashMap<String, Doubts>,
    last_refusals: BTreeMap<TypeUrl, String>,
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
}

/// Since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeCounts {
    pub pushed: u64,
    pub acked: u64,
    pub nacked: u64,
    /// The last refusal by any Envoy, whether settled since or not.
    pub last_refusal: Option<String>,
}

impl AdsState {
    /// All streams that are open.
    pub fn streams(&self) -> Vec<StreamView> {
        self.registry().streams.values().cloned().collect()
    }

    /// Whether every connected Envoy, at least one, has acknowledged all of `set`. One may have several streams, each with a part of the types.
    pub fn is_taken(&self, set: &ResourceSet) -> bool {
        let registry = self.registry();
        let mut nodes: BTreeMap<&str, Vec<&StreamView>> = BTreeMap::new();
        for view in registry.streams.values() {
            nodes.entry(&view.node).or_default().push(view);
        }
        let has = |streams: &[&StreamView], kind: TypeUrl| {
            let mut asking = streams.iter().filter_map(|view| view.types.get(&kind)).filter(|view| view.state.requested).peekable();
            (asking.peek().is_some() || set.is_empty(kind))
                && asking.all(|view| view.state.acknowledged.as_deref() == Some(set.type_version(kind)))
        };
        !nodes.is_empty() && nodes.values().all(|streams| TypeUrl::ALL.into_iter().all(|kind| has(streams, kind)))
    }

    pub fn counts(&self, kind: TypeUrl) -> TypeCounts {
        TypeCounts {
            pushed: self.counter(kind, "pushed").get(),
            acked: self.counter(kind, "acked").get(),
            nacked: self.counter(kind, "nacked").get(),
            last_refusal: self.registry().last_refusals.get(&kind).cloned(),
        }
    }

    /// True while a connected Envoy has acknowledged listeners, at least one: it accepts traffic. For readiness.
    pub fn listener_acknowledged(&self) -> watch::Receiver<bool> {
        self.0.listener_acknowledged.subscribe()
    }

    /// Adds the metrics: `kubepass_xds_responses_total{type, result}` and `kubepass_xds_streams`.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register("xds_responses", "Responses sent to Envoys, and their acknowledgements and refusals", self.0.responses.clone());
        metrics.register("xds_streams", "Envoys connected over xDS", self.0.connected.clone());
    }

    pub(super) fn opened(&self, only: Option<TypeUrl>) -> u64 {
        let mut registry = self.registry();
        registry.last_id += 1;
        let id = registry.last_id;
        registry.streams.insert(id, StreamView { only, ..StreamView::default() });
        self.0.connected.inc();
        id
    }

    /// The stream's first request named its node. Returns what the node's last stream left in doubt.
    pub(super) fn identified(&self, id: u64, node: &str, cluster: &str) -> Doubts {
        let mut registry = self.registry();
        if let Some(view) = registry.streams.get_mut(&id) {
            node.clone_into(&mut view.node);
            cluster.clone_into(&mut view.cluster);
        }
        registry.doubts.remove(node).unwrap_or_default()
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
            for kind in TypeUrl::ALL {
                let entry = view.types.entry(kind).or_default();
                entry.state = machine.state(kind);
                set.type_version(kind).clone_into(&mut entry.wanted);
                let refusal = events.iter().rev().find_map(|event| match event {
                    StreamEvent::Nacked { kind: refused, message, .. } if *refused == kind => Some(message.clone()),
                    _ => None,
                });
                let settled = entry.state.acknowledged.as_ref() == Some(&entry.wanted);
                entry.refusal = refusal.or(entry.refusal.take()).filter(|_| !settled);
            }
        }
        self.announce(&registry);
    }

    pub(super) fn closed(&self, id: u64, doubts: Doubts) {
        let mut registry = self.registry();
        self.0.connected.dec();
        let node = registry.streams.remove(&id).map(|view| view.node).unwrap_or_default();
        let cost = registry.doubts.values().map(Doubts::cost).sum::<usize>() + doubts.cost();
        if !doubts.is_empty() && registry.doubts.len() < MAX_REMEMBERED_NODES && cost <= MAX_REMEMBERED_COST {
            registry.doubts.insert(node, doubts);
        }
        self.announce(&registry);
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
            StreamEvent::Pushed { kind, .. } => drop(self.counter(*kind, "pushed").inc()),
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
