//! The one thread that writes the file. It gathers what waits into one durable commit, opens the file anew after an error, and never
//! forgets a removal that failed: an ended session must not come back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::server::store::StoreError;
use crate::server::store::database::{Changes, SessionFile};
use crate::server::store::open_file::OpenFile;
use crate::server::store::row::Row;
use crate::session::SessionId;

/// Commands gathered into one commit.
pub(super) const MAX_BATCH: usize = 256;
/// How often removals that failed, or a file that failed, are tried again.
const RETRY: Duration = Duration::from_secs(1);

type Done = oneshot::Sender<Result<(), StoreError>>;
type RecordAnswer = oneshot::Sender<Result<Option<Vec<u8>>, StoreError>>;

pub(super) enum Command {
    Put {
        rows: Vec<Row>,
        done: Done,
    },
    Remove {
        ids: Vec<SessionId>,
        done: Done,
    },
    PutRecord {
        name: &'static str,
        value: Vec<u8>,
        done: Done,
    },
    Record {
        name: &'static str,
        done: RecordAnswer,
    },
    /// Nothing, but where the store is taken to be failing: then a write that shows whether it is.
    Look,
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

    /// Until the next write succeeds.
    pub(super) fn suspect(&self) {
        self.failing.store(true, Ordering::Release);
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
    file: Arc<OpenFile>,
    /// Removals that were asked for and are not on the disk yet.
    owed: BTreeSet<SessionId>,
    health: Arc<Health>,
}

impl Writer {
    /// Opens the file within the new thread, so that whatever the library does with a damaged one ends there.
    pub(super) fn start(path: &Path, health: Arc<Health>, queue: usize) -> Result<(SyncSender<Command>, Arc<OpenFile>), StoreError> {
        let (commands, receiver) = sync_channel(queue);
        let (opened, answer) = sync_channel(1);
        let owned_path = path.to_owned();
        let run = move || {
            let _ended = EndMark(Arc::clone(&health));
            match SessionFile::open_or_create(&owned_path) {
                Ok(file) => {
                    let file = Arc::new(OpenFile::new(&owned_path, Some(file)));
                    let _ = opened.send(Ok(Arc::clone(&file)));
                    drop(opened);
                    Self::new(file, health).run(&receiver);
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        };
        std::thread::Builder::new()
            .name("session-store".into())
            .spawn(run)
            .map_err(|error| StoreError::Thread(error.to_string().into()))?;
        let unreadable = |_| StoreError::Damaged { path: path.to_owned(), detail: "the database library gave up on it".into() };
        let file = answer.recv().map_err(unreadable)??;
        Ok((commands, file))
    }

    pub(super) fn new(file: Arc<OpenFile>, health: Arc<Health>) -> Self {
        Self { file, owed: BTreeSet::new(), health }
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

    fn finish(&mut self, batch: Batch) {
        self.owed.extend(&batch.remove);
        self.owed.extend(self.health.owed().drain(..));
        let changes = Changes { put: batch.put, remove: self.owed.iter().copied().collect(), records: batch.records };
        // After a failure also without a change: only a write that succeeds says that the store is well again.
        let result = if changes.is_empty() && !self.is_failing() { Ok(()) } else { self.write(&changes) };
        // Also where nothing was left to write, for an earlier batch had the removals that were owed.
        for done in batch.done {
            let _ = done.send(result.clone());
        }
        for (name, done) in batch.reads {
            let _ = done.send(self.file.write(|file| file.record(name)));
        }
    }

    fn write(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let result = self.file.write(|file| file.write(changes));
        if result.is_ok() {
            self.owed.clear();
        }
        self.health.failing.store(result.is_err(), Ordering::Release);
        result
    }

    fn is_failing(&self) -> bool {
        self.health.failing.load(Ordering::Acquire)
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
}

impl Batch {
    fn take(&mut self, command: Command) {
        self.commands += 1;
        match command {
            // Whoever gave up waiting may have asked for the removal since, which overtakes this where there was no room for it; and was told of no
            // success, so that no token was given out.
            Command::Put { done, .. } if done.is_closed() => {}
            Command::Put { rows, done } => {
                self.put.extend(rows);
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
            Command::Look => {}
        }
    }
}

/// Says that a thread of the store has ended, also when it panicked.
pub(super) struct EndMark(pub(super) Arc<Health>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}
