//! Envoy's gRPC access log: how a request went on after its decision, as completion lines of the audit trail. Entries are what an Envoy
//! claims, without acknowledgement and possibly lost, so nothing is decided on them; a bad one is counted and passed over.

pub mod convert;
mod flags;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_server::{AccessLogService, AccessLogServiceServer};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::audit::{AuditEvent, CompletionEvent};
use crate::server::clock;
use crate::server::live_streams::{LiveStreams, StreamId};
use crate::server::peer::{Peer, UnknownPeer};
use crate::server::telemetry::{Metrics, Seldom};
use crate::server::trail::Trail;
use crate::snapshot::{NodeView, Snapshot};
use convert::{Converted, News};

/// Streams at one time. An Envoy opens one for each of its worker threads.
const MAX_STREAMS: usize = 1024;
/// Bytes of one message. Envoy gathers 16 KiB; one entry may be longer.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How long a stream goes on when the drain has begun: longer than an Envoy gathers entries.
const LINGER: Duration = Duration::from_secs(1);
/// Lines that one stream gives the trail at a time.
const MAX_WAITING: usize = 256;

/// The access log service.
#[derive(Debug)]
pub struct AccessLog {
    snapshot: Arc<ArcSwap<Snapshot>>,
    trail: Trail,
    counts: AccessLogCounts,
    streams: Arc<Semaphore>,
    /// What people have open through Envoys.
    live: Arc<LiveStreams>,
    draining: CancellationToken,
}

impl AccessLog {
    /// Writes to `trail` what nodes say of routes that they serve, and to `live` which streams go on. When `draining` is cancelled, streams end a second later, so that an Envoy's
    /// last entries arrive.
    pub fn service(
        snapshot: Arc<ArcSwap<Snapshot>>,
        trail: Trail,
        counts: AccessLogCounts,
        live: Arc<LiveStreams>,
        draining: CancellationToken,
    ) -> AccessLogServiceServer<Self> {
        let service = Self { snapshot, trail, counts, streams: Arc::new(Semaphore::new(MAX_STREAMS)), live, draining };
        AccessLogServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    async fn take(&self, message: StreamAccessLogsMessage, peer: Option<&Peer>) -> Result<(), UnknownPeer> {
        let snapshot = self.snapshot.load_full();
        let node = Peer::view(peer, snapshot.nodes())?;
        // Only the HTTP log is configured; entries of connections are of no use here.
        let entries = match message.log_entries {
            Some(LogEntries::HttpLogs(entries)) => entries.log_entry,
            Some(LogEntries::TcpLogs(_)) | None => {
                self.counts.add(EntryResult::Malformed, "it holds no HTTP entries");
                return Ok(());
            }
        };
        let mut events = Vec::new();
        for entry in &entries {
            match convert::news(entry) {
                Some(News::StillThere(id)) => self.live.renew(&StreamId::new(node.name(), id), clock::unix_now()),
                Some(News::Ended(id)) => self.live.end(&StreamId::new(node.name(), id)),
                None => {}
            }
            match convert::completion(entry) {
                // A route that is gone had its streams still: whose they were, nobody can say any more.
                Converted::Event(event) if snapshot.route(&event.route).is_some_and(|route| !node.serves(route)) => {
                    self.counts.add(EntryResult::OutOfScope, &format!("{} tells of the route {}", shown(node), event.route));
                }
                Converted::Event(event) => events.push(CompletionEvent { node: node.name().cloned(), ..event }),
                Converted::Skipped => self.counts.add(EntryResult::Skipped, ""),
                Converted::Malformed(why) => self.counts.add(EntryResult::Malformed, why),
            }
        }
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            self.record(events.by_ref().take(MAX_WAITING).collect()).await;
        }
        Ok(())
    }

    async fn record(&self, events: Vec<CompletionEvent>) {
        let count = events.len() as u64;
        match self.trail.record_all(events.into_iter().map(|event| AuditEvent::Completion(Box::new(event)))).await {
            Ok(()) => self.counts.add_many(EntryResult::Recorded, count, ""),
            Err(error) => self.counts.add_many(EntryResult::Lost, count, &error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl AccessLogService for AccessLog {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let _permit = self.streams.try_acquire().map_err(|_| Status::resource_exhausted("too many access log streams"))?;
        let peer = request.extensions().get::<Peer>().cloned();
        Peer::view(peer.as_ref(), self.snapshot.load().nodes())?;
        let mut messages = request.into_inner();
        let mut end = std::pin::pin!(async {
            self.draining.cancelled().await;
            tokio::time::sleep(LINGER).await;
        });
        loop {
            let message = tokio::select! {
                // First, so that an Envoy that never stops sending does not keep the process.
                biased;
                () = &mut end => None,
                message = messages.message() => message?,
            };
            match message {
                Some(message) => self.take(message, peer.as_ref()).await?,
                None => return Ok(Response::new(StreamAccessLogsResponse {})),
            }
        }
    }
}

fn shown(node: &NodeView) -> &str {
    node.name().map_or("an Envoy without a name", |name| name)
}

/// What became of the entries. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct AccessLogCounts(Family<ResultLabel, Counter>, Arc<Seldom>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryResult {
    Recorded,
    /// Of no interest to the audit: our own web pages, the start of a short request, periodic entries.
    Skipped,
    Malformed,
    /// It tells of a route that the Envoy does not serve.
    OutOfScope,
    /// The trail could not be written.
    Lost,
}

impl EntryResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Skipped => "skipped",
            Self::Malformed => "malformed",
            Self::OutOfScope => "out_of_scope",
            Self::Lost => "lost",
        }
    }
}

impl AccessLogCounts {
    pub fn get(&self, result: EntryResult) -> u64 {
        self.0.get_or_create(&ResultLabel { result: result.as_str() }).get()
    }

    /// Adds the metric `kubepass_access_log_entries_total{result}`.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register("access_log_entries", "Entries of Envoy's access log, by what became of them", self.0.clone());
    }

    fn add(&self, result: EntryResult, why: &str) {
        self.add_many(result, 1, why);
    }

    fn add_many(&self, result: EntryResult, count: u64, why: &str) {
        self.0.get_or_create(&ResultLabel { result: result.as_str() }).inc_by(count);
        // One in a while says what is wrong; the metric says how often.
        let is_wrong = matches!(result, EntryResult::Malformed | EntryResult::OutOfScope | EntryResult::Lost);
        if let Some(unsaid) = is_wrong.then(|| self.1.now()).flatten() {
            tracing::warn!(
                access_log.result = result.as_str(),
                why,
                unsaid,
                "an entry of Envoy's access log did not reach the audit trail"
            );
        }
    }
}
