//! The gRPC shell of `xds::stream`: moves messages between an Envoy and its state machine, and keeps what the state page and readiness ask
//! for. It decides nothing about what an Envoy gets, and builds no resources.
//!
//! Both protocols, aggregated and as a service for each type: one task (`stream_task`) serves every kind of stream.

mod admission;
mod announce;
mod pace;
mod response;
mod services;
mod shares;
mod state;
mod stream_task;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::server::peer::Peer;
use crate::server::telemetry::Seldom;
use crate::xds::resource::TypeUrl;
use crate::xds::resources::NodeResources;
use crate::xds::stream::{Limits, Protocol, Push};

use shares::{Place, Shares};

pub use admission::Admission;
pub use announce::announce_drains;
pub use services::Services;
pub use state::{AdsState, StreamView, Taker, TurnedAway, TypeCounts, TypeView};

/// Responses that may wait for an Envoy to read. A stream has at most one in flight for each of its seven types, so this never fills.
const OUTBOUND: usize = 16;

/// What one kubepass gives to Envoys.
#[derive(Debug, Clone, Copy)]
pub struct AdsLimits {
    /// Streams at one time. An Envoy with aggregated discovery has one, one without has one for each cluster and secret.
    pub streams: usize,
    /// Of these, of one node of the configuration.
    pub streams_of_one_node: usize,
    /// Bytes of one request: a reconnecting Envoy lists all that it holds.
    pub request_bytes: usize,
    /// Bytes of memory for the names that all streams together make kubepass keep.
    pub name_cost: usize,
    /// Of these, for the streams of one node of the configuration.
    pub name_cost_of_one_node: usize,
    /// Requests that a stream may send at once, besides those for what there is ([`AdsLimits::burst_for`]), and how many more in each second
    /// after. Further ones are not read before their time.
    pub burst: u32,
    pub requests_per_second: u32,
    pub stream: Limits,
}

impl Default for AdsLimits {
    fn default() -> Self {
        Self {
            streams: 4096,
            streams_of_one_node: 1024,
            request_bytes: 8 << 20,
            name_cost: 512 << 20,
            name_cost_of_one_node: 128 << 20,
            burst: 1000,
            requests_per_second: 100,
            stream: Limits::default(),
        }
    }
}

impl AdsLimits {
    /// Requests that a stream may send at once where there are so many resources for it. Envoy asks for each secret of a cluster, and for each
    /// route configuration, in a request of its own, and answers what it gets.
    fn burst_for(&self, resources: usize) -> u32 {
        self.burst.saturating_add(u32::try_from(resources).unwrap_or(u32::MAX).saturating_mul(REQUESTS_PER_RESOURCE))
    }
}

/// One that asks for it and one that lets go of it.
const REQUESTS_PER_RESOURCE: u32 = 2;

/// The discovery services.
#[derive(Debug)]
pub struct Ads {
    resources: watch::Receiver<Arc<NodeResources>>,
    state: AdsState,
    limits: AdsLimits,
    shares: Arc<Shares>,
    admission: Admission,
    draining: CancellationToken,
    warned: Seldom,
}

/// What a stream sends, until it ends with a status, and its place.
type Opened = (mpsc::Receiver<Result<Push, Status>>, Arc<Place>);

impl Ads {
    /// Serves to each Envoy what `resources` holds for the node that it is. When `draining` is cancelled, or the sender of `resources` is gone, streams end with `Unavailable`;
    /// an Envoy keeps what it has and connects again.
    pub fn service(
        resources: watch::Receiver<Arc<NodeResources>>,
        state: AdsState,
        limits: AdsLimits,
        draining: CancellationToken,
    ) -> Services {
        Self::service_for(Admission::default(), resources, state, limits, draining)
    }

    /// As `service`, for some Envoys only.
    pub fn service_for(
        admission: Admission,
        resources: watch::Receiver<Arc<NodeResources>>,
        state: AdsState,
        limits: AdsLimits,
        draining: CancellationToken,
    ) -> Services {
        let shares = Shares::new(limits);
        Services(Arc::new(Self { resources, state, limits, shares, admission, draining, warned: Seldom::default() }))
    }

    /// `only`: the type of a service of one type.
    fn open<P>(&self, only: Option<TypeUrl>, peer: Option<Peer>, requests: Streaming<P::Request>) -> Result<Opened, Status>
    where
        P: Protocol + 'static,
        P::Request: Send,
    {
        let node = match Peer::view(peer.as_ref(), self.resources.borrow().nodes()) {
            Ok(node) => node.name().cloned(),
            Err(unknown) => {
                self.warn(&unknown);
                return Err(unknown.into());
            }
        };
        let share = self.shares.open(node.as_ref()).map_err(|full| {
            self.warn(&full);
            Status::resource_exhausted(full.to_string())
        })?;
        let (place, (outbound, responses)) = (share.place(), mpsc::channel(OUTBOUND));
        let task = stream_task::StreamTask::<P>::new(self, peer, only, share, outbound);
        tokio::spawn(task.run(requests, self.draining.clone()));
        Ok((responses, place))
    }

    fn warn(&self, why: &dyn std::fmt::Display) {
        if let Some(unsaid) = self.warned.now() {
            tracing::warn!(%why, unsaid, "an xDS stream was refused");
        }
    }
}
