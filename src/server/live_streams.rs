//! Streams that go on (watches, `exec`, followed logs, WebSockets), by whose they are: so that one person cannot have all that an upstream, or
//! Envoy, has room for. A stream counts from its grant until Envoy's access log tells its end. That log may lose an end; so it also tells of each
//! stream in a while that it is still there, and one of which nothing was heard for long counts no more: what is lost costs its owner a place for some
//! minutes, and nobody for good. Times come as arguments.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::Principal;

/// How long a stream counts of which nothing is heard. Envoy tells of each three times as often (`envoy_names::STILL_THERE_SECONDS`).
const LEASE_SECONDS: u64 = 900;
/// Streams of all that are counted; further ones are refused.
const MAX_OF_ALL: usize = 500_000;
/// Ends that are remembered of streams that were not counted, the last ones: more than come within the time that a check may take.
const ENDS: usize = 8_192;
/// Streams that are forgotten at a time: checks wait for no more than that.
const SLICE: usize = 512;

/// All streams that count, shared by who grants them and by who hears of their end.
#[derive(Debug)]
pub struct LiveStreams {
    most: usize,
    book: Mutex<Book>,
}

/// A stream, as the Envoy names it that it goes through. No other's word counts for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    node: Option<Arc<str>>,
    request_id: Arc<str>,
}

/// There is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// A stream that was counted and has not been granted yet: it counts no more when this is dropped, for who asked may have left meanwhile.
#[derive(Debug)]
pub struct Begun<'a> {
    streams: &'a LiveStreams,
    stream: Option<StreamId>,
}

#[derive(Debug, Default)]
struct Book {
    streams: HashMap<StreamId, Live>,
    /// How many each has, of those that have any.
    counts: HashMap<Arc<Principal>, usize>,
    /// The streams by when they lapse.
    lapses: BTreeSet<(u64, StreamId)>,
    ends: Ends,
}

/// Of what has ended without having been counted. A client may leave while its request is being checked, and Envoy tell of that before the check is
/// through: nobody would tell again of a stream that begins after its end.
#[derive(Debug, Default)]
struct Ends {
    by_age: VecDeque<StreamId>,
    known: HashSet<StreamId>,
}

#[derive(Debug)]
struct Live {
    owner: Arc<Principal>,
    /// The second until which it counts.
    until: u64,
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
    /// Counts a stream that is about to be granted; `most` is how many its owner may have.
    ///
    /// # Errors
    /// When they have as many, or all together have as many as there may be.
    pub fn begin(&self, owner: &Principal, stream: StreamId, most: usize, now: u64) -> Result<Begun<'_>, TooMany> {
        let mut book = self.book();
        if book.ends.known.contains(&stream) {
            return Ok(Begun { streams: self, stream: None });
        }
        // An Envoy that gives two requests one id has one of them counted.
        book.end(&stream);
        let is_full = |book: &Book| book.count_of(owner) >= most || book.streams.len() >= self.most;
        if is_full(&book) && (book.forget_lapsed(now) == 0 || is_full(&book)) {
            return Err(TooMany);
        }
        book.begin(owner, stream.clone(), now.saturating_add(LEASE_SECONDS));
        Ok(Begun { streams: self, stream: Some(stream) })
    }

    /// The stream is there still.
    pub fn renew(&self, stream: &StreamId, now: u64) {
        self.book().renew(stream, now.saturating_add(LEASE_SECONDS));
    }

    /// The stream has ended. Most that end were never counted.
    pub fn end(&self, stream: &StreamId) {
        let mut book = self.book();
        if !book.end(stream) {
            book.ends.remember(stream);
        }
    }

    /// Forgets some of the streams of which nothing was heard for long, and says whether there may be others.
    pub fn forget_some(&self, now: u64) -> bool {
        self.book().forget_lapsed(now) == SLICE
    }

    /// The Envoy has ended, and can tell of none of its streams any more: people come back at once, with as many as they had.
    pub fn forget_those_of(&self, node: Option<&Arc<str>>) {
        let mut after = None;
        while let Some(last) = self.book().forget_some_of(node, after.as_ref()) {
            after = Some(last);
        }
    }

    /// How many count.
    pub fn len(&self) -> usize {
        self.book().streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun<'_> {
    /// It goes on.
    pub fn granted(mut self) {
        self.stream = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            self.streams.book().end(stream);
        }
    }
}

impl Ends {
    fn remember(&mut self, stream: &StreamId) {
        if self.known.insert(stream.clone()) {
            self.by_age.push_back(stream.clone());
        }
        if self.by_age.len() > ENDS
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Book {
    fn count_of(&self, owner: &Principal) -> usize {
        self.counts.get(owner).copied().unwrap_or(0)
    }

    fn begin(&mut self, owner: &Principal, stream: StreamId, until: u64) {
        let owner = self.counts.get_key_value(owner).map_or_else(|| Arc::new(owner.clone()), |(known, _)| Arc::clone(known));
        *self.counts.entry(Arc::clone(&owner)).or_default() += 1;
        self.lapses.insert((until, stream.clone()));
        self.streams.insert(stream, Live { owner, until });
    }

    fn renew(&mut self, stream: &StreamId, until: u64) {
        let Some(live) = self.streams.get_mut(stream) else { return };
        let before = std::mem::replace(&mut live.until, until);
        self.lapses.remove(&(before, stream.clone()));
        self.lapses.insert((until, stream.clone()));
    }

    /// Says whether it counted.
    fn end(&mut self, stream: &StreamId) -> bool {
        let Some((stream, Live { owner, until })) = self.streams.remove_entry(stream) else { return false };
        self.lapses.remove(&(until, stream));
        if let Some(count) = self.counts.get_mut(&owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
        true
    }

    /// Looks at some behind `after`, and gives the last of them; `None` when there are no more.
    fn forget_some_of(&mut self, node: Option<&Arc<str>>, after: Option<&(u64, StreamId)>) -> Option<(u64, StreamId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<_> = self.lapses.range((from, Bound::Unbounded)).take(SLICE).cloned().collect();
        for (_, stream) in some.iter().filter(|(_, stream)| stream.node.as_ref() == node) {
            self.end(stream);
        }
        some.into_iter().last()
    }

    /// Says how many it forgot; there may be more where that is [`SLICE`].
    fn forget_lapsed(&mut self, now: u64) -> usize {
        let lapsed: Vec<StreamId> =
            self.lapses.iter().take_while(|(until, _)| *until <= now).take(SLICE).map(|(_, stream)| stream.clone()).collect();
        for stream in &lapsed {
            self.end(stream);
        }
        lapsed.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::envoy_names::STILL_THERE_SECONDS;

    fn who(subject: &str) -> Principal {
        Principal { idp: "corp".into(), subject: subject.into() }
    }

    fn stream(id: &str) -> StreamId {
        StreamId::new(None, id)
    }

    /// Whose, and its id.
    fn begin(streams: &LiveStreams, (subject, id): (&str, &str), most: usize, now: u64) -> Result<(), TooMany> {
        streams.begin(&who(subject), stream(id), most, now).map(Begun::granted)
    }

    #[test]
    fn one_person_leaves_the_others_their_streams() {
        let streams = LiveStreams::default();
        let begin = |subject: &str, id: &str| begin(&streams, (subject, id), 2, 0);
        assert_eq!((begin("a", "1"), begin("a", "2"), begin("a", "9")), (Ok(()), Ok(()), Err(TooMany)));
        assert_eq!(begin("b", "4"), Ok(()));
        // The refused one was never counted, and one that ended makes room.
        streams.end(&stream("9"));
        assert_eq!(begin("a", "3"), Err(TooMany));
        streams.end(&stream("1"));
        streams.end(&stream("1"));
        assert_eq!((begin("a", "3"), begin("a", "5")), (Ok(()), Err(TooMany)));
        for id in ["2", "3", "4"] {
            streams.end(&stream(id));
        }
        assert!(
            streams.is_empty() && streams.book().counts.is_empty() && streams.book().lapses.is_empty(),
            "nothing is kept of those that ended"
        );
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let streams = LiveStreams { most: 2, ..LiveStreams::default() };
        let begin = |subject: &str| begin(&streams, (subject, subject), 2, 0);
        assert_eq!((begin("a"), begin("b"), begin("c")), (Ok(()), Ok(()), Err(TooMany)));
    }

    #[test]
    fn an_end_that_was_lost_costs_a_place_for_some_minutes() {
        let streams = LiveStreams::default();
        let begin = |id: &str, now| begin(&streams, ("a", id), 2, now);
        assert_eq!((begin("1", 0), begin("2", 0)), (Ok(()), Ok(())));
        // It is heard of one of them, as Envoy tells it, and once not.
        for now in [STILL_THERE_SECONDS, 3 * STILL_THERE_SECONDS] {
            streams.renew(&stream("1"), now);
        }
        assert_eq!(begin("3", LEASE_SECONDS - 1), Err(TooMany));
        assert_eq!(begin("3", LEASE_SECONDS), Ok(()));
        assert_eq!(begin("4", LEASE_SECONDS), Err(TooMany));
        assert!(!streams.forget_some(LEASE_SECONDS));
        assert_eq!(streams.len(), 2);
        assert!(!streams.forget_some(10 * LEASE_SECONDS));
        assert!(streams.is_empty());
        // Of what is not counted nothing is kept.
        streams.renew(&stream("5"), 0);
        assert!(streams.is_empty());
    }

    #[test]
    fn no_envoy_speaks_of_anothers_streams() {
        let streams = LiveStreams::default();
        let (edge, other) = (Arc::from("edge"), Arc::from("other"));
        streams.begin(&who("a"), StreamId::new(Some(&edge), "1"), 1, 0).unwrap().granted();
        for foreign in [StreamId::new(Some(&other), "1"), StreamId::new(None, "1")] {
            streams.end(&foreign);
        }
        assert_eq!(streams.len(), 1);
        streams.end(&StreamId::new(Some(&edge), "1"));
        assert!(streams.is_empty());
    }

    /// An Envoy makes the ids, and one that means harm makes one for two people.
    #[test]
    fn two_streams_of_one_id_keep_no_place_for_ever() {
        let streams = LiveStreams::default();
        assert_eq!((begin(&streams, ("a", "1"), 1, 0), begin(&streams, ("b", "1"), 1, 0)), (Ok(()), Ok(())));
        assert_eq!(begin(&streams, ("a", "2"), 1, 0), Ok(()), "the first counts no more");
        assert!(!streams.forget_some(LEASE_SECONDS));
        assert!(streams.is_empty() && streams.book().counts.is_empty() && streams.book().lapses.is_empty());
    }

    #[test]
    fn a_stream_that_is_not_granted_after_all_takes_no_place() {
        let streams = LiveStreams::default();
        drop(streams.begin(&who("a"), stream("1"), 1, 0).unwrap());
        assert!(streams.is_empty());
    }

    /// However many there are: checks wait for no more than a part of them.
    #[test]
    fn what_lapses_is_forgotten_part_by_part() {
        let streams = LiveStreams::default();
        for id in 0..2 * SLICE + 1 {
            assert_eq!(begin(&streams, ("a", &id.to_string()), usize::MAX, 0), Ok(()));
        }
        let left: Vec<(bool, usize)> = (0..3).map(|_| (streams.forget_some(LEASE_SECONDS), streams.len())).collect();
        assert_eq!(left, [(true, SLICE + 1), (true, 1), (false, 0)]);
    }

    #[test]
    fn streams_of_an_envoy_that_has_ended_take_no_place() {
        let (streams, edge) = (LiveStreams::default(), Arc::from("edge"));
        for id in 0..2 * SLICE + 1 {
            assert_eq!(begin(&streams, ("a", &id.to_string()), usize::MAX, 0), Ok(()));
        }
        streams.begin(&who("a"), StreamId::new(Some(&edge), "1"), usize::MAX, 0).unwrap().granted();
        streams.forget_those_of(None);
        assert_eq!((streams.len(), streams.book().count_of(&who("a"))), (1, 1));
    }

    /// As a client has it that asks and leaves at once, again and again.
    #[test]
    fn a_stream_whose_end_was_told_before_it_began_takes_no_place() {
        let streams = LiveStreams::default();
        streams.end(&stream("1"));
        assert_eq!((begin(&streams, ("a", "1"), 1, 0), streams.len()), (Ok(()), 0));
        // Not more is kept than may be.
        for id in 0..2 * ENDS {
            streams.end(&stream(&id.to_string()));
            streams.end(&stream(&id.to_string()));
        }
        let book = streams.book();
        assert_eq!((book.ends.by_age.len(), book.ends.known.len()), (ENDS, ENDS));
    }
}
