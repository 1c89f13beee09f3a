//! The state-of-the-world protocol's messages. Decides nothing.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;

use super::protocol::{Ask, Dialect, Names, Protocol, Push};

/// The protocol in which each response about clusters or listeners is complete.
#[derive(Debug)]
pub struct StateOfTheWorld;

impl Protocol for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
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

    fn response(push: Push) -> DiscoveryResponse {
        let type_url = push.kind.as_str();
        let any = |body: &[u8]| Any { type_url: type_url.to_owned(), value: body.to_vec() };
        DiscoveryResponse {
            version_info: push.version,
            resources: push.resources.iter().map(|resource| any(&resource.body)).collect(),
            type_url: type_url.to_owned(),
            nonce: push.nonce,
            ..DiscoveryResponse::default()
        }
    }
}
