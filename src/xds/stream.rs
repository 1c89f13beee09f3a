//! The ADS stream as a state machine without I/O: a request or a new resource set goes in, the responses to send come out.
//!
//! One stream per Envoy, one independent sub-stream per resource type. `delta` is the incremental protocol; the state-of-the-world protocol
//! would stand beside it and share what is below the protocol: `subscription` (what the client wants), `Limits`, `StreamEvent`.
//! Source: the xDS protocol page of Envoy's documentation, and how Envoy 1.40 behaves where that page is silent.

mod delta;
mod holdings;
mod sub_stream;
mod subscription;

#[cfg(test)]
mod bug_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod test_client;

use std::collections::{BTreeMap, BTreeSet};

use super::resource::{MAX_NAME_LENGTH, TypeUrl};

pub use delta::{DeltaStream, TypeState};

/// What one stream may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names in the subscription to one type, and entries of `initial_resource_versions`.
    pub names_per_type: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { names_per_type: 65_536 }
    }
}

/// Why a stream has to end: the client asks for more than it may. Nothing else that a client sends ends a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("more than {limit} names for type {kind}")]
    TooManyNames { kind: TypeUrl, limit: usize },
    #[error("a resource name of type {kind} is empty or longer than {MAX_NAME_LENGTH} bytes")]
    InvalidName { kind: TypeUrl },
}

/// What happened on a stream, for metrics, log and state page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    Pushed {
        kind: TypeUrl,
        nonce: String,
        resources: usize,
        removed: usize,
    },
    /// The client took the response; `version` is the type's version in the set that it was made from.
    Acked {
        kind: TypeUrl,
        nonce: String,
        version: String,
    },
    /// The client refused the response, perhaps after taking part of it. `message` is the client's own, shortened and without what it
    /// may quote of a secret.
    Nacked {
        kind: TypeUrl,
        nonce: String,
        message: String,
    },
    /// A request for a type that kubepass does not serve; it gets no answer.
    UnknownType {
        type_url: String,
    },
}

/// Names of which nobody knows which version the client holds: their last response was refused, or the stream ended before an answer.
/// The client does not list what it took of a refused response when it connects again, so the next stream has to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubts(BTreeMap<TypeUrl, BTreeSet<String>>);

impl Doubts {
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }

    fn insert(&mut self, kind: TypeUrl, names: impl Iterator<Item = String>) {
        self.0.entry(kind).or_default().extend(names);
    }

    fn take(&mut self, kind: TypeUrl) -> BTreeSet<String> {
        self.0.remove(&kind).unwrap_or_default()
    }
}
