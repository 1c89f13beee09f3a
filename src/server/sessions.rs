//! The sessions that live: the table in memory, which alone judges, and the store, where those rest that nobody asked for lately. It brings them into
//! memory, and lets the table say at that moment whether they still count; it ends none.

mod readings;

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::identity::Principal;
use crate::server::clock;
use crate::server::store::{Store, StoreError};
use crate::session::{InsertRefusal, Look, Session, SessionId, SessionTable};
use readings::Readings;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions {
    table: Arc<SessionTable>,
    store: Store,
    readings: Readings,
    /// Whether it is known of all sessions whose they are.
    owners_known: watch::Sender<bool>,
    judge: Judge,
}

/// Says of a session that was read whether it is one by the configuration in force: those in memory are ended when that changes.
#[derive(Clone)]
struct Judge(Arc<dyn Fn(&Session) -> bool + Send + Sync>);

impl fmt::Debug for Judge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Judge(..)")
    }
}

/// What stood in the store at start.
#[derive(Debug, Default)]
pub struct Found {
    pub live: usize,
    /// Those beyond the limit.
    pub refused: usize,
    /// Those whose time was over: still in the store.
    pub expired: Vec<SessionId>,
}

/// Why a session was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Table(#[from] InsertRefusal),
}

impl Sessions {
    /// Of a table that knows all that is in the store.
    pub fn new(table: Arc<SessionTable>, store: Store) -> Self {
        Self { table, store, readings: Readings::default(), owners_known: watch::Sender::new(true), judge: Judge(Arc::new(|_| true)) }
    }

    /// Those that rest in the store at `now`. Whose they are tells [`Self::learn_owners`], later.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn at_rest(store: Store, now: u64) -> Result<(Self, Found), StoreError> {
        let table = Arc::new(SessionTable::new());
        let resting = store.at_rest(now).await?;
        let refused = table.take_resting(&resting.sessions);
        let found = Found { live: table.len(), refused, expired: resting.expired };
        Ok((Self { owners_known: watch::Sender::new(false), ..Self::new(table, store) }, found))
    }

    /// A session that is read counts only where `judge` says so.
    #[must_use]
    pub fn judged_by(self, judge: impl Fn(&Session) -> bool + Send + Sync + 'static) -> Self {
        Self { judge: Judge(Arc::new(judge)), ..self }
    }

    pub fn table(&self) -> &Arc<SessionTable> {
        &self.table
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether this session, by what it says itself, is one by the configuration in force.
    pub fn counts(&self, session: &Session) -> bool {
        (self.judge.0)(session)
    }

    /// The session, when it has not ended and its time is not over. Reads it where it rests.
    ///
    /// # Errors
    /// When it lives and cannot be read: nothing may be taken for granted then.
    pub async fn live(&self, id: &SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        match self.table.look(id, clock::unix_now()) {
            Look::Live(session) => Ok(Some(session)),
            Look::Gone => Ok(None),
            Look::AtRest => self.read(id).await,
        }
    }

    /// Reads a session that rests, once for all who ask meanwhile, and asks the table then: what has ended meanwhile does not come back by a reading that
    /// began before.
    ///
    /// # Errors
    /// When it cannot be read in time.
    pub async fn read(&self, id: &SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        let (store, id) = (&self.store, *id);
        let reading = || {
            let store = store.clone();
            async move { Ok(store.get(&id).await?.map(Arc::new)) }
        };
        // A row that no accepted key opens is worth as much as none: log in again.
        let read = self.readings.join(id, reading).await?.filter(|session| self.counts(session));
        let Some(awake) = read.and_then(|session| self.table.wake(session, clock::unix_now())) else { return Ok(None) };
        // Once more: whoever ends those in memory after a change of the configuration may have looked between the two. Nobody would ask again of one
        // that stays there.
        if self.counts(&awake) {
            return Ok(Some(awake));
        }
        self.table.lay_to_rest(&id);
        Ok(None)
    }

    /// Returns when the session is on the disk and counts. A caller that goes away before leaves it whole, and not a row in the store that nothing in
    /// memory knows of: nobody would ever remove that.
    ///
    /// # Errors
    /// When it is not kept, and is to come back by no restart.
    pub async fn keep(&self, session: &Arc<Session>) -> Result<(), KeepError> {
        let (sessions, session) = (self.clone(), Arc::clone(session));
        let kept = tokio::spawn(async move { sessions.put(session).await });
        kept.await.unwrap_or(Err(KeepError::Store(StoreError::Ended)))
    }

    async fn put(&self, session: Arc<Session>) -> Result<(), KeepError> {
        let id = session.id;
        let kept = match self.store.put(&session).await {
            Ok(()) => self.table.insert(session).map_err(KeepError::Table),
            Err(error) => Err(KeepError::Store(error)),
        };
        // A write that failed may stand in the file none the less; nobody has the session's id.
        if kept.is_err()
            && let Err(error) = self.store.remove(&id).await
        {
            tracing::error!(%error, session = %id, "a session that was not kept may come back");
        }
        kept
    }

    /// All sessions of one person, the oldest first. Waits until it is known, which it is soon after the start.
    pub async fn of(&self, principal: &Principal) -> Vec<SessionId> {
        self.until_owners_are_known().await;
        self.table.of(principal)
    }

    /// Reads through the store once, so that it is known whose the sessions are. Those that no accepted key opens count no more, and stay there until
    /// they expire.
    ///
    /// # Errors
    /// When the store cannot be read; to be tried again.
    pub async fn learn_owners(&self) -> Result<usize, StoreError> {
        let (mut unreadable, mut after) = (0, None);
        loop {
            let page = self.store.owners(after).await?;
            self.table.learn(page.read.iter().map(|owner| (owner.session, &owner.principal, owner.username.as_str(), owner.created_at)));
            unreadable += page.unreadable.iter().filter(|id| self.table.set_aside(id)).count();
            after = page.next;
            if after.is_none() {
                self.owners_known.send_replace(true);
                return Ok(unreadable);
            }
            // One of many tasks.
            tokio::task::yield_now().await;
        }
    }

    /// Whether it is known of all sessions whose they are.
    pub fn owners_are_known(&self) -> bool {
        *self.owners_known.borrow()
    }

    async fn until_owners_are_known(&self) {
        // The sender lives as long as `self`, so this ends by the value alone.
        let _ = self.owners_known.subscribe().wait_for(|known| *known).await;
    }
}
