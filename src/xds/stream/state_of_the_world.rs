//! The state-of-the-world protocol's messages. Decides nothing.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use prost::Message;

use super::super::resource::{Resource, TypeUrl};
use super::protocol::{Ask, Dialect, Names, Protocol, Push};
use super::wire::{length_of_any, put_any};

/// The protocol in which each response about clusters or listeners is complete.
#[derive(Debug)]
pub struct StateOfTheWorld;

impl Protocol for StateOfTheWorld {
    type Request = DiscoveryRequest;
    const DIALECT: Dialect = Dialect::StateOfTheWorld;

    fn take_node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }

    /// The request's `version_info` is not looked at: only an error tells a refusal, and a client that connects again is sent all anew.
    fn ask(request: DiscoveryRequest) -> Ask {
        Ask {
            type_url: request.type_url,
            nonce: request.response_nonce,
            refusal: request.error_detail.map(|status| status.message),
            names: Names::All(request.resource_names),
            listed: HashMap::new(),
        }
    }

    fn head(push: &Push) -> Vec<u8> {
        let head = DiscoveryResponse {
            version_info: push.version.clone(),
            type_url: push.kind.as_str().to_owned(),
            nonce: push.nonce.clone(),
            ..DiscoveryResponse::default()
        };
        head.encode_to_vec()
    }

    fn length_of(kind: TypeUrl, resource: &Resource) -> usize {
        length_of_any(kind, resource)
    }

    fn put(kind: TypeUrl, resource: &Resource, to: &mut Vec<u8>) {
        put_any(kind, resource, to);
    }
}
