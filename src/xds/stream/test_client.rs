//! A script of what a client does, line by line, with the responses that it must get.
//!
//! `COMMAND -> RESPONSES`, responses joined by ` | `, none if nothing follows. A response is `TYPE +NAME=VERSION... -REMOVED...`.
//! Commands: `set TYPE/NAME=VERSION...` (the whole new set), `ask TYPE [+NAME|-NAME|have:NAME=VERSION]...` (a request without nonce),
//! `ack TYPE [+NAME|-NAME]...`, `nack TYPE`, `stale TYPE [+NAME|-NAME]...` (a request with a nonce that is not in flight),
//! `reconnect` (a new stream of the same client).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::super::resource::{Resource, ResourceSet, TypeUrl};
use super::{Delta, Limits, Outgoing, Protocol, Push, StateOfTheWorld, Stream};

pub(super) fn kind(short: &str) -> TypeUrl {
    TypeUrl::ALL.into_iter().find(|kind| kind.short_name() == short).unwrap_or_else(|| panic!("no type {short}"))
}

pub(super) fn set_of<'a>(resources: impl IntoIterator<Item = (TypeUrl, &'a str, &'a str)>) -> ResourceSet {
    let mut builder = ResourceSet::builder();
    for (kind, name, version) in resources {
        let body = Bytes::from(format!("{name}={version}")).into();
        builder.insert(kind, Resource { name: name.into(), version: version.into(), body }).unwrap();
    }
    builder.build()
}

/// The same set, made from the one before it.
pub(super) fn after(before: &ResourceSet, set: &ResourceSet) -> ResourceSet {
    let mut builder = before.edit();
    for kind in TypeUrl::ALL {
        let is_in = |one: &ResourceSet, resource: &Resource| one.get(kind, &resource.name).is_some_and(|other| **other == *resource);
        before.resources(kind).filter(|old| !is_in(set, old)).for_each(|old| builder.remove(kind, &old.name));
        set.resources(kind).filter(|new| !is_in(before, new)).for_each(|new| builder.insert(kind, Arc::clone(new)).unwrap());
    }
    builder.build()
}

pub(super) fn parse_set(words: &str) -> ResourceSet {
    set_of(words.split_whitespace().map(|word| {
        let (short, rest) = word.split_once('/').unwrap();
        let (name, version) = rest.split_once('=').unwrap();
        (kind(short), name, version)
    }))
}

/// What the client makes of what it is sent.
pub(super) fn received<P: Wire>(pushes: Vec<Push>) -> Vec<P::Response> {
    let read = |push| {
        let mut message = Vec::new();
        Outgoing::<P>::new(push).write(&mut message, usize::MAX);
        P::Response::decode(&*message).unwrap()
    };
    pushes.into_iter().map(read).collect()
}

/// How a protocol puts what the script says.
pub(super) trait Wire: Protocol + Sized {
    type Response: Message + Default;

    /// `names` are those that the client wants by now.
    fn request(kind: TypeUrl, words: &Words, names: &BTreeSet<String>, nonce: String, refusal: Option<Status>) -> Self::Request;
    fn kind_and_nonce(response: &Self::Response) -> (TypeUrl, String);
    fn shown(response: &Self::Response) -> String;
}

#[derive(Default)]
pub(super) struct Words {
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    have: Vec<(String, String)>,
}

pub(super) struct Script<P: Protocol> {
    pub(super) stream: Stream<P>,
    pub(super) set: ResourceSet,
    only: Option<TypeUrl>,
    nonces: BTreeMap<TypeUrl, String>,
    names: BTreeMap<TypeUrl, BTreeSet<String>>,
}

impl Script<Delta> {
    pub(super) fn new() -> Self {
        Self::serving(None)
    }
}

impl<P: Wire> Script<P> {
    pub(super) fn serving(only: Option<TypeUrl>) -> Self {
        Self {
            stream: Stream::serving(only, Limits::default()),
            set: ResourceSet::default(),
            only,
            nonces: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    pub(super) fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, expected) = line.split_once("->").unwrap_or_else(|| panic!("no arrow: {line}"));
            let got = self.step(command.trim());
            assert_eq!(got, expected.trim(), "at `{line}` of\n{script}");
        }
    }

    fn step(&mut self, command: &str) -> String {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let responses = match verb {
            "set" => {
                self.set = after(&self.set, &parse_set(rest));
                received::<P>(self.stream.on_snapshot(&self.set))
            }
            "reconnect" => {
                let doubts = self.stream.doubts();
                self.stream = Stream::serving(self.only, Limits::default());
                self.stream.remember(doubts);
                self.names.clear();
                Vec::new()
            }
            _ => self.request(verb, rest),
        };
        self.nonces.extend(responses.iter().map(P::kind_and_nonce));
        responses.iter().map(P::shown).collect::<Vec<_>>().join(" | ")
    }

    fn request(&mut self, verb: &str, rest: &str) -> Vec<P::Response> {
        let mut rest = rest.split_whitespace();
        let kind = kind(rest.next().unwrap());
        let names = self.names.entry(kind).or_default();
        let mut words = Words::default();
        for word in rest {
            if let Some(name) = word.strip_prefix('+') {
                names.insert(name.into());
                words.subscribe.push(name.into());
            } else if let Some(name) = word.strip_prefix('-') {
                names.remove(name);
                words.unsubscribe.push(name.into());
            } else {
                let (name, version) = word.strip_prefix("have:").and_then(|held| held.split_once('=')).unwrap();
                words.have.push((name.into(), version.into()));
            }
        }
        let nonce = match verb {
            "ask" => String::new(),
            "stale" => "0".into(),
            "ack" | "nack" => self.nonces.get(&kind).cloned().unwrap(),
            _ => panic!("no command {verb}"),
        };
        let refusal = (verb == "nack").then(|| Status { message: "refused".into(), ..Status::default() });
        let request = P::request(kind, &words, names, nonce, refusal);
        received::<P>(self.stream.on_request(request, &self.set).unwrap())
    }
}

impl Wire for Delta {
    type Response = DeltaDiscoveryResponse;

    fn request(
        kind: TypeUrl,
        words: &Words,
        _: &BTreeSet<String>,
        response_nonce: String,
        error_detail: Option<Status>,
    ) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: kind.as_str().into(),
            resource_names_subscribe: words.subscribe.clone(),
            resource_names_unsubscribe: words.unsubscribe.clone(),
            initial_resource_versions: words.have.iter().cloned().collect(),
            response_nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn kind_and_nonce(response: &DeltaDiscoveryResponse) -> (TypeUrl, String) {
        (TypeUrl::from_wire(&response.type_url).unwrap(), response.nonce.clone())
    }

    fn shown(response: &DeltaDiscoveryResponse) -> String {
        shown(response)
    }
}

impl Wire for StateOfTheWorld {
    type Response = DiscoveryResponse;

    fn request(
        kind: TypeUrl,
        words: &Words,
        names: &BTreeSet<String>,
        response_nonce: String,
        error_detail: Option<Status>,
    ) -> DiscoveryRequest {
        assert!(words.have.is_empty(), "this protocol lists no versions");
        DiscoveryRequest {
            type_url: kind.as_str().into(),
            resource_names: names.iter().cloned().collect(),
            response_nonce,
            error_detail,
            ..DiscoveryRequest::default()
        }
    }

    fn kind_and_nonce(response: &DiscoveryResponse) -> (TypeUrl, String) {
        (TypeUrl::from_wire(&response.type_url).unwrap(), response.nonce.clone())
    }

    fn shown(response: &DiscoveryResponse) -> String {
        let kind = TypeUrl::from_wire(&response.type_url).unwrap();
        let mut words = vec![kind.short_name().to_owned()];
        for any in &response.resources {
            assert_eq!(any.type_url, response.type_url);
            words.push(format!("+{}", std::str::from_utf8(&any.value).unwrap()));
        }
        assert!(!response.nonce.is_empty() && !response.version_info.is_empty());
        words.join(" ")
    }
}

pub(super) fn check(script: &str) {
    Script::new().run(script);
}

/// The same in the state-of-the-world protocol: `+` and `-` change the names that each request holds in full, and responses show no removals.
pub(super) fn check_whole(script: &str) {
    Script::<StateOfTheWorld>::serving(None).run(script);
}

pub(super) fn shown(response: &DeltaDiscoveryResponse) -> String {
    let kind = TypeUrl::from_wire(&response.type_url).unwrap();
    let mut words = vec![kind.short_name().to_owned()];
    for resource in &response.resources {
        let any = resource.resource.as_ref().unwrap();
        assert_eq!(any.type_url, response.type_url);
        assert_eq!(any.value, format!("{}={}", resource.name, resource.version).into_bytes());
        words.push(format!("+{}={}", resource.name, resource.version));
    }
    words.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
    assert!(!response.nonce.is_empty());
    words.join(" ")
}
