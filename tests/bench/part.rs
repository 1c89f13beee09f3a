//! Parts of the summary that have commands of their own (`make bench-user`, ...): each says itself on what machine and under what load it ran.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::machine;
use super::summary;
use super::support::tools::Tools;

/// Their keys in the summary; each is the command's name too.
pub(super) const KEYS: [&str; 4] = ["growth", "streams", "overload", "user"];

/// How a part is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// `QUICK=1`: to see that it works.
    pub(super) quick: bool,
}

/// What a part found.
pub(super) struct Found {
    pub(super) figures: Value,
    /// For the screen.
    pub(super) table: String,
}

pub(super) fn run(key: &'static str, measure: fn(&Cut) -> Result<Found, String>) -> ExitCode {
    match measured(key, measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-{key}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `TRIAL=1` takes a debug build, to see that it works; its figures are shown and not kept.
fn measured(key: &'static str, measure: fn(&Cut) -> Result<Found, String>) -> Result<(), String> {
    let set = |name: &str| std::env::var(name).is_ok_and(|text| !text.is_empty() && text != "0");
    if cfg!(debug_assertions) && !set("TRIAL") {
        return Err(format!("this is a debug build, whose figures mean nothing: use `make bench-{key}`"));
    }
    let cut = Cut { quick: set("QUICK") };
    let load_before = machine::load_average();
    let tools = Tools::ensure();
    let versions = [
        ("kubepass", env!("CARGO_PKG_VERSION").to_owned()),
        ("kube-apiserver", machine::first_line(&tools.kube_apiserver(), &["--version"])),
        ("envoy", machine::first_line(&tools.envoy(), &["--version"])),
    ];
    // Before a part chooses processors for itself.
    let described = machine::describe(&versions);
    let Found { mut figures, table } = measure(&cut)?;
    println!("{table}");
    figures["quick"] = cut.quick.into();
    figures["machine"] = described;
    figures["load_average"] = json!({"before": load_before, "after": machine::load_average()});
    if let Some(warning) = machine::was_busy(&figures) {
        println!("{warning}");
    }
    if cfg!(debug_assertions) {
        println!("{}", serde_json::to_string_pretty(&figures).map_err(|error| error.to_string())?);
        return Ok(());
    }
    let mut all = summary::read().unwrap_or_else(|_| json!({"schema": "kubepass.bench/v1"}));
    all[key] = figures;
    println!("written: {}", summary::write(&all)?.display());
    Ok(())
}
