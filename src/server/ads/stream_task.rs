//! One connected Envoy, from its first message to its last.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::pace::Pace;
use super::shares::Share;
use super::state::AdsState;
use super::{Admission, Ads, AdsLimits, admission};
use crate::server::peer::Peer;
use crate::xds::resource::{ResourceSet, TypeUrl};
use crate::xds::resources::NodeResources;
use crate::xds::stream::{Protocol, Push, Stream, StreamError, StreamEvent};

/// Longest part of a node's claims about itself that is kept, in characters.
const MAX_CLAIM: usize = 256;

pub(super) struct StreamTask<P: Protocol> {
    id: u64,
    node: String,
    stream: Stream<P>,
    peer: Option<Peer>,
    /// The node of the configuration that it is, from its first request on.
    known_as: Option<Arc<str>>,
    resources: watch::Receiver<Arc<NodeResources>>,
    state: AdsState,
    outbound: mpsc::Sender<Result<Push, Status>>,
    limits: AdsLimits,
    admission: Admission,
    /// It was, by its first request.
    admitted: bool,
    pace: Pace,
    share: Share,
}

/// Why a stream ends that the Envoy did not end.
enum End {
    /// The Envoy is gone.
    Quiet,
    Told(Status),
}

impl<P: Protocol> StreamTask<P> {
    pub(super) fn new(
        ads: &Ads,
        peer: Option<Peer>,
        only: Option<TypeUrl>,
        share: Share,
        outbound: mpsc::Sender<Result<Push, Status>>,
    ) -> Self {
        let limits = ads.limits;
        Self {
            id: ads.state.opened(P::DIALECT, only),
            node: String::new(),
            stream: Stream::serving(only, limits.stream),
            peer,
            known_as: None,
            resources: ads.resources.clone(),
            state: ads.state.clone(),
            outbound,
            limits,
            admission: ads.admission.clone(),
            admitted: false,
            pace: Pace::new(limits.burst, limits.requests_per_second, Instant::now()),
            share,
        }
    }

    pub(super) async fn run(mut self, inbound: Streaming<P::Request>, draining: CancellationToken) {
        tracing::debug!(xds.stream = self.id, "an xDS stream opened");
        let end = tokio::select! {
            end = self.serve(inbound) => end,
            () = draining.cancelled() => End::Told(Status::unavailable("kubepass is shutting down")),
        };
        if let End::Told(status) = end {
            tracing::info!(xds.stream = self.id, xds.node = %self.node, %status, "an xDS stream is ended");
            // Full or closed: the Envoy sees the stream end without the reason.
            let _ = self.outbound.try_send(Err(status));
        }
    }

    async fn serve(&mut self, mut inbound: Streaming<P::Request>) -> End {
        let mut set = match self.resources_of_node() {
            Ok(set) => set,
            Err(status) => return End::Told(status),
        };
        loop {
            let next = self.pace.next();
            let may_ask = next <= Instant::now();
            let responses = tokio::select! {
                // A request is answered by what is in force when it is judged.
                biased;
                changed = self.resources.changed() => {
                    if changed.is_err() {
                        return End::Told(Status::unavailable("kubepass no longer has a configuration"));
                    }
                    set = match self.resources_of_node() {
                        Ok(set) => set,
                        Err(status) => return End::Told(status),
                    };
                    self.stream.on_snapshot(&set)
                }
                () = self.outbound.closed() => return End::Quiet,
                request = inbound.message(), if may_ask => match request {
                    Ok(Some(request)) => match self.on_request(request, &set) {
                        Ok(responses) => responses,
                        Err(status) => return End::Told(status),
                    },
                    Err(status) if is_no_message(&status) => return End::Told(status),
                    Ok(None) | Err(_) => return End::Quiet,
                },
                () = tokio::time::sleep_until(next), if !may_ask => continue,
            };
            self.report(&set);
            for response in responses {
                if self.outbound.try_send(Ok(response)).is_err() {
                    return End::Told(Status::resource_exhausted("too many responses wait to be read"));
                }
            }
        }
    }

    /// What the node that the peer is should have now.
    fn resources_of_node(&mut self) -> Result<ResourceSet, Status> {
        let resources = Arc::clone(&self.resources.borrow_and_update());
        let node = Peer::view(self.peer.as_ref(), resources.nodes())?;
        if self.admitted && node.name() != self.known_as.as_ref() {
            return Err(Status::permission_denied(
                "this Envoy is no longer the node of the configuration that it was: it must connect again",
            ));
        }
        let set = resources.of(node);
        self.pace.allow(self.limits.burst_for(TypeUrl::ALL.into_iter().map(|kind| set.len(kind)).sum()));
        Ok(set)
    }

    /// Judges what the client says of itself in its first request.
    fn admit(&mut self, node: Option<&Node>) -> Result<(), Status> {
        let resources = Arc::clone(&self.resources.borrow());
        let known = Peer::view(self.peer.as_ref(), resources.nodes())?;
        self.admission.of(known).check(node)?;
        admission::check_claim(node, known, resources.nodes())?;
        self.known_as = known.name().cloned();
        self.admitted = true;
        Ok(())
    }

    fn on_request(&mut self, mut request: P::Request, set: &ResourceSet) -> Result<Vec<Push>, Status> {
        self.pace.taken(Instant::now());
        // Envoy names itself in the first request only.
        let node = P::take_node(&mut request);
        if !self.admitted {
            self.admit(node.as_ref()).inspect_err(|status| self.turn_away(node.as_ref(), status))?;
        }
        if let Some(node) = node.filter(|_| self.node.is_empty()) {
            self.node = claim(&node.id);
            let doubts = self.state.identified(self.id, &self.node, &claim(&node.cluster), &admission::version_text(&node));
            self.stream.remember(doubts);
            tracing::info!(xds.stream = self.id, xds.node = %self.node, "an Envoy connected");
        }
        let responses = self.stream.on_request(request, set).map_err(|error| refusal(&error))?;
        let cost = self.stream.machine().name_cost();
        self.share.names_cost(cost).map_err(|too_much| Status::resource_exhausted(too_much.to_string()))?;
        Ok(responses)
    }

    /// It will try again and again: what is wrong is said once.
    fn turn_away(&self, node: Option<&Node>, status: &Status) {
        let (name, version) = node.map(|node| (claim(&node.id), admission::version_text(node))).unwrap_or_default();
        if self.state.turned_away_now(&name, &version, status.message()) {
            tracing::warn!(xds.stream = self.id, xds.node = %name, envoy.version = %version, reason = status.message(), "an Envoy is turned away");
        }
    }

    fn report(&mut self, set: &ResourceSet) {
        let events = self.stream.take_events();
        for event in &events {
            self.log(event);
        }
        self.state.updated(self.id, self.stream.machine(), &events, set);
    }

    fn log(&self, event: &StreamEvent) {
        let (id, node) = (self.id, &self.node);
        match event {
            StreamEvent::Pushed { kind, nonce, resources, removed, bytes } => {
                tracing::debug!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), nonce, resources, removed, bytes, "pushed");
            }
            StreamEvent::Acked { kind, nonce, version } => {
                tracing::debug!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), nonce, version, "acknowledged");
            }
            StreamEvent::Nacked { kind, nonce, message } => {
                tracing::error!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), nonce, %message, "Envoy refused its configuration");
            }
            StreamEvent::Stale { kind } => {
                tracing::debug!(xds.stream = id, xds.node = %node, xds.type = kind.short_name(), "an answer to an older response");
            }
            StreamEvent::UnknownType { type_url } => {
                tracing::debug!(xds.stream = id, xds.node = %node, type_url, "a type was asked for that is not served");
            }
        }
    }
}

impl<P: Protocol> Drop for StreamTask<P> {
    fn drop(&mut self) {
        // However the stream ends, its place in the registry goes, and its doubts stay.
        self.state.closed(self.id, self.stream.doubts());
    }
}

/// What came is no request, or one that is too long. With other errors there is nobody left to tell.
fn is_no_message(status: &Status) -> bool {
    matches!(status.code(), Code::Internal | Code::OutOfRange | Code::InvalidArgument | Code::Unimplemented)
}

fn refusal(error: &StreamError) -> Status {
    match error {
        StreamError::TooManyNames { .. } | StreamError::TooMuchToKeep { .. } => Status::resource_exhausted(error.to_string()),
        StreamError::InvalidName { .. } | StreamError::WrongType { .. } => Status::invalid_argument(error.to_string()),
    }
}

fn claim(text: &str) -> String {
    text.chars().take(MAX_CLAIM).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
