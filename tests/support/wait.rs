//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(25);

/// Calls `look` until it gives a value, and returns that. Panics with `what` when `timeout` passes without one.
pub fn eventually<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < timeout, "not within {} s: {what}", timeout.as_secs_f32());
        std::thread::sleep(STEP);
    }
}

/// The same for a condition that says why it does not hold yet; the last reason is part of the failure.
pub fn eventually_ok<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let mut reason = String::new();
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => reason = if why.is_empty() { reason } else { why },
        }
        assert!(began.elapsed() < timeout, "not within {} s: {what}; last: {reason}", timeout.as_secs_f32());
        std::thread::sleep(STEP);
    }
}
