//! The delta protocol's messages. Decides nothing.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource};
use envoy_types::pb::google::protobuf::Any;

use super::super::resource::{Resource, TypeUrl};
use super::protocol::{Ask, Dialect, Names, Protocol, Push};

/// The incremental protocol.
#[derive(Debug)]
pub struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
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

    fn response(push: Push) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: push.version,
            resources: push.resources.iter().map(|resource| on_the_wire(push.kind, resource)).collect(),
            type_url: push.kind.as_str().to_owned(),
            removed_resources: push.removed.iter().map(|name| name.to_string()).collect(),
            nonce: push.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

fn on_the_wire(kind: TypeUrl, resource: &Resource) -> WireResource {
    WireResource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(Any { type_url: kind.as_str().to_owned(), value: resource.body.to_vec() }),
        ..WireResource::default()
    }
}
