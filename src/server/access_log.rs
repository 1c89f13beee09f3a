//! Envoy's access log: how a request went on after its decision, as completion lines of the audit trail, and what Envoy refused without one. `grpc`
//! takes the messages, `entry` reads one where it stands, `convert` makes a line of it, and news of a stream. Entries are what an Envoy claims, sent
//! once and possibly lost, so nothing is decided on them; a bad one is counted and passed over.

pub mod convert;
pub mod entry;
mod grpc;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::audit::{AuditEvent, CompletionEvent};
use crate::envoy_names as names;
use crate::server::clock;
use crate::server::live_streams::LiveStreams;
use crate::server::peer::{Peer, UnknownPeer};
use crate::server::telemetry::{Metrics, Seldom};
use crate::server::trail::Trail;
use crate::server::under_way::{OneUnderWay, UnderWay};
use crate::snapshot::{NodeView, Snapshot};
use convert::Converted;
use entry::Entries;
pub use grpc::Exports;

/// Messages under way at one time, and of these those of one node. An Envoy sends one for each of its worker threads.
const MAX_EXPORTS: usize = 1024;
const MAX_EXPORTS_OF_ONE_NODE: u32 = 256;
/// Bytes of one message: what an Envoy may gather, and an entry that holds all that a client may send.
const MAX_MESSAGE_BYTES: usize = 128 << 10;
const _: () = assert!(MAX_MESSAGE_BYTES >= names::MAX_GATHERED_BYTES as usize + names::MAX_HEADER_BYTES as usize + (4 << 10));
/// Entries of one message. Of the shortest that Envoy writes, some 300 fill what it may gather.
const MAX_ENTRIES: usize = 4096;
/// Entries that are read at a time: so long others wait.
const AT_A_TIME: usize = 256;
/// How long a message may take to arrive, once it has begun.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long messages are taken when the drain has begun: longer than an Envoy gathers entries.
const LINGER: Duration = Duration::from_secs(1);

/// The access log service.
#[derive(Debug)]
pub struct AccessLog {
    snapshot: Arc<ArcSwap<Snapshot>>,
    trail: Trail,
    counts: AccessLogCounts,
    exports: Arc<Semaphore>,
    of_nodes: Arc<UnderWay<Option<Arc<str>>>>,
    /// What people have open through Envoys.
    live: Arc<LiveStreams>,
}

/// A message's place among those that are under way.
#[derive(Debug)]
struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_node: OneUnderWay<Option<Arc<str>>>,
}

impl AccessLog {
    /// Writes to `trail` what nodes say of routes that they serve, and to `live` which streams go on.
    pub fn service(snapshot: Arc<ArcSwap<Snapshot>>, trail: Trail, counts: AccessLogCounts, live: Arc<LiveStreams>) -> Exports {
        let exports = Arc::new(Semaphore::new(MAX_EXPORTS));
        Exports(Arc::new(Self { snapshot, trail, counts, exports, of_nodes: UnderWay::new(MAX_EXPORTS_OF_ONE_NODE), live }))
    }

    /// A place for a message of `peer`, before any of it is read.
    fn place(&self, peer: Option<&Peer>) -> Result<Place, Status> {
        let snapshot = self.snapshot.load();
        let node = Peer::view(peer, snapshot.nodes())?.name().cloned();
        let full = || Status::resource_exhausted("too many messages of the access log at once");
        let of_node = self.of_nodes.begin(node).ok_or_else(full)?;
        let of_all = Arc::clone(&self.exports).try_acquire_owned().map_err(|_| full())?;
        Ok(Place { _of_all: of_all, _of_node: of_node })
    }

    /// Takes what a message tells. Which node `peer` is, is asked again: it may have been taken out while the message came.
    async fn take(&self, message: &[u8], peer: Option<&Peer>) -> Result<(), UnknownPeer> {
        let snapshot = self.snapshot.load_full();
        let node = Peer::view(peer, snapshot.nodes())?;
        let mut entries = Entries::of(message);
        for _ in 0..MAX_ENTRIES / AT_A_TIME {
            let (count, lines) = self.read(&mut entries, node, &snapshot);
            if !lines.is_empty() {
                self.record(lines).await;
            }
            if count < AT_A_TIME {
                return Ok(());
            }
            // Checks are to have their turn.
            tokio::task::yield_now().await;
        }
        if entries.next().is_some() {
            self.counts.add(EntryResult::Malformed, "its message has too many entries");
        }
        Ok(())
    }

    /// Reads the next entries, [`AT_A_TIME`] at most: how many there were, and the lines that they are worth. What they tell of streams is noted.
    fn read(&self, entries: &mut Entries<'_>, node: &NodeView, snapshot: &Snapshot) -> (usize, Vec<AuditEvent<'static>>) {
        let (mut count, mut news, mut lines) = (0, Vec::new(), Vec::new());
        for entry in entries.take(AT_A_TIME) {
            count += 1;
            match entry.as_ref().map(convert::told) {
                Ok(told) => {
                    news.extend(told.news);
                    lines.extend(self.line(told.line, node, snapshot));
                }
                Err(error) => self.counts.add(EntryResult::Malformed, &error.to_string()),
            }
        }
        self.live.hear(node.name(), &news, clock::unix_now());
        (count, lines)
    }

    /// The line that an entry is worth, if it is.
    fn line(&self, converted: Converted, node: &NodeView, snapshot: &Snapshot) -> Option<AuditEvent<'static>> {
        let (result, why) = match converted {
            // A route that is gone had its streams still: whose they were, nobody can say any more.
            Converted::Event(event) | Converted::Undecided(event)
                if snapshot.route(&event.route).is_some_and(|route| !node.serves(route)) =>
            {
                let why = format!("{} tells of the route {}", shown(node), event.route);
                self.counts.add(EntryResult::OutOfScope, &why);
                return None;
            }
            Converted::Event(event) => return Some(AuditEvent::Completion(told_by(node, event))),
            Converted::Undecided(event) => return Some(AuditEvent::Undecided(told_by(node, event))),
            Converted::StillThere => (EntryResult::StillThere, ""),
            Converted::Skipped => (EntryResult::Skipped, ""),
            Converted::Malformed(why) => (EntryResult::Malformed, why),
        };
        self.counts.add(result, why);
        None
    }

    async fn record(&self, events: Vec<AuditEvent<'static>>) {
        let count = events.len() as u64;
        match self.trail.record_all(events).await {
            Ok(()) => self.counts.add_many(EntryResult::Recorded, count, ""),
            Err(error) => self.counts.add_many(EntryResult::Lost, count, &error.to_string()),
        }
    }
}

/// When messages are taken no more, once `draining` is cancelled: a second later, so that an Envoy's last entries arrive.
pub async fn lingered(draining: CancellationToken) {
    draining.cancelled().await;
    tokio::time::sleep(LINGER).await;
}

fn told_by(node: &NodeView, event: CompletionEvent) -> Box<CompletionEvent> {
    Box::new(CompletionEvent { node: node.name().cloned(), ..event })
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
    /// A request goes on.
    StillThere,
    /// Of no interest to the audit: our own web pages, the start of a short request, what never became a request.
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
            Self::StillThere => "still_there",
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
