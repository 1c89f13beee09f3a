//! What the web part bounds, each by name, and the small tables that hold the bounds: requests of one source in a minute, states that were used.
//! Time comes as an argument.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::server::under_way::Source;

/// The largest body of a request, in bytes: our forms are a few hundred.
pub(super) const BODY_BYTES: usize = 64 * 1024;
/// All headers of a request together, in bytes; Envoy's own limit is 60 KiB.
pub(super) const HEADER_BYTES: usize = 96 * 1024;
/// For a connection to send the headers of its next request.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// For one request, everything included: below the 30 s after which Envoy would answer without a word of advice.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(28);
/// Connections at a time; only Envoys connect.
pub(super) const CONNECTIONS: usize = 1024;
/// Answers of one identity provider that are worked on at a time: one that is slow must not hold up the log-ins at others.
pub(super) const CONCURRENT_LOGINS: u32 = 64;
/// Log-ins that one browser may have open at a time.
pub(super) const PARALLEL_LOGINS: usize = 4;
/// From the start of a login to its return, in seconds.
pub(super) const LOGIN_SECONDS: u64 = 600;
/// Life of a page's form, in seconds.
pub(super) const FORM_SECONDS: u64 = 600;
/// Life of a one-time code, in seconds.
pub(super) const CODE_SECONDS: u64 = 60;
/// One-time codes at a time.
pub(super) const CODES: usize = 10_000;
/// One-time codes of one session at a time.
pub(super) const CODES_PER_SESSION: usize = 8;
/// Login states that are remembered as used.
pub(super) const USED_STATES: usize = 50_000;
/// Requests to the token endpoints that one source may make in a minute; a company behind one address fits.
pub(super) const TOKEN_REQUESTS_PER_MINUTE: u32 = 1_200;
/// Returns from an identity provider that one source may make in a minute: each takes room among the states that were used, for ten minutes.
pub(super) const LOGINS_PER_MINUTE: u32 = 1_200;
/// Requests of one source that may be under way at a time: who sends bodies slowly must not hold every connection.
pub(super) const UNDER_WAY_PER_SOURCE: u32 = 128;
/// Sources that are counted at a time; beyond it the rest shares one count.
pub(super) const SOURCES: usize = 10_000;
/// Sessions that one person may have; one more ends the oldest. Far above what browsers and machines of one person need.
pub(super) const SESSIONS_PER_PERSON: usize = 100;
/// A session with less than this to live, in seconds, is not handed to a client: its user logs in again instead.
pub(super) const LEAST_SESSION_SECONDS: u64 = 60;

/// Counts requests by source in windows of a minute.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_minute: u32,
    counts: Mutex<HashMap<Source, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    minute: u64,
    count: u32,
}

impl RateLimit {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, counts: Mutex::default() }
    }

    /// Whether `source` may make one more request at `now` (Unix seconds).
    pub(super) fn allow(&self, source: &str, now: u64) -> bool {
        let source = Source::of(source);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now / 60;
        if counts.len() >= SOURCES && !counts.contains_key(&source) {
            counts.retain(|_, window| window.minute == minute);
        }
        let source = if counts.len() >= SOURCES && !counts.contains_key(&source) { Source::default() } else { source };
        let window = counts.entry(source).or_insert(Window { minute, count: 0 });
        if window.minute != minute {
            *window = Window { minute, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        window.count <= self.per_minute
    }
}

/// The hashes of login states that came back: each counts once.
#[derive(Debug, Default)]
pub(super) struct UsedStates {
    until: Mutex<HashMap<[u8; 32], u64>>,
}

/// Why a state does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateRefusal {
    Used,
    /// Remembering it would forget another: refused instead.
    Full,
}

impl UsedStates {
    /// Notes `state` as used until `until` (Unix seconds), when its login is over anyway.
    pub(super) fn take(&self, state: [u8; 32], until: u64, now: u64) -> Result<(), StateRefusal> {
        let mut used = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= USED_STATES {
            used.retain(|_, until| now < *until);
        }
        if used.contains_key(&state) {
            return Err(StateRefusal::Used);
        }
        if used.len() >= USED_STATES {
            return Err(StateRefusal::Full);
        }
        used.insert(state, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_source_is_limited_and_recovers_in_the_next_minute() {
        let limit = RateLimit::new(3);
        assert!((0..3).all(|_| limit.allow("192.0.2.1", 0)));
        assert!(!limit.allow("192.0.2.1", 59));
        assert!(limit.allow("192.0.2.2", 59));
        assert!(limit.allow("192.0.2.1", 60));
    }

    #[test]
    fn many_sources_share_one_count() {
        let limit = RateLimit::new(3);
        let address = |n: usize| std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap()).to_string();
        assert!((0..SOURCES).all(|n| limit.allow(&address(n), 0)));
        assert!((0..3).all(|n| limit.allow(&address(SOURCES + n), 0)));
        assert!(!limit.allow(&address(SOURCES + 3), 0));
        assert!(limit.allow(&address(0), 0), "a known source keeps its own count");
        assert!(limit.allow(&address(SOURCES + 3), 60), "the next minute has room");
    }

    #[test]
    fn a_state_counts_once() {
        let used = UsedStates::default();
        assert_eq!(used.take([1; 32], 600, 0), Ok(()));
        assert_eq!(used.take([1; 32], 600, 599), Err(StateRefusal::Used));
        assert_eq!(used.take([2; 32], 600, 0), Ok(()));
    }

    #[test]
    fn a_full_table_refuses_rather_than_forgets() {
        let used = UsedStates::default();
        for n in 0..USED_STATES {
            let mut state = [0; 32];
            state.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
            assert_eq!(used.take(state, 600, 0), Ok(()));
        }
        assert_eq!(used.take([9; 32], 600, 0), Err(StateRefusal::Full));
        assert_eq!(used.take([0; 32], 600, 0), Err(StateRefusal::Used));
        assert_eq!(used.take([9; 32], 1200, 600), Ok(()), "expired ones make room");
    }
}
