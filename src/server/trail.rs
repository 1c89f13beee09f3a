//! Where audit events go. A line is written by who has it when nobody else is writing, for that costs less than to hand it over and to be
//! woken again; otherwise it waits in a bounded queue before one writer thread, which writes what has gathered in one go. Only then it is
//! "written". It never drops an event without saying so; what to do then is the caller's matter.

mod file;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::audit::{AuditEvent, AuditLine, SCHEMA, TrailRestoredEvent};
use crate::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use crate::server::clock;
use file::AuditFile;

/// Events that may wait for the writer; beyond that the trail says that it cannot.
const QUEUE: usize = 8_192;
/// Bytes that a usual line takes, of a decision on a request with a short path.
const USUAL_LINE_BYTES: usize = 1_024;
/// Bytes gathered for one write.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How long a caller waits for its line: below the deadline that Envoy sets for a check.
const WRITE_DEADLINE: Duration = Duration::from_millis(600);

/// The audit trail's handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Trail {
    queue: mpsc::Sender<Pending>,
    sinks: Arc<Mutex<Sinks>>,
    /// Whether a caller may write itself: see [`may_write_at_once`].
    at_once: bool,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failing: AtomicBool,
    written: AtomicU64,
    failed: AtomicU64,
    /// Lines that failed and whose loss does not stand in the trail yet.
    unreported: AtomicU64,
}

/// The line may not have been written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrailError {
    #[error("too many audit events wait to be written")]
    Full,
    #[error("writing the audit line took longer than {} ms", WRITE_DEADLINE.as_millis())]
    Slow,
    #[error("the audit line could not be written: {0}")]
    Failed(Arc<str>),
    #[error("the audit writer has ended")]
    Ended,
    #[error("the audit event could not be encoded: {0}")]
    Encoding(String),
}

/// Whole lines.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How many of them there are whose loss is one to report; that of a report is not.
    count: u64,
}

struct Pending {
    lines: Lines,
    written: oneshot::Sender<Result<(), TrailError>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pending").field("bytes", &self.lines.bytes.len()).finish()
    }
}

impl Trail {
    /// Opens every sink and starts the writer. Fails when a sink cannot be opened: a service without its trail must not start.
    pub fn open(settings: &AuditSettings) -> std::io::Result<Self> {
        let sync = settings.durability == Durability::Synced;
        let mut files = Vec::new();
        for AuditSink::File { path } in &settings.sinks {
            files.push(AuditFile::open(path, sync)?);
        }
        let (queue, pending) = mpsc::channel(QUEUE);
        let health = Arc::new(Health::default());
        let at_once = may_write_at_once(settings, &files);
        let sinks = Arc::new(Mutex::new(Sinks { files, health: Arc::clone(&health) }));
        let writer = Writer { sinks: Arc::clone(&sinks), pending };
        std::thread::Builder::new().name("audit-writer".into()).spawn(move || writer.run())?;
        Ok(Self { queue, sinks, at_once, health })
    }

    /// Returns when the line stands in every sink.
    pub async fn record(&self, event: AuditEvent<'_>) -> Result<(), TrailError> {
        let mut lines = Lines::default();
        lines.add(event)?;
        self.put(lines).await
    }

    /// As [`Self::record`], for many at once: all of them stand in every sink, or the result is an error.
    pub async fn record_all<'a>(&self, events: impl IntoIterator<Item = AuditEvent<'a>>) -> Result<(), TrailError> {
        let mut lines = Lines::default();
        for event in events {
            lines.add(event)?;
        }
        self.put(lines).await
    }

    /// When lines were lost: tries to say so in the trail, and thereby whether it can be written again. Without this a trail that failed
    /// would be known to work only by the next request, which none may send while the service says that it is not ready.
    pub async fn report_loss(&self) {
        let lines_lost = self.health.unreported.load(Ordering::Relaxed);
        if lines_lost == 0 {
            return;
        }
        let mut report = Lines::default();
        if report.add(AuditEvent::TrailRestored(TrailRestoredEvent { lines_lost })).is_err() {
            return;
        }
        report.count = 0;
        if self.put(report).await.is_ok() {
            self.health.unreported.fetch_sub(lines_lost, Ordering::Relaxed);
        }
    }

    async fn put(&self, lines: Lines) -> Result<(), TrailError> {
        if let Some(result) = self.write_at_once(&lines) {
            return result;
        }
        let (written, done) = oneshot::channel();
        self.queue.try_send(Pending { lines, written }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TrailError::Full,
            mpsc::error::TrySendError::Closed(_) => TrailError::Ended,
        })?;
        match tokio::time::timeout(WRITE_DEADLINE, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TrailError::Ended),
            Err(_) => Err(TrailError::Slow),
        }
    }

    /// `None` when somebody else is writing, or this trail is not written so.
    fn write_at_once(&self, lines: &Lines) -> Option<Result<(), TrailError>> {
        if !self.at_once {
            return None;
        }
        match self.sinks.try_lock() {
            Ok(mut sinks) => Some(sinks.write(lines)),
            Err(TryLockError::Poisoned(sinks)) => Some(sinks.into_inner().write(lines)),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether the last write succeeded.
    pub fn healthy(&self) -> bool {
        !self.health.failing.load(Ordering::Relaxed) && !self.has_ended()
    }

    /// Whether the writer is gone, and every line that has to wait for it lost.
    pub fn has_ended(&self) -> bool {
        self.queue.is_closed()
    }

    /// Lines written and lines that failed, since start.
    pub fn counts(&self) -> (u64, u64) {
        (self.health.written.load(Ordering::Relaxed), self.health.failed.load(Ordering::Relaxed))
    }
}

/// Only into regular files and without a sync: into the page cache, in microseconds. Should the disk hang all the same, the caller's thread
/// waits with it, and who comes after finds the sinks taken and gives up in time. Where requests are to pass although the trail fails, nobody
/// may be held up, not even the first.
fn may_write_at_once(settings: &AuditSettings, files: &[AuditFile]) -> bool {
    settings.durability == Durability::Written && settings.on_failure == OnAuditFailure::Deny && files.iter().all(AuditFile::is_regular)
}

impl Lines {
    fn add(&mut self, event: AuditEvent<'_>) -> Result<(), TrailError> {
        self.bytes.reserve(USUAL_LINE_BYTES);
        let line = AuditLine { schema: SCHEMA, time: clock::rfc3339(clock::since_epoch()), event };
        serde_json::to_writer(&mut self.bytes, &line).map_err(|error| TrailError::Encoding(error.to_string()))?;
        self.bytes.push(b'\n');
        self.count += 1;
        Ok(())
    }
}

/// The files, and how writing to them fares. Whoever writes has them for himself.
#[derive(Debug)]
struct Sinks {
    files: Vec<AuditFile>,
    health: Arc<Health>,
}

impl Sinks {
    fn write(&mut self, lines: &Lines) -> Result<(), TrailError> {
        let append = |file: &mut AuditFile| {
            file.append(&lines.bytes).map_err(|error| TrailError::Failed(format!("{}: {error}", file.path().display()).into()))
        };
        let result = self.files.iter_mut().try_for_each(append);
        self.health.note(&result, lines.count);
        result
    }
}

impl Health {
    fn note(&self, result: &Result<(), TrailError>, lines: u64) {
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        if result.is_ok() {
            self.written.fetch_add(lines, Ordering::Relaxed);
        } else {
            self.failed.fetch_add(lines, Ordering::Relaxed);
            self.unreported.fetch_add(lines, Ordering::Relaxed);
        }
        match result {
            Err(error) if !was_failing => {
                tracing::error!(%error, "the audit trail cannot be written; requests are refused unless configured otherwise")
            }
            Ok(()) if was_failing => tracing::info!("the audit trail is written again"),
            _ => {}
        }
    }
}

struct Writer {
    sinks: Arc<Mutex<Sinks>>,
    pending: mpsc::Receiver<Pending>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Lines::default();
        let mut waiting = Vec::new();
        while let Some(first) = self.pending.blocking_recv() {
            let mut next = Some(first);
            while let Some(Pending { lines, written }) = next {
                // Who gave up waiting was told so; its line is still the truth about what was asked, so it is written.
                batch.bytes.extend_from_slice(&lines.bytes);
                batch.count += lines.count;
                waiting.push(written);
                next = if batch.bytes.len() < MAX_BATCH_BYTES { self.pending.try_recv().ok() } else { None };
            }
            // A writer that panicked has appended whole lines or cut them off again.
            let result = self.sinks.lock().unwrap_or_else(PoisonError::into_inner).write(&batch);
            for written in waiting.drain(..) {
                let _ = written.send(result.clone());
            }
            batch.bytes.clear();
            batch.count = 0;
        }
    }
}

#[cfg(test)]
mod tests;
