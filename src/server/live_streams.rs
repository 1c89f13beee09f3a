//! Streams that go on (watches, `exec`, followed logs, WebSockets), by whose they are: so that one person cannot have all that an upstream, or
//! Envoy, has room for. A stream counts from its grant until Envoy's access log tells its end. That log may lose an end; so it also tells of each
//! stream in a while that it is still there, and one of which nothing was heard for long counts no more: what is lost costs its owner a place for some
//! minutes, and nobody for good. Times come as arguments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::Principal;

/// How long a stream counts of which nothing is heard. Envoy tells of each three times as often (`envoy_names::STILL_THERE_SECONDS`).
const LEASE_SECONDS: u64 = 900;
/// Streams of all that are counted; further ones are refused.
const MAX_OF_ALL: usize = 500_000;

/// All streams that count, shared by who grants them and by who hears of their end.
#[derive(Debug)]
pub struct LiveStreams {
    most: usize,
    book: Mutex<Book>,
}

/// A stream, as the Envoy names it that it goes through. No other's word counts for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamId {
    node: Option<Arc<str>>,
    request_id: Arc<str>,
}

/// There is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

#[derive(Debug, Default)]
struct Book {
    owners: HashMap<StreamId, Arc<Principal>>,
    /// With the second until which each counts.
    of: HashMap<Arc<Principal>, HashMap<StreamId, u64>>,
}

impl StreamId {
    /// `node`: what the Envoy's connection shows.
    pub fn new(node: Option<&Arc<str>>, request_id: &str) -> Self {
        Self { node: node.cloned(), request_id: Arc::from(request_id) }
    }
}

impl Default for LiveStreams {
    fn default() -> Self {
        Self { most: MAX_OF_ALL, book: Mutex::default() }
    }
}

impl LiveStreams {
    /// Counts a stream that is granted; `most` is how many its owner may have.
    ///
    /// # Errors
    /// When they have as many, or all together have as many as there may be.
    pub fn begin(&self, owner: &Principal, stream: StreamId, most: usize, now: u64) -> Result<(), TooMany> {
        let mut book = self.book();
        if book.count_of(owner) >= most {
            book.forget_lapsed(owner, now);
        }
        if book.count_of(owner) >= most || book.owners.len() >= self.most {
            return Err(TooMany);
        }
        let owner = book.of.get_key_value(owner).map_or_else(|| Arc::new(owner.clone()), |(known, _)| Arc::clone(known));
        book.of.entry(Arc::clone(&owner)).or_default().insert(stream.clone(), now.saturating_add(LEASE_SECONDS));
        book.owners.insert(stream, owner);
        Ok(())
    }

    /// The stream is there still.
    pub fn renew(&self, stream: &StreamId, now: u64) {
        let mut book = self.book();
        let Some(owner) = book.owners.get(stream).cloned() else { return };
        if let Some(until) = book.of.get_mut(&owner).and_then(|streams| streams.get_mut(stream)) {
            *until = now.saturating_add(LEASE_SECONDS);
        }
    }

    /// The stream has ended. Most that end were never counted.
    pub fn end(&self, stream: &StreamId) {
        self.book().end(stream);
    }

    /// Forgets the streams of which nothing was heard for long.
    pub fn sweep(&self, now: u64) {
        let mut book = self.book();
        let owners: Vec<_> = book.of.keys().cloned().collect();
        for owner in owners {
            book.forget_lapsed(&owner, now);
        }
    }

    /// How many count.
    pub fn len(&self) -> usize {
        self.book().owners.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn count_of(&self, owner: &Principal) -> usize {
        self.of.get(owner).map_or(0, HashMap::len)
    }

    fn end(&mut self, stream: &StreamId) {
        let Some(owner) = self.owners.remove(stream) else { return };
        let Some(streams) = self.of.get_mut(&owner) else { return };
        streams.remove(stream);
        if streams.is_empty() {
            self.of.remove(&owner);
        }
    }

    fn forget_lapsed(&mut self, owner: &Principal, now: u64) {
        let Some(streams) = self.of.get(owner) else { return };
        let lapsed: Vec<_> = streams.iter().filter(|(_, until)| **until <= now).map(|(stream, _)| stream.clone()).collect();
        for stream in lapsed {
            self.end(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy_names::STILL_THERE_SECONDS;

    fn who(subject: &str) -> Principal {
        Principal { idp: "corp".into(), subject: subject.into() }
    }

    fn stream(id: &str) -> StreamId {
        StreamId::new(None, id)
    }

    #[test]
    fn one_person_leaves_the_others_their_streams() {
        let streams = LiveStreams::default();
        let begin = |subject: &str, id: &str| streams.begin(&who(subject), stream(id), 2, 0);
        assert_eq!((begin("a", "1"), begin("a", "2"), begin("a", "3")), (Ok(()), Ok(()), Err(TooMany)));
        assert_eq!(begin("b", "4"), Ok(()));
        // The refused one was never counted, and one that ended makes room.
        streams.end(&stream("3"));
        assert_eq!(begin("a", "3"), Err(TooMany));
        streams.end(&stream("1"));
        streams.end(&stream("1"));
        assert_eq!((begin("a", "3"), begin("a", "5")), (Ok(()), Err(TooMany)));
        for id in ["2", "3", "4"] {
            streams.end(&stream(id));
        }
        assert!(streams.is_empty() && streams.book().of.is_empty(), "nothing is kept of those that ended");
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let streams = LiveStreams { most: 2, ..LiveStreams::default() };
        let begin = |subject: &str| streams.begin(&who(subject), stream(subject), 2, 0);
        assert_eq!((begin("a"), begin("b"), begin("c")), (Ok(()), Ok(()), Err(TooMany)));
    }

    #[test]
    fn an_end_that_was_lost_costs_a_place_for_some_minutes() {
        let streams = LiveStreams::default();
        let begin = |id: &str, now| streams.begin(&who("a"), stream(id), 2, now);
        assert_eq!((begin("1", 0), begin("2", 0)), (Ok(()), Ok(())));
        // It is heard of one of them, as Envoy tells it, and once not.
        for now in [STILL_THERE_SECONDS, 3 * STILL_THERE_SECONDS] {
            streams.renew(&stream("1"), now);
        }
        assert_eq!(begin("3", LEASE_SECONDS - 1), Err(TooMany));
        assert_eq!(begin("3", LEASE_SECONDS), Ok(()));
        assert_eq!(begin("4", LEASE_SECONDS), Err(TooMany));
        streams.sweep(LEASE_SECONDS);
        assert_eq!(streams.len(), 2);
        streams.sweep(10 * LEASE_SECONDS);
        assert!(streams.is_empty());
        // Of what is not counted nothing is kept.
        streams.renew(&stream("5"), 0);
        assert!(streams.is_empty());
    }

    #[test]
    fn no_envoy_speaks_of_anothers_streams() {
        let streams = LiveStreams::default();
        let (edge, other) = (Arc::from("edge"), Arc::from("other"));
        assert_eq!(streams.begin(&who("a"), StreamId::new(Some(&edge), "1"), 1, 0), Ok(()));
        for foreign in [StreamId::new(Some(&other), "1"), StreamId::new(None, "1")] {
            streams.end(&foreign);
        }
        assert_eq!(streams.len(), 1);
        streams.end(&StreamId::new(Some(&edge), "1"));
        assert!(streams.is_empty());
    }
}
