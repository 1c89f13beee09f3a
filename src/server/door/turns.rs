//! Handshakes that are under way: so many at a time, and so many from one address, that nobody can take the turns of all others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// At a time, for one service.
pub(super) const MAX_TURNS: usize = 256;
/// Of these, from one address.
const MAX_TURNS_OF_ONE: usize = 16;

#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's leave to make its handshake; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    source: IpAddr,
}

impl Turns {
    /// `None`: too many are under way.
    pub(super) fn take(&self, from: IpAddr) -> Option<Turn> {
        let source = source(from);
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(&source).copied().unwrap_or(0);
        if all >= MAX_TURNS || own >= MAX_TURNS_OF_ONE {
            return None;
        }
        taken.insert(source, own + 1);
        Some(Turn { turns: self.clone(), source })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.turns.taken();
        let left = taken.get(&self.source).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.source);
        } else {
            taken.insert(self.source, left);
        }
    }
}

/// Who has one IPv6 address usually has all with the same first half.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_address_does_not_take_the_turns_of_others() {
        let turns = Turns::default();
        let (greedy, other): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let held: Vec<_> = (0..MAX_TURNS_OF_ONE).map(|_| turns.take(greedy).unwrap()).collect();
        assert!(turns.take(greedy).is_none() && turns.take("2001:db8::ffff".parse().unwrap()).is_none());
        assert!(turns.take(other).is_some() && turns.take("2001:db9::1".parse().unwrap()).is_some());
        drop(held);
        assert!(turns.take(greedy).is_some());
        assert!(turns.taken().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn all_together_have_so_many_turns() {
        let turns = Turns::default();
        let address = |number: usize| IpAddr::from([192, 0, 2, u8::try_from(number / MAX_TURNS_OF_ONE).unwrap()]);
        let held: Vec<_> = (0..MAX_TURNS).map(|number| turns.take(address(number)).unwrap()).collect();
        assert!(turns.take("198.51.100.1".parse().unwrap()).is_none());
        drop(held);
        assert!(turns.take("198.51.100.1".parse().unwrap()).is_some());
    }
}
