//! The discovery services by their names on the wire. Each method only opens a stream.

use std::sync::Arc;

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_server::{
    ClusterDiscoveryService, ClusterDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server::{
    EndpointDiscoveryService, EndpointDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_server::{
    ExtensionConfigDiscoveryService, ExtensionConfigDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_server::{
    ListenerDiscoveryService, ListenerDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_server::{RouteDiscoveryService, RouteDiscoveryServiceServer};
use envoy_types::pb::envoy::service::route::v3::scoped_routes_discovery_service_server::{
    ScopedRoutesDiscoveryService, ScopedRoutesDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer};
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::Services;
use super::{Ads, Responses};
use crate::xds::resource::TypeUrl;
use crate::xds::stream::{Delta, StateOfTheWorld};

/// All of them.
pub(super) fn of(ads: Arc<Ads>) -> Services {
    let size = ads.limits.request_bytes;
    macro_rules! add {
        ($($server:ident),*) => {
            Services::default()$(.with($server::from_arc(Arc::clone(&ads)).max_decoding_message_size(size)))*
        };
    }
    add!(
        AggregatedDiscoveryServiceServer,
        ClusterDiscoveryServiceServer,
        EndpointDiscoveryServiceServer,
        ListenerDiscoveryServiceServer,
        ScopedRoutesDiscoveryServiceServer,
        RouteDiscoveryServiceServer,
        SecretDiscoveryServiceServer,
        ExtensionConfigDiscoveryServiceServer
    )
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<StateOfTheWorld>;
    type DeltaAggregatedResourcesStream = Responses<Delta>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses<StateOfTheWorld>>, Status> {
        self.open::<StateOfTheWorld>(None, request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses<Delta>>, Status> {
        self.open::<Delta>(None, request)
    }
}

macro_rules! service_of_one_type {
    ($kind:ident: $service:ident, $stream:ident $Stream:ident, $delta:ident $Delta:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl $service for Ads {
            type $Stream = Responses<StateOfTheWorld>;
            type $Delta = Responses<Delta>;

            async fn $stream(&self, request: Request<Streaming<DiscoveryRequest>>) -> Result<Response<Responses<StateOfTheWorld>>, Status> {
                self.open::<StateOfTheWorld>(Some(TypeUrl::$kind), request)
            }

            async fn $delta(&self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Result<Response<Responses<Delta>>, Status> {
                self.open::<Delta>(Some(TypeUrl::$kind), request)
            }

            async fn $fetch(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
                Err(Status::unimplemented("kubepass serves streams: set api_type to GRPC or DELTA_GRPC, or to their aggregated forms"))
            }
        }
    };
}

service_of_one_type!(Cluster: ClusterDiscoveryService,
    stream_clusters StreamClustersStream, delta_clusters DeltaClustersStream, fetch_clusters);
service_of_one_type!(ClusterLoadAssignment: EndpointDiscoveryService,
    stream_endpoints StreamEndpointsStream, delta_endpoints DeltaEndpointsStream, fetch_endpoints);
service_of_one_type!(Listener: ListenerDiscoveryService,
    stream_listeners StreamListenersStream, delta_listeners DeltaListenersStream, fetch_listeners);
service_of_one_type!(ScopedRouteConfiguration: ScopedRoutesDiscoveryService,
    stream_scoped_routes StreamScopedRoutesStream, delta_scoped_routes DeltaScopedRoutesStream, fetch_scoped_routes);
service_of_one_type!(RouteConfiguration: RouteDiscoveryService,
    stream_routes StreamRoutesStream, delta_routes DeltaRoutesStream, fetch_routes);
service_of_one_type!(Secret: SecretDiscoveryService,
    stream_secrets StreamSecretsStream, delta_secrets DeltaSecretsStream, fetch_secrets);
service_of_one_type!(ExtensionConfig: ExtensionConfigDiscoveryService,
    stream_extension_configs StreamExtensionConfigsStream, delta_extension_configs DeltaExtensionConfigsStream, fetch_extension_configs);
