//! The summary as a table on the screen, with the targets and what of it is noise.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::Figures;
use super::machine;
use super::paths::{ASKED, BASELINE, CLIENTS, DIRECT, ENVOY_FLOOR, EXT_AUTHZ_FLOOR, IMPERSONATE, JWT, METHODS};

/// Rows of a table: the paths of a summary in the order in which they add to each other.
pub(super) const ROWS: [(&str, &str); 6] = [
    (DIRECT, "straight to the API server"),
    (ENVOY_FLOOR, "Envoy alone, static headers"),
    (EXT_AUTHZ_FLOOR, "Envoy, ext_authz that always allows"),
    (IMPERSONATE, "kubepass, impersonation"),
    (JWT, "kubepass, signed JWT"),
    (BASELINE, "kubepass, the baseline build"),
];

pub(super) fn of(summary: &Value) -> String {
    let mut text = String::new();
    for asked in &ASKED {
        let _ = writeln!(text, "\n{:<38}{:>29}{:>29}{:>29}", asked.title, "1 client", "8 clients", "64 clients");
        let _ = writeln!(text, "{:<38}{}", "", format!("{:>9}{:>10}{:>10}", "req/s", "p50 us", "p99 us").repeat(CLIENTS.len()));
        for (name, title) in ROWS {
            if summary[asked.key].get(name).is_some() {
                let cells: String = CLIENTS.iter().map(|(clients, _)| cell(summary, asked.key, name, clients)).collect();
                let _ = writeln!(text, "{title:<38}{cells}");
            }
        }
    }
    text + &targets(summary) + &noise(summary)
}

/// The figures of one path; none where it was not measured.
pub(super) fn figures(summary: &Value, asked: &str, path: &str, clients: &str) -> Option<Figures> {
    serde_json::from_value(summary[asked][path][clients].clone()).ok()
}

fn cell(summary: &Value, asked: &str, path: &str, clients: &str) -> String {
    let Some(figures) = figures(summary, asked, path, clients) else { return String::new() };
    let mark = if figures.is_noise() { "~" } else { " " };
    format!("{:>9}{:>9.0}{:>10.0}{mark}", format!("{:.0}", figures.rps), figures.p50_us, figures.p99_us)
}

/// What was promised, and whether this run kept it.
fn targets(summary: &Value) -> String {
    let mut text = "\nbeside the ext_authz that always allows, round by round (GET /version):\n".to_owned();
    for method in METHODS.iter().filter(|method| summary["paths"].get(**method).is_some()) {
        let ratio = |clients: &str, of: &str| summary["ratios"]["paths"][method][clients][of].as_f64().unwrap_or(f64::NAN);
        let (rps, added, p99) = (ratio("c8", "rps"), ratio("c1", "p50_added_us"), ratio("c64", "p99"));
        let _ = writeln!(text, "  {method}: throughput at 8 clients {:.0} % (target: at least 90 %) {}", rps * 100.0, mark(rps >= 0.90));
        let _ = writeln!(text, "  {method}: p50 of 1 client {added:+.0} us (target: at most 30) {}", mark(added <= 30.0));
        let _ = writeln!(text, "  {method}: p99 at 64 clients {p99:.2} times (target: at most 1.3) {}", mark(p99 <= 1.3));
    }
    let megabytes = summary["memory_mb"]["kubepass"].as_f64().unwrap_or(f64::NAN);
    let _ = writeln!(text, "  kubepass: {megabytes:.0} MB resident (target: under 40) {}", mark(megabytes < 40.0));
    let _ = writeln!(text, "  CPU for each request, us: {}", summary["cpu_us_per_request"]);
    text
}

fn mark(holds: bool) -> &'static str {
    if holds { "[met]" } else { "[MISSED]" }
}

fn noise(summary: &Value) -> String {
    let mut text = String::new();
    let rounds = summary["noisy_rounds"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !rounds.is_empty() {
        let _ = writeln!(text, "\nnoise (~: rounds lie more than 10 % apart); single rounds more than 10 % from their median:");
    }
    for round in rounds {
        let percent = round["from_median"].as_f64().unwrap_or(0.0) * 100.0;
        let _ = writeln!(text, "  {}: round {}, {percent:+.0} %", round["of"].as_str().unwrap_or_default(), round["round"]);
    }
    if let Some(warning) = machine::was_busy(summary) {
        let _ = writeln!(text, "\n{warning}");
    }
    text
}
