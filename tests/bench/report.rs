//! `make bench-report`: the tables of the README and the plots, from the summary of the last runs.

mod parts;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::multiples;
use super::paths::CLIENTS;
use super::sessions;
use super::summary;
use super::table::{ROWS, figures};

/// Between these lines of the README stands what this writes.
const PATHS: [&str; 2] = ["<!-- make bench-report: begin -->", "<!-- make bench-report: end -->"];
const PARTS: [&str; 2] = ["<!-- make bench-report, parts: begin -->", "<!-- make bench-report, parts: end -->"];
/// What `make bench-sessions` found.
const SESSIONS: [&str; 2] = ["<!-- make bench-sessions: begin -->", "<!-- make bench-sessions: end -->"];

/// Pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 250.0;
const BAR: f64 = 16.0;
const GAP: f64 = 8.0;

pub(super) fn run() -> ExitCode {
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<(), String> {
    let summary = summary::read()?;
    let path = root().join("README.md");
    let mut readme = std::fs::read_to_string(&path).map_err(|error| format!("README.md: {error}"))?;
    if let Some(table) = sessions::markdown() {
        readme = replaced(&readme, SESSIONS, &table)?;
    }
    let of_others = "figures of a quick run are for nobody else to read: run it without QUICK";
    if summary["quick"] == true {
        println!("left out, the paths: {of_others}");
    } else if summary["paths"].is_object() {
        write(&root().join("tests/bench/report.svg"), &svg(&summary))?;
        readme = replaced(&readme, PATHS, &markdown(&summary))?;
    }
    parts::quick(&summary).for_each(|key| println!("left out, {key}: {of_others}"));
    if let Some(curves) = parts::curves(&summary) {
        write(&root().join("tests/bench/growth.svg"), &multiples::svg(&curves))?;
    }
    let said = parts::markdown(&summary);
    if !said.is_empty() {
        readme = replaced(&readme, PARTS, &said)?;
    }
    write(&path, &readme)?;
    println!("written: the plots in tests/bench and the tables in {}", path.display());
    Ok(())
}

fn markdown(summary: &Value) -> String {
    let mut text = String::from("| `GET /version` | 1 client: p50 | 8 clients: req/s | 64 clients: p99 |\n|---|---|---|---|\n");
    for (path, title) in ROWS {
        let get = |clients| figures(summary, "paths", path, clients);
        let (Some(one), Some(eight), Some(many)) = (get("c1"), get("c8"), get("c64")) else { continue };
        let mark = |noise: bool| if noise { " ~" } else { "" };
        let _ = writeln!(
            text,
            "| {title} | {:.2} ms{} | {:.0}{} | {:.1} ms{} |",
            one.p50_us / 1e3,
            mark(one.is_noise()),
            eight.rps,
            mark(eight.is_noise()),
            many.p99_us / 1e3,
            mark(many.is_noise())
        );
    }
    let machine = &summary["machine"];
    let _ = writeln!(
        text,
        "\nOne run of `make bench` on {} cores ({}), {} rounds of {} s for each figure, medians; `~` marks rounds that lie more than 10 % apart. \
         kubepass used {:.0} MB with 10,000 sessions and 100 routes, its Envoy {:.0} MB.",
        machine["cores"],
        machine["cpu"].as_str().unwrap_or_default(),
        summary["rounds"],
        summary["seconds"],
        summary["memory_mb"]["kubepass"].as_f64().unwrap_or(f64::NAN),
        summary["memory_mb"]["envoy"].as_f64().unwrap_or(f64::NAN),
    );
    text
}

fn replaced(readme: &str, [begin, end]: [&str; 2], text: &str) -> Result<String, String> {
    let missing = || format!("README.md lacks the lines {begin:?} and {end:?}");
    let (before, rest) = readme.split_once(begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

/// Two bar charts below each other: throughput and latency.
fn svg(summary: &Value) -> String {
    let charts = [
        ("GET /version: requests in a second", "rps" as &str, 1.0, ""),
        ("GET /version: median latency, milliseconds", "p50_us", 1e3, " ms"),
        ("a list of 500 pods: requests in a second", "rps", 1.0, ""),
    ];
    let (mut body, mut top) = (String::new(), 30.0);
    for (index, (title, key, unit, suffix)) in charts.into_iter().enumerate() {
        let asked = if index == 2 { "list_paths" } else { "paths" };
        top = chart(&mut body, top, title, &bars(summary, asked, key, unit), suffix);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Title and value of each bar, in groups by the number of clients.
fn bars(summary: &Value, asked: &str, key: &str, unit: f64) -> Vec<(String, Vec<(&'static str, f64)>)> {
    let group = |(clients, count): (&str, usize)| {
        let value = |path: &str| summary[asked][path][clients][key].as_f64().map(|value| value / unit);
        let rows = ROWS.iter().filter_map(|(path, title)| Some((*title, value(path)?))).collect();
        (format!("{count} client{}", if count == 1 { "" } else { "s" }), rows)
    };
    CLIENTS.into_iter().map(group).collect()
}

/// Draws one chart and returns where the next begins. Each group has a scale of its own.
fn chart(body: &mut String, mut top: f64, title: &str, groups: &[(String, Vec<(&'static str, f64)>)], suffix: &str) -> f64 {
    let _ = writeln!(body, "<text x=\"10\" y=\"{top:.0}\" font-size=\"15\" font-weight=\"bold\">{title}</text>");
    top += 10.0;
    for (clients, rows) in groups {
        let most = rows.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(body, "<text x=\"10\" y=\"{:.0}\" fill=\"#555\">{clients}</text>", top + BAR);
        top += BAR + GAP;
        for (name, value) in rows {
            let length = value / most * (WIDTH - LEFT - 90.0);
            let colour = if name.starts_with("kubepass") { "#2b6cb0" } else { "#a0aec0" };
            let (text_y, digits) = (top + BAR - 4.0, usize::from(most < 100.0) * 2);
            let _ = writeln!(body, "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0);
            let _ = writeln!(body, "<rect x=\"{LEFT}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>");
            let _ = writeln!(body, "<text x=\"{:.1}\" y=\"{text_y:.0}\">{value:.digits$}{suffix}</text>", LEFT + length + 6.0);
            top += BAR + 3.0;
        }
        top += GAP;
    }
    top + 24.0
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
