//! The delta protocol's messages. Decides nothing.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;

use super::super::resource::{Resource, TypeUrl};
use super::protocol::{Ask, Dialect, Names, Protocol, Push};
use super::wire::{begin, length_of, length_of_any, put, put_any};

// Fields of `envoy.service.discovery.v3.Resource`.
const VERSION: u32 = 1;
const RESOURCE: u32 = 2;
const NAME: u32 = 3;

/// The incremental protocol.
#[derive(Debug)]
pub struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    const DIALECT: Dialect = Dialect::Delta;

    fn take_node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    fn ask(request: DeltaDiscoveryRequest) -> Ask {
        Ask {
            type_url: request.type_url,
            nonce: request.response_nonce,
            refusal: request.error_detail.map(|status| status.message),
            names: Names::Changes { subscribe: request.resource_names_subscribe, unsubscribe: request.resource_names_unsubscribe },
            listed: request.initial_resource_versions,
        }
    }

    fn head(push: &Push) -> Vec<u8> {
        let head = DeltaDiscoveryResponse {
            system_version_info: push.version.clone(),
            type_url: push.kind.as_str().to_owned(),
            removed_resources: push.removed.iter().map(|name| name.to_string()).collect(),
            nonce: push.nonce.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        head.encode_to_vec()
    }

    fn length_of(kind: TypeUrl, resource: &Resource) -> usize {
        length_of(VERSION, resource.version.len())
            + length_of(RESOURCE, length_of_any(kind, resource))
            + length_of(NAME, resource.name.len())
    }

    fn put(kind: TypeUrl, resource: &Resource, to: &mut Vec<u8>) {
        put(VERSION, resource.version.as_bytes(), to);
        begin(RESOURCE, length_of_any(kind, resource), to);
        put_any(kind, resource, to);
        put(NAME, resource.name.as_bytes(), to);
    }
}
