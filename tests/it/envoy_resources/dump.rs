//! `xds dump`: what it prints is what is sent, but for the secrets, of every example; Envoy takes it back.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use kubepass::server::admin::GivenResources;
use kubepass::server::admin::v1::{DumpResourcesRequest, DumpedResource};
use kubepass::server::ads::AdsState;
use kubepass::xds::dump::{Dumper, Shown, descriptors, document};
use kubepass::xds::resource::{Resource, ResourceSet, TypeUrl};
use kubepass::xds::resources::build_all;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};
use serde_json::Value as Json;
use tonic::Status;

use super::{examples, sets, static_bootstrap, validate};
use crate::fixture;

/// A new filter must be named in `tests/tools/go/descriptors/main.go`.
#[test]
fn every_type_that_is_sent_is_known() {
    let pool = descriptors().unwrap();
    let mut types = BTreeSet::new();
    for example in examples() {
        let text = std::fs::read_to_string(fixture::root().join("tests/it/golden/envoy").join(&example["config/".len()..])).unwrap();
        let named = |line: &str| line.split("@type: ").nth(1).map(|rest| rest.split([',', '}']).next().unwrap_or(rest).trim().to_owned());
        types.extend(text.lines().filter_map(named));
        for (node, set) in sets(&example) {
            let text = serde_json::to_string(&document(&shown(&set))).unwrap();
            assert!(!text.contains("google.protobuf.Struct\""), "{example} {node} has what has no descriptor");
        }
    }
    assert!(types.len() > 15, "{types:?}");
    let unknown: Vec<_> = types.iter().filter(|name| pool.get_message_by_name(name).is_none()).collect();
    assert!(unknown.is_empty(), "name these in tests/tools/go/descriptors/main.go, then run tests/tools/descriptors: {unknown:?}");
}

#[test]
fn what_is_printed_is_what_is_sent_but_for_secrets() {
    let pool = descriptors().unwrap();
    for example in examples() {
        for (node, set) in sets(&example) {
            let printed = serde_json::to_string(&document(&shown(&set))).unwrap();
            for secret in ["test-only-content", "PRIVATE KEY"].into_iter().chain(key_lines().iter().map(String::as_str)) {
                assert!(!printed.contains(secret), "{example} {node} shows a secret");
            }
            let read = read_back(&pool, &printed);
            for kind in TypeUrl::ALL {
                assert_eq!(read.len(kind), set.len(kind), "{example} {node} {kind}");
                for resource in set.resources(kind) {
                    let got = read.get(kind, &resource.name).unwrap();
                    if kind == TypeUrl::Secret {
                        let (sent, got) = (pattern(&pool, resource), pattern(&pool, got));
                        assert!(sent.iter().zip(&got).all(|(sent, got)| sent == got || got == "[redacted]"), "{got:?}");
                        assert_eq!((sent.len(), got.iter().filter(|text| *text == "[redacted]").count() <= 1), (got.len(), true));
                    } else {
                        let of = |resource: &Resource| plain(&pool, kind.as_str(), &resource.body.bytes());
                        assert_same(&of(resource), &of(got), &format!("{example} {node}: {kind} {}", resource.name));
                    }
                }
            }
        }
    }
}

#[test]
fn the_pinned_envoy_accepts_what_is_printed() {
    let pool = descriptors().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.pb");
    for (node, set) in sets("config/gateways.yaml") {
        let read = read_back(&pool, &document(&shown(&set)).to_string());
        let mut whole = read.edit();
        for secret in set.resources(TypeUrl::Secret) {
            whole.remove(TypeUrl::Secret, &secret.name);
            whole.insert(TypeUrl::Secret, Arc::clone(secret)).unwrap();
        }
        std::fs::write(&file, static_bootstrap::bootstrap(&whole.build())).unwrap();
        validate(&file, &format!("what is printed of {node}"));
    }
}

/// For people to read; of listeners, `tests/it/golden/envoy` shows what they hold.
#[tokio::test]
async fn the_document_is_the_golden_one_and_always_the_same() {
    let mut texts = Vec::new();
    for _ in 0..2 {
        let given = given("config/gateways.yaml");
        let mut shown = Vec::new();
        for kind in ["cds", "eds", "srds", "rds", "sds"] {
            shown.extend(asked(&given, "staging-sidecar", kind, "").await.unwrap());
        }
        texts.push(serde_json::to_string_pretty(&document(&shown)).unwrap() + "\n");
    }
    assert_eq!(texts[0], texts[1]);
    fixture::compare_golden("tests/it/golden/xds_dump/gateways.staging-sidecar.json", &texts[0]);
}

#[tokio::test]
async fn a_node_is_asked_for_by_its_name_and_shows_its_own() {
    let gateways = given("config/gateways.yaml");
    let check = async |node: &str, kind: &str, name: &str, expected: &[&str]| {
        let got = asked(&gateways, node, kind, name).await.unwrap();
        let names: Vec<&str> = got.iter().map(|shown| shown.name.split('@').next().unwrap()).collect();
        assert_eq!(names, expected, "{node} {kind} {name}");
    };
    check("edge-1", "cds", "", &["kubernetes:lab", "kubernetes:prod"]).await;
    check("edge-2/replica-1", "cds", "prod", &["kubernetes:prod"]).await;
    check("staging-sidecar", "sds", "token:", &["token:lab", "token:staging"]).await;
    check("staging-sidecar", "cds", "prod", &[]).await;
    check("edge-1", "ecds", "", &[]).await;
    let refused = async |given: &GivenResources, node: &str, kind: &str, part: &str| {
        let said = asked(given, node, kind, "").await.unwrap_err().message().to_owned();
        assert!(said.contains(part), "{node} {kind}: {said}");
    };
    refused(&gateways, "edge-9", "", "there is no node \"edge-9\"; there are: edge-1, edge-2, staging-sidecar").await;
    refused(&gateways, "", "", "which node? There are: edge-1, edge-2, staging-sidecar").await;
    refused(&gateways, "edge-1", "vhds", "there is no type \"vhds\"; there are: cds,").await;
    let same = given("config/kubepass.yaml");
    assert!(!asked(&same, "", "lds", "").await.unwrap().is_empty());
    refused(&same, "edge-1", "", "no Envoy is connected as \"edge-1\"").await;
}

fn given(example: &str) -> GivenResources {
    let resources = Arc::new(build_all(&fixture::snapshot_of(example)).unwrap());
    GivenResources::new(Arc::new(move || Arc::clone(&resources)), AdsState::default())
}

async fn asked(given: &GivenResources, node: &str, kind: &str, name: &str) -> Result<Vec<Shown>, Status> {
    let request = DumpResourcesRequest { node: node.into(), r#type: kind.into(), name: name.into() };
    let read = |DumpedResource { type_url, name, version, json }| Shown {
        kind: TypeUrl::from_wire(&type_url).unwrap(),
        name,
        version,
        message: serde_json::from_str(&json).unwrap(),
    };
    given.shown(&request)?.map_ok(read).boxed().try_collect().await
}

fn shown(set: &ResourceSet) -> Vec<Shown> {
    let dumper = Dumper::new().unwrap();
    let of = |kind: TypeUrl| set.resources(kind).map(move |resource| (kind, resource));
    TypeUrl::ALL.into_iter().flat_map(of).map(|(kind, resource)| dumper.show(kind, resource).unwrap()).collect()
}

/// Whoever knows Envoy's types can read the document: first its form, then each message in it.
fn read_back(pool: &DescriptorPool, printed: &str) -> ResourceSet {
    let document: Json = serde_json::from_str(printed).unwrap();
    let form = pool.get_message_by_name("envoy.admin.v3.ConfigDump").unwrap();
    DynamicMessage::deserialize(form, &document).unwrap();
    let mut set = ResourceSet::builder();
    for entry in document["configs"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|config| config.as_object().unwrap().values())
        .filter_map(Json::as_array)
        .flatten()
    {
        let state = entry.get("active_state").unwrap_or(entry);
        let mut messages = state.as_object().unwrap().values().map(|value| value.get(0).unwrap_or(value));
        let mut message = messages.find(|value| value.get("@type").is_some()).unwrap().clone();
        let type_url = message.as_object_mut().unwrap().remove("@type").unwrap();
        let kind = TypeUrl::from_wire(type_url.as_str().unwrap()).unwrap();
        let name = ["name", "cluster_name"].iter().find_map(|key| message.get(key)).unwrap().as_str().unwrap().to_owned();
        let descriptor = pool.get_message_by_name(kind.as_str().rsplit('/').next().unwrap()).unwrap();
        let body = DynamicMessage::deserialize(descriptor, &message).unwrap().encode_to_vec();
        let version = state["version_info"].as_str().unwrap().into();
        set.insert(kind, Resource { name: name.into(), version, body: body.into() }).unwrap();
    }
    set.build()
}

#[track_caller]
fn assert_same(sent: &[u8], got: &[u8], what: &str) {
    let differs = sent.iter().zip(got).position(|(sent, got)| sent != got).unwrap_or(sent.len().min(got.len()));
    let near = |bytes: &[u8]| bytes[differs.saturating_sub(60)..bytes.len().min(differs + 60)].escape_ascii().to_string();
    assert!(sent == got, "{what} is not what is sent, from byte {differs} on:\n{}\n{}", near(sent), near(got));
}

/// The bytes of a message, but for what is hidden, with those of all that is packed in it in the order of their fields, unknown ones included.
fn plain(pool: &DescriptorPool, type_url: &str, body: &[u8]) -> Vec<u8> {
    let mut message = DynamicMessage::decode(pool.get_message_by_name(type_url.rsplit('/').next().unwrap()).unwrap(), body).unwrap();
    unpack(pool, &mut message);
    message.encode_to_vec()
}

fn unpack(pool: &DescriptorPool, message: &mut DynamicMessage) {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let type_url = message.get_field_by_name("type_url").unwrap().as_str().unwrap().to_owned();
        let body = message.get_field_by_name("value").unwrap().as_bytes().unwrap().clone();
        message.set_field_by_name("value", Value::Bytes(plain(pool, &type_url, &body).into()));
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => unpack(pool, inner),
            Value::List(values) => values.iter_mut().filter_map(Value::as_message_mut).for_each(|inner| unpack(pool, inner)),
            Value::Map(values) => values.values_mut().for_each(|value| match value {
                Value::Message(inner) => unpack(pool, inner),
                // The one map of texts: Envoy calls what is told to an ext_authz server sensitive.
                value => *value = Value::String("[redacted]".to_owned()),
            }),
            _ => {}
        }
    }
}

/// All texts of a secret.
fn pattern(pool: &DescriptorPool, secret: &Resource) -> Vec<String> {
    fn texts(message: &DynamicMessage, into: &mut Vec<String>) {
        for (_, value) in message.fields() {
            match value {
                Value::Message(inner) => texts(inner, into),
                Value::String(text) => into.push(text.clone()),
                other => panic!("a secret with {other:?}"),
            }
        }
    }
    let descriptor = pool.get_message_by_name("envoy.extensions.transport_sockets.tls.v3.Secret").unwrap();
    let mut into = Vec::new();
    texts(&DynamicMessage::decode(descriptor, secret.body.bytes()).unwrap(), &mut into);
    into
}

/// Of the private keys that the examples get.
fn key_lines() -> Vec<String> {
    let text = String::from_utf8(fixture::fixed("tls.key")).unwrap();
    text.lines().filter(|line| !line.starts_with("---")).map(str::to_owned).collect()
}
