//! A model of a state-of-the-world client, driven at random, as `model_tests` does for delta. Once it stops misbehaving it comes to hold what
//! it wants; and while it behaves, no cluster goes away that a route still needs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use proptest::prelude::*;

use super::super::resource::{ResourceSet, TypeUrl};
use super::test_client::{after, received, set_of};
use super::{Limits, StateOfTheWorld, StateOfTheWorldStream};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const TYPES: usize = TypeUrl::ALL.len();

#[derive(Debug, Clone)]
enum Action {
    /// All that is wanted from now on, by bit: 0 to 3 are `NAMES`, 4 is the wildcard. With the nonce in flight, which makes it an ACK, or
    /// with one of an older response, or without any.
    Names {
        kind: usize,
        names: u8,
        nonce: Nonce,
    },
    Ack {
        kind: usize,
    },
    /// `taken`: which parts of the response the client takes all the same.
    Nack {
        kind: usize,
        taken: u8,
    },
    Reconnect,
    Set(Versions),
}

#[derive(Debug, Clone, Copy)]
enum Nonce {
    InFlight,
    None,
    Stale,
}

type Versions = [[u8; 4]; TYPES];

fn versions() -> impl Strategy<Value = Versions> {
    prop::array::uniform7(prop::array::uniform4(0u8..4))
}

fn action() -> impl Strategy<Value = Action> {
    let kind = || 0..TYPES;
    let nonce = prop_oneof![Just(Nonce::InFlight), Just(Nonce::None), Just(Nonce::Stale)];
    prop_oneof![
        5 => (kind(), 0u8..32, nonce).prop_map(|(kind, names, nonce)| Action::Names { kind, names, nonce }),
        8 => kind().prop_map(|kind| Action::Ack { kind }),
        4 => (kind(), any::<u8>()).prop_map(|(kind, taken)| Action::Nack { kind, taken }),
        1 => Just(Action::Reconnect),
        5 => versions().prop_map(Action::Set),
    ]
}

fn set(versions: &Versions) -> ResourceSet {
    let texts = ["", "1", "2", "3"];
    let all =
        TypeUrl::ALL.into_iter().zip(versions).flat_map(|(kind, of)| NAMES.into_iter().zip(of).map(move |(name, v)| (kind, name, *v)));
    set_of(all.filter(|(_, _, v)| *v > 0).map(|(kind, name, v)| (kind, name, texts[usize::from(v)])))
}

fn is_complete(kind: TypeUrl) -> bool {
    matches!(kind, TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::ScopedRouteConfiguration)
}

/// What the client knows of one type.
#[derive(Debug, Default, Clone)]
struct Held {
    requested: bool,
    /// Names were sent on this stream: no names mean nothing then.
    named: bool,
    names: BTreeSet<String>,
    resources: BTreeMap<String, String>,
    in_flight: Option<DiscoveryResponse>,
    last_nonce: String,
    /// What a request said that the server may ignore: it counts from the next answer on.
    unsaid: bool,
}

impl Held {
    fn wants(&self, kind: TypeUrl, name: &str) -> bool {
        self.names.contains("*") || self.names.contains(name) || (is_complete(kind) && !self.named)
    }

    fn apply(&mut self, kind: TypeUrl, response: &DiscoveryResponse, taken: u8) {
        let told: BTreeMap<String, String> = response.resources.iter().map(|any| parsed(&any.value)).collect();
        let takes = |index: usize| taken & (1 << (index % 8)) != 0;
        if is_complete(kind) {
            let gone: Vec<String> = self.resources.keys().filter(|name| !told.contains_key(*name)).cloned().collect();
            gone.iter().enumerate().filter(|(i, _)| takes(*i)).for_each(|(_, name)| drop(self.resources.remove(name)));
        }
        for (_, (name, version)) in told.into_iter().enumerate().filter(|(i, _)| takes(*i)) {
            if self.wants(kind, &name) {
                self.resources.insert(name, version);
            }
        }
    }
}

fn parsed(body: &[u8]) -> (String, String) {
    let (name, version) = std::str::from_utf8(body).unwrap().split_once('=').unwrap();
    (name.into(), version.into())
}

struct World {
    stream: StateOfTheWorldStream,
    set: ResourceSet,
    held: [Held; TYPES],
    responses: usize,
}

impl World {
    fn new() -> Self {
        Self { stream: StateOfTheWorldStream::new(Limits::default()), set: ResourceSet::default(), held: Default::default(), responses: 0 }
    }

    fn receive(&mut self, responses: Vec<DiscoveryResponse>) {
        for response in responses {
            let kind = TypeUrl::from_wire(&response.type_url).unwrap();
            let held = &mut self.held[kind as usize];
            assert!(held.requested, "nobody asked for {kind}");
            assert!(held.in_flight.is_none(), "two responses in flight for {kind}");
            assert!(held.unsaid || response.resources.iter().all(|any| held.wants(kind, &parsed(&any.value).0)), "unwanted {response:?}");
            held.last_nonce.clone_from(&response.nonce);
            held.in_flight = Some(response);
            self.responses += 1;
        }
    }

    fn request(&mut self, kind: usize, nonce: String, error_detail: Option<Status>) {
        let held = &mut self.held[kind];
        held.requested = true;
        held.named |= !held.names.is_empty();
        let request = DiscoveryRequest {
            type_url: TypeUrl::ALL[kind].as_str().into(),
            resource_names: held.names.iter().cloned().collect(),
            response_nonce: nonce,
            error_detail,
            ..DiscoveryRequest::default()
        };
        let responses = received::<StateOfTheWorld>(self.stream.on_request(request, &self.set).unwrap());
        self.receive(responses);
    }

    fn names(&mut self, kind: usize, names: u8, nonce: Nonce) {
        let held = &mut self.held[kind];
        let before = held.clone();
        held.names = NAMES.into_iter().chain(["*"]).enumerate().filter(|(i, _)| names & (1 << i) != 0).map(|(_, n)| n.to_owned()).collect();
        let now = held.clone();
        let named = held.named || !held.names.is_empty();
        let wants = |name: &str| Held { named, ..now.clone() }.wants(TypeUrl::ALL[kind], name);
        // What it drops it forgets, so it needs it again when it asks again.
        held.resources.retain(|name, _| wants(name));
        let nonce = match nonce {
            Nonce::None => String::new(),
            // Without a response before there is no older one, and with one answered already no client says so.
            Nonce::Stale if held.in_flight.is_some() => {
                held.unsaid = true;
                "stale".to_owned()
            }
            Nonce::InFlight | Nonce::Stale => {
                if let Some(response) = held.in_flight.take() {
                    held.named = named;
                    held.apply(TypeUrl::ALL[kind], &response, u8::MAX);
                }
                held.last_nonce.clone()
            }
        };
        held.unsaid &= nonce == "stale" || before.unsaid && nonce.is_empty();
        self.request(kind, nonce, None);
    }

    fn answer(&mut self, kind: usize, refuses: Option<u8>) -> bool {
        let held = &mut self.held[kind];
        let Some(response) = held.in_flight.take() else { return false };
        held.named |= !held.names.is_empty();
        held.apply(TypeUrl::ALL[kind], &response, refuses.unwrap_or(u8::MAX));
        held.unsaid = false;
        self.request(kind, response.nonce, refuses.map(|_| Status { message: "refused".into(), ..Status::default() }));
        true
    }

    fn reconnect(&mut self) {
        let doubts = self.stream.doubts();
        self.stream = StateOfTheWorldStream::new(Limits::default());
        self.stream.remember(doubts);
        for kind in 0..TYPES {
            let old = std::mem::take(&mut self.held[kind]);
            // As Envoy: what it wanted by no names at all it asks for by no names again.
            let wanted_all = is_complete(TypeUrl::ALL[kind]) && !old.named;
            if old.requested && (wanted_all || !old.names.is_empty()) {
                self.held[kind] = Held { names: old.names, resources: old.resources, ..Held::default() };
                self.request(kind, String::new(), None);
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Names { kind, names, nonce } => self.names(kind, names, nonce),
            Action::Ack { kind } => drop(self.answer(kind, None)),
            Action::Nack { kind, taken } => drop(self.answer(kind, Some(taken))),
            Action::Reconnect => self.reconnect(),
            Action::Set(ref versions) => {
                // Some sets know what changed since the one before, others come from nowhere.
                let whole = set(versions);
                self.set = if versions[0][0] == 0 { whole } else { after(&self.set, &whole) };
                let responses = received::<StateOfTheWorld>(self.stream.on_snapshot(&self.set));
                self.receive(responses);
            }
        }
    }

    fn settle(&mut self, start: usize, refuses: Option<u8>) -> usize {
        let before = self.responses;
        while (0..TYPES).any(|i| self.answer((start + i) % TYPES, refuses)) {
            assert!(self.responses - before < 100, "no end");
        }
        self.responses - before
    }

    fn assert_complete(&self) {
        for (kind, held) in TypeUrl::ALL.into_iter().zip(&self.held).filter(|(_, held)| held.requested) {
            let wanted: BTreeMap<String, String> = self
                .set
                .resources(kind)
                .filter(|r| held.wants(kind, &r.name))
                .map(|r| (r.name.to_string(), r.version.to_string()))
                .collect();
            // Of the other types the client keeps what nobody told it to drop.
            let relevant = |name: &String| is_complete(kind) || wanted.contains_key(name);
            let holds: BTreeMap<String, String> =
                held.resources.iter().filter(|(name, _)| relevant(name)).map(|(name, version)| (name.clone(), version.clone())).collect();
            assert_eq!(holds, wanted, "{kind}");
            let state = self.stream.state(kind);
            assert_eq!(state.acknowledged.as_deref(), Some(self.set.type_version(kind)), "{kind}");
            assert_eq!((state.in_flight, state.doubtful), (false, 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_stops_misbehaving_holds_exactly_what_it_wants(
        actions in prop::collection::vec(action(), 1..40), last in versions(), start in 0..TYPES,
    ) {
        let mut world = World::new();
        actions.iter().for_each(|action| world.act(action));
        world.settle(start, None);
        // What was refused is tried again only when something changed.
        world.act(&Action::Set(last));
        let mut changed = last;
        changed[0] = last[0].map(|v| (v + 1) % 4);
        world.act(&Action::Set(changed));
        let responses = world.settle(start, None);
        prop_assert!(responses <= 3 * TYPES, "{responses} responses to one change");
        world.assert_complete();
        let set = world.set.clone();
        prop_assert_eq!(world.stream.on_snapshot(&set), Vec::new());
    }

    #[test]
    fn a_client_that_refuses_everything_makes_no_loop(actions in prop::collection::vec(action(), 1..40), taken in any::<u8>(), start in 0..TYPES) {
        let mut world = World::new();
        actions.iter().for_each(|action| world.act(action));
        let responses = world.settle(start, Some(taken));
        prop_assert!(responses <= 3 * TYPES, "{responses} responses to refusals alone");
    }

    /// Routes name the cluster of their own name: a client that takes everything never has a route without its cluster.
    #[test]
    fn no_route_is_left_without_its_cluster(
        changes in prop::collection::vec((prop::array::uniform4(0u8..4), prop::array::uniform4(any::<bool>()), 0..TYPES), 1..20),
    ) {
        let mut world = World::new();
        for kind in [0, 1, 2, 3] {
            world.names(kind, if is_complete(TypeUrl::ALL[kind]) { 0 } else { 0b1111 }, Nonce::None);
        }
        world.settle(0, None);
        for (clusters, routed, start) in changes {
            let mut versions = Versions::default();
            (versions[0], versions[1]) = (clusters, clusters);
            // One route configuration, which names clusters by its version: 1 for `a`, 2 for `b`, 3 for `c`.
            versions[3][0] = (0..3u8).find(|i| routed[usize::from(*i)] && clusters[usize::from(*i)] > 0).map_or(0, |i| i + 1);
            world.act(&Action::Set(versions));
            if versions[3][0] == 0 {
                // Nothing tells that it is gone but the listener, which would no longer name it.
                world.held[3].resources.clear();
            }
            loop {
                let routes = &world.held[3].resources;
                let needed = routes.get("a").and_then(|v| v.parse::<usize>().ok()).map(|v| NAMES[v - 1]);
                prop_assert!(needed.is_none_or(|name| world.held[0].resources.contains_key(name)), "{needed:?}");
                if !(0..TYPES).any(|i| world.answer((start + i) % TYPES, None)) {
                    break;
                }
            }
        }
    }
}
