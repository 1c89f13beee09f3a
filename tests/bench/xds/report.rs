//! `target/bench/xds.json` and the table on the screen.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::machine;
use super::measure::Pair;
use super::outcome::Outcome;

/// What was promised for the biggest size.
const CHANGE_TO_ACK_MS: f64 = 100.0;
const MEMORY_MB: f64 = 150.0;

pub(super) fn of(curve: &[Pair], many: &Pair, quick: bool, load_before: f64, versions: &[(&str, String)]) -> Value {
    let Some(biggest) = curve.last() else { return Value::Null };
    let mut summary = outcome(&biggest.kubepass);
    let more = json!({
        "schema": "kubepass.bench-xds/v1",
        "quick": quick,
        "routes": biggest.routes,
        "go_control_plane": outcome(&biggest.go_control_plane),
        "curve": curve.iter().map(pair).collect::<Vec<_>>(),
        "many_clients": pair(many),
        "machine": machine::describe(versions),
        "load_average": {"before": load_before, "after": machine::load_average()},
    });
    if let (Some(summary), Value::Object(more)) = (summary.as_object_mut(), more) {
        summary.extend(more);
    }
    summary
}

fn pair(pair: &Pair) -> Value {
    json!({
        "routes": pair.routes,
        "clients": pair.clients,
        "kubepass": outcome(&pair.kubepass),
        "go_control_plane": outcome(&pair.go_control_plane),
    })
}

/// The figures of the change that took longest, and each by itself.
fn outcome(outcome: &Outcome) -> Value {
    let worst = outcome.worst();
    json!({
        "change_to_ack_ms": worst.as_ref().map(|worst| worst.change_to_ack_ms),
        "change_to_ack_without_timeout_ms": outcome.worst_without_timeout().map(|worst| worst.change_to_ack_ms),
        "bytes_per_change": outcome.bytes(),
        "cpu_ms_per_change": worst.as_ref().map(|worst| worst.cpu_ms_per_change),
        "file_to_publish_ms": worst.as_ref().and_then(|worst| worst.file_to_publish_ms),
        "memory_mb": outcome.memory_mb,
        "failure": outcome.failure,
        "start_cpu_seconds": outcome.start_cpu_seconds,
        "changes": outcome.by_change(),
    })
}

/// # Errors
/// Where it could not be written, and why.
pub(super) fn write(summary: &Value) -> Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/xds.json");
    let text = serde_json::to_string_pretty(summary).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(path.parent().expect("a folder"))
        .and_then(|()| std::fs::write(&path, text + "\n"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

pub(super) fn table(summary: &Value) -> String {
    let mut text = format!(
        "\npublication until Envoy's acknowledgement, median of each kind of change (the worst in brackets)\n{:<8}{:<18}{:>16}{:>16}{:>16}{:>16}{:>12}{:>10}{:>10}\n",
        "routes", "server", "endpoint ms", "cluster ms", "host ms", "token ms", "bytes", "CPU ms", "MB"
    );
    let rows = summary["curve"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (row, label) in rows.iter().map(|row| (row, None)).chain([(&summary["many_clients"], Some("no Envoy"))]) {
        for (key, name) in [("kubepass", "kubepass"), ("go_control_plane", "go-control-plane")] {
            let of = &row[key];
            let cell = |change: &str| {
                let figures = &of["changes"][change];
                format!("{:.1} ({:.0})", number(&figures["change_to_ack_ms"]), number(&figures["worst_ms"]))
            };
            let routes = if label.is_some() { format!("{}x{}", row["routes"], row["clients"]) } else { row["routes"].to_string() };
            let _ = writeln!(
                text,
                "{routes:<8}{name:<18}{:>16}{:>16}{:>16}{:>16}{:>12.0}{:>10.1}{:>10.0}",
                cell("endpoint"),
                cell("cluster"),
                cell("host"),
                cell("token"),
                number(&of["bytes_per_change"]),
                number(&of["cpu_ms_per_change"]),
                number(&of["memory_mb"]),
            );
        }
    }
    text + &targets(summary)
}

fn targets(summary: &Value) -> String {
    let (ours, theirs) = (summary, &summary["go_control_plane"]);
    let (ack, memory) = (number(&ours["change_to_ack_ms"]), number(&ours["memory_mb"]));
    let (their_ack, their_memory) = (number(&theirs["change_to_ack_without_timeout_ms"]), number(&theirs["memory_mb"]));
    let routes = &summary["routes"];
    let failure = theirs["failure"].as_str();
    let mut lines = vec![
        (
            format!("{routes} routes: the slowest kind of change takes {ack:.1} ms (target: at most {CHANGE_TO_ACK_MS:.0})"),
            ack <= CHANGE_TO_ACK_MS,
        ),
        (format!("memory {memory:.0} MB (target: at most {MEMORY_MB:.0})"), memory <= MEMORY_MB),
    ];
    if failure.is_none() {
        lines.push((format!("ahead of go-control-plane ({their_ack:.1} ms)"), ack < their_ack));
        lines.push((format!("less memory than go-control-plane ({their_memory:.0} MB)"), memory < their_memory));
    }
    let mut text = "\n".to_owned();
    for (line, holds) in lines {
        let _ = writeln!(text, "  {line} {}", if holds { "[met]" } else { "[MISSED]" });
    }
    if let Some(failure) = failure {
        let _ = writeln!(text, "  go-control-plane has no figures for {routes} routes: {failure}");
    }
    let _ = writeln!(
        text,
        "  go-control-plane does not send the endpoints of a changed cluster again, for which Envoy waits 15 s (initial_fetch_timeout): its cluster \
         changes stand in the table, and are left out of the comparison"
    );
    let file = number(&ours["file_to_publish_ms"]);
    let _ = writeln!(text, "  from the file's change to its publication: {file:.0} ms");
    text
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
