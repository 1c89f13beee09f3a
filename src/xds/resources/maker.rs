//! Makes the sets of one snapshot after the other. What was made of a route is kept while the route is the same object, and only the routes between the
//! first and the last that differ are looked at; and each node's set knows what differs from the one before. So a change costs what it changes, but for
//! copying the maps of the types that it touches, and for asking of which nodes the same routes are. What routes have in common is held once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use secrecy::ExposeSecret;

use super::input::{Input, RouteInput};
use super::node_resources::{NodeResources, Scope};
use super::{of_route, of_the_rest};
use crate::config::Route;
use crate::snapshot::{NodeView, Snapshot};
use crate::xds::resource::{InvalidResource, Resource, ResourceSet, Templates, TypeUrl};

/// The last sets, and what they were made of.
#[derive(Debug, Default)]
pub struct Maker {
    /// In the order of the configuration.
    routes: Vec<Arc<Made>>,
    templates: Templates,
    session_lifetime_seconds: u64,
    /// A node that comes behind another gateway is another one.
    nodes: HashMap<NodeView, Arc<Last>>,
}

#[derive(Debug)]
struct Made {
    route: Arc<Route>,
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
        Self { route: Arc::clone(route), resources: resources.collect() }
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
    /// What belongs to no route.
    rest: Vec<Named>,
}

type Named = (TypeUrl, Arc<Resource>);

/// What is made of the routes: at the beginning and at the end the same as before, and in between something else.
struct Routes<'m> {
    start: &'m [Arc<Made>],
    before: &'m [Arc<Made>],
    now: Vec<Arc<Made>>,
    end: &'m [Arc<Made>],
    /// Those of `before` that are among `now` too.
    kept: HashSet<*const Made>,
}

impl Maker {
    /// The resources of `snapshot` for each node; equal to those that `build_for` makes.
    ///
    /// # Errors
    /// As `build`; the next sets are then made from the last good ones.
    pub fn make(&mut self, snapshot: &Snapshot) -> Result<NodeResources, InvalidResource> {
        let Self { routes, templates, session_lifetime_seconds, nodes: before } = self;
        let lifetime = snapshot.config().sessions.lifetime_seconds;
        let is_kept = lifetime == *session_lifetime_seconds;
        let made = Routes::of(&snapshot.config().routes, routes, is_kept, |route| Made::of(route, lifetime, templates));
        let mut scopes: BTreeMap<Scope<'_>, Vec<&NodeView>> = BTreeMap::new();
        for node in snapshot.nodes().iter() {
            scopes.entry(Scope::of(snapshot, node)).or_default().push(node);
        }
        let mut nodes = HashMap::new();
        for same in std::iter::once(vec![NodeView::UNNAMED]).chain(scopes.into_values()) {
            // One that is new has no set to go on from.
            let Some(node) = same.iter().find(|node| before.contains_key(*node)).or(same.first()) else { continue };
            let last = Arc::new(made.next(snapshot, node, before.get(*node))?);
            nodes.extend(same.into_iter().map(|node| (node.clone(), Arc::clone(&last))));
        }
        let unnamed = nodes.get(NodeView::UNNAMED).map(|last| last.set.clone()).unwrap_or_default();
        let named = nodes.iter().filter_map(|(node, last)| Some((Arc::clone(node.name()?), last.set.clone()))).collect();
        let resources = NodeResources::new(Arc::clone(snapshot.nodes()), unnamed, named);
        let (differing, now) = (made.start.len()..made.start.len() + made.before.len(), made.now);
        routes.splice(differing, now);
        (self.nodes, self.session_lifetime_seconds) = (nodes, lifetime);
        Ok(resources)
    }
}

impl<'m> Routes<'m> {
    /// `is_kept`: what was made of a route is still right.
    fn of(routes: &[Arc<Route>], made: &'m [Arc<Made>], is_kept: bool, mut make: impl FnMut(&Arc<Route>) -> Made) -> Self {
        let is_same = |(made, route): &(&Arc<Made>, &Arc<Route>)| is_kept && Arc::ptr_eq(&made.route, route);
        let start = made.iter().zip(routes).take_while(is_same).count();
        let ((start, before), (_, routes)) = (made.split_at(start), routes.split_at(start));
        let end = before.iter().rev().zip(routes.iter().rev()).take_while(is_same).count();
        let ((before, end), (routes, _)) = (before.split_at(before.len() - end), routes.split_at(routes.len() - end));
        let known: HashMap<*const Route, &Arc<Made>> = before.iter().map(|made| (Arc::as_ptr(&made.route), made)).collect();
        let known = |route| known.get(&Arc::as_ptr(route)).filter(|_| is_kept).copied();
        let kept = routes.iter().filter_map(known).map(Arc::as_ptr).collect();
        let now = routes.iter().map(|route| known(route).cloned().unwrap_or_else(|| Arc::new(make(route)))).collect();
        Self { start, before, now, end, kept }
    }

    /// A node's set after its last one; without one, all of it.
    fn next(&self, snapshot: &Snapshot, node: &NodeView, last: Option<&Arc<Last>>) -> Result<Last, InvalidResource> {
        let (start, before, end): (&[_], _, &[_]) = if last.is_some() { (&[], self.before, &[]) } else { (self.start, &[][..], self.end) };
        let is_other = |made: &&Arc<Made>| node.serves(&made.route) && !(last.is_some() && self.kept.contains(&Arc::as_ptr(made)));
        let none = Arc::default();
        let last = last.unwrap_or(&none);
        let rest: Vec<Named> = of_the_rest(&Input::without_routes(snapshot, node)).into_iter().map(|one| last.rest_like(one)).collect();
        let mut set = last.set.edit();
        // All that goes, before anything comes: another route may have its names.
        let gone = before.iter().filter(is_other).flat_map(|made| &made.resources).chain(missing(&last.rest, &rest));
        gone.for_each(|(kind, resource)| set.remove(*kind, &resource.name));
        let came = [start, &self.now, end].into_iter().flatten().filter(is_other).flat_map(|made| &made.resources);
        for (kind, resource) in missing(&rest, &last.rest).chain(came) {
            set.insert(*kind, Arc::clone(resource))?;
        }
        Ok(Last { set: set.build(), rest })
    }
}

impl Last {
    /// The same resource as `one`, where there was an equal one.
    fn rest_like(&self, (kind, one): (TypeUrl, Resource)) -> Named {
        let equal = self.rest.iter().find(|(other_kind, other)| *other_kind == kind && **other == one);
        equal.cloned().unwrap_or_else(|| (kind, Arc::new(one)))
    }
}

/// Those of `some` that are not among `others`.
fn missing<'r>(some: &'r [Named], others: &'r [Named]) -> impl Iterator<Item = &'r Named> {
    some.iter().filter(|(_, one)| !others.iter().any(|(_, other)| Arc::ptr_eq(one, other)))
}
