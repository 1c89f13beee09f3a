//! How fast a client may ask: a burst, then so many in a second. Takes the time as an argument.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    burst: Duration,
    /// When the requests so far would have been due, had they come evenly.
    due: Instant,
}

impl Pace {
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: interval.saturating_mul(burst), due: now }
    }

    /// From now on a burst of so many is free.
    pub(super) fn allow(&mut self, burst: u32) {
        self.burst = self.interval.saturating_mul(burst);
    }

    /// When the next request may be taken.
    pub(super) fn next(&self) -> Instant {
        self.due.checked_sub(self.burst).unwrap_or(self.due)
    }

    /// A request was taken.
    pub(super) fn taken(&mut self, now: Instant) {
        self.due = self.due.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_is_spread() {
        let start = Instant::now() + Duration::from_secs(1_000);
        let mut pace = Pace::new(3, 10, start);
        for _ in 0..3 {
            assert!(pace.next() <= start);
            pace.taken(start);
        }
        assert!(pace.next() <= start, "the first one after the burst was saved up for as well");
        pace.taken(start);
        assert_eq!(pace.next(), start + Duration::from_millis(100));
        // Rest earns a burst again, and no more than one.
        let later = start + Duration::from_secs(500);
        for _ in 0..4 {
            assert!(pace.next() <= later);
            pace.taken(later);
        }
        assert_eq!(pace.next(), later + Duration::from_millis(100));
        pace.allow(5);
        for _ in 0..2 {
            assert!(pace.next() <= later);
            pace.taken(later);
        }
        assert_eq!(pace.next(), later + Duration::from_millis(100));
    }
}
