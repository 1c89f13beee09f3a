//! Whose checks are under way: so that a person who asks for all at once waits, and others do not. A check is short, and many wait for a thread
//! only where somebody sends more than this machine can decide; who has sent most of them then is told to come back.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::access::SessionState;
use crate::server::under_way::{OneUnderWay, Source, UnderWay};
use crate::session::Session;

/// Checks under way of one person, and of one address without a session: more than a client has that waits for its answers, and answered in a
/// part of the time that an Envoy waits.
const MAX_OF_ONE: u32 = 512;
/// From so many checks on that have come and are not answered, whose they are is seen of all before any of them is decided.
const CROWD: usize = 128;

#[derive(Debug)]
pub(super) struct Places {
    arrived: Arc<AtomicUsize>,
    of_one: Arc<UnderWay<Who>>,
}

/// A check that has come; until it is dropped it is not answered.
#[derive(Debug)]
pub struct Arrived(Arc<AtomicUsize>);

/// A check's place among those of whoever asks.
pub(super) type Place = OneUnderWay<Who>;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// By any of their sessions.
    Person(Arc<Session>),
    Somebody(Source),
}

impl Places {
    pub(super) fn new() -> Self {
        Self { arrived: Arc::default(), of_one: UnderWay::new(MAX_OF_ONE) }
    }

    pub(super) fn arrive(&self) -> Arrived {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        Arrived(Arc::clone(&self.arrived))
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.arrived.load(Ordering::Relaxed) > CROWD
    }

    /// `None` when this one has as many under way as may be.
    pub(super) fn take(&self, session: &SessionState, source_ip: &str) -> Option<Place> {
        self.of_one.begin(match session {
            SessionState::Live(authenticated) | SessionState::LiveByCookie(authenticated) => {
                Who::Person(Arc::clone(&authenticated.session))
            }
            // One at rest could not be read.
            SessionState::NoCredential | SessionState::Rejected(_) | SessionState::AtRest(_) => Who::Somebody(Source::of(source_ip)),
        })
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PartialEq for Who {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Person(one), Self::Person(other)) => one.identity.principal == other.identity.principal,
            (Self::Somebody(one), Self::Somebody(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Who {}

impl Hash for Who {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Person(session) => session.identity.principal.hash(state),
            Self::Somebody(source) => source.hash(state),
        }
    }
}
