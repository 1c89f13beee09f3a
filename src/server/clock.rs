//! The one place that reads the wall clock.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since the Unix epoch; 0 should the clock stand before it (every token is then "not yet valid": fail closed).
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// Time since the Unix epoch.
pub fn since_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[cfg(debug_assertions)]
    let now = jump::of(now);
    now
}

/// A clock that jumps, for tests of what then happens; no part of a release.
#[cfg(debug_assertions)]
mod jump {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    /// The file that this variable names holds seconds by which the clock is wrong, as they are at the moment.
    const VARIABLE: &str = "KUBEPASS_TEST_CLOCK_FILE";

    pub(super) fn of(now: Duration) -> Duration {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let seconds = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()?.trim().parse::<i64>().ok()).unwrap_or_default();
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now.saturating_sub(by) } else { now.saturating_add(by) }
    }
}

/// RFC 3339 in UTC with microseconds, for example `2026-01-02T03:04:05.000006Z`.
pub fn rfc3339(since_epoch: Duration) -> String {
    let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
    let mut text = String::with_capacity("2026-01-02T03:04:05.000006Z".len());
    if let Ok(time) = jiff::Timestamp::from_microsecond(micros) {
        // Writing into a String cannot fail.
        let _ = write!(text, "{time:.6}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_has_microseconds_always() {
        assert_eq!(rfc3339(Duration::from_secs(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(Duration::from_micros(1_700_000_000_000_006)), "2023-11-14T22:13:20.000006Z");
    }
}
