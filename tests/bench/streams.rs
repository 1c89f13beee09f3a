//! `make bench-streams`: many long requests at once, and long answers, by kubepass beside the Envoy that writes identity and token statically.
//!
//! On each path 1,000 watches and 200 `exec` are opened, each over a connection of its own as each kubectl has one: what a stream takes of memory
//! (`open`), how much later an event comes than straight from the API server while all of them are open (`events`). Then downloads of a gigabyte
//! as `kubectl cp` and `kubectl logs` ask for them (`downloads`), while Envoy's own counters say what of it went to kubepass.

mod client;
mod downloads;
mod events;
mod open;
mod table;

use std::collections::BTreeMap;

use serde_json::json;

use super::installation::Installation;
use super::part::{Cut, Found};
use super::paths::{DIRECT, ENVOY_FLOOR, IMPERSONATE, JWT, Path};
use super::support::run::Run;
use super::support::tools::Tools;
use client::Client;

/// The paths of which streams are opened, in their order.
const PATHS: [&str; 3] = [ENVOY_FLOOR, IMPERSONATE, JWT];

/// How much of each.
#[derive(Debug, Clone, Copy)]
struct Amounts {
    watches: usize,
    execs: usize,
    events: usize,
    bytes: u64,
    rounds: usize,
}

pub(super) fn measure(cut: &Cut) -> Result<Found, String> {
    let amounts = match cut.quick {
        true => Amounts { watches: 100, execs: 20, events: 10, bytes: 64 << 20, rounds: 1 },
        false => Amounts { watches: 1_000, execs: 200, events: 50, bytes: 1 << 30, rounds: 3 },
    };
    println!("starting a cluster, two Envoys to compare with, kubepass ...");
    let installation = Installation::start(Tools::ensure(), Run::new("streams"), None);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(all(&installation, &amounts))
}

async fn all(installation: &Installation, amounts: &Amounts) -> Result<Found, String> {
    let client = Client::new(&[&installation.authority, installation.cluster.ca_pem()]);
    let paths: BTreeMap<&str, Path> = installation.paths().into_iter().map(|path| (path.name, path)).collect();
    println!("events while nothing else is open ...");
    let quiet = events::measure(installation, &client, &paths, amounts.events).await?;
    let (mut opened, mut busy) = (BTreeMap::new(), BTreeMap::new());
    for name in PATHS {
        println!("{name}: opening {} watches and {} exec ...", amounts.watches, amounts.execs);
        let (figures, streams) = open::measure(installation, &client, &paths[name], amounts).await?;
        opened.insert(name, figures);
        let of_all = events::measure(installation, &client, &paths, amounts.events).await?;
        busy.insert(name, of_all[name]);
        streams.check(&paths[name])?;
    }
    println!("downloads ...");
    let downloads =
        downloads::measure(installation, &client, &[DIRECT, ENVOY_FLOOR, IMPERSONATE, JWT].map(|name| &paths[name]), amounts).await?;
    let figures = json!({
        "conditions": {"watches": amounts.watches, "execs": amounts.execs, "events": amounts.events, "bytes": amounts.bytes, "rounds": amounts.rounds},
        "open": opened,
        "event_added_us": {"quiet": quiet, "with_all_open": busy},
        "downloads": downloads,
    });
    Ok(Found { table: table::of(&figures), figures })
}
