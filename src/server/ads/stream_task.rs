//! One connected Envoy, from its first message to its last.

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::state::AdsState;
use crate::xds::resource::ResourceSet;
use crate::xds::stream::{DeltaStream, Limits, StreamError, StreamEvent};

/// Longest part of a node's claims about itself that is kept, in characters.
const MAX_CLAIM: usize = 256;

pub(super) struct StreamTask {
    id: u64,
    node: String,
    stream: DeltaStream,
    resources: watch::Receiver<Arc<ResourceSet>>,
    state: AdsState,
    outbound: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

/// Why a stream ends that the Envoy did not end.
enum End {
    /// The Envoy is gone.
    Quiet,
    Told(Status),
}

impl StreamTask {
    pub(super) fn new(
        resources: watch::Receiver<Arc<ResourceSet>>,
        state: AdsState,
        limits: Limits,
        outbound: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Self {
        Self { id: state.opened(), node: String::new(), stream: DeltaStream::new(limits), resources, state, outbound }
    }

    pub(super) async fn run(mut self, inbound: Streaming<DeltaDiscoveryRequest>, draining: CancellationToken) {
        tracing::debug!(xds.stream = self.id, "an ADS stream opened");
        let end = tokio::select! {
            end = self.serve(inbound) => end,
            () = draining.cancelled() => End::Told(Status::unavailable("kubepass is shutting down")),
        };
        if let End::Told(status) = end {
            tracing::info!(xds.stream = self.id, xds.node = %self.node, %status, "an ADS stream is ended");
            // Full or closed: the Envoy sees the stream end without the reason.
            let _ = self.outbound.try_send(Err(status));
        }
    }

    async fn serve(&mut self, mut inbound: Streaming<DeltaDiscoveryRequest>) -> End {
        let mut set = Arc::clone(&self.resources.borrow_and_update());
        loop {
            let responses = tokio::select! {
                request = inbound.message() => match request {
                    Ok(Some(request)) => match self.on_request(request, &set) {
                        Ok(responses) => responses,
                        Err(error) => return End::Told(refusal(&error)),
                    },
                    // The Envoy left, or what it sent is no message.
                    Ok(None) | Err(_) => return End::Quiet,
                },
                changed = self.resources.changed() => {
                    if changed.is_err() {
                        return End::Told(Status::unavailable("kubepass no longer has a configuration"));
                    }
                    set = Arc::clone(&self.resources.borrow_and_update());
                    self.stream.on_snapshot(&set)
                }
                () = self.outbound.closed() => return End::Quiet,
            };
            self.report(&set);
            for response in responses {
                if self.outbound.try_send(Ok(response)).is_err() {
                    return End::Told(Status::resource_exhausted("too many responses wait to be read"));
                }
            }
        }
    }

    fn on_request(&mut self, mut request: DeltaDiscoveryRequest, set: &ResourceSet) -> Result<Vec<DeltaDiscoveryResponse>, StreamError> {
        // Envoy names itself in the first request only.
        if let Some(node) = request.node.take().filter(|_| self.node.is_empty()) {
            self.node = claim(&node.id);
            let doubts = self.state.identified(self.id, &self.node, &claim(&node.cluster));
            self.stream.remember(doubts);
            tracing::info!(xds.stream = self.id, xds.node = %self.node, "an Envoy connected");
        }
        self.stream.on_request(request, set)
    }

    fn report(&mut self, set: &ResourceSet) {
        let events = self.stream.take_events();
        for event in &events {
            self.log(event);
        }
        self.state.updated(self.id, &self.stream, &events, set);
    }

    fn log(&self, event: &StreamEvent) {
        let (id, node) = (self.id, &self.node);
        match event {
            StreamEvent::Pushed { kind, nonce, resources, removed } => {
                tracing::debug!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), nonce, resources, removed, "pushed");
            }
            StreamEvent::Acked { kind, nonce, version } => {
                tracing::debug!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), nonce, version, "acknowledged");
            }
            StreamEvent::Nacked { kind, nonce, message } => {
                tracing::error!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), nonce, %message, "Envoy refused its configuration");
            }
            StreamEvent::UnknownType { type_url } => {
                tracing::debug!(xds.stream = id, xds.node = %node, type_url, "a type was asked for that is not served");
            }
        }
    }
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        // However the stream ends, its place in the registry goes, and its doubts stay.
        self.state.closed(self.id, self.stream.doubts());
    }
}

fn refusal(error: &StreamError) -> Status {
    match error {
        StreamError::TooManyNames { .. } => Status::resource_exhausted(error.to_string()),
        StreamError::InvalidName { .. } => Status::invalid_argument(error.to_string()),
    }
}

fn claim(text: &str) -> String {
    text.chars().take(MAX_CLAIM).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
