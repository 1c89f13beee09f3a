//! What the streams of all Envoys take of what there is for them: places, and memory for the names that they ask for. A node of the
//! configuration has a part of it, so that one that means harm, or is broken, leaves the others theirs. The unnamed Envoy has all: it is the only
//! one, or kubepass's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::AdsLimits;

#[derive(Debug)]
pub(super) struct Shares {
    limits: AdsLimits,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    all: Taken,
    of_nodes: HashMap<Arc<str>, Taken>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Taken {
    streams: usize,
    name_cost: usize,
}

/// A stream's place. It is taken until both who reads the stream's requests and who writes its responses have dropped it: a client may say that
/// nothing follows, and leave for ever unread what it has asked for.
#[derive(Debug)]
pub(super) struct Place {
    shares: Arc<Shares>,
    node: Option<Arc<str>>,
}

/// What one stream takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    place: Arc<Place>,
    name_cost: usize,
}

/// There is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("{0} xDS streams are open already")]
    Streams(usize),
    #[error("the node `{0}` has {1} xDS streams open already")]
    StreamsOfNode(Arc<str>, usize),
    #[error("the names that all clients together subscribe to are more than kubepass keeps")]
    Names,
    #[error("the names that all streams of the node `{0}` subscribe to are more than kubepass keeps for one node")]
    NamesOfNode(Arc<str>),
}

impl Shares {
    pub(super) fn new(limits: AdsLimits) -> Arc<Self> {
        Arc::new(Self { limits, book: Mutex::default() })
    }

    /// A place for a stream of this node.
    pub(super) fn open(self: &Arc<Self>, node: Option<&Arc<str>>) -> Result<Share, TooMuch> {
        let mut book = self.book();
        let of_node = node.map(|node| (node, book.of(node).streams));
        if let Some((node, open)) = of_node.filter(|(_, open)| *open >= self.limits.streams_of_one_node) {
            return Err(TooMuch::StreamsOfNode(Arc::clone(node), open));
        }
        if book.all.streams >= self.limits.streams {
            return Err(TooMuch::Streams(book.all.streams));
        }
        book.change(node, |taken| taken.streams += 1);
        Ok(Share { place: Arc::new(Place { shares: Arc::clone(self), node: node.cloned() }), name_cost: 0 })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub(super) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }

    /// The stream's names cost so much now.
    pub(super) fn names_cost(&mut self, cost: usize) -> Result<(), TooMuch> {
        let before = std::mem::replace(&mut self.name_cost, cost);
        if before == cost {
            return Ok(());
        }
        let Place { shares, node } = &*self.place;
        let (limits, mut book) = (shares.limits, shares.book());
        book.change(node.as_ref(), |taken| taken.name_cost = taken.name_cost.saturating_sub(before).saturating_add(cost));
        let over = |taken: Taken, limit: usize| cost > before && taken.name_cost > limit;
        match node {
            _ if over(book.all, limits.name_cost) => Err(TooMuch::Names),
            Some(node) if over(book.of(node), limits.name_cost_of_one_node) => Err(TooMuch::NamesOfNode(Arc::clone(node))),
            _ => Ok(()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Place { shares, node } = &*self.place;
        shares.book().change(node.as_ref(), |taken| taken.name_cost = taken.name_cost.saturating_sub(self.name_cost));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.book().change(self.node.as_ref(), |taken| taken.streams = taken.streams.saturating_sub(1));
    }
}

impl Book {
    fn of(&self, node: &str) -> Taken {
        self.of_nodes.get(node).copied().unwrap_or_default()
    }

    fn change(&mut self, node: Option<&Arc<str>>, change: impl Fn(&mut Taken)) {
        change(&mut self.all);
        let Some(node) = node else { return };
        let taken = self.of_nodes.entry(Arc::clone(node)).or_default();
        change(taken);
        if *taken == Taken::default() {
            self.of_nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn shares() -> Arc<Shares> {
        Shares::new(AdsLimits { streams: 4, streams_of_one_node: 2, name_cost: 100, name_cost_of_one_node: 40, ..AdsLimits::default() })
    }

    #[test]
    fn one_node_leaves_the_others_their_streams() {
        let (shares, edge, other) = (shares(), Arc::from("edge"), Arc::from("other"));
        let open = |node: &Arc<str>| shares.open(Some(node));
        let first = open(&edge).unwrap();
        let _second = open(&edge).unwrap();
        assert_eq!(open(&edge).unwrap_err(), TooMuch::StreamsOfNode(Arc::clone(&edge), 2));
        let of_other = open(&other).unwrap();
        drop(first);
        let _third = open(&edge).unwrap();
        let _unnamed = shares.open(None).unwrap();
        assert_eq!(shares.open(None).unwrap_err(), TooMuch::Streams(4));
        assert_eq!(open(&other).unwrap_err(), TooMuch::Streams(4));
        drop(of_other);
        assert!(shares.open(None).is_ok());
    }

    #[test]
    fn one_node_leaves_the_others_their_names() {
        let (shares, edge, other) = (shares(), Arc::from("edge"), Arc::from("other"));
        let (mut one, mut two) = (shares.open(Some(&edge)).unwrap(), shares.open(Some(&edge)).unwrap());
        let mut of_other = shares.open(Some(&other)).unwrap();
        assert_eq!(one.names_cost(30), Ok(()));
        assert_eq!(two.names_cost(20), Err(TooMuch::NamesOfNode(Arc::clone(&edge))));
        assert_eq!(of_other.names_cost(40), Ok(()));
        // Less is never too much.
        assert_eq!(two.names_cost(15), Ok(()));
        drop(one);
        assert_eq!(two.names_cost(40), Ok(()));
        let mut unnamed = shares.open(None).unwrap();
        assert_eq!(unnamed.names_cost(21), Err(TooMuch::Names));
        assert_eq!(unnamed.names_cost(20), Ok(()));
        drop((two, of_other, unnamed));
        assert!(shares.book().of_nodes.is_empty() && shares.book().all == Taken::default(), "nothing is kept of those that left");
    }
}
