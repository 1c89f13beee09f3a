//! The engine of a stream, whatever its protocol: reads requests, and decides in which order the types may speak.
//!
//! Make before break. Clusters go first, their endpoints right behind them (Envoy neither applies nor acknowledges a cluster before a *new*
//! endpoint response, so that one must not wait for the acknowledgement). Changes of listeners and routes wait until the clusters are
//! acknowledged, which Envoy does when they are warm; removals wait until whatever could still refer to the name has moved away.
//! What a client asks for by name, and the first answer to a wildcard, never waits: start-up cannot lock itself.

use super::super::resource::{ResourceSet, TypeUrl};
use super::protocol::{Ask, Dialect, Push};
use super::sub_stream::{Answer, Hold, SubStream};
use super::{Doubts, Limits, StreamError, StreamEvent};

/// Longest part of a client's error message that is kept, in characters.
const MAX_MESSAGE: usize = 1024;

#[derive(Debug)]
pub struct Machine {
    dialect: Dialect,
    /// The type of a service of one type.
    only: Option<TypeUrl>,
    limits: Limits,
    clusters: SubStream,
    endpoints: SubStream,
    listeners: SubStream,
    scopes: SubStream,
    routes: SubStream,
    secrets: SubStream,
    extensions: SubStream,
    doubts: Doubts,
    last_nonce: u64,
    requests: u64,
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

impl Machine {
    pub(super) fn new(dialect: Dialect, only: Option<TypeUrl>, limits: Limits) -> Self {
        let sub_stream = |kind| SubStream::new(kind, dialect);
        Self {
            dialect,
            only,
            limits,
            clusters: sub_stream(TypeUrl::Cluster),
            endpoints: sub_stream(TypeUrl::ClusterLoadAssignment),
            listeners: sub_stream(TypeUrl::Listener),
            scopes: sub_stream(TypeUrl::ScopedRouteConfiguration),
            routes: sub_stream(TypeUrl::RouteConfiguration),
            secrets: sub_stream(TypeUrl::Secret),
            extensions: sub_stream(TypeUrl::ExtensionConfig),
            doubts: Doubts::default(),
            last_nonce: 0,
            requests: 0,
            events: Vec::new(),
        }
    }

    pub(super) fn remember(&mut self, doubts: Doubts) {
        self.doubts = doubts;
    }

    pub(super) fn on_ask(&mut self, ask: Ask, set: &ResourceSet) -> Result<Vec<Push>, StreamError> {
        self.requests += 1;
        let Some(kind) = self.kind_of(&ask.type_url)? else {
            self.events.push(StreamEvent::UnknownType { type_url: shortened(&ask.type_url) });
            return Ok(Vec::new());
        };
        if self.sub_stream(kind).is_stale(&ask.nonce) {
            self.events.push(StreamEvent::Stale { kind });
            // The answer to the response in flight will hold the whole subscription, which may be newer than this one.
            if self.dialect == Dialect::StateOfTheWorld {
                return Ok(Vec::new());
            }
        }
        match self.sub_stream_mut(kind).take_answer(&ask.nonce, ask.refusal.is_some()) {
            Answer::Nothing => {}
            Answer::Acked { version } => self.events.push(StreamEvent::Acked { kind, nonce: ask.nonce, version }),
            Answer::Nacked => {
                let message = refusal_message(kind, &ask.refusal.unwrap_or_default());
                self.events.push(StreamEvent::Nacked { kind, nonce: ask.nonce, message });
            }
        }
        let doubts = if self.sub_stream(kind).requested() { Default::default() } else { self.doubts.take(kind) };
        let limits = self.limits;
        self.sub_stream_mut(kind).subscribe(ask.names, ask.listed, doubts, set, limits)?;
        if self.name_cost() > limits.name_cost {
            return Err(StreamError::TooMuchToKeep { limit: limits.name_cost });
        }
        Ok(self.pump(set))
    }

    /// A service of one type may be asked without saying which.
    fn kind_of(&self, type_url: &str) -> Result<Option<TypeUrl>, StreamError> {
        let asked = TypeUrl::from_wire(type_url);
        match self.only {
            None => Ok(asked),
            Some(only) if type_url.is_empty() || asked == Some(only) => Ok(Some(only)),
            Some(only) => Err(StreamError::WrongType { kind: only }),
        }
    }

    pub(super) fn take_events(&mut self) -> Vec<StreamEvent> {
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

    /// The type of a service of one type.
    pub fn only(&self) -> Option<TypeUrl> {
        self.only
    }

    /// How many were taken.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// About how many bytes of memory the names take that the client made this side keep.
    pub fn name_cost(&self) -> usize {
        TypeUrl::ALL.into_iter().map(|kind| self.sub_stream(kind).name_cost()).sum()
    }

    pub(super) fn doubts(&self) -> Doubts {
        let mut doubts = self.doubts.clone();
        for kind in TypeUrl::ALL {
            doubts.insert(kind, self.sub_stream(kind).doubts().cloned());
        }
        doubts
    }

    pub(super) fn pump(&mut self, set: &ResourceSet) -> Vec<Push> {
        TypeUrl::ALL.into_iter().for_each(|kind| self.sub_stream_mut(kind).look(set));
        TypeUrl::ALL.into_iter().filter_map(|kind| self.push(kind, set)).collect()
    }

    fn push(&mut self, kind: TypeUrl, set: &ResourceSet) -> Option<Push> {
        let hold = self.hold(kind, set);
        let sub_stream = self.sub_stream_mut(kind);
        let plan = sub_stream.next(set, hold)?;
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        let push = self.sub_stream_mut(kind).send(&plan, set, nonce.clone());
        match kind {
            // Envoy does not ask for the endpoints of a changed cluster again, and keeps the cluster waiting until they come.
            TypeUrl::Cluster => plan.resource_names().for_each(|name| self.endpoints.owe(name)),
            TypeUrl::Listener if plan.resource_count() > 0 => self.routes.owe_all_named(),
            _ => {}
        }
        let bytes = push.resources.iter().map(|resource| resource.body.len()).sum();
        self.events.push(StreamEvent::Pushed { kind, nonce, resources: push.resources.len(), removed: push.removed.len(), bytes });
        Some(push)
    }

    /// What `kind` must keep back for now. No two types wait for each other: endpoints and secrets go at all times, listeners wait for
    /// clusters, scopes, routes and filters for both, removed clusters for all of those, removed endpoints and secrets for clusters as well.
    ///
    /// A response about clusters that gives none (it removes some, or is empty) holds up the new ones behind it, and so those that wait for
    /// these.
    fn hold(&self, kind: TypeUrl, set: &ResourceSet) -> Hold {
        let clusters_warm_up = self.clusters.resources_in_flight() || (self.clusters.in_flight() && self.clusters.has_news(set));
        let what_refers_to_routes = || self.listeners.is_busy(set) || self.scopes.is_busy(set);
        let what_refers_to_clusters = || what_refers_to_routes() || self.routes.is_busy(set) || self.extensions.is_busy(set);
        match kind {
            TypeUrl::Cluster => Hold { changes: false, removals: what_refers_to_clusters() },
            TypeUrl::ClusterLoadAssignment | TypeUrl::Secret => {
                Hold { changes: false, removals: what_refers_to_clusters() || self.clusters.is_busy(set) }
            }
            TypeUrl::Listener => Hold { changes: clusters_warm_up, removals: false },
            TypeUrl::ScopedRouteConfiguration => Hold { changes: clusters_warm_up, removals: self.listeners.is_busy(set) },
            TypeUrl::RouteConfiguration | TypeUrl::ExtensionConfig => Hold { changes: clusters_warm_up, removals: what_refers_to_routes() },
        }
    }

    fn sub_stream(&self, kind: TypeUrl) -> &SubStream {
        match kind {
            TypeUrl::Cluster => &self.clusters,
            TypeUrl::ClusterLoadAssignment => &self.endpoints,
            TypeUrl::Listener => &self.listeners,
            TypeUrl::ScopedRouteConfiguration => &self.scopes,
            TypeUrl::RouteConfiguration => &self.routes,
            TypeUrl::Secret => &self.secrets,
            TypeUrl::ExtensionConfig => &self.extensions,
        }
    }

    fn sub_stream_mut(&mut self, kind: TypeUrl) -> &mut SubStream {
        match kind {
            TypeUrl::Cluster => &mut self.clusters,
            TypeUrl::ClusterLoadAssignment => &mut self.endpoints,
            TypeUrl::Listener => &mut self.listeners,
            TypeUrl::ScopedRouteConfiguration => &mut self.scopes,
            TypeUrl::RouteConfiguration => &mut self.routes,
            TypeUrl::Secret => &mut self.secrets,
            TypeUrl::ExtensionConfig => &mut self.extensions,
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
