//! Which Envoys have which route: pure bookkeeping over numbers of configurations. An Envoy that has taken configuration N has every route that
//! has not changed since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Route;
use crate::config::objects::{InForce, Judged, ObjectId, Programmed};
use crate::snapshot::NodeView;

/// How long an Envoy that was there before a route may lag behind, or be away, before the route's status says so: a new Envoy, or one that connects
/// again, would otherwise touch every status.
const GRACE: Duration = Duration::from_secs(10);

/// Of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// `Judged::version` of the configuration whose resources the Envoys are measured by.
    pub version: String,
    pub nodes: Vec<NodeProgress>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeProgress {
    pub name: String,
    /// What it may have.
    pub view: NodeView,
    /// Whether it has acknowledged all that it should have.
    pub up_to_date: bool,
    /// Why it refused, in its own words.
    pub refusal: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Tracker {
    routes: HashMap<ObjectId, (Arc<Route>, u64)>,
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
struct Node {
    view: NodeView,
    /// The last configuration that it has taken whole.
    took: u64,
    /// The configuration that was in force when it connected: routes since then wait for it.
    joined: u64,
    /// Since when it lags.
    lags_since: Option<Instant>,
    last_seen: Instant,
    refusal: Option<String>,
}

impl Tracker {
    pub(super) fn look(&mut self, judged: &Judged, progress: &Progress, now: Instant) {
        self.note_routes(judged);
        for of in &progress.nodes {
            let fresh = || Node { view: of.view.clone(), took: 0, joined: judged.number, lags_since: None, last_seen: now, refusal: None };
            let node = self.nodes.entry(of.name.clone()).or_insert_with(fresh);
            (node.last_seen, node.refusal) = (now, of.refusal.clone());
            node.view.clone_from(&of.view);
            if of.up_to_date && progress.version == judged.version {
                (node.took, node.lags_since) = (judged.number, None);
            } else {
                node.lags_since.get_or_insert(now);
            }
        }
        self.nodes.retain(|_, node| now.duration_since(node.last_seen) < GRACE);
    }

    fn note_routes(&mut self, judged: &Judged) {
        let mut routes = HashMap::with_capacity(judged.verdicts.len());
        for verdict in &judged.verdicts {
            let Some(route) = verdict.in_force.as_ref().and_then(InForce::route) else { continue };
            let since = match self.routes.get(&verdict.id) {
                Some((before, since)) if Arc::ptr_eq(before, route) => *since,
                _ => judged.number,
            };
            routes.insert(verdict.id.clone(), (Arc::clone(route), since));
        }
        self.routes = routes;
    }

    /// Who has the route of an object.
    pub(super) fn programmed(&self, id: &ObjectId, now: Instant) -> Programmed {
        let mut programmed = Programmed::default();
        let Some((route, since)) = self.routes.get(id) else { return programmed };
        for (name, node) in self.nodes.iter().filter(|(_, node)| node.view.serves(route)) {
            if node.took >= *since {
                programmed.acknowledged.push(name.clone());
            } else if let Some(why) = &node.refusal {
                programmed.refused.push((name.clone(), why.clone()));
            } else if *since > node.joined || node.lags_since.is_some_and(|lags| now.duration_since(lags) >= GRACE) {
                programmed.waiting.push(name.clone());
            }
        }
        programmed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::objects::{Kind, Verdict};
    use crate::config::{HttpTarget, ServerAddress, Target};
    use crate::policy::Policy;

    fn route() -> Arc<Route> {
        let upstream = ServerAddress { host: "h".to_owned(), port: 1, server_name: "h".to_owned() };
        let http = HttpTarget { upstream, tls: None, identity_header: String::new(), audience: String::new(), websocket: false };
        let target = Target::Http(http);
        Arc::new(Route {
            id: Route::id_of("shop/web", &target),
            name: "shop/web".to_owned(),
            host: "web".to_owned(),
            labels: BTreeMap::new(),
            nodes: None,
            gateways: None,
            identity_providers: None,
            pomerium_cli: false,
            target,
            policy: Policy::compile(&[]).unwrap(),
            max_stream_seconds: None,
        })
    }

    fn id() -> ObjectId {
        ObjectId { kind: Kind::Route, namespace: "shop".to_owned(), name: "web".to_owned() }
    }

    fn judged(number: u64, route: &Arc<Route>) -> Judged {
        let in_force = Some(InForce::Current(Arc::clone(route)));
        let verdict = Verdict { id: id(), uid: "u".to_owned(), generation: 1, refused: None, unresolved: None, in_force };
        Judged { number, version: number.to_string(), verdicts: vec![verdict] }
    }

    fn progress(number: u64, nodes: &[(&str, bool)]) -> Progress {
        let node = |(name, up_to_date): &(&str, bool)| {
            let refusal = name.starts_with("bad").then(|| "no".to_owned());
            NodeProgress { name: (*name).to_owned(), view: NodeView::default(), up_to_date: *up_to_date, refusal }
        };
        Progress { version: number.to_string(), nodes: nodes.iter().map(node).collect() }
    }

    #[test]
    fn a_route_is_programmed_where_a_configuration_since_its_change_was_taken() {
        let (start, mut tracker) = (Instant::now(), Tracker::default());
        let mut check = |what: &str, judged: &Judged, progress: &Progress, seconds: u64, want: &str| {
            let now = start + Duration::from_secs(seconds);
            tracker.look(judged, progress, now);
            let Programmed { acknowledged, waiting, refused } = tracker.programmed(&id(), now);
            let refused: Vec<_> = refused.into_iter().map(|(node, why)| format!("{node}:{why}")).collect();
            assert_eq!(format!("{}|{}|{}", acknowledged.join(","), waiting.join(","), refused.join(",")), want, "{what}");
        };
        let (first, second) = (route(), route());
        check("nobody", &judged(1, &first), &progress(1, &[]), 0, "||");
        check("taken", &judged(1, &first), &progress(1, &[("a", true)]), 0, "a||");
        check("another change: the resources are those of before", &judged(2, &second), &progress(1, &[("a", true)]), 1, "|a|");
        check("on its way", &judged(2, &second), &progress(2, &[("a", false)]), 1, "|a|");
        check("taken again", &judged(2, &second), &progress(2, &[("a", true)]), 2, "a||");
        check("something else changes", &judged(3, &second), &progress(3, &[("a", false)]), 2, "a||");
        check("another Envoy joins", &judged(3, &second), &progress(3, &[("a", true), ("b", false)]), 3, "a||");
        check("and lags", &judged(3, &second), &progress(3, &[("a", true), ("b", false)]), 14, "a|b|");
        check("it is away for a moment", &judged(3, &second), &progress(3, &[("a", true)]), 20, "a|b|");
        check("and gone", &judged(3, &second), &progress(3, &[("a", true)]), 30, "a||");
        check("one refuses", &judged(4, &first), &progress(4, &[("a", true), ("bad", false)]), 31, "a||bad:no");
    }
}
