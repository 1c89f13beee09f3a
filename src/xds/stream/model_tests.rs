//! A model of a client, driven at random: subscribes, acknowledges, refuses (taking any part of the response), reconnects, while sets change.
//! However it misbehaved: once it stops, it comes to hold exactly what it wants, in a bounded number of responses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use proptest::prelude::*;

use super::super::resource::{ResourceSet, TypeUrl};
use super::test_client::{after, received, set_of};
use super::{Delta, DeltaStream, Limits};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const TYPES: usize = TypeUrl::ALL.len();

#[derive(Debug, Clone)]
enum Action {
    /// Names by bit: 0 to 3 are `NAMES`, 4 is the wildcard; and whether to send the nonce in flight along (which makes it an ACK).
    Lists {
        kind: usize,
        subscribe: u8,
        unsubscribe: u8,
        stale: bool,
    },
    Ack {
        kind: usize,
    },
    /// `taken`: which parts of the response the client takes all the same; `forgets` what it took when it lists versions.
    Nack {
        kind: usize,
        taken: u8,
    },
    Reconnect,
    /// The process restarts: nothing is held, the control plane may not notice.
    Restart,
    /// Versions of the names of each type, 0 for none.
    Set(Versions),
}

type Versions = [[u8; 4]; TYPES];

fn versions() -> impl Strategy<Value = Versions> {
    prop::array::uniform7(prop::array::uniform4(0u8..4))
}

fn action() -> impl Strategy<Value = Action> {
    let kind = || 0..TYPES;
    prop_oneof![
        3 => (kind(), 0u8..32, any::<bool>()).prop_map(|(kind, subscribe, stale)| Action::Lists { kind, subscribe, unsubscribe: 0, stale }),
        2 => (kind(), 0u8..32, 0u8..32, any::<bool>())
            .prop_map(|(kind, subscribe, unsubscribe, stale)| Action::Lists { kind, subscribe: subscribe & !unsubscribe, unsubscribe, stale }),
        8 => kind().prop_map(|kind| Action::Ack { kind }),
        4 => (kind(), any::<u8>()).prop_map(|(kind, taken)| Action::Nack { kind, taken }),
        1 => Just(Action::Reconnect),
        1 => Just(Action::Restart),
        5 => versions().prop_map(Action::Set),
    ]
}

fn set(versions: &Versions) -> ResourceSet {
    let texts = ["", "1", "2", "3"];
    let all =
        TypeUrl::ALL.into_iter().zip(versions).flat_map(|(kind, of)| NAMES.into_iter().zip(of).map(move |(name, v)| (kind, name, *v)));
    set_of(all.filter(|(_, _, v)| *v > 0).map(|(kind, name, v)| (kind, name, texts[usize::from(v)])))
}

/// What the client knows of one type.
#[derive(Debug, Default, Clone)]
struct Held {
    requested: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// What it really uses.
    resources: BTreeMap<String, String>,
    /// What it lists when it connects: only what it acknowledged.
    listed: BTreeMap<String, String>,
    in_flight: Option<DeltaDiscoveryResponse>,
    /// Names it asked for and has no answer to.
    waiting: BTreeSet<String>,
}

impl Held {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn forget_unwanted(&mut self) {
        let (wildcard, names) = (self.wildcard, self.names.clone());
        let wants = |name: &String| wildcard || names.contains(name);
        self.resources.retain(|name, _| wants(name));
        self.listed.retain(|name, _| wants(name));
        self.waiting.retain(wants);
    }

    /// Takes the parts of `response` that `taken` admits, bit by bit.
    fn apply(&mut self, response: &DeltaDiscoveryResponse, taken: u8, acknowledged: bool) {
        let told =
            response.resources.iter().map(|r| (&r.name, Some(&r.version))).chain(response.removed_resources.iter().map(|n| (n, None)));
        for (i, (name, version)) in told.enumerate().collect::<Vec<_>>() {
            self.waiting.remove(name);
            if taken & (1 << (i % 8)) == 0 || !self.wants(name) {
                continue;
            }
            match version {
                Some(version) => drop(self.resources.insert(name.clone(), version.clone())),
                None => drop(self.resources.remove(name)),
            }
            match version.filter(|_| acknowledged) {
                Some(version) => drop(self.listed.insert(name.clone(), version.clone())),
                None if version.is_none() => drop(self.listed.remove(name)),
                None => {}
            }
        }
    }
}

struct World {
    stream: DeltaStream,
    set: ResourceSet,
    held: [Held; TYPES],
    /// Clusters that the client waits to use until endpoints come that were sent after them.
    warming: BTreeSet<String>,
    responses: usize,
}

impl World {
    fn new() -> Self {
        Self {
            stream: DeltaStream::new(Limits::default()),
            set: ResourceSet::default(),
            held: Default::default(),
            warming: BTreeSet::new(),
            responses: 0,
        }
    }

    fn receive(&mut self, responses: Vec<DeltaDiscoveryResponse>) {
        let mut last = None;
        for response in responses {
            let kind = TypeUrl::from_wire(&response.type_url).unwrap();
            assert!(last < Some(kind), "out of order");
            last = Some(kind);
            let held = &self.held[kind as usize];
            assert!(held.requested, "nobody asked for {kind}");
            assert!(held.in_flight.is_none(), "two responses in flight for {kind}");
            for resource in &response.resources {
                assert!(held.wants(&resource.name), "unwanted {}", resource.name);
                assert_eq!(self.set.get(kind, &resource.name).map(|r| &*r.version), Some(&*resource.version), "not the newest");
                assert!(!response.removed_resources.contains(&resource.name));
            }
            for name in &response.removed_resources {
                assert!(held.wants(name) && self.set.get(kind, name).is_none(), "{name} is not gone");
            }
            for resource in &response.resources {
                let needs_endpoints = kind == TypeUrl::Cluster && self.held[TypeUrl::ClusterLoadAssignment as usize].wants(&resource.name);
                self.warming.extend(needs_endpoints.then(|| resource.name.clone()));
            }
            if kind == TypeUrl::ClusterLoadAssignment {
                let told = response.resources.iter().map(|resource| &resource.name).chain(&response.removed_resources);
                self.warming.retain(|name| !told.clone().any(|told| told == name));
            }
            self.held[kind as usize].in_flight = Some(response);
            self.responses += 1;
        }
    }

    fn request(&mut self, kind: usize, request: DeltaDiscoveryRequest) {
        let request = DeltaDiscoveryRequest { type_url: TypeUrl::ALL[kind].as_str().into(), ..request };
        let responses = received::<Delta>(self.stream.on_request(request, &self.set).unwrap());
        self.receive(responses);
    }

    fn lists(&mut self, kind: usize, subscribe: u8, unsubscribe: u8, stale: bool) {
        let words = |bits: u8| {
            NAMES.into_iter().chain(["*"]).enumerate().filter(move |(i, _)| bits & (1 << i) != 0).map(|(_, name)| name.to_owned())
        };
        let held = &mut self.held[kind];
        let (subscribe, unsubscribe): (Vec<_>, Vec<_>) = (words(subscribe).collect(), words(unsubscribe).collect());
        let legacy =
            subscribe.is_empty() && matches!(TypeUrl::ALL[kind], TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::ScopedRouteConfiguration);
        if !std::mem::replace(&mut held.requested, true) && legacy {
            held.wildcard = true;
        }
        for name in &unsubscribe {
            if name == "*" {
                held.wildcard = false;
            } else if held.names.remove(name) {
                // The client drops it, even where the wildcard will bring it again.
                held.resources.remove(name);
                held.listed.remove(name);
            }
        }
        for name in &subscribe {
            if name == "*" {
                held.wildcard = true;
            } else {
                held.names.insert(name.clone());
                held.waiting.insert(name.clone());
            }
        }
        held.forget_unwanted();
        let in_flight = held.in_flight.take_if(|_| !stale);
        if let Some(response) = &in_flight {
            held.apply(response, u8::MAX, true);
            held.waiting.extend(subscribe.iter().filter(|name| *name != "*").cloned());
        }
        self.request(
            kind,
            DeltaDiscoveryRequest {
                resource_names_subscribe: subscribe,
                resource_names_unsubscribe: unsubscribe,
                response_nonce: in_flight.map_or_else(String::new, |response| response.nonce),
                ..DeltaDiscoveryRequest::default()
            },
        );
    }

    /// `taken`: what the client takes of a response that it refuses; `None` acknowledges.
    fn answer(&mut self, kind: usize, refuses: Option<u8>) -> bool {
        let Some(response) = self.held[kind].in_flight.take() else { return false };
        self.held[kind].apply(&response, refuses.unwrap_or(u8::MAX), refuses.is_none());
        let error_detail = refuses.map(|_| Status { message: "refused".into(), ..Status::default() });
        self.request(kind, DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..DeltaDiscoveryRequest::default() });
        true
    }

    /// The client connects again, as Envoy does: wildcards by no names, with the versions that it lists.
    fn reconnect(&mut self, restarted: bool) {
        let doubts = self.stream.doubts();
        self.stream = DeltaStream::new(Limits::default());
        self.stream.remember(doubts);
        let before = std::mem::take(&mut self.held);
        self.warming.clear();
        for (kind, old) in before.into_iter().enumerate().filter(|(_, old)| old.requested) {
            let old = if restarted { Held { resources: BTreeMap::new(), listed: BTreeMap::new(), ..old } } else { old };
            let mut names: Vec<String> = old.names.iter().cloned().collect();
            let legacy =
                matches!(TypeUrl::ALL[kind], TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::ScopedRouteConfiguration) && names.is_empty();
            if old.wildcard && !legacy {
                names.push("*".into());
            } else if names.is_empty() && !old.wildcard {
                continue;
            }
            let listed = old.listed.clone().into_iter().collect();
            self.held[kind] = Held { in_flight: None, waiting: old.names.clone(), ..old };
            self.request(
                kind,
                DeltaDiscoveryRequest {
                    resource_names_subscribe: names,
                    initial_resource_versions: listed,
                    ..DeltaDiscoveryRequest::default()
                },
            );
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Lists { kind, subscribe, unsubscribe, stale } => self.lists(kind, subscribe, unsubscribe, stale),
            Action::Ack { kind } => drop(self.answer(kind, None)),
            Action::Nack { kind, taken } => drop(self.answer(kind, Some(taken))),
            Action::Reconnect => self.reconnect(false),
            Action::Restart => self.reconnect(true),
            Action::Set(ref versions) => {
                // Some sets know what changed since the one before, others come from nowhere.
                let whole = set(versions);
                self.set = if versions[0][0] == 0 { whole } else { after(&self.set, &whole) };
                let responses = received::<Delta>(self.stream.on_snapshot(&self.set));
                self.receive(responses);
            }
        }
    }

    /// Answers until nothing is in flight. Each round answers one type, from `start` on, so that all orders occur.
    fn settle(&mut self, start: usize, refuses: Option<u8>) -> usize {
        let before = self.responses;
        while (0..TYPES).any(|i| self.answer((start + i) % TYPES, refuses)) {
            assert!(self.responses - before < 100, "no end");
        }
        self.responses - before
    }

    fn assert_complete(&self) {
        for (kind, held) in TypeUrl::ALL.into_iter().zip(&self.held).filter(|(_, held)| held.requested) {
            let wanted: BTreeMap<String, String> =
                self.set.resources(kind).filter(|r| held.wants(&r.name)).map(|r| (r.name.to_string(), r.version.to_string())).collect();
            assert_eq!(held.resources, wanted, "{kind}");
            assert_eq!(held.waiting, BTreeSet::new(), "{kind} has questions without an answer");
            let state = self.stream.state(kind);
            assert_eq!(state.acknowledged.as_deref(), Some(self.set.type_version(kind)), "{kind}");
            assert_eq!((state.in_flight, state.doubtful), (false, 0));
        }
        let endpoints = &self.held[TypeUrl::ClusterLoadAssignment as usize];
        assert_eq!(self.warming.iter().filter(|name| endpoints.wants(name)).count(), 0, "{:?} warm for ever", self.warming);
        assert!(self.stream.doubts().is_empty());
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
        // And it is quiet then: nothing is sent without a cause.
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

    #[test]
    fn responses_are_bounded_by_their_causes(actions in prop::collection::vec(action(), 1..60)) {
        let mut world = World::new();
        let mut allowed = 0;
        for action in &actions {
            allowed += match action {
                // Each change of the set: the news, what was refused before, the removals that waited, and what parents owe.
                Action::Set(_) => TYPES * 4,
                Action::Lists { .. } => 2,
                Action::Reconnect | Action::Restart => TYPES * 4,
                // An ACK only lets go what another cause owes.
                Action::Ack { .. } | Action::Nack { .. } => 0,
            };
            world.act(action);
            prop_assert!(world.responses <= allowed, "{} > {allowed}", world.responses);
        }
    }
}
