//! `target/bench/summary.json`: everything that a run found, for programs and for the report.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use serde_json::{Map, Value, json};

use super::figures::{Figures, Round, difference, noisy_rounds, ratio};
use super::installation::Installation;
use super::kubepass::{ROUTES, SESSIONS};
use super::machine;
use super::part;
use super::paths::{ASKED, CLIENTS, EXT_AUTHZ_FLOOR, METHODS, Path};
use super::run::Plan;

/// What a run gathered.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) paths: Vec<Path>,
    /// By request, clients and path.
    pub(super) rounds: BTreeMap<(&'static str, &'static str, &'static str), Vec<Round>>,
    /// CPU seconds and requests, by path and process: `GET /version` with 8 clients.
    pub(super) cpu: BTreeMap<(&'static str, &'static str), (f64, usize)>,
}

pub(super) fn of(measured: &Measured, installation: &Installation, plan: &Plan, machine: Value, load_before: f64) -> Value {
    let mut summary = json!({
        "schema": "kubepass.bench/v1",
        "quick": plan.quick,
        "rounds": plan.rounds,
        "seconds": plan.time.as_secs_f64(),
        "conditions": {"routes": ROUTES, "sessions": SESSIONS, "rules": 5, "groups": 2, "audit": "written"},
        "machine": machine,
        "load_average": {"before": load_before, "after": machine::load_average()},
        "paths": figures(measured, ASKED[0].key),
        "list_paths": figures(measured, ASKED[1].key),
        "ratios": {"paths": ratios(measured, ASKED[0].key), "list_paths": ratios(measured, ASKED[1].key)},
        "memory_mb": installation.memory_mb(),
        "cpu_us_per_request": cpu(measured),
        "start_to_ready_ms": installation.kubepass.start_to_ready.as_millis() as u64,
        "noisy_rounds": noise(measured),
    });
    // What other commands measured stays, each with its own machine and load.
    let before = read().unwrap_or_default();
    for key in part::KEYS {
        summary[key] = before[key].clone();
    }
    summary
}

/// # Errors
/// Where it could not be written, and why.
pub(super) fn write(summary: &Value) -> Result<PathBuf, String> {
    write_to(path(), summary)
}

/// # Errors
/// As [`write`].
pub(super) fn write_to(path: PathBuf, summary: &Value) -> Result<PathBuf, String> {
    let text = serde_json::to_string_pretty(summary).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(path.parent().expect("a folder"))
        .and_then(|()| std::fs::write(&path, text + "\n"))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// # Errors
/// When no run has left one.
pub(super) fn read() -> Result<Value, String> {
    let path = path();
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}; `make bench` makes it", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn path() -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/summary.json")
}

fn figures(measured: &Measured, asked: &'static str) -> Value {
    by_path(measured.paths.iter().map(|path| path.name), |path, clients| {
        measured.rounds.get(&(asked, clients, path)).map(|rounds| json!(Figures::of(rounds)))
    })
}

/// Each method beside the always-allow ext_authz of the same rounds.
fn ratios(measured: &Measured, asked: &'static str) -> Value {
    by_path(METHODS.into_iter(), |path, clients| {
        let (rounds, floor) = (measured.rounds.get(&(asked, clients, path))?, measured.rounds.get(&(asked, clients, EXT_AUTHZ_FLOOR))?);
        Some(json!({
            "rps": ratio(rounds, floor, |round| round.rps),
            "p99": ratio(rounds, floor, |round| round.p99_us),
            "p50_added_us": difference(rounds, floor, |round| round.p50_us),
        }))
    })
}

fn by_path<'n>(names: impl Iterator<Item = &'n str>, cell: impl Fn(&'n str, &'static str) -> Option<Value>) -> Value {
    let row = |name| -> Map<String, Value> {
        CLIENTS.iter().filter_map(|(clients, _)| Some(((*clients).to_owned(), cell(name, clients)?))).collect()
    };
    let rows = names.map(|name| (name.to_owned(), row(name))).filter(|(_, row)| !row.is_empty());
    Value::Object(rows.map(|(name, row)| (name, Value::Object(row))).collect())
}

fn cpu(measured: &Measured) -> Value {
    let mut by_path: Map<String, Value> = Map::new();
    for ((path, process), (seconds, requests)) in &measured.cpu {
        by_path.entry(*path).or_insert_with(|| json!({}))[process] = json!(seconds * 1e6 / (*requests).max(1) as f64);
    }
    Value::Object(by_path)
}

fn noise(measured: &Measured) -> Vec<Value> {
    let cell = |((asked, clients, path), rounds): (&(&str, &str, &str), &Vec<Round>)| -> Vec<Value> {
        let of = format!("{asked}.{path}.{clients}");
        noisy_rounds(rounds).into_iter().map(|(round, distance)| json!({"of": of, "round": round, "from_median": distance})).collect()
    };
    measured.rounds.iter().flat_map(cell).collect()
}
