//! The figures of streams on the screen.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::figures::Timed;
use super::super::paths::{IMPERSONATE, JWT};

/// What was promised of downloads, beside Envoy alone.
const TARGET: f64 = 0.90;

pub(super) fn of(figures: &Value) -> String {
    let conditions = &figures["conditions"];
    let mut text =
        format!("\n{} watches and {} exec open at once, each over a connection of its own\n", conditions["watches"], conditions["execs"]);
    let _ = writeln!(text, "{:<14}{:>16}{:>16}{:>18}{:>18}", "", "KiB per watch", "KiB per exec", "kubepass: KiB", "event to all ms");
    for (path, of) in entries(&figures["open"]) {
        let number = |key: &str| of[key].as_f64().map_or("-".to_owned(), |value| format!("{value:.1}"));
        let _ = writeln!(
            text,
            "{path:<14}{:>16}{:>16}{:>18}{:>18}",
            number("envoy_kib_per_watch"),
            number("envoy_kib_per_exec"),
            number("kubepass_kib_per_stream"),
            number("event_to_all_ms")
        );
    }
    let added = &figures["event_added_us"];
    let _ = writeln!(text, "\nan event later than straight from the API server, microseconds");
    for (path, quiet) in entries(&added["quiet"]) {
        let _ = writeln!(text, "  {path:<14}{} alone; {} with all open", timed(quiet, 0), timed(&added["with_all_open"][path], 0));
    }
    for (way, paths) in entries(&figures["downloads"]) {
        let _ = writeln!(text, "\nkubectl {way} of {} MiB, MB a second", conditions["bytes"].as_u64().unwrap_or(0) >> 20);
        for (path, of) in entries(paths) {
            let _ = writeln!(
                text,
                "  {path:<14}{}; of Envoy alone {}{}",
                timed(&of["mb_per_second"], 0),
                timed(&of["of_envoy_floor"], 2),
                mark(path, of)
            );
            if let (Some(bytes), Some(cpu)) = (of["kubepass_bytes"].as_u64(), of["kubepass_cpu_ms"].as_f64()) {
                let _ = writeln!(text, "  {:<14}kubepass: {bytes} bytes, {cpu:.0} ms of CPU time", "");
            }
        }
    }
    text
}

fn mark(path: &str, of: &Value) -> &'static str {
    match of["of_envoy_floor"]["median"].as_f64() {
        Some(part) if [IMPERSONATE, JWT].contains(&path) => {
            if part >= TARGET {
                " (target: at least 0.90) [met]"
            } else {
                " (target: at least 0.90) [MISSED]"
            }
        }
        _ => "",
    }
}

fn timed(value: &Value, digits: usize) -> String {
    serde_json::from_value::<Timed>(value.clone()).map_or("-".to_owned(), |timed| timed.shown(digits))
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
