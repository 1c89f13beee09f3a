//! `Snapshot`: the immutable value that all readers share, with its content-hash version. One writer builds it; nothing in it changes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, IdentityProvider, Listener, Route};
use crate::token::TokenKeys;

mod neighbours;
mod node_view;

use neighbours::Neighbours;
pub use node_view::{NodeView, Nodes};

/// Everything that a check, a page or an xDS stream reads of the configuration.
#[derive(Debug)]
pub struct Snapshot {
    version: String,
    config: Arc<Config>,
    token_keys: Arc<TokenKeys>,
    nodes: Arc<Nodes>,
    neighbours: Neighbours,
    routes_by_name: HashMap<String, Arc<Route>>,
    routes_by_id: HashMap<String, Arc<Route>>,
    routes_by_host: HashMap<String, Arc<Route>>,
}

impl Snapshot {
    /// Builds the indexes over a valid configuration. `content_hash` is the hash of the configuration text and of every file it names.
    pub fn new(config: Arc<Config>, content_hash: &str) -> Self {
        let by = |key: fn(&Route) -> String| config.routes.iter().map(|route| (key(route), Arc::clone(route))).collect();
        Self {
            version: content_hash.chars().take(16).collect(),
            token_keys: Arc::new(TokenKeys::derive(&config.secrets)),
            nodes: Arc::new(Nodes::new(&config.nodes, &config.gateways)),
            neighbours: Neighbours::of(&config),
            routes_by_name: by(|route| route.name.clone()),
            routes_by_id: by(|route| route.id().to_owned()),
            routes_by_host: by(|route| route.host.clone()),
            config,
        }
    }

    /// Short content hash; equal content has an equal version.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn token_keys(&self) -> &Arc<TokenKeys> {
        &self.token_keys
    }

    pub fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    /// Where a node listens.
    pub fn listeners_of(&self, node: &NodeView) -> &[Listener] {
        match node.gateway() {
            Some(name) => self.config.gateways.iter().find(|gateway| gateway.name == name).map_or(&[], |gateway| &gateway.listeners),
            None => &self.config.listeners,
        }
    }

    /// What a node serves.
    pub fn routes_of(&self, node: &NodeView) -> impl Iterator<Item = &Arc<Route>> {
        self.config.routes.iter().filter(move |route| node.serves(route))
    }

    /// Whether a node serves the login pages at the host of `public_url`.
    pub fn has_login_pages(&self, node: &NodeView) -> bool {
        node.gateway().is_none_or(|name| self.config.gateways.iter().any(|gateway| gateway.name == name && gateway.login_pages))
    }

    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes_by_name.get(name)
    }

    /// The route of this name and this API server: see [`Route::id`].
    pub fn route_by_id(&self, id: &str) -> Option<&Arc<Route>> {
        self.routes_by_id.get(id)
    }

    /// The other routes to the same API server of whose names a name of this one could be taken for one: those with a longer prefix.
    pub fn neighbours(&self, route: &Route) -> &[Arc<Route>] {
        self.neighbours.of_route(route)
    }

    /// `host` in lower case, without port.
    pub fn route_by_host(&self, host: &str) -> Option<&Arc<Route>> {
        self.routes_by_host.get(host)
    }

    pub fn identity_provider(&self, name: &str) -> Option<&Arc<IdentityProvider>> {
        self.config.identity_providers.iter().find(|provider| provider.name == name)
    }
}
