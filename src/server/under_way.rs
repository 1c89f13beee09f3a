//! What is under way at a time, counted by whose it is, so that nobody can have all of it: requests to the login pages, checks, answers of
//! identity providers. Knows nothing of what it counts.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who counts as one: an IPv4 address, or the network of an IPv6 address, for one customer has all addresses of a /64.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Source(Option<IpAddr>);

impl Source {
    /// A text that is no address is one source together with all others that are none.
    pub fn of(address: &str) -> Self {
        Self(address.parse().ok().map(|address| match address {
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => IpAddr::V4(address),
                None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            },
            v4 @ IpAddr::V4(_) => v4,
        }))
    }
}

/// What is under way, by whose it is.
#[derive(Debug)]
pub struct UnderWay<K: Eq + Hash> {
    most: u32,
    counts: Mutex<HashMap<K, u32>>,
}

/// One of them; counts until it is dropped.
#[derive(Debug)]
pub struct OneUnderWay<K: Eq + Hash> {
    all: Arc<UnderWay<K>>,
    whose: K,
}

impl<K: Eq + Hash + Clone> UnderWay<K> {
    /// `most`: of each.
    pub fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// `None` when as many are under way as may be.
    pub fn begin(self: &Arc<Self>, whose: K) -> Option<OneUnderWay<K>> {
        let mut counts = self.counts();
        let count = counts.entry(whose.clone()).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(OneUnderWay { all: Arc::clone(self), whose })
    }
}

impl<K: Eq + Hash> UnderWay<K> {
    fn counts(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for OneUnderWay<K> {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.whose) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let same = |one: &str, other: &str| Source::of(one) == Source::of(other);
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("", "0.0.0.0") && same("", "nobody"));
    }

    #[test]
    fn what_is_under_way_counts_until_it_ends() {
        const MOST: u32 = 128;
        let all = UnderWay::new(MOST);
        let mut open: Vec<_> = (0..MOST).map(|_| all.begin("one").unwrap()).collect();
        assert!(all.begin("one").is_none());
        assert!(all.begin("other").is_some());
        open.pop();
        assert!(all.begin("one").is_some());
        open.clear();
        assert!(all.counts().is_empty(), "nothing is kept of those that left");
    }
}
