//! Streams that go on (watches, `exec`, followed logs, WebSockets), by whose they are: so that one person cannot have all that an upstream, or
//! Envoy, has room for. A stream counts from its grant until Envoy's access log tells its end. That log may lose an end; so it also tells of each
//! stream in a while that it is still there, and one of which nothing was heard for long counts no more: what is lost costs its owner a place for some
//! minutes, and nobody for good. Times come as arguments.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::Principal;

/// How long a stream counts of which nothing is heard. Envoy tells of each three times as often (`envoy_names::STILL_THERE_SECONDS`).
const LEASE_SECONDS: u64 = 900;
/// Streams of all that are counted; further ones are refused.
const MAX_OF_ALL: usize = 500_000;
/// Ends that are remembered of an Envoy's streams that were not counted, the last ones: more than come within the time that a check may take.
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

/// What an Envoy tells of one of its requests, by the id that it has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    StillThere(&'a str),
    /// It was granted, so whatever was to be counted of it had been counted by then.
    Ended(&'a str),
    /// It ended without a grant, and a check of it may be under way still.
    Left(&'a str),
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
    nodes: HashMap<Option<Arc<str>>, OfNode>,
    /// How many streams all nodes have.
    len: usize,
    /// How many each person has, of those that have any.
    counts: HashMap<Arc<Principal>, usize>,
    /// The streams by when they lapse.
    lapses: BTreeSet<(u64, StreamId)>,
}

/// What one Envoy has, by the ids that it gives.
#[derive(Debug, Default)]
struct OfNode {
    streams: HashMap<Arc<str>, Live>,
    ends: Ends,
}

/// Of what has ended without having been counted. A client may leave while its request is being checked, and Envoy tell of that before the check is
/// through: nobody would tell again of a stream that begins after its end.
#[derive(Debug, Default)]
struct Ends {
    by_age: VecDeque<Arc<str>>,
    known: HashSet<Arc<str>>,
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
        if book.nodes.get(&stream.node).is_some_and(|of_node| of_node.ends.known.contains(&stream.request_id)) {
            return Ok(Begun { streams: self, stream: None });
        }
        // An Envoy that gives two requests one id has one of them counted.
        book.end(&stream.node, &stream.request_id);
        let is_full = |book: &Book| book.count_of(owner) >= most || book.len >= self.most;
        if is_full(&book) && (book.forget_lapsed(now) == 0 || is_full(&book)) {
            return Err(TooMany);
        }
        book.begin(owner, stream.clone(), now.saturating_add(LEASE_SECONDS));
        Ok(Begun { streams: self, stream: Some(stream) })
    }

    /// What `node` tells, in its order. Most of what ended was never counted.
    pub fn hear(&self, node: Option<&Arc<str>>, news: &[News<'_>], now: u64) {
        if news.is_empty() {
            return;
        }
        let node = node.cloned();
        let mut book = self.book();
        for told in news {
            match *told {
                News::StillThere(id) => book.renew(&node, id, now.saturating_add(LEASE_SECONDS)),
                News::Ended(id) => {
                    book.end(&node, id);
                }
                News::Left(id) if book.end(&node, id) => {}
                News::Left(id) => book.nodes.entry(node.clone()).or_default().ends.remember(id),
            }
        }
    }

    /// Forgets some of the streams of which nothing was heard for long, and says whether there may be others.
    pub fn forget_some(&self, now: u64) -> bool {
        self.book().forget_lapsed(now) == SLICE
    }

    /// The Envoy has ended, and can tell of none of its streams any more: people come back at once, with as many as they had.
    pub fn forget_those_of(&self, node: Option<&Arc<str>>) {
        let node = node.cloned();
        while self.book().forget_some_of(&node) == SLICE {}
    }

    /// How many count.
    pub fn len(&self) -> usize {
        self.book().len
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
            self.streams.book().end(&stream.node, &stream.request_id);
        }
    }
}

impl Ends {
    fn remember(&mut self, id: &str) {
        if self.known.contains(id) {
            return;
        }
        let id: Arc<str> = Arc::from(id);
        self.known.insert(Arc::clone(&id));
        self.by_age.push_back(id);
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
        let StreamId { node, request_id } = stream;
        if self.nodes.entry(node).or_default().streams.insert(request_id, Live { owner, until }).is_none() {
            self.len += 1;
        }
    }

    fn renew(&mut self, node: &Option<Arc<str>>, id: &str, until: u64) {
        let Some(streams) = self.nodes.get_mut(node).map(|of_node| &mut of_node.streams) else { return };
        let Some((request_id, _)) = streams.get_key_value(id) else { return };
        let stream = StreamId { node: node.clone(), request_id: Arc::clone(request_id) };
        if let Some(live) = streams.get_mut(id) {
            let before = std::mem::replace(&mut live.until, until);
            let mut lapse = (before, stream);
            self.lapses.remove(&lapse);
            lapse.0 = until;
            self.lapses.insert(lapse);
        }
    }

    /// Says whether it counted.
    fn end(&mut self, node: &Option<Arc<str>>, id: &str) -> bool {
        let ended = self.nodes.get_mut(node).and_then(|of_node| of_node.streams.remove_entry(id));
        let Some((request_id, Live { owner, until })) = ended else { return false };
        self.len = self.len.saturating_sub(1);
        self.lapses.remove(&(until, StreamId { node: node.clone(), request_id }));
        if let Some(count) = self.counts.get_mut(&owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
        true
    }

    /// Says how many it forgot; there may be more where that is [`SLICE`].
    fn forget_some_of(&mut self, node: &Option<Arc<str>>) -> usize {
        let streams = self.nodes.get(node).map(|of_node| &of_node.streams);
        let some: Vec<Arc<str>> = streams.into_iter().flat_map(|streams| streams.keys().take(SLICE).cloned()).collect();
        for id in &some {
            self.end(node, id);
        }
        some.len()
    }

    /// Says how many it forgot; there may be more where that is [`SLICE`].
    fn forget_lapsed(&mut self, now: u64) -> usize {
        let lapsed: Vec<StreamId> =
            self.lapses.iter().take_while(|(until, _)| *until <= now).take(SLICE).map(|(_, stream)| stream.clone()).collect();
        for stream in &lapsed {
            self.end(&stream.node, &stream.request_id);
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

    fn end(streams: &LiveStreams, id: &str) {
        streams.hear(None, &[News::Ended(id)], 0);
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
        end(&streams, "9");
        assert_eq!(begin("a", "3"), Err(TooMany));
        end(&streams, "1");
        end(&streams, "1");
        assert_eq!((begin("a", "3"), begin("a", "5")), (Ok(()), Err(TooMany)));
        for id in ["2", "3", "4"] {
            end(&streams, id);
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
            streams.hear(None, &[News::StillThere("1")], now);
        }
        assert_eq!(begin("3", LEASE_SECONDS - 1), Err(TooMany));
        assert_eq!(begin("3", LEASE_SECONDS), Ok(()));
        assert_eq!(begin("4", LEASE_SECONDS), Err(TooMany));
        assert!(!streams.forget_some(LEASE_SECONDS));
        assert_eq!(streams.len(), 2);
        assert!(!streams.forget_some(10 * LEASE_SECONDS));
        assert!(streams.is_empty());
        // Of what is not counted nothing is kept.
        streams.hear(None, &[News::StillThere("5")], 0);
        assert!(streams.is_empty());
    }

    #[test]
    fn no_envoy_speaks_of_anothers_streams() {
        let streams = LiveStreams::default();
        let (edge, other) = (Arc::from("edge"), Arc::from("other"));
        streams.begin(&who("a"), StreamId::new(Some(&edge), "1"), 1, 0).unwrap().granted();
        for foreign in [Some(&other), None] {
            streams.hear(foreign, &[News::Ended("1"), News::Left("1"), News::Left("2")], 0);
        }
        assert_eq!(streams.len(), 1);
        streams.hear(Some(&edge), &[News::Ended("1")], 0);
        assert!(streams.is_empty());
        streams.begin(&who("a"), StreamId::new(Some(&edge), "2"), 1, 0).unwrap().granted();
        assert_eq!(streams.len(), 1, "what others say of theirs that left is not of this one");
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
        let (streams, edge) = (LiveStreams::default(), Arc::from("edge"));
        streams.hear(None, &[News::Left("1")], 0);
        assert_eq!((begin(&streams, ("a", "1"), 1, 0), streams.len()), (Ok(()), 0));
        // Not more is kept than may be, and nobody pushes out what another Envoy told.
        streams.hear(Some(&edge), &[News::Left("1")], 0);
        for id in 0..2 * ENDS {
            streams.hear(None, &[News::Left(&id.to_string()), News::Left(&id.to_string())], 0);
        }
        let book = streams.book();
        let kept = |node| book.nodes.get(&node).map(|of_node| (of_node.ends.by_age.len(), of_node.ends.known.len()));
        assert_eq!((kept(None), kept(Some(edge))), (Some((ENDS, ENDS)), Some((1, 1))));
    }

    #[test]
    fn what_was_granted_and_what_counted_leaves_nothing_to_remember() {
        let streams = LiveStreams::default();
        assert_eq!((begin(&streams, ("a", "1"), 2, 0), begin(&streams, ("a", "2"), 2, 0)), (Ok(()), Ok(())));
        streams.hear(None, &[News::Ended("0"), News::Ended("1"), News::Left("2")], 0);
        let book = streams.book();
        assert!(book.len == 0 && book.counts.is_empty() && book.lapses.is_empty());
        assert!(book.nodes.values().all(|of_node| of_node.streams.is_empty() && of_node.ends.known.is_empty()));
    }
}
