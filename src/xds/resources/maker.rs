//! Makes the sets of one snapshot after the other. What was made of a route is kept while the route is the same object, so that a change costs
//! what it changes; and each node's set knows what differs from the one before. What routes have in common is held once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use secrecy::ExposeSecret;

use super::input::{Input, RouteInput};
use super::node_resources::{NodeResources, Scope};
use super::{of_route, of_the_rest};
use crate::config::Route;
use crate::snapshot::{NodeView, Snapshot};
use crate::xds::resource::{InvalidResource, Resource, ResourceSet, ResourceSetBuilder, Templates, TypeUrl};

/// The last sets, and what they were made of.
#[derive(Debug, Default)]
pub struct Maker {
    routes: Routes,
    templates: Templates,
    session_lifetime_seconds: u64,
    /// By the name of the node; the unnamed has none.
    nodes: HashMap<Option<Arc<str>>, Arc<Last>>,
}

/// By the address of the route, which lives at least as long as its entry.
type Routes = HashMap<usize, Arc<Made>>;

#[derive(Debug)]
struct Made {
    /// Keeps the address its own.
    _route: Arc<Route>,
    resources: Box<[(TypeUrl, Arc<Resource>)]>,
}

impl Made {
    fn of(route: &Arc<Route>, session_lifetime_seconds: u64, templates: &mut Templates) -> Self {
        let texts = [Route::ca_pem, token].map(|of| Bytes::from_owner(Text { route: Arc::clone(route), of }));
        let hold = |(kind, resource): (TypeUrl, Resource)| match kind {
            TypeUrl::Secret => (kind, Arc::new(Resource { body: resource.body.ending_in(&texts), ..resource })),
            _ => (kind, Arc::new(templates.hold(kind, resource))),
        };
        let resources = of_route(&RouteInput::of(route, session_lifetime_seconds)).into_iter().map(hold);
        Self { _route: Arc::clone(route), resources: resources.collect() }
    }
}

/// A text of a route that its secrets end in: they share the route's.
struct Text {
    route: Arc<Route>,
    of: fn(&Route) -> Option<&str>,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        (self.of)(&self.route).unwrap_or_default().as_bytes()
    }
}

fn token(route: &Route) -> Option<&str> {
    route.service_account_token().map(ExposeSecret::expose_secret)
}

/// The last set of a node.
#[derive(Debug, Default)]
struct Last {
    set: ResourceSet,
    routes: HashSet<usize>,
    /// What belongs to no route.
    rest: Vec<(TypeUrl, Arc<str>)>,
}

impl Maker {
    /// The resources of `snapshot` for each node; equal to those that `build_for` makes.
    ///
    /// # Errors
    /// As `build`; the next sets are then made from the last good ones.
    pub fn make(&mut self, snapshot: &Snapshot) -> Result<NodeResources, InvalidResource> {
        let routes = self.routes_of(snapshot);
        let mut scopes: BTreeMap<Scope<'_>, Arc<Last>> = BTreeMap::new();
        let mut nodes = HashMap::new();
        for node in std::iter::once(NodeView::UNNAMED).chain(snapshot.nodes().iter()) {
            let scope = Scope::of(snapshot, node);
            let last = match scopes.get(&scope) {
                Some(last) if node.name().is_some() => Arc::clone(last),
                _ => Arc::new(self.next(snapshot, node, &routes)?),
            };
            if node.name().is_some() {
                scopes.insert(scope, Arc::clone(&last));
            }
            nodes.insert(node.name().cloned(), last);
        }
        let set = |name: &Option<Arc<str>>| nodes.get(name).map(|last| last.set.clone()).unwrap_or_default();
        let named = nodes.keys().filter_map(|name| Some((Arc::clone(name.as_ref()?), set(name)))).collect();
        let made = NodeResources::new(Arc::clone(snapshot.nodes()), set(&None), named);
        (self.routes, self.nodes) = (routes, nodes);
        self.session_lifetime_seconds = snapshot.config().sessions.lifetime_seconds;
        Ok(made)
    }

    fn routes_of(&mut self, snapshot: &Snapshot) -> Routes {
        let Self { routes, templates, session_lifetime_seconds, .. } = self;
        let lifetime = snapshot.config().sessions.lifetime_seconds;
        let mut made = |route: &Arc<Route>| match routes.get(&address(route)).filter(|_| lifetime == *session_lifetime_seconds) {
            Some(made) => Arc::clone(made),
            None => Arc::new(Made::of(route, lifetime, templates)),
        };
        snapshot.config().routes.iter().map(|route| (address(route), made(route))).collect()
    }

    fn next(&self, snapshot: &Snapshot, node: &NodeView, routes: &Routes) -> Result<Last, InvalidResource> {
        let none = Arc::default();
        let before = self.nodes.get(&node.name().cloned()).unwrap_or(&none);
        let served: HashSet<usize> = snapshot.routes_of(node).map(address).collect();
        let is_same = |address: &usize| match (self.routes.get(address), routes.get(address)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let mut set = before.set.edit();
        // All that goes, before anything comes: another route may have its names.
        let gone = before.routes.iter().filter(|address| !(served.contains(*address) && is_same(address)));
        let gone = gone.filter_map(|address| self.routes.get(address)).flat_map(|made| &made.resources);
        gone.for_each(|(kind, resource)| set.remove(*kind, &resource.name));
        before.rest.iter().for_each(|(kind, name)| set.remove(*kind, name));
        let rest: Vec<_> = shared(of_the_rest(&Input::without_routes(snapshot, node))).collect();
        insert(&mut set, &rest)?;
        let came = served.iter().filter(|address| !(before.routes.contains(*address) && is_same(address)));
        came.filter_map(|address| routes.get(address)).try_for_each(|made| insert(&mut set, &made.resources))?;
        let rest = rest.into_iter().map(|(kind, resource)| (kind, Arc::clone(&resource.name))).collect();
        Ok(Last { set: set.build(), routes: served, rest })
    }
}

fn address(route: &Arc<Route>) -> usize {
    Arc::as_ptr(route) as usize
}

fn shared(resources: Vec<(TypeUrl, Resource)>) -> impl Iterator<Item = (TypeUrl, Arc<Resource>)> {
    resources.into_iter().map(|(kind, resource)| (kind, Arc::new(resource)))
}

fn insert(set: &mut ResourceSetBuilder, resources: &[(TypeUrl, Arc<Resource>)]) -> Result<(), InvalidResource> {
    resources.iter().try_for_each(|(kind, resource)| set.insert(*kind, Arc::clone(resource)))
}
