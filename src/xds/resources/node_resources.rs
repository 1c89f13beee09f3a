//! The resources of every node of a snapshot. Nodes that have the same of the configuration share them.

use std::collections::HashMap;
use std::sync::Arc;

use super::Maker;
use crate::snapshot::{NodeView, Nodes, Snapshot};
use crate::xds::resource::{InvalidResource, ResourceSet};

/// One set for each node, and which nodes there are.
#[derive(Debug, Default)]
pub struct NodeResources {
    nodes: Arc<Nodes>,
    unnamed: ResourceSet,
    named: HashMap<Arc<str>, ResourceSet>,
}

impl NodeResources {
    pub(super) fn new(nodes: Arc<Nodes>, unnamed: ResourceSet, named: HashMap<Arc<str>, ResourceSet>) -> Self {
        Self { nodes, unnamed, named }
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// What a node of this snapshot should have: nothing when it is none.
    pub fn of(&self, node: &NodeView) -> ResourceSet {
        match node.name() {
            None => self.unnamed.clone(),
            Some(name) => self.named.get(name).cloned().unwrap_or_default(),
        }
    }
}

impl NodeResources {
    /// The same by the `node.id` of an Envoy whose claim was found true.
    pub fn of_claimed(&self, id: &str) -> ResourceSet {
        self.of(self.claimed(id))
    }

    /// The node that such a `node.id` stands for.
    pub fn claimed(&self, id: &str) -> &NodeView {
        let name = id.split_once('/').map_or(id, |(name, _)| name);
        self.nodes.named(name).unwrap_or(NodeView::UNNAMED)
    }
}

/// The same for every Envoy, as where the configuration has no `nodes`.
impl From<ResourceSet> for NodeResources {
    fn from(unnamed: ResourceSet) -> Self {
        Self { unnamed, ..Self::default() }
    }
}

/// All that the nodes of a snapshot need.
///
/// # Errors
/// As `build`.
pub fn build_all(snapshot: &Snapshot) -> Result<NodeResources, InvalidResource> {
    Maker::default().make(snapshot)
}

/// All that two nodes can differ by: their listeners, and the routes that not everyone has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope<'s> {
    gateway: Option<&'s str>,
    /// Indices in the configuration.
    restricted: Vec<usize>,
}

impl<'s> Scope<'s> {
    pub(super) fn of(snapshot: &Snapshot, node: &'s NodeView) -> Self {
        let routes = snapshot.config().routes.iter().enumerate();
        let restricted = routes.filter(|(_, route)| (route.nodes.is_some() || route.gateways.is_some()) && node.serves(route));
        Self { gateway: node.gateway(), restricted: restricted.map(|(index, _)| index).collect() }
    }
}
