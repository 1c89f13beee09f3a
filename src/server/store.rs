//! Where sessions, and a few records beside them, last: one embedded file (redb), written by one thread that gathers what waits into one durable commit.
//! Rows are sealed: the file alone tells how many sessions there are and when they end, and nothing about whose they are.
//! Records are small values under fixed names, sealed in the same way: what else must outlast the process.
//! No request reads it: the table in memory is filled from here once, at start, and a request asks only the table.

mod database;
mod error;
mod row;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::session::{Session, SessionId};
use crate::token::TokenKeys;
pub use error::StoreError;
use row::Row;
use writer::{Command, Health, Writer};

/// Writes that may wait; beyond that the store says that it is full.
const QUEUE: usize = 1024;
/// How long a caller waits for its write: a disk that is stuck must not hold a login for ever.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// The store's handle; cheap to clone. The file closes when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Store {
    commands: SyncSender<Command>,
    keys: Arc<ArcSwap<TokenKeys>>,
    health: Arc<Health>,
}

/// What the file held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Those that live.
    pub sessions: Vec<Session>,
    /// Those that no accepted key opens, left in the file until they expire: a secret that comes back brings them back.
    pub unreadable: Vec<SessionId>,
    /// How many had expired and were removed from the file.
    pub expired: usize,
}

/// What stands under a name.
#[derive(Debug)]
pub enum Record {
    Absent,
    /// No accepted key opens it.
    Unreadable,
    Value(Zeroizing<Vec<u8>>),
}

impl Store {
    /// Opens the file, or makes it (mode 0600) when there is none. Blocks: for start-up only.
    ///
    /// # Errors
    /// When the file cannot be used, with its name and what to do; a damaged file is never replaced.
    pub fn open(path: &Path, keys: Arc<TokenKeys>) -> Result<Self, StoreError> {
        let health = Arc::new(Health::default());
        let commands = Writer::start(path, Arc::clone(&health), QUEUE)?;
        Ok(Self { commands, keys: Arc::new(ArcSwap::new(keys)), health })
    }

    /// From now on rows are sealed and opened with these keys.
    pub fn set_keys(&self, keys: Arc<TokenKeys>) {
        self.keys.store(keys);
    }

    /// Returns when the session is on the disk. Only then may a token of it be given out.
    ///
    /// # Errors
    /// When that cannot be said; the session may be in the file none the less.
    pub async fn put(&self, session: &Session) -> Result<(), StoreError> {
        let row = Row::seal(session, &self.keys.load())?;
        self.write(|done| Command::Put { row, done }).await
    }

    /// Returns when the session is gone from the disk; one that is not there is gone.
    ///
    /// # Errors
    /// When that cannot be said. The removal is not forgotten: it is tried again until it succeeds or the process ends, but until then a
    /// restart would bring the session back.
    pub async fn remove(&self, id: &SessionId) -> Result<(), StoreError> {
        self.remove_all(vec![*id]).await
    }

    /// As [`Self::remove`], for many at once.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub async fn remove_all(&self, ids: Vec<SessionId>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write(|done| Command::Remove { ids, done }).await
    }

    /// All sessions that live at `now` (Unix seconds); removes those that have expired. For start-up.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn load(&self, now: u64) -> Result<Loaded, StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Load { now, done })?;
        let stored = answer.await.map_err(|_| StoreError::Ended)??;
        let keys = self.keys.load();
        let mut loaded = Loaded { expired: stored.expired, ..Loaded::default() };
        for row in stored.rows {
            match row.open(&keys) {
                // The sealed value has the last word; the time beside it only lets rows expire that nobody can open.
                Some(session) if session.is_alive(now) => loaded.sessions.push(session),
                Some(_) => {}
                None => loaded.unreadable.push(row.id),
            }
        }
        Ok(loaded)
    }

    /// Returns when the value stands under the name on the disk, in the place of what stood there.
    ///
    /// # Errors
    /// When that cannot be said; it may be in the file none the less.
    pub async fn put_record(&self, name: &'static str, value: &[u8]) -> Result<(), StoreError> {
        let value = row::seal_record(name, value, &self.keys.load())?;
        self.write(|done| Command::PutRecord { name, value, done }).await
    }

    /// What stands under the name. For start-up.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn record(&self, name: &'static str) -> Result<Record, StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Record { name, done })?;
        let Some(sealed) = answer.await.map_err(|_| StoreError::Ended)?? else { return Ok(Record::Absent) };
        let value = row::open_record(name, &sealed, &self.keys.load());
        Ok(value.map_or(Record::Unreadable, |value| Record::Value(Zeroizing::new(value))))
    }

    /// Whether the last write succeeded, no removal is owed, and the writer runs.
    pub fn healthy(&self) -> bool {
        self.health.is_good()
    }

    /// Returns when the writer has ended, which it never does while a handle is left unless it broke: the process should then end too.
    pub async fn ended(&self) {
        self.health.ended().await;
    }

    async fn write(&self, command: impl FnOnce(oneshot::Sender<Result<(), StoreError>>) -> Command) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(command(done))?;
        match tokio::time::timeout(WRITE_DEADLINE, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Ended),
            Err(_) => Err(StoreError::Slow),
        }
    }

    fn send(&self, command: Command) -> Result<(), StoreError> {
        match self.commands.try_send(command) {
            Ok(()) => Ok(()),
            // A removal is not lost for want of room: the writer sees it with the next command, and when none waits any more, that is this one.
            Err(TrySendError::Full(Command::Remove { ids, done })) if !ids.is_empty() => {
                self.health.owe(ids);
                self.send(Command::Remove { ids: Vec::new(), done })
            }
            Err(TrySendError::Full(_)) => Err(StoreError::Full),
            Err(TrySendError::Disconnected(_)) => Err(StoreError::Ended),
        }
    }
}

#[cfg(test)]
mod tests;
