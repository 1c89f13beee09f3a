//! The delta ADS stream: reads requests, and decides in which order the types may speak.
//!
//! Make before break. Clusters go first, their endpoints right behind them (Envoy neither applies nor acknowledges a cluster before a *new*
//! endpoint response, so that one must not wait for the acknowledgement). Changes of listeners and routes wait until the clusters are
//! acknowledged, which Envoy does when they are warm; removals wait until whatever could still refer to the name has moved away.
//! What a client asks for by name, and the first answer to a wildcard, never waits: start-up cannot lock itself.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::super::resource::{ResourceSet, TypeUrl};
use super::sub_stream::{Answer, Hold, SubStream};
use super::{Doubts, Limits, StreamError, StreamEvent};

/// Longest part of a client's error message that is kept, in characters.
const MAX_MESSAGE: usize = 1024;

/// One stream. Give it every request, and every new set; send what it returns, in that order.
#[derive(Debug)]
pub struct DeltaStream {
    limits: Limits,
    clusters: SubStream,
    endpoints: SubStream,
    listeners: SubStream,
    routes: SubStream,
    secrets: SubStream,
    doubts: Doubts,
    last_nonce: u64,
    events: Vec<StreamEvent>,
}

/// Where one type stands on a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeState {
    /// The client asked for this type on this stream.
    pub requested: bool,
    /// A response waits for its ACK.
    pub in_flight: bool,
    /// The newest version of the type (`ResourceSet::type_version`) that the client has in full, as far as its subscription goes.
    pub acknowledged: Option<String>,
    /// How many names the client refused, and has not taken since.
    pub doubtful: usize,
}

impl DeltaStream {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            clusters: SubStream::new(TypeUrl::Cluster),
            endpoints: SubStream::new(TypeUrl::ClusterLoadAssignment),
            listeners: SubStream::new(TypeUrl::Listener),
            routes: SubStream::new(TypeUrl::RouteConfiguration),
            secrets: SubStream::new(TypeUrl::Secret),
            doubts: Doubts::default(),
            last_nonce: 0,
            events: Vec::new(),
        }
    }

    /// Takes over what the last stream of the same client left in doubt. To be called before the first request is given.
    pub fn remember(&mut self, doubts: Doubts) {
        self.doubts = doubts;
    }

    /// Takes one request; returns the responses that may be sent now, made from `set`.
    ///
    /// # Errors
    /// The client asks for more than it may: the stream has to end.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest, set: &ResourceSet) -> Result<Vec<DeltaDiscoveryResponse>, StreamError> {
        let Some(kind) = TypeUrl::from_wire(&request.type_url) else {
            self.events.push(StreamEvent::UnknownType { type_url: shortened(&request.type_url) });
            return Ok(Vec::new());
        };
        let answer = self.sub_stream_mut(kind).take_answer(&request.response_nonce, request.error_detail.is_some());
        match answer {
            Answer::Nothing => {}
            Answer::Acked { version } => self.events.push(StreamEvent::Acked { kind, nonce: request.response_nonce, version }),
            Answer::Nacked => {
                let message = refusal_message(kind, &request.error_detail.unwrap_or_default().message);
                self.events.push(StreamEvent::Nacked { kind, nonce: request.response_nonce, message });
            }
        }
        let doubts = if self.sub_stream(kind).requested() { Default::default() } else { self.doubts.take(kind) };
        let lists = (request.resource_names_subscribe, request.resource_names_unsubscribe);
        let limits = self.limits;
        self.sub_stream_mut(kind).subscribe(lists, request.initial_resource_versions, doubts, limits)?;
        Ok(self.pump(set))
    }

    /// Returns the responses that may be sent now that `set` is the newest. Where a type waits for its ACK, the set that is newest then counts.
    pub fn on_snapshot(&mut self, set: &ResourceSet) -> Vec<DeltaDiscoveryResponse> {
        self.pump(set)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<StreamEvent> {
        std::mem::take(&mut self.events)
    }

    pub fn state(&self, kind: TypeUrl) -> TypeState {
        let sub_stream = self.sub_stream(kind);
        TypeState {
            requested: sub_stream.requested(),
            in_flight: sub_stream.in_flight(),
            acknowledged: sub_stream.acknowledged().map(str::to_owned),
            doubtful: sub_stream.doubtful_count(),
        }
    }

    /// What the next stream of the same client has to be told when this one ends.
    pub fn doubts(&self) -> Doubts {
        let mut doubts = self.doubts.clone();
        for kind in TypeUrl::ALL {
            doubts.insert(kind, self.sub_stream(kind).doubts());
        }
        doubts
    }

    fn pump(&mut self, set: &ResourceSet) -> Vec<DeltaDiscoveryResponse> {
        TypeUrl::ALL.into_iter().filter_map(|kind| self.push(kind, set)).collect()
    }

    fn push(&mut self, kind: TypeUrl, set: &ResourceSet) -> Option<DeltaDiscoveryResponse> {
        let hold = self.hold(kind, set);
        let sub_stream = self.sub_stream_mut(kind);
        let plan = sub_stream.next(set, hold)?;
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        let response = self.sub_stream_mut(kind).send(&plan, set, nonce.clone());
        match kind {
            // Envoy does not ask for the endpoints of a changed cluster again, and keeps the cluster waiting until they come.
            TypeUrl::Cluster => plan.resource_names().for_each(|name| self.endpoints.owe(name)),
            TypeUrl::Listener if plan.resource_count() > 0 => self.routes.owe_all_named(),
            _ => {}
        }
        self.events.push(StreamEvent::Pushed { kind, nonce, resources: plan.resource_count(), removed: plan.removed_count() });
        Some(response)
    }

    /// What `kind` must keep back for now. No two types wait for each other: endpoints and secrets go at all times, listeners wait for
    /// clusters, routes for both, removed clusters for routes, removed endpoints and secrets for all of them.
    fn hold(&self, kind: TypeUrl, set: &ResourceSet) -> Hold {
        let clusters_warm_up = self.clusters.resources_in_flight();
        let listeners_or_routes = || self.listeners.is_busy(set) || self.routes.is_busy(set);
        match kind {
            TypeUrl::Cluster => Hold { changes: false, removals: listeners_or_routes() },
            TypeUrl::ClusterLoadAssignment | TypeUrl::Secret => {
                Hold { changes: false, removals: listeners_or_routes() || self.clusters.is_busy(set) }
            }
            TypeUrl::Listener => Hold { changes: clusters_warm_up, removals: false },
            TypeUrl::RouteConfiguration => Hold { changes: clusters_warm_up, removals: self.listeners.is_busy(set) },
        }
    }

    fn sub_stream(&self, kind: TypeUrl) -> &SubStream {
        match kind {
            TypeUrl::Cluster => &self.clusters,
            TypeUrl::ClusterLoadAssignment => &self.endpoints,
            TypeUrl::Listener => &self.listeners,
            TypeUrl::RouteConfiguration => &self.routes,
            TypeUrl::Secret => &self.secrets,
        }
    }

    fn sub_stream_mut(&mut self, kind: TypeUrl) -> &mut SubStream {
        match kind {
            TypeUrl::Cluster => &mut self.clusters,
            TypeUrl::ClusterLoadAssignment => &mut self.endpoints,
            TypeUrl::Listener => &mut self.listeners,
            TypeUrl::RouteConfiguration => &mut self.routes,
            TypeUrl::Secret => &mut self.secrets,
        }
    }
}

/// The client's own words, fit for a log line. Envoy may quote a refused message whole, and a secret's message holds its key: of those,
/// only what stands before the first quotation is kept.
fn refusal_message(kind: TypeUrl, message: &str) -> String {
    let quoted = message.find(['"', '{', '\n']).filter(|_| kind == TypeUrl::Secret);
    let kept = quoted.and_then(|at| message.get(..at)).map(|start| format!("{}...", shortened(start).trim_end()));
    kept.unwrap_or_else(|| shortened(message))
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
