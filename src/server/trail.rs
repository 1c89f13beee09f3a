//! Where audit events go: a bounded queue before one writer thread, which writes what has gathered in one go and only then says "written".
//! It never drops an event without saying so; what to do then is the caller's matter.

mod file;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::audit::{AuditEvent, AuditLine, SCHEMA, TrailRestoredEvent};
use crate::config::{AuditSettings, AuditSink, Durability};
use crate::server::clock;
use file::AuditFile;

/// Events that may wait for the writer; beyond that the trail says that it cannot.
const QUEUE: usize = 8_192;
/// Bytes gathered for one write.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How long a caller waits for its line: below the deadline that Envoy sets for a check.
const WRITE_DEADLINE: Duration = Duration::from_millis(600);

/// The audit trail's handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Trail {
    queue: mpsc::Sender<Pending>,
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

struct Pending {
    line: Vec<u8>,
    /// Whether its loss is one to report; that of a report is not.
    counts: bool,
    written: oneshot::Sender<Result<(), TrailError>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pending").field("bytes", &self.line.len()).finish()
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
        let writer = Writer { files, pending, health: Arc::clone(&health) };
        std::thread::Builder::new().name("audit-writer".into()).spawn(move || writer.run())?;
        Ok(Self { queue, health })
    }

    /// Returns when the line stands in every sink.
    pub async fn record(&self, event: AuditEvent) -> Result<(), TrailError> {
        self.put(encode(event)?, true).await
    }

    /// When lines were lost: tries to say so in the trail, and thereby whether it can be written again. Without this a trail that failed
    /// would be known to work only by the next request, which none may send while the service says that it is not ready.
    pub async fn report_loss(&self) {
        let lines_lost = self.health.unreported.load(Ordering::Relaxed);
        if lines_lost == 0 {
            return;
        }
        let Ok(line) = encode(AuditEvent::TrailRestored(TrailRestoredEvent { lines_lost })) else { return };
        if self.put(line, false).await.is_ok() {
            self.health.unreported.fetch_sub(lines_lost, Ordering::Relaxed);
        }
    }

    async fn put(&self, line: Vec<u8>, counts: bool) -> Result<(), TrailError> {
        let (written, done) = oneshot::channel();
        self.queue.try_send(Pending { line, counts, written }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TrailError::Full,
            mpsc::error::TrySendError::Closed(_) => TrailError::Ended,
        })?;
        match tokio::time::timeout(WRITE_DEADLINE, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TrailError::Ended),
            Err(_) => Err(TrailError::Slow),
        }
    }

    /// Whether the last write succeeded.
    pub fn healthy(&self) -> bool {
        !self.health.failing.load(Ordering::Relaxed) && !self.queue.is_closed()
    }

    /// Lines written and lines that failed, since start.
    pub fn counts(&self) -> (u64, u64) {
        (self.health.written.load(Ordering::Relaxed), self.health.failed.load(Ordering::Relaxed))
    }
}

fn encode(event: AuditEvent) -> Result<Vec<u8>, TrailError> {
    let line = AuditLine { schema: SCHEMA, time: clock::rfc3339(clock::since_epoch()), event };
    let mut bytes = serde_json::to_vec(&line).map_err(|error| TrailError::Encoding(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

struct Writer {
    files: Vec<AuditFile>,
    pending: mpsc::Receiver<Pending>,
    health: Arc<Health>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        let mut waiting = Vec::new();
        let mut lines = 0;
        while let Some(first) = self.pending.blocking_recv() {
            let mut next = Some(first);
            while let Some(Pending { line, counts, written }) = next {
                // Who gave up waiting was told so; its line is still the truth about what was asked, so it is written.
                batch.extend_from_slice(&line);
                lines += u64::from(counts);
                waiting.push(written);
                next = if batch.len() < MAX_BATCH_BYTES { self.pending.try_recv().ok() } else { None };
            }
            let result = self.write(&batch);
            self.note(&result, lines);
            lines = 0;
            for written in waiting.drain(..) {
                let _ = written.send(result.clone());
            }
            batch.clear();
        }
    }

    fn write(&mut self, batch: &[u8]) -> Result<(), TrailError> {
        for file in &mut self.files {
            file.append(batch).map_err(|error| TrailError::Failed(format!("{}: {error}", file.path().display()).into()))?;
        }
        Ok(())
    }

    fn note(&self, result: &Result<(), TrailError>, lines: u64) {
        let was_failing = self.health.failing.swap(result.is_err(), Ordering::Relaxed);
        if result.is_ok() {
            self.health.written.fetch_add(lines, Ordering::Relaxed);
        } else {
            self.health.failed.fetch_add(lines, Ordering::Relaxed);
            self.health.unreported.fetch_add(lines, Ordering::Relaxed);
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

#[cfg(test)]
mod tests;
