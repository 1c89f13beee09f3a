//! The gRPC shell of `xds::stream`: moves messages between an Envoy and its state machine, and keeps what the state page and readiness ask
//! for. It decides nothing about what an Envoy gets, and builds no resources.

mod state;
mod stream_task;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::xds::resource::ResourceSet;
use crate::xds::stream::Limits;

pub use state::{AdsState, StreamView, TypeCounts, TypeView};

/// Responses that may wait for an Envoy to read. A stream has at most one in flight for each of its five types, so this never fills.
const OUTBOUND: usize = 16;

/// What one kubepass gives to Envoys.
#[derive(Debug, Clone, Copy)]
pub struct AdsLimits {
    /// Streams at one time.
    pub streams: usize,
    /// Bytes of one request: a reconnecting Envoy lists all that it holds.
    pub request_bytes: usize,
    pub stream: Limits,
}

impl Default for AdsLimits {
    fn default() -> Self {
        Self { streams: 64, request_bytes: 8 << 20, stream: Limits::default() }
    }
}

/// The aggregated discovery service.
#[derive(Debug)]
pub struct Ads {
    resources: watch::Receiver<Arc<ResourceSet>>,
    state: AdsState,
    limits: AdsLimits,
    streams: Arc<Semaphore>,
    draining: CancellationToken,
}

impl Ads {
    /// Serves what `resources` holds. When `draining` is cancelled, or the sender of `resources` is gone, streams end with `Unavailable`;
    /// an Envoy keeps what it has and connects again.
    pub fn service(
        resources: watch::Receiver<Arc<ResourceSet>>,
        state: AdsState,
        limits: AdsLimits,
        draining: CancellationToken,
    ) -> AggregatedDiscoveryServiceServer<Self> {
        let ads = Self { resources, state, limits, streams: Arc::new(Semaphore::new(limits.streams)), draining };
        AggregatedDiscoveryServiceServer::new(ads).max_decoding_message_size(limits.request_bytes)
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("kubepass serves the delta protocol only: set api_type to DELTA_GRPC in the bootstrap's ads_config"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            tracing::warn!(limit = self.limits.streams, "an ADS stream was refused: too many are open");
            return Err(Status::resource_exhausted(format!("{} ADS streams are open already", self.limits.streams)));
        };
        let (outbound, responses) = mpsc::channel(OUTBOUND);
        let task = stream_task::StreamTask::new(self.resources.clone(), self.state.clone(), self.limits.stream, outbound);
        let draining = self.draining.clone();
        tokio::spawn(async move {
            task.run(request.into_inner(), draining).await;
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
