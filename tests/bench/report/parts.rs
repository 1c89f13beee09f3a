//! What the README says of the parts that have commands of their own: their figures, each with how far apart the measurements were, and the command.

use std::fmt::Write as _;

use serde_json::Value;

use super::super::figures::{NOISE, Timed};
use super::super::growth::Curve;
use super::super::part;
use super::super::paths::{DIRECT, ENVOY_FLOOR, EXT_AUTHZ_FLOOR, IMPERSONATE, JWT};

const TITLES: [(&str, &str); 5] = [
    (DIRECT, "straight to the API server"),
    (ENVOY_FLOOR, "Envoy alone"),
    (EXT_AUTHZ_FLOOR, "Envoy, ext_authz that always allows"),
    (IMPERSONATE, "kubepass, impersonation"),
    (JWT, "kubepass, signed JWT"),
];

/// What is said of the figures of one part.
type Section = fn(&Value) -> String;

/// Those of the last runs that were quick ones.
pub(super) fn quick(summary: &Value) -> impl Iterator<Item = &'static str> {
    part::KEYS.into_iter().filter(|key| summary[key]["quick"] == true)
}

pub(super) fn curves(summary: &Value) -> Option<Vec<Curve>> {
    serde_json::from_value(whole(summary, "growth")?["curves"].clone()).ok()
}

pub(super) fn markdown(summary: &Value) -> String {
    let mut text = String::new();
    let sections: [(&str, Section); 4] = [("streams", streams), ("overload", overload), ("user", user), ("growth", growth)];
    for (key, section) in sections {
        if let Some(figures) = whole(summary, key) {
            text.push_str(&section(figures));
            let load = &figures["load_average"]["before"];
            let machine = format!("{} cores ({})", figures["machine"]["cores"], figures["machine"]["cpu"].as_str().unwrap_or_default());
            let _ = writeln!(text, "\nOn {machine}, load average {load} before; least and most in brackets, `~` where they are noise.\n");
        }
    }
    text
}

fn whole<'s>(summary: &'s Value, key: &str) -> Option<&'s Value> {
    summary.get(key).filter(|figures| figures.is_object() && figures["quick"] != true)
}

fn streams(of: &Value) -> String {
    let (watches, execs) = (&of["conditions"]["watches"], &of["conditions"]["execs"]);
    let mut text = format!(
        "`make bench-streams` opens {watches} watches and {execs} `exec` at once, each over a connection of its own, and loads a gigabyte down as `kubectl cp` \
         and `kubectl logs` do. What an event of a watch comes later than straight from the API server is a median of {}, while all of those are open.\n\n\
         | | Envoy: a watch | Envoy: an `exec` | kubepass: a stream | an event later | `cp` | `logs` |\n|---|---|---|---|---|---|---|\n",
        of["conditions"]["events"]
    );
    for (path, title) in TITLES.into_iter().filter(|(path, _)| of["downloads"]["cp"].get(path).is_some()) {
        let open = &of["open"][path];
        let kib = |key: &str, digits: usize| open[key].as_f64().map_or(String::new(), |kib| format!("{kib:.digits$} KiB"));
        let download = |way: &str| {
            let of = &of["downloads"][way][path];
            let part = of["of_envoy_floor"]["median"].as_f64().filter(|_| ![DIRECT, ENVOY_FLOOR].contains(&path));
            format!(
                "{} MB/s{}",
                shown(&of["mb_per_second"], 1.0, 0),
                part.map_or(String::new(), |part| format!(", {:.0} % of Envoy alone", part * 100.0))
            )
        };
        let later = match of["event_added_us"]["with_all_open"].get(path) {
            Some(later) => format!("{} ms", shown(later, 1e3, 2)),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "| {title} | {} | {} | {} | {later} | {} | {} |",
            kib("envoy_kib_per_watch", 0),
            kib("envoy_kib_per_exec", 0),
            kib("kubepass_kib_per_stream", 1),
            download("cp"),
            download("logs")
        );
    }
    let of_kubepass = |key: &str| {
        let all = ["cp", "logs"]
            .into_iter()
            .flat_map(|way| [IMPERSONATE, JWT].map(|path| of["downloads"][way][path][key].as_f64().unwrap_or(f64::NAN)));
        all.fold(0.0, f64::max)
    };
    let (bytes, cpu) = (of_kubepass("kubepass_bytes"), of_kubepass("kubepass_cpu_ms"));
    let _ = writeln!(
        text,
        "\nNone of it passes kubepass: during a download its Envoy exchanged at most {bytes:.0} bytes with it (the check, the access log), and it used {cpu:.0} ms of \
         CPU time."
    );
    text
}

fn overload(of: &Value) -> String {
    let mut text = format!(
        "`make bench-overload` offers twice as much as can be answered, at a fixed rate that waits for nothing. One half of the processors answers, the other asks; `most` is what \
         {} clients get who ask one after the other.\n\n| | most | offered then | answered | of the most | p50, p99 of those | refused | recovered after |\n|---|---|---|---|---|---|---|---|\n",
        of["conditions"]["clients"]
    );
    for (path, title) in TITLES {
        let Some(of) = of["paths"].get(path) else { continue };
        let number = |key: &str| of[key].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(
            text,
            "| {title} | {:.0}/s | {:.0}/s | {:.0}/s | {} | {:.0} ms, {:.0} ms | {:.0} % | {} ms |",
            number("peak_rps"),
            number("offered_rps"),
            number("answered_rps"),
            shown(&of["held"], 1.0, 2),
            number("p50_us") / 1e3,
            number("p99_us") / 1e3,
            number("refused_share") * 100.0,
            shown(&of["recovery_ms"], 1.0, 0)
        );
    }
    text
}

fn user(of: &Value) -> String {
    let credential = &of["exec_credential"];
    let mut text = format!(
        "`make bench-user`: `kubepass k8s exec-credential` with a cached token takes {} ms from the start of its process to the end (one that does nothing {}), and no \
         connection. `kubectl get pods`, by turns:\n\n| | milliseconds |\n|---|---|\n",
        shown(&credential["wall_ms"], 1.0, 1),
        shown(&credential["empty_process_ms"], 1.0, 1)
    );
    for (path, title) in TITLES {
        if let Some(timed) = of["kubectl"].get(path) {
            let _ = writeln!(text, "| {title} | {} |", shown(timed, 1.0, 0));
        }
    }
    text.push_str("\nRound trips to kubepass, counted at its Envoy: two for each connection and one for each request, as if none were parallel.\n\n| | connections | requests | round trips |\n|---|---|---|---|\n");
    for step in of["first_answer"].as_array().into_iter().flatten() {
        let name = step["name"].as_str().unwrap_or_default();
        let _ = writeln!(text, "| {name} | {} | {} | {} |", step["connections"], step["requests"], step["round_trips"]);
    }
    text
}

fn growth(of: &Value) -> String {
    let mut text = "`make bench-growth` ([plots](tests/bench/growth.svg)), medians from the smallest to the biggest:\n\n".to_owned();
    for curve in of["curves"].as_array().into_iter().flatten().filter_map(|curve| serde_json::from_value::<Curve>(curve.clone()).ok()) {
        for series in &curve.series {
            let points: Vec<String> = series.points.iter().map(|point| format!("{}: {:.1}", point.x, point.y.median)).collect();
            let name = if curve.series.len() > 1 { format!(", {}", series.name) } else { String::new() };
            let _ = writeln!(text, "- {}{name}, {}: {}", curve.title, curve.unit, points.join(", "));
        }
    }
    text
}

/// `median (least to most)`, divided by `unit`.
fn shown(value: &Value, unit: f64, digits: usize) -> String {
    let Ok(Timed { median, least, most, spread }) = serde_json::from_value::<Timed>(value.clone()) else { return String::new() };
    let mark = if spread > NOISE { " ~" } else { "" };
    format!("{:.digits$} ({:.digits$} to {:.digits$}){mark}", median / unit, least / unit, most / unit)
}
