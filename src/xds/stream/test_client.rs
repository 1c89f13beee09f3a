//! A script of what a client does, line by line, with the responses that it must get.
//!
//! `COMMAND -> RESPONSES`, responses joined by ` | `, none if nothing follows. A response is `TYPE +NAME=VERSION... -REMOVED...`.
//! Commands: `set TYPE/NAME=VERSION...` (the whole new set), `ask TYPE [+NAME|-NAME|have:NAME=VERSION]...` (a request without nonce),
//! `ack TYPE [+NAME|-NAME]...`, `nack TYPE`, `stale TYPE [+NAME|-NAME]...` (a request with a nonce that is not in flight),
//! `reconnect` (a new stream of the same client).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;

use super::super::resource::{Resource, ResourceSet, TypeUrl};
use super::{DeltaStream, Limits};

pub(super) fn kind(short: &str) -> TypeUrl {
    TypeUrl::ALL.into_iter().find(|kind| kind.short_name() == short).unwrap_or_else(|| panic!("no type {short}"))
}

pub(super) fn set_of<'a>(resources: impl IntoIterator<Item = (TypeUrl, &'a str, &'a str)>) -> ResourceSet {
    let mut builder = ResourceSet::builder();
    for (kind, name, version) in resources {
        let body = Bytes::from(format!("{name}={version}"));
        builder.insert(kind, Resource { name: name.into(), version: version.into(), body }).unwrap();
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

pub(super) struct Script {
    pub(super) stream: DeltaStream,
    pub(super) set: ResourceSet,
    nonces: BTreeMap<TypeUrl, String>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { stream: DeltaStream::new(Limits::default()), set: ResourceSet::default(), nonces: BTreeMap::new() }
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
                self.set = parse_set(rest);
                self.stream.on_snapshot(&self.set)
            }
            "reconnect" => {
                let doubts = self.stream.doubts();
                self.stream = DeltaStream::new(Limits::default());
                self.stream.remember(doubts);
                Vec::new()
            }
            _ => self.request(verb, rest),
        };
        for response in &responses {
            self.nonces.insert(TypeUrl::from_wire(&response.type_url).unwrap(), response.nonce.clone());
        }
        responses.iter().map(shown).collect::<Vec<_>>().join(" | ")
    }

    fn request(&mut self, verb: &str, rest: &str) -> Vec<DeltaDiscoveryResponse> {
        let mut words = rest.split_whitespace();
        let kind = kind(words.next().unwrap());
        let mut request = DeltaDiscoveryRequest { type_url: kind.as_str().into(), ..DeltaDiscoveryRequest::default() };
        for word in words {
            if let Some(name) = word.strip_prefix('+') {
                request.resource_names_subscribe.push(name.into());
            } else if let Some(name) = word.strip_prefix('-') {
                request.resource_names_unsubscribe.push(name.into());
            } else {
                let (name, version) = word.strip_prefix("have:").and_then(|held| held.split_once('=')).unwrap();
                request.initial_resource_versions.insert(name.into(), version.into());
            }
        }
        match verb {
            "ask" => {}
            "stale" => request.response_nonce = "0".into(),
            "ack" | "nack" => request.response_nonce = self.nonces.get(&kind).cloned().unwrap(),
            _ => panic!("no command {verb}"),
        }
        request.error_detail = (verb == "nack").then(|| Status { message: "refused".into(), ..Status::default() });
        self.stream.on_request(request, &self.set).unwrap()
    }
}

pub(super) fn check(script: &str) {
    Script::new().run(script);
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
