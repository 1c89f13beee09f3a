//! `target/bench/sessions.json`, the lines on the screen, and the table of the README.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::summary::write_to;

/// What was promised: milliseconds at 100,000 sessions, megabytes at 10,000 and at 1,000,000.
const READY_MS: (u64, f64) = (100_000, 300.0);
const MEMORY_MB: [(u64, f64); 2] = [(10_000, 40.0), (1_000_000, 300.0)];
/// So much may a check of a session in memory take longer than among ten times fewer: what lies apart by chance.
const FLAT: f64 = 1.25;

pub(super) fn line(row: &Value) -> String {
    format!(
        "  ready after {:.0} ms, log-ins after {:.0} ms; {:.0} MB, {:.0} MB with all in memory that may be; \
         a check of one in memory {:.0} us, by a new token {:.0} us, of one at rest {:.0} us (p99 {:.0}, {:.0}, {:.0}); a store of {:.0} MB",
        number(&row["start_to_ready_ms"]),
        number(&row["start_to_logins_ms"]),
        number(&row["memory_mb"]),
        number(&row["memory_full_mb"]),
        number(&row["check_us"]["hot"]["p50"]),
        number(&row["check_us"]["new_token"]["p50"]),
        number(&row["check_us"]["at_rest"]["p50"]),
        number(&row["check_us"]["hot"]["p99"]),
        number(&row["check_us"]["new_token"]["p99"]),
        number(&row["check_us"]["at_rest"]["p99"]),
        number(&row["store_mb"]),
    )
}

pub(super) fn targets(summary: &Value) -> String {
    let rows = rows(summary);
    let row = |sessions: u64| rows.iter().find(|row| row["sessions"] == sessions).unwrap_or(&Value::Null);
    let mut text = "\n".to_owned();
    let mut say = |what: String, holds: bool| {
        let _ = writeln!(text, "  {what} {}", if holds { "[met]" } else { "[MISSED]" });
    };
    let ready = number(&row(READY_MS.0)["start_to_ready_ms"]);
    say(format!("{} sessions: ready after {ready:.0} ms (target: under {:.0})", READY_MS.0, READY_MS.1), ready < READY_MS.1);
    for (sessions, most) in MEMORY_MB {
        let memory = number(&row(sessions)["memory_mb"]);
        say(format!("{sessions} sessions: {memory:.1} MB resident (target: under {most:.0})"), memory < most);
    }
    for pair in rows.windows(2) {
        let [fewer, more] = [&pair[0], &pair[1]].map(|row| number(&row["check_us"]["hot"]["p50"]));
        let what =
            format!("{} sessions: a check takes {:.2} times as long as with {}", pair[1]["sessions"], more / fewer, pair[0]["sessions"]);
        say(what, more <= fewer * FLAT);
    }
    text
}

/// For the README; none where no run has left figures.
pub(crate) fn markdown() -> Option<String> {
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(path()).ok()?).ok()?;
    let mut text = "| sessions in the store | ready after | memory | with all in memory that may be | a check: in memory | at rest |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows(&summary) {
        let _ = writeln!(
            text,
            "| {} | {:.0} ms | {:.0} MB | {:.0} MB | {:.0} us | {:.0} us |",
            grouped(row["sessions"].as_u64().unwrap_or(0)),
            number(&row["start_to_ready_ms"]),
            number(&row["memory_mb"]),
            number(&row["memory_full_mb"]),
            number(&row["check_us"]["hot"]["p50"]),
            number(&row["check_us"]["at_rest"]["p50"]),
        );
    }
    let _ = writeln!(
        text,
        "\nOne run of `make bench-sessions` on {} cores ({}): `kubepass-server serve` by itself with {} routes, medians of {} starts and of {} checks by one \
         client over the socket, without Envoy.",
        summary["machine"]["cores"],
        summary["machine"]["cpu"].as_str().unwrap_or_default(),
        summary["conditions"]["routes"],
        summary["starts"],
        grouped(summary["checks"].as_u64().unwrap_or(0)),
    );
    Some(text)
}

/// # Errors
/// Where it could not be written, and why.
pub(super) fn write(summary: &Value) -> Result<PathBuf, String> {
    write_to(path(), summary)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/sessions.json")
}

fn rows(summary: &Value) -> &[Value] {
    summary["sizes"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
