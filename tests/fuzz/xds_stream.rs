//! An xDS stream under any requests. `run`: in both protocols; a line is a command (`set`, `ask`, `ack`, `nack`, `stale`, `reconnect`, as in the
//! scripts of `xds::stream`), or else the bytes of a request message. `delta` and `state_of_the_world`: messages of one protocol alone, each with its
//! length before it, while the resources change.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use kubepass::xds::resource::{Resource, ResourceSet, TypeUrl};
use kubepass::xds::stream::{Delta, Limits, Outgoing, Protocol, Push, StateOfTheWorld, Stream, StreamEvent};
use prost::Message;

const LIMITS: Limits = Limits { names_per_type: 64, name_cost: 16 << 10 };

pub fn run(data: &[u8]) {
    let (mut delta, mut whole) = (Driven::<Delta>::new(), Driven::<StateOfTheWorld>::new());
    let mut set = ResourceSet::default();
    for line in data.split(|byte| *byte == b'\n') {
        let words: Vec<&str> = std::str::from_utf8(line).map(|text| text.split(' ').collect()).unwrap_or_default();
        match words.as_slice() {
            ["set", resources @ ..] => {
                set = set_of(resources);
                delta.publish(&set);
                whole.publish(&set);
            }
            [verb @ ("ask" | "ack" | "nack" | "stale"), kind, names @ ..] => {
                delta.command(verb, kind, names, &set);
                whole.command(verb, kind, names, &set);
            }
            ["reconnect"] => {
                delta.reconnect();
                whole.reconnect();
            }
            _ => {
                if let Ok(request) = DeltaDiscoveryRequest::decode(line) {
                    delta.request(request, &set);
                }
                if let Ok(request) = DiscoveryRequest::decode(line) {
                    whole.request(request, &set);
                }
            }
        }
    }
}

/// What is in force one after the other.
const SETS: [&str; 4] =
    ["cds/a=1 cds/b=1 eds/a=1 lds/a=1 rds/a=1 srds/a=1 sds/a=1", "cds/a=2 eds/a=1 lds/a=1 rds/b=1 sds/a=2 sds/b=1", "", "cds/a=1 ecds/a=1"];

/// Messages of the incremental protocol.
pub fn delta(data: &[u8]) {
    messages::<Delta>(data);
}

/// Messages of the other.
pub fn state_of_the_world(data: &[u8]) {
    messages::<StateOfTheWorld>(data);
}

fn messages<P: Wire<Request: Message + Default>>(mut data: &[u8]) {
    let mut driven = Driven::<P>::new();
    let sets = SETS.map(|words| set_of(&words.split(' ').collect::<Vec<_>>()));
    for set in sets.iter().cycle() {
        driven.publish(set);
        // Several between two changes.
        for _ in 0..3 {
            let Ok(request) = P::Request::decode_length_delimited(&mut data) else { return };
            driven.request(request, set);
        }
    }
}

fn set_of(words: &[&str]) -> ResourceSet {
    let mut builder = ResourceSet::builder();
    for word in words {
        let Some((kind, (name, version))) = word.split_once('/').and_then(|(kind, rest)| Some((kind_of(kind)?, rest.split_once('=')?)))
        else {
            continue;
        };
        // What xDS cannot carry is refused here, before any stream sees it.
        let _ = builder.insert(kind, Resource { name: name.into(), version: version.into(), body: Bytes::from(name.to_owned()).into() });
    }
    builder.build()
}

fn kind_of(short: &str) -> Option<TypeUrl> {
    TypeUrl::ALL.into_iter().find(|kind| kind.short_name() == short)
}

/// A stream and what was seen of it.
struct Driven<P> {
    stream: Stream<P>,
    nonces: BTreeMap<TypeUrl, String>,
    in_flight: BTreeSet<TypeUrl>,
    names: BTreeMap<TypeUrl, BTreeSet<String>>,
    ended: bool,
}

trait Wire: Protocol + Sized {
    type Response: Message + Default;

    fn request(kind: TypeUrl, changes: &[&str], names: &BTreeSet<String>, nonce: String, refusal: Option<Status>) -> Self::Request;
    fn kind_and_nonce(request: &Self::Request) -> (Option<TypeUrl>, &str);
    fn seen(response: &Self::Response) -> Seen;
}

struct Seen {
    type_url: String,
    nonce: String,
    names: Vec<String>,
    removed: Vec<String>,
}

impl<P: Wire> Driven<P> {
    fn new() -> Self {
        Self { stream: Stream::new(LIMITS), nonces: BTreeMap::new(), in_flight: BTreeSet::new(), names: BTreeMap::new(), ended: false }
    }

    fn publish(&mut self, set: &ResourceSet) {
        if !self.ended {
            let responses = self.stream.on_snapshot(set);
            self.see(responses, set);
            assert!(self.stream.on_snapshot(set).is_empty(), "the same set again is no news");
        }
    }

    fn command(&mut self, verb: &str, kind: &str, words: &[&str], set: &ResourceSet) {
        let Some(kind) = kind_of(kind) else { return };
        let names = self.names.entry(kind).or_default();
        for word in words {
            match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => drop(names.insert(name.to_owned())),
                (_, Some(name)) => drop(names.remove(name)),
                _ => {}
            }
        }
        let nonce = match verb {
            "ack" | "nack" => self.nonces.get(&kind).cloned().unwrap_or_default(),
            "stale" => "0".to_owned(),
            _ => String::new(),
        };
        let refusal = (verb == "nack").then(|| Status { message: words.join(" "), ..Status::default() });
        let request = P::request(kind, words, names, nonce, refusal);
        self.request(request, set);
    }

    fn request(&mut self, request: P::Request, set: &ResourceSet) {
        if self.ended {
            return;
        }
        if let (Some(kind), nonce) = P::kind_and_nonce(&request)
            && self.nonces.get(&kind).is_some_and(|last| last == nonce)
        {
            self.in_flight.remove(&kind);
        }
        match self.stream.on_request(request, set) {
            Ok(responses) => self.see(responses, set),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                self.ended = true;
            }
        }
        for event in self.stream.take_events() {
            if let StreamEvent::Nacked { message, .. } | StreamEvent::UnknownType { type_url: message } = event {
                assert!(!message.contains(char::is_control) && message.chars().count() <= 1024 + 3, "{message:?} is no text for a log");
            }
        }
    }

    fn see(&mut self, responses: Vec<Push>, set: &ResourceSet) {
        for response in responses {
            let mut message = Vec::new();
            Outgoing::<P>::new(response).write(&mut message, usize::MAX);
            let seen = P::seen(&P::Response::decode(&*message).expect("a response"));
            let kind = TypeUrl::from_wire(&seen.type_url).expect("a type of ours");
            assert!(self.stream.state(kind).requested, "nobody asked for {kind}");
            assert!(self.in_flight.insert(kind), "two responses in flight for {kind}");
            assert!(seen.removed.iter().all(|name| set.get(kind, name).is_none() && !seen.names.contains(name)), "{kind}");
            let distinct: BTreeSet<&String> = seen.names.iter().collect();
            assert_eq!(distinct.len(), seen.names.len(), "a name stands twice");
            let last = self.nonces.insert(kind, seen.nonce.clone());
            assert!(!seen.nonce.is_empty() && last.as_ref() != Some(&seen.nonce));
        }
        let machine = self.stream.machine();
        assert!(machine.name_cost() <= LIMITS.name_cost, "a stream keeps {} bytes of names", machine.name_cost());
    }

    fn reconnect(&mut self) {
        let doubts = self.stream.doubts();
        *self = Self::new();
        self.stream.remember(doubts);
    }
}

impl Wire for Delta {
    type Response = DeltaDiscoveryResponse;

    fn request(
        kind: TypeUrl,
        changes: &[&str],
        _: &BTreeSet<String>,
        response_nonce: String,
        error_detail: Option<Status>,
    ) -> DeltaDiscoveryRequest {
        let with = |sign: char| changes.iter().filter_map(|word| word.strip_prefix(sign)).map(str::to_owned).collect();
        let held = changes.iter().filter_map(|word| word.strip_prefix("have:")?.split_once('='));
        DeltaDiscoveryRequest {
            type_url: kind.as_str().to_owned(),
            resource_names_subscribe: with('+'),
            resource_names_unsubscribe: with('-'),
            initial_resource_versions: held.map(|(name, version)| (name.to_owned(), version.to_owned())).collect(),
            response_nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn kind_and_nonce(request: &DeltaDiscoveryRequest) -> (Option<TypeUrl>, &str) {
        (TypeUrl::from_wire(&request.type_url), &request.response_nonce)
    }

    fn seen(response: &DeltaDiscoveryResponse) -> Seen {
        Seen {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            names: response.resources.iter().map(|resource| resource.name.clone()).collect(),
            removed: response.removed_resources.clone(),
        }
    }
}

impl Wire for StateOfTheWorld {
    type Response = DiscoveryResponse;

    fn request(
        kind: TypeUrl,
        _: &[&str],
        names: &BTreeSet<String>,
        response_nonce: String,
        error_detail: Option<Status>,
    ) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: kind.as_str().to_owned(),
            resource_names: names.iter().cloned().collect(),
            response_nonce,
            error_detail,
            ..DiscoveryRequest::default()
        }
    }

    fn kind_and_nonce(request: &DiscoveryRequest) -> (Option<TypeUrl>, &str) {
        (TypeUrl::from_wire(&request.type_url), &request.response_nonce)
    }

    fn seen(response: &DiscoveryResponse) -> Seen {
        let name = |body: &Vec<u8>| String::from_utf8(body.clone()).expect("the bodies are names");
        Seen {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            names: response.resources.iter().map(|any| name(&any.value)).collect(),
            removed: Vec::new(),
        }
    }
}
