//! What one Envoy may have of the configuration. This is the one place that says so: xDS, checks, the access log and the web pages ask here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Gateway, Node, NodeIdentity, Route};
use crate::defence::{Defence, off};

/// An Envoy as the configuration sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NodeView {
    name: Option<Arc<str>>,
    gateway: Option<Arc<str>>,
}

impl NodeView {
    /// An Envoy that no node of the configuration stands for: the one that kubepass starts itself, and every Envoy where there are no nodes.
    pub const UNNAMED: &'static Self = &Self { name: None, gateway: None };

    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// The gateway that gives it its listeners.
    pub fn gateway(&self) -> Option<&str> {
        self.gateway.as_deref()
    }

    /// Whether it may have the route: its virtual host, cluster, CA and token, and an answer to its checks.
    pub fn serves(&self, route: &Route) -> bool {
        let is_named = |names: &Option<Vec<String>>, name: Option<&str>| {
            names.as_ref().is_some_and(|names| names.iter().any(|listed| Some(listed.as_str()) == name))
        };
        (route.nodes.is_none() && route.gateways.is_none())
            || is_named(&route.nodes, self.name.as_deref())
            || is_named(&route.gateways, self.gateway())
            || off(Defence::NodeScope)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Nodes {
    by_name: HashMap<Arc<str>, NodeView>,
    by_identity: HashMap<NodeIdentity, NodeView>,
}

impl Nodes {
    /// `nodes` with the gateways that select them.
    pub fn new(nodes: &[Node], gateways: &[Gateway]) -> Self {
        let mut views = Self::default();
        for node in nodes {
            let gateway = gateways.iter().find(|gateway| gateway.nodes.contains(&node.name));
            let name: Arc<str> = Arc::from(node.name.as_str());
            let view = NodeView { name: Some(Arc::clone(&name)), gateway: gateway.map(|gateway| Arc::from(gateway.name.as_str())) };
            views.by_identity.insert(node.identity.clone(), view.clone());
            views.by_name.insert(name, view);
        }
        views
    }

    /// True where the configuration has no `nodes`: then every Envoy that may connect is the unnamed one.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub fn named(&self, name: &str) -> Option<&NodeView> {
        self.by_name.get(name)
    }

    pub fn by_identity(&self, identity: &NodeIdentity) -> Option<&NodeView> {
        self.by_identity.get(identity)
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = &NodeView> {
        self.by_name.values()
    }
}
