//! What the two protocols have in common, and the trait that tells them apart: how a message reads and writes. What a client is sent, and
//! when, is the same machine's decision for both.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;

use super::super::resource::{Resource, TypeUrl};

/// `Delta` or `StateOfTheWorld`.
pub trait Protocol {
    type Request;
    const DIALECT: Dialect;

    /// Takes the client's word on who it is out of a request; clients say it in their first one.
    fn take_node(request: &mut Self::Request) -> Option<Node>;
    fn ask(request: Self::Request) -> Ask;
    /// The response without its resources, encoded.
    fn head(push: &Push) -> Vec<u8>;
    /// Bytes of one of its resources, as `put` writes it.
    fn length_of(kind: TypeUrl, resource: &Resource) -> usize;
    fn put(kind: TypeUrl, resource: &Resource, to: &mut Vec<u8>);
}

/// What differs beyond the form of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Requests change the subscription; responses hold what changed, and name what is gone.
    #[default]
    Delta,
    /// Requests hold the whole subscription. Responses hold all clusters, listeners or scopes, so that absence removes; of the other types what
    /// changed, and nothing tells that one of those is gone: what refers to it goes.
    StateOfTheWorld,
}

impl Dialect {
    /// For the state page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::StateOfTheWorld => "state of the world",
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Ask {
    /// May be empty on a service of one type.
    pub(super) type_url: String,
    pub(super) nonce: String,
    /// The client refuses the response with that nonce: its own words.
    pub(super) refusal: Option<String>,
    pub(super) names: Names,
    /// The versions that it holds; counts on the first request only.
    pub(super) listed: HashMap<String, String>,
}

/// What a request says of the names that are wanted.
#[derive(Debug)]
pub(super) enum Names {
    Changes { subscribe: Vec<String>, unsubscribe: Vec<String> },
    All(Vec<String>),
}

/// One response; `Outgoing` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub kind: TypeUrl,
    pub nonce: String,
    /// The type's version in the set that it was made from.
    pub(super) version: String,
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Arc<str>>,
}
