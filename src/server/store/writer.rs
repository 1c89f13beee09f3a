//! The one thread that touches the file. It gathers what waits into one durable commit, opens the file anew after an error, and never
//! forgets a removal that failed: an ended session must not come back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::server::store::StoreError;
use crate::server::store::database::{Changes, SessionFile, StoredRows};
use crate::server::store::row::Row;
use crate::session::SessionId;

/// Commands gathered into one commit.
const MAX_BATCH: usize = 256;
/// How often removals that failed, or a file that failed, are tried again.
const RETRY: Duration = Duration::from_secs(1);

type Done = oneshot::Sender<Result<(), StoreError>>;
type RecordAnswer = oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>;

pub(super) enum Command {
    Put { row: Row, done: Done },
    Remove { ids: Vec<SessionId>, done: Done },
    PutRecord { name: &'static str, value: Vec<u8>, done: Done },
    Record { name: &'static str, done: RecordAnswer },
    Load { now: u64, done: oneshot::Sender<Result<StoredRows, StoreError>> },
}

impl std::fmt::Debug for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Command(..)")
    }
}

/// How the writer fares.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: AtomicBool,
    ended: watch::Sender<bool>,
    /// Removals that found no room among what waits for the writer.
    owed: Mutex<Vec<SessionId>>,
}

impl Health {
    pub(super) fn is_good(&self) -> bool {
        !self.failing.load(Ordering::Acquire) && !*self.ended.borrow() && self.owed().is_empty()
    }

    pub(super) fn owe(&self, ids: Vec<SessionId>) {
        self.owed().extend(ids);
    }

    fn owed(&self) -> MutexGuard<'_, Vec<SessionId>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn ended(&self) {
        // The sender lives as long as `self`, so this ends by the value alone.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

pub(super) struct Writer {
    path: PathBuf,
    /// Gone after an error, until it can be opened again.
    file: Option<SessionFile>,
    /// Removals that were asked for and are not on the disk yet.
    owed: BTreeSet<SessionId>,
    health: Arc<Health>,
}

impl Writer {
    /// Opens the file within the new thread, so that whatever the library does with a damaged one ends there.
    pub(super) fn start(path: &Path, health: Arc<Health>, queue: usize) -> Result<SyncSender<Command>, StoreError> {
        let (commands, receiver) = sync_channel(queue);
        let (opened, answer) = sync_channel(1);
        let owned_path = path.to_owned();
        let run = move || {
            let _ended = EndMark(Arc::clone(&health));
            match SessionFile::open_or_create(&owned_path) {
                Ok(file) => {
                    let _ = opened.send(Ok(()));
                    Self { path: owned_path, file: Some(file), owed: BTreeSet::new(), health }.run(&receiver);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        };
        std::thread::Builder::new()
            .name("session-store".into())
            .spawn(run)
            .map_err(|error| StoreError::File { path: path.to_owned(), detail: error.to_string().into() })?;
        let unreadable = |_| StoreError::Damaged { path: path.to_owned(), detail: "the database library gave up on it".into() };
        answer.recv().map_err(unreadable)??;
        Ok(commands)
    }

    #[cfg(test)]
    pub(super) fn without_file(path: &Path, health: Arc<Health>) -> Self {
        Self { path: path.to_owned(), file: None, owed: BTreeSet::new(), health }
    }

    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let first = if self.owed.is_empty() && !self.is_failing() {
                commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                commands.recv_timeout(RETRY)
            };
            let mut batch = Batch::default();
            match first {
                Ok(command) => batch.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while batch.commands < MAX_BATCH
                && let Ok(command) = commands.try_recv()
            {
                batch.take(command);
            }
            self.finish(batch);
        }
    }

    /// Changes first, so that a load sees them.
    fn finish(&mut self, batch: Batch) {
        self.owed.extend(&batch.remove);
        self.owed.extend(self.health.owed().drain(..));
        let changes = Changes { put: batch.put, remove: self.owed.iter().copied().collect(), records: batch.records };
        // After a failure also without a change: only a write that succeeds says that the store is well again.
        if !changes.is_empty() || self.is_failing() {
            let result = self.with_file(|file| file.write(&changes));
            if result.is_ok() {
                self.owed.clear();
            }
            self.health.failing.store(result.is_err(), Ordering::Release);
            for done in batch.done {
                let _ = done.send(result.clone());
            }
        }
        for (now, done) in batch.loads {
            let _ = done.send(self.with_file(|file| file.load(now)));
        }
        for (name, done) in batch.reads {
            let _ = done.send(self.with_file(|file| file.record(name)));
        }
    }

    fn is_failing(&self) -> bool {
        self.health.failing.load(Ordering::Acquire)
    }

    /// After an error the library refuses everything until the file is opened again. It is never made anew here: a file that is gone is
    /// an error, not an empty store.
    fn with_file<T>(&mut self, act: impl FnOnce(&SessionFile) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let file = match self.file.take() {
            Some(file) if file.is_in_place() => file,
            _ => SessionFile::open(&self.path)?,
        };
        let result = act(&file);
        if result.is_ok() {
            self.file = Some(file);
        }
        result
    }
}

#[derive(Default)]
struct Batch {
    commands: usize,
    put: Vec<Row>,
    remove: Vec<SessionId>,
    done: Vec<Done>,
    records: Vec<(&'static str, Vec<u8>)>,
    reads: Vec<(&'static str, RecordAnswer)>,
    loads: Vec<(u64, oneshot::Sender<Result<StoredRows, StoreError>>)>,
}

impl Batch {
    fn take(&mut self, command: Command) {
        self.commands += 1;
        match command {
            Command::Put { row, done } => {
                self.put.push(row);
                self.done.push(done);
            }
            Command::Remove { ids, done } => {
                self.remove.extend(ids);
                self.done.push(done);
            }
            Command::PutRecord { name, value, done } => {
                self.records.push((name, value));
                self.done.push(done);
            }
            Command::Record { name, done } => self.reads.push((name, done)),
            Command::Load { now, done } => self.loads.push((now, done)),
        }
    }
}

/// Says that the writer has ended, also when it panicked.
struct EndMark(Arc<Health>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}
