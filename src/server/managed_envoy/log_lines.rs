//! Envoy's own log inside ours: each of its lines becomes an event of the same level.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// spdlog pattern: level, component, message. `--log-format-escaped` keeps a message on one line.
pub(super) const FORMAT: &str = "%l %n %v";

/// A line longer than that is cut.
const MAX_LINE: usize = 4096;
/// Lines kept for the reason of an early end.
const LAST_WORDS: usize = 5;

/// Passes on what comes until the stream ends; gives back the last lines.
pub(super) async fn pass_on(stream: impl AsyncRead + Unpin) -> Vec<String> {
    let mut lines = BufReader::new(stream).split(b'\n');
    let mut last = std::collections::VecDeque::new();
    // An unreadable pipe ends as a closed one does.
    while let Ok(Some(line)) = lines.next_segment().await {
        let line: String = String::from_utf8_lossy(&line).chars().take(MAX_LINE).collect();
        log(&line);
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}

fn log(line: &str) {
    let (level, component, message) = split(line);
    match level {
        "trace" | "debug" => tracing::debug!(component, "envoy: {message}"),
        "info" => tracing::info!(component, "envoy: {message}"),
        "warning" => tracing::warn!(component, "envoy: {message}"),
        _ => tracing::error!(component, "envoy: {message}"),
    }
}

/// A line that does not follow the pattern (a crash, the dynamic linker) is an error in full.
fn split(line: &str) -> (&str, &str, &str) {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(level @ ("trace" | "debug" | "info" | "warning" | "error" | "critical")), Some(component), Some(message)) => {
            (level, component, message)
        }
        _ => ("error", "", line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_level() {
        assert_eq!(split("warning config a b c"), ("warning", "config", "a b c"));
        assert_eq!(split("Segmentation fault"), ("error", "", "Segmentation fault"));
        assert_eq!(split(""), ("error", "", ""));
    }

    #[tokio::test]
    async fn the_last_lines_come_back() {
        let text: String = (0..10).map(|number| format!("info main {number}\n")).collect();
        assert_eq!(pass_on(text.as_bytes()).await, (5..10).map(|number| format!("info main {number}")).collect::<Vec<_>>());
    }
}
