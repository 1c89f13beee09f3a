//! The xDS stream as a state machine without I/O: a request or a new resource set goes in, the responses to send come out.
//!
//! `machine` is the engine: one independent sub-stream per resource type (`sub_stream`: what the client wants, holds and is owed), and the
//! order in which the types may speak. `Delta` and `StateOfTheWorld` are the two protocols on top of it; a stream serves all types
//! (aggregated) or one. Source: the xDS protocol page of Envoy's documentation, and how Envoy 1.40 behaves where that page is silent.

mod delta;
mod holdings;
mod machine;
mod protocol;
mod state_of_the_world;
mod sub_stream;
mod subscription;
mod unsettled;
mod whole;
mod wire;

#[cfg(test)]
mod bug_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod state_of_the_world_model_tests;
#[cfg(test)]
mod state_of_the_world_tests;
#[cfg(test)]
mod test_client;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

use super::resource::{MAX_NAME_LENGTH, ResourceSet, TypeUrl};

pub use delta::Delta;
pub use machine::{Machine, TypeState};
pub use protocol::{Dialect, Protocol, Push};
pub use state_of_the_world::StateOfTheWorld;
pub use wire::Outgoing;

/// One stream. Give it every request, and every new set; send what it returns, in that order.
#[derive(Debug)]
pub struct Stream<P> {
    machine: Machine,
    protocol: PhantomData<fn(P)>,
}

pub type DeltaStream = Stream<Delta>;
pub type StateOfTheWorldStream = Stream<StateOfTheWorld>;

impl<P: Protocol> Stream<P> {
    /// A stream of all types.
    pub fn new(limits: Limits) -> Self {
        Self::serving(None, limits)
    }

    /// `only`: the type of a service of one type.
    pub fn serving(only: Option<TypeUrl>, limits: Limits) -> Self {
        Self { machine: Machine::new(P::DIALECT, only, limits), protocol: PhantomData }
    }

    /// Takes over what the last stream of the same client left in doubt. To be called before the first request is given.
    pub fn remember(&mut self, doubts: Doubts) {
        self.machine.remember(doubts);
    }

    /// Takes one request; returns the responses that may be sent now, made from `set`.
    ///
    /// # Errors
    /// The client asks for more than it may, or for what is not served here: the stream has to end.
    pub fn on_request(&mut self, request: P::Request, set: &ResourceSet) -> Result<Vec<Push>, StreamError> {
        self.machine.on_ask(P::ask(request), set)
    }

    /// Returns the responses that may be sent now that `set` is the newest. Where a type waits for its ACK, the set that is newest then counts.
    pub fn on_snapshot(&mut self, set: &ResourceSet) -> Vec<Push> {
        self.machine.pump(set)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<StreamEvent> {
        self.machine.take_events()
    }

    pub fn state(&self, kind: TypeUrl) -> TypeState {
        self.machine.state(kind)
    }

    /// What the next stream of the same client has to be told when this one ends.
    pub fn doubts(&self) -> Doubts {
        self.machine.doubts()
    }

    /// The same without its protocol.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// What one stream may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names in the subscription to one type, and entries of `initial_resource_versions`.
    pub names_per_type: usize,
    /// Bytes that all names and entries of a stream may take, with `NAME_COST`.
    pub name_cost: usize,
}

/// What keeping a name costs beside its own bytes.
const NAME_COST: usize = 64;

impl Default for Limits {
    fn default() -> Self {
        Self { names_per_type: 65_536, name_cost: 16 << 20 }
    }
}

/// Why a stream has to end: the client asks for more than it may, or on the wrong service. Nothing else that a client sends ends a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("more than {limit} names for type {kind}")]
    TooManyNames { kind: TypeUrl, limit: usize },
    #[error("names and versions for which a stream would need more than {limit} bytes of memory")]
    TooMuchToKeep { limit: usize },
    #[error("a resource name of type {kind} is empty or longer than {MAX_NAME_LENGTH} bytes")]
    InvalidName { kind: TypeUrl },
    #[error("this service serves {kind} alone")]
    WrongType { kind: TypeUrl },
}

/// What happened on a stream, for metrics, log and state page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    Pushed {
        kind: TypeUrl,
        nonce: String,
        resources: usize,
        removed: usize,
        /// Of the resources.
        bytes: usize,
    },
    /// The client took the response; `version` is the type's version in the set that it was made from.
    Acked { kind: TypeUrl, nonce: String, version: String },
    /// The client refused the response, perhaps after taking part of it. `message` is the client's own, shortened and without what it
    /// may quote of a secret.
    Nacked { kind: TypeUrl, nonce: String, message: String },
    /// A request answers a response that is not the type's last: it was under way when that was sent.
    Stale { kind: TypeUrl },
    /// A request for a type that kubepass does not serve; it gets no answer.
    UnknownType { type_url: String },
}

/// Names of which nobody knows which version the client holds: their last response was refused, or the stream ended before an answer.
/// The client does not list what it took of a refused response when it connects again, so the next stream has to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubts(BTreeMap<TypeUrl, BTreeSet<Arc<str>>>);

impl Doubts {
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }

    /// About how many bytes of memory they take.
    pub fn cost(&self) -> usize {
        self.0.values().flatten().map(|name| name.len() + NAME_COST).sum()
    }

    fn insert(&mut self, kind: TypeUrl, names: impl Iterator<Item = Arc<str>>) {
        self.0.entry(kind).or_default().extend(names);
    }

    fn take(&mut self, kind: TypeUrl) -> BTreeSet<Arc<str>> {
        self.0.remove(&kind).unwrap_or_default()
    }
}
