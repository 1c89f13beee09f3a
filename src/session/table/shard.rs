//! One shard of the session table: the sessions that live, sorted by id, and those of them that are in memory whole. Readers take no lock; a writer
//! publishes changed copies. What is in memory is always among what lives whenever no writer is at work.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::session::Session;
use crate::token::SessionId;

/// What is kept of every session that lives: 48 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Living {
    pub(super) id: SessionId,
    /// Unix seconds.
    pub(super) expires_at: u64,
    /// Not known of a session that was found in the store, until somebody has read it.
    pub(super) whose: Option<Whose>,
}

/// Whose a session is, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) person: NonZeroU64,
    pub(super) user: NonZeroU64,
    pub(super) created_at: u64,
}

/// A session in memory, and whether somebody asked for it since it was last looked over.
#[derive(Debug)]
struct Awake {
    id: SessionId,
    session: Arc<Session>,
    used: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Shard {
    living: ArcSwap<Book>,
    awake: ArcSwap<Vec<Awake>>,
    /// Held by a writer from its look at the shard to its publication.
    writer: Mutex<()>,
}

/// All that live, sorted by id.
#[derive(Debug)]
struct Book {
    entries: Box<[Living]>,
    /// When the first of them ends.
    first_end: u64,
}

/// A shard while nobody else writes to it.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    shard: &'a Shard,
    _lock: MutexGuard<'a, ()>,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self { living: ArcSwap::from_pointee(Book::of(Vec::new())), awake: ArcSwap::default(), writer: Mutex::new(()) }
    }

    /// The session, where it is in memory. Allocates nothing.
    pub(super) fn awake(&self, id: &SessionId) -> Option<Arc<Session>> {
        let awake = self.awake.load();
        let found = awake.iter().find(|other| other.id == *id)?;
        // Nearly always set already: then nothing is written that other threads read.
        if !found.used.load(Ordering::Relaxed) {
            found.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&found.session))
    }

    pub(super) fn living(&self, id: &SessionId) -> Option<Living> {
        self.living.load().find(id)
    }

    pub(super) fn all_awake(&self) -> Vec<Arc<Session>> {
        self.awake.load().iter().map(|awake| Arc::clone(&awake.session)).collect()
    }

    pub(super) fn awake_len(&self) -> usize {
        self.awake.load().len()
    }

    /// Whether somebody's end has come.
    pub(super) fn has_expired(&self, now: u64) -> bool {
        now >= self.living.load().first_end
    }

    pub(super) fn select(&self, wanted: impl Fn(&Living) -> bool) -> Vec<Living> {
        self.living.load().entries.iter().filter(|living| wanted(living)).copied().collect()
    }

    /// A writer that panicked has published nothing, or only what makes the shard smaller, so its lock is taken as it is.
    pub(super) fn write(&self) -> Writing<'_> {
        Writing { shard: self, _lock: self.writer.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl Writing<'_> {
    pub(super) fn living(&self, id: &SessionId) -> Option<Living> {
        self.shard.living(id)
    }

    /// Adds sessions, none of which lives already.
    pub(super) fn add(&self, new: &[Living]) {
        let old = self.shard.living.load();
        let mut entries = Vec::with_capacity(old.entries.len() + new.len());
        entries.extend_from_slice(&old.entries);
        entries.extend_from_slice(new);
        // Quick where both are sorted already.
        entries.sort_by_key(|living| living.id);
        self.shard.living.store(Arc::new(Book::of(entries)));
    }

    /// Puts these in the place of those with the same ids; others are left out.
    pub(super) fn replace(&self, new: &[Living]) {
        let mut entries = self.shard.living.load().entries.to_vec();
        for living in new {
            if let Ok(at) = entries.binary_search_by_key(&living.id, |other| other.id)
                && let Some(entry) = entries.get_mut(at)
            {
                *entry = *living;
            }
        }
        self.shard.living.store(Arc::new(Book::of(entries)));
    }

    /// Takes out those of which `leaves` is true, from what lives first: nobody can then take them for alive.
    pub(super) fn remove(&self, leaves: impl Fn(&Living) -> bool) -> Vec<Living> {
        let old = self.shard.living.load();
        let (gone, stay): (Vec<Living>, Vec<Living>) = old.entries.iter().partition(|living| leaves(living));
        if !gone.is_empty() {
            self.shard.living.store(Arc::new(Book::of(stay)));
            self.retain_awake(|awake| !gone.iter().any(|living| living.id == awake.id));
        }
        gone
    }

    pub(super) fn lay_to_rest(&self, id: &SessionId) {
        self.retain_awake(|awake| awake.id != *id);
    }

    fn retain_awake(&self, stays: impl Fn(&Awake) -> bool) {
        let awake = self.shard.awake.load();
        self.shard.awake.store(Arc::new(awake.iter().filter(|awake| stays(awake)).map(Awake::copied).collect()));
    }

    /// Puts a session that lives into memory. Where `most` are there already, one goes that nobody has asked for lately.
    pub(super) fn wake(&self, session: Arc<Session>, most: usize) {
        let old = self.shard.awake.load();
        let mut new = Vec::with_capacity(most.min(old.len() + 1));
        if old.len() < most {
            new.extend(old.iter().map(Awake::copied));
        } else {
            // Those before it were asked for, and have to be asked for again.
            let leaves = old.iter().position(|awake| !awake.used.load(Ordering::Relaxed)).unwrap_or(0);
            new.extend(old.iter().skip(leaves + 1).map(Awake::copied));
            new.extend(old.iter().take(leaves).map(|awake| Awake::new(Arc::clone(&awake.session))));
        }
        new.push(Awake::new(session));
        self.shard.awake.store(Arc::new(new));
    }
}

impl Book {
    /// `entries` must be sorted.
    fn of(entries: Vec<Living>) -> Self {
        let first_end = entries.iter().map(|living| living.expires_at).min().unwrap_or(u64::MAX);
        Self { entries: entries.into_boxed_slice(), first_end }
    }

    fn find(&self, id: &SessionId) -> Option<Living> {
        let at = self.entries.binary_search_by_key(id, |living| living.id).ok()?;
        self.entries.get(at).copied()
    }
}

impl Awake {
    fn new(session: Arc<Session>) -> Self {
        Self { id: session.id, session, used: AtomicBool::new(false) }
    }

    fn copied(&self) -> Self {
        Self { used: AtomicBool::new(self.used.load(Ordering::Relaxed)), ..Self::new(Arc::clone(&self.session)) }
    }
}
