//! Sets of resources made one after the other: equal to those made from nothing, and a change of one route is a change of its resources alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::{Maker, build, build_for};
use proptest::prelude::*;

use crate::fixture;

/// Kubernetes routes: name, port of the server, token file; in a session of so many minutes. As the publisher makes it after `before`.
fn snapshot(routes: &[(&str, u16, &str)], lifetime: u64, before: Option<&Snapshot>) -> Snapshot {
    let route = |(name, port, token): &(&str, u16, &str)| {
        format!(
            "- name: {name}\n  host: {name}.k8s.example.com\n  kubernetes:\n    server: https://10.0.0.1:{port}\n    server_name: s\n    \
             ca: {{file: ca.crt}}\n    impersonate: {{token: {{file: {token}}}}}\n  policy: [{{allow: 'user.name == \"{name}\"'}}]\n"
        )
    };
    let routes: String = routes.iter().map(route).collect();
    loaded(lifetime, &format!("routes:\n{routes}"), before)
}

/// A configuration of which only this differs from others: the session's minutes, and what stands last.
fn loaded(lifetime: u64, rest: &str, before: Option<&Snapshot>) -> Snapshot {
    let text = format!(
        "public_url: https://pass.example.com\n\
         listeners:\n- {{address: 127.0.0.1:443, certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}\n\
         secrets: [{{file: secret}}]\n\
         identity_providers:\n- name: corp\n  issuer: https://idp.example.com\n  client_id: kubepass\n  client_secret: {{file: client-secret}}\n  \
         identity: {{username: claims.email}}\n\
         sessions: {{lifetime: {lifetime}m, store: {{embedded: {{path: kubepass.db}}}}}}\n\
         audit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n{rest}"
    );
    let before = before.map(|before| &**before.config());
    let config = fixture::load_after(before, &text, "made.yaml", &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    Snapshot::new(Arc::new(config), "0123456789abcdef")
}

#[derive(Default)]
struct Row {
    maker: Maker,
    last: Option<(Snapshot, ResourceSet)>,
}

impl Row {
    /// The names that differ from the set before, each with its type.
    fn next(&mut self, routes: &[(&str, u16, &str)], lifetime: u64) -> Vec<String> {
        let snapshot = snapshot(routes, lifetime, self.last.as_ref().map(|(snapshot, _)| snapshot));
        let set = self.maker.make(&snapshot).unwrap().of(NodeView::UNNAMED);
        let whole = build(&snapshot).unwrap();
        assert_eq!(set, whole, "{routes:?}");
        // Held otherwise, and the same to the byte.
        assert!(TypeUrl::ALL.into_iter().all(|kind| set.resources(kind).eq(whole.resources(kind))), "{routes:?}");
        let before = self.last.as_ref().map_or_else(ResourceSet::default, |(_, set)| set.clone());
        let changed = |kind: TypeUrl| {
            let names = set.changed_since(before.version(), kind).unwrap();
            names.map(move |name| format!("{} {name}", kind.short_name())).collect::<Vec<_>>()
        };
        let changed = TypeUrl::ALL.into_iter().flat_map(changed).collect();
        self.last = Some((snapshot, set));
        changed
    }
}

#[test]
fn sets_made_one_after_the_other_are_those_made_from_nothing() {
    let mut row = Row::default();
    let both = [("a", 1, "x"), ("b", 1, "x")];
    assert_eq!(row.next(&both, 60).len(), 1 + 2 + 1 + 2 * 6);
    let mut check = |routes: &[(&str, u16, &str)], lifetime: u64, want: &[&str]| assert_eq!(row.next(routes, lifetime), want, "{routes:?}");
    check(&both, 60, &[]);
    check(&[both[1], both[0]], 60, &[]);
    check(&[both[0], ("b", 1, "y")], 60, &["sds token:b@10.0.0.1:1/s"]);
    let (b, host) = ("b@10.0.0.1:1/s", "b.k8s.example.com");
    let all = [
        format!("cds kubernetes:{b}"),
        format!("eds kubernetes:{b}"),
        format!("srds {host}"),
        format!("rds {host}"),
        format!("sds ca:{b}"),
        format!("sds token:{b}"),
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    check(&[both[0]], 60, &all);
    check(&[both[0], ("b", 1, "z")], 60, &all);
    check(&[both[0], ("b", 1, "z")], 90, &["rds a.k8s.example.com", "rds b.k8s.example.com"]);
    // Another server is another cluster, with secrets of its own; the host stays.
    let moved =
        ["cds", "eds", "sds ca", "sds token"].map(|kind| kind.split_once(' ').map_or((kind, "kubernetes"), |(kind, name)| (kind, name)));
    let moved = moved.iter().flat_map(|(kind, name)| [1, 2].map(|port| format!("{kind} {name}:b@10.0.0.1:{port}/s"))).collect::<Vec<_>>();
    let mut moved: Vec<&str> = moved.iter().map(String::as_str).collect();
    moved.insert(4, "rds b.k8s.example.com");
    check(&[both[0], ("b", 2, "z")], 90, &moved);
}

#[test]
fn what_was_made_of_a_route_is_kept_while_it_is_the_same() {
    let mut row = Row::default();
    row.next(&[("a", 1, "x"), ("b", 1, "x")], 60);
    let before = row.last.as_ref().unwrap().1.clone();
    row.next(&[("a", 1, "x"), ("b", 1, "y")], 60);
    let after = &row.last.as_ref().unwrap().1;
    let same = |kind, name: &str| Arc::ptr_eq(before.get(kind, name).unwrap(), after.get(kind, name).unwrap());
    assert!(same(TypeUrl::Cluster, "kubernetes:a@10.0.0.1:1/s") && same(TypeUrl::RouteConfiguration, "a.k8s.example.com"));
    assert!(!same(TypeUrl::RouteConfiguration, "b.k8s.example.com"), "made anew, with the same content");
}

/// Of a route: its name, the version of its token, and who serves it.
type Place = (usize, bool, usize);

const WHO: [&str; 5] = ["", "  nodes: [n-0]\n", "  nodes: [n-0, n-2]\n", "  gateways: [g-0]\n", "  gateways: [g-1]\n"];
const NAMES: usize = 10;

/// What there is. Nodes 3 and 4 are always behind their gateways, so that none is without a node.
#[derive(Debug, Clone)]
struct Scene {
    routes: Vec<Place>,
    /// Of the first three nodes.
    gateways: [Option<usize>; 3],
    /// The second node comes and goes.
    has_second: bool,
    /// Of the gateways' listeners.
    ports: [usize; 2],
    lifetime: u64,
}

impl Scene {
    fn first(routes: usize) -> Self {
        let routes = (0..routes).map(|name| (name, false, name % WHO.len())).collect();
        Self { routes, gateways: [None, Some(0), Some(1)], has_second: true, ports: [8443, 8444], lifetime: 60 }
    }

    /// One of the things that people do.
    fn change(&mut self, what: u8, one: usize, other: usize) {
        let (count, free) = (self.routes.len(), (0..NAMES).find(|name| self.routes.iter().all(|(taken, ..)| taken != name)));
        match what {
            0 => free.into_iter().for_each(|name| self.routes.insert(one % (count + 1), (name, false, other % WHO.len()))),
            1 if count > 1 => drop(self.routes.remove(one % count)),
            2 => self.routes[one % count].1 ^= true,
            3 => self.routes.swap(one % count, other % count),
            4 => self.routes[one % count].2 = other % WHO.len(),
            5 => self.gateways[one % 3] = [None, Some(0), Some(1)][other % 3],
            6 => self.has_second ^= true,
            7 => self.ports[one % 2] ^= 1 << 10,
            _ => self.lifetime = 150 - self.lifetime,
        }
    }

    fn snapshot(&self, before: Option<&Snapshot>) -> Snapshot {
        let route = |(name, token, who): &Place| {
            format!(
                "- name: r-{name}\n  host: r-{name}.k8s.example.com\n{}  kubernetes: {{server: 'https://10.0.0.1:6443', ca: {{file: ca.crt}}, \
                 impersonate: {{token: {{file: token-{token}}}}}}}\n  policy: [{{allow: 'true'}}]\n",
                WHO[*who]
            )
        };
        let there = |node: &usize| *node != 1 || self.has_second;
        let gateway = |name: usize| {
            let behind = (0..3).filter(|node| self.gateways[*node] == Some(name)).filter(there).chain([3 + name]);
            let behind = behind.map(|node| format!("n-{node}")).collect::<Vec<_>>();
            format!(
                "- {{name: g-{name}, selector: {{nodes: [{}]}}, listeners: [{{address: '0.0.0.0:{}', certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}]}}\n",
                behind.join(", "),
                self.ports[name]
            )
        };
        let rest = format!(
            "nodes:\n{}gateways:\n{}routes:\n{}",
            (0..5).filter(there).map(|node| format!("- {{name: n-{node}, identity: {{uid: {node}}}}}\n")).collect::<String>(),
            (0..2).map(gateway).collect::<String>(),
            self.routes.iter().map(route).collect::<String>()
        );
        loaded(self.lifetime, &rest, before)
    }
}

/// The last sets and those made of `snapshot` after them: as if made from nothing, and what is said to differ is what differs.
fn check(node: &NodeView, snapshot: &Snapshot, last: &HashMap<NodeView, ResourceSet>, made: &HashMap<NodeView, ResourceSet>) {
    let (set, whole) = (&made[node], build_for(snapshot, node).unwrap());
    assert_eq!(*set, whole, "{node:?}");
    assert!(TypeUrl::ALL.into_iter().all(|kind| set.resources(kind).eq(whole.resources(kind))), "{node:?}");
    let Some(old) = last.get(node) else { return };
    // Of nodes that had not the same before and have it now, one's set goes on.
    let goes_on = last.iter().all(|(other, before)| before == old || made.get(other) != Some(set));
    for kind in TypeUrl::ALL {
        let said = set.changed_since(old.version(), kind).map(|names| names.cloned().collect::<BTreeSet<_>>());
        assert!(said.is_some() || !goes_on, "{node:?}: what changed since is not known");
        let version = |set: &ResourceSet, name: &str| set.get(kind, name).map(|resource| resource.version.clone());
        let names = old.resources(kind).chain(whole.resources(kind)).map(|resource| resource.name.clone());
        let differ: BTreeSet<_> = names.filter(|name| version(old, name) != version(&whole, name)).collect();
        assert!(said.is_none_or(|said| said == differ), "{node:?} {kind}");
    }
}

fn nodes(snapshot: &Snapshot) -> impl Iterator<Item = &NodeView> {
    std::iter::once(NodeView::UNNAMED).chain(snapshot.nodes().iter())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever changes: routes, their order, who serves them, nodes, their gateways, and listeners.
    #[test]
    fn every_nodes_sets_are_those_made_from_nothing(
        routes in 1..8_usize,
        steps in prop::collection::vec(prop::collection::vec((0..9_u8, 0..NAMES, 0..NAMES), 0..4), 1..8),
    ) {
        let (mut scene, mut maker, mut before, mut last) = (Scene::first(routes), Maker::default(), None, HashMap::new());
        for step in std::iter::once(&vec![]).chain(&steps) {
            step.iter().for_each(|(what, one, other)| scene.change(*what, *one, *other));
            let snapshot = scene.snapshot(before.as_ref());
            let resources = maker.make(&snapshot).unwrap();
            let made = nodes(&snapshot).map(|node| (node.clone(), resources.of(node))).collect();
            nodes(&snapshot).for_each(|node| check(node, &snapshot, &last, &made));
            (before, last) = (Some(snapshot), made);
        }
    }
}
