//! Where sessions, and a few records beside them, last: one embedded file (redb), written by one thread that gathers what waits into one durable commit,
//! and read by another.
//! Rows are sealed: the file alone tells how many sessions there are and when they end, and nothing about whose they are.
//! Records are small values under fixed names, sealed in the same way: what else must outlast the process.
//! A session that is read here is no session that lives: that only the table in memory says, which is told of every row once, at start.

mod database;
mod error;
mod open_file;
mod reader;
mod row;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::session::{Resting, Session, SessionId};
use crate::token::TokenKeys;
use database::SessionFile;
pub use error::StoreError;
use open_file::OpenFile;
use reader::Job;
pub use row::Owner;
use row::Row;
use writer::{Command, Health, Writer};

/// Writes that may wait; beyond that the store says that it is full.
const QUEUE: usize = 1024;
/// How long a caller waits for its write: a disk that is stuck must not hold a login for ever.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// Readings that may wait; beyond that the store says that it is full.
const READ_QUEUE: usize = 4_096;
/// How long a check waits for a session that rests: with the audit line's own deadline, below Envoy's for the whole check.
const READ_DEADLINE: Duration = Duration::from_millis(300);
/// How long those wait who read many rows, which is nobody's request.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);
/// Rows that are read at once: a check that has to read waits for no more than these.
const PAGE: usize = 256;
/// Rows that are removed in one commit.
const REMOVED_TOGETHER: usize = 4_096;

/// The store's handle; cheap to clone. The file closes when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Store {
    commands: SyncSender<Command>,
    jobs: SyncSender<Job>,
    keys: Arc<ArcSwap<TokenKeys>>,
    health: Arc<Health>,
}

/// What the file holds, unread.
#[derive(Debug, Default)]
pub struct AtRest {
    /// Those whose time is not over, in the order of their ids.
    pub sessions: Vec<Resting>,
    /// Those that have expired.
    pub expired: Vec<SessionId>,
}

/// Some of the rows, in the order of their ids, each read in the same way.
#[derive(Debug)]
pub struct Page<T> {
    pub read: Vec<T>,
    /// Those that no accepted key opens, left in the file until they expire: a secret that comes back brings them back.
    pub unreadable: Vec<SessionId>,
    /// Where the next page begins; none behind the last one.
    pub next: Option<SessionId>,
}

/// What the file held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Those that live.
    pub sessions: Vec<Session>,
    /// As in [`Page::unreadable`].
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
        let (health, keys) = (Arc::new(Health::default()), Arc::new(ArcSwap::new(keys)));
        let (commands, file) = Writer::start(path, Arc::clone(&health), QUEUE)?;
        let jobs = reader::start(file, Arc::clone(&keys), Arc::clone(&health), READ_QUEUE)?;
        Ok(Self { commands, jobs, keys, health })
    }

    /// From now on rows are sealed and opened with these keys.
    pub fn set_keys(&self, keys: Arc<TokenKeys>) {
        self.keys.store(keys);
    }

    /// Returns when the session is on the disk. Only then may a token of it be given out.
    ///
    /// # Errors
    /// When that cannot be said; the session may be in the file none the less. So it may when this is dropped, or not.
    pub async fn put(&self, session: &Session) -> Result<(), StoreError> {
        let row = Row::seal(session, &self.keys.load())?;
        self.write(|done| Command::Put { rows: vec![row], done }).await
    }

    /// As [`Self::put`], for many in one commit. For tests and tools: no more at once than a transaction should have.
    ///
    /// # Errors
    /// As [`Self::put`]; then all or none of them may be in the file.
    pub async fn put_all(&self, sessions: &[Session]) -> Result<(), StoreError> {
        let keys = self.keys.load_full();
        let rows = sessions.iter().map(|session| Row::seal(session, &keys)).collect::<Result<Vec<Row>, _>>()?;
        self.write(|done| Command::Put { rows, done }).await
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
        for some in ids.chunks(REMOVED_TOGETHER) {
            let ids = some.to_vec();
            self.write(|done| Command::Remove { ids, done }).await?;
        }
        Ok(())
    }

    /// The session of this id; none where there is no such row, or no accepted key opens it.
    ///
    /// # Errors
    /// When that cannot be said, or not in time.
    pub async fn get(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let id = *id;
        self.read(READ_DEADLINE, move |file, keys| Ok(file.get(&id)?.and_then(|row| row.open(keys)))).await
    }

    /// What rests in the file at `now` (Unix seconds). For start-up.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn at_rest(&self, now: u64) -> Result<AtRest, StoreError> {
        let mut sessions = self.read(PAGE_DEADLINE, |file, _| file.ends()).await?;
        let expired = sessions.iter().filter(|resting| now >= resting.expires_at).map(|resting| resting.id).collect();
        sessions.retain(|resting| now < resting.expires_at);
        Ok(AtRest { sessions, expired })
    }

    /// Some sessions, from behind `after` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn sessions(&self, after: Option<SessionId>) -> Result<Page<Session>, StoreError> {
        self.page(after, Row::open).await
    }

    /// Whose some sessions are, from behind `after` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn owners(&self, after: Option<SessionId>) -> Result<Page<Owner>, StoreError> {
        self.page(after, Row::owner).await
    }

    /// All sessions that live at `now` (Unix seconds), at once; removes those that have expired. For tests and tools: a service may have too many.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn load(&self, now: u64) -> Result<Loaded, StoreError> {
        let resting = self.at_rest(now).await?;
        let mut loaded = Loaded { expired: resting.expired.len(), ..Loaded::default() };
        self.remove_all(resting.expired).await?;
        let mut after = None;
        loop {
            let page = self.sessions(after).await?;
            // The sealed value has the last word; the time beside it only lets rows expire that nobody can open.
            loaded.sessions.extend(page.read.into_iter().filter(|session| session.is_alive(now)));
            loaded.unreadable.extend(page.unreadable);
            after = page.next;
            if after.is_none() {
                return Ok(loaded);
            }
        }
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

    async fn page<T: Send + 'static>(
        &self,
        after: Option<SessionId>,
        open: impl Fn(&Row, &TokenKeys) -> Option<T> + Send + 'static,
    ) -> Result<Page<T>, StoreError> {
        let act = move |file: &SessionFile, keys: &TokenKeys| {
            let rows = file.page(after, PAGE)?;
            let next = rows.rows.last().map(|row| row.id).filter(|_| rows.more);
            let mut page = Page { read: Vec::with_capacity(rows.rows.len()), unreadable: Vec::new(), next };
            for row in rows.rows {
                match open(&row, keys) {
                    Some(read) => page.read.push(read),
                    None => page.unreadable.push(row.id),
                }
            }
            Ok(page)
        };
        self.read(PAGE_DEADLINE, act).await
    }

    /// Lets the reader do this, and waits for it without holding anybody else up.
    async fn read<T: Send + 'static>(
        &self,
        deadline: Duration,
        act: impl FnOnce(&SessionFile, &TokenKeys) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        let job = move |file: &OpenFile, keys: &TokenKeys| {
            // Whoever did not want to wait so long has gone.
            if !done.is_closed() {
                let _ = done.send(file.read(|file| act(file, keys)));
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Full,
            TrySendError::Disconnected(_) => StoreError::Ended,
        })?;
        let result = match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Ended),
            Err(_) => Err(StoreError::Slow),
        };
        if matches!(result, Err(StoreError::File { .. } | StoreError::Damaged { .. })) {
            self.health.suspect();
            // Where there is no room the writer looks anyway.
            let _ = self.commands.try_send(Command::Look);
        }
        result
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
