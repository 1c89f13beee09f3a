//! Many open streams on one path: what each takes of memory, that all of them are alive, and that the API server holds them as the user's.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use futures::stream::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::super::installation::Installation;
use super::super::machine;
use super::super::paths::{NAMESPACE, Path, SeenAs, USER};
use super::super::proof;
use super::super::support::envoy_stats;
use super::Amounts;
use super::client::{Client, Exec, Watch};
use super::events;

/// Connections that are opened at a time.
const TOGETHER: usize = 16;

/// Between two looks at what is still open, how many, and what may stay.
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: usize = 200;
const FEW: u64 = 8;

/// Kibibytes for each stream.
#[derive(Debug, Serialize)]
pub(super) struct Open {
    /// By Envoy's own account of what it has allocated.
    envoy_kib_per_watch: f64,
    envoy_kib_per_exec: f64,
    /// Resident.
    kubepass_kib_per_stream: Option<f64>,
    /// From an object's creation until all watches had it.
    event_to_all_ms: f64,
}

/// Dropping them closes all.
pub(super) struct Streams {
    watches: Vec<Watch>,
    execs: Vec<Exec>,
    audit_log: PathBuf,
}

pub(super) async fn measure(
    installation: &Installation,
    client: &Client,
    path: &Path,
    amounts: &Amounts,
) -> Result<(Open, Streams), String> {
    let audit_log = installation.cluster.audit_log();
    proof::empty(&audit_log);
    let admin = installation.envoy_admin(path).ok_or("a path with an Envoy")?;
    let kubepass = path.processes.iter().find(|(name, _)| *name == "kubepass").map(|(_, process)| *process);
    let memory = || (envoy_stats::allocated(&admin) as f64 / 1024.0, kubepass.map(|process| machine::resident_mb(process) * 1024.0));
    let failed = |error| format!("{}: {error}", path.name);
    until_closed(&admin).await?;
    let before = memory();
    let asked = events::watch_of(NAMESPACE);
    let opening = futures::stream::iter(0..amounts.watches).map(|_| client.get(path, &asked)).buffer_unordered(TOGETHER);
    let mut watches: Vec<Watch> = opening.try_collect().await.map_err(failed)?;
    let watching = memory();
    let asked = format!("/api/v1/namespaces/{NAMESPACE}/pods/web-000/exec?command=cat&container=web&stdin=true&stdout=true");
    let opening = futures::stream::iter(0..amounts.execs).map(|_| client.exec(path, &asked)).buffer_unordered(TOGETHER);
    let mut execs: Vec<Exec> = opening.try_collect().await.map_err(failed)?;
    let both = memory();
    let event_to_all_ms = event_to_all(installation, path, &mut watches).await.map_err(|error| failed(error.into()))?;
    for exec in &mut execs {
        exec.write("alive\n").await.map_err(failed)?;
        exec.read().await.map_err(failed)?.ok_or_else(|| format!("{}: an exec ended", path.name))?;
    }
    let each = |more: f64, count: usize| more / count as f64;
    let kubepass_kib_per_stream = before.1.zip(both.1).map(|(before, after)| each(after - before, amounts.watches + amounts.execs));
    let open = Open {
        envoy_kib_per_watch: each(watching.0 - before.0, amounts.watches),
        envoy_kib_per_exec: each(both.0 - watching.0, amounts.execs),
        kubepass_kib_per_stream,
        event_to_all_ms,
    };
    Ok((open, Streams { watches, execs, audit_log }))
}

/// Until what another path had open on the same Envoy is gone.
async fn until_closed(admin: &FilePath) -> Result<(), String> {
    let is_of_clients = |name: &str| name.starts_with("http.") && !name.starts_with("http.admin.");
    for _ in 0..TRIES {
        let active = envoy_stats::read(admin, "downstream_cx_active$");
        if active.iter().filter(|(name, _)| is_of_clients(name)).map(|(_, count)| count).sum::<u64>() < FEW {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err("connections that were closed are still open".to_owned())
}

async fn event_to_all(installation: &Installation, path: &Path, watches: &mut [Watch]) -> Result<f64, String> {
    let name = format!("to-all-{}", path.name.replace('_', "-"));
    let began = Instant::now();
    events::create(installation, NAMESPACE, &name);
    let waiting = watches.iter_mut().map(|watch| events::until_named(watch, &name));
    futures::future::try_join_all(waiting).await?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

impl Streams {
    /// Whether the API server holds as many as there are, as the user's.
    pub(super) fn check(&self, path: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(&self.audit_log).map_err(|error| error.to_string())?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let user = match path.seen_as {
            SeenAs::Impersonated => "impersonatedUser",
            SeenAs::Authenticated => "user",
        };
        let mut began: BTreeMap<&str, usize> = BTreeMap::new();
        for event in events.filter(|event| event["stage"] == "ResponseStarted" && event[user]["username"] == USER) {
            let kind = if event["objectRef"]["subresource"] == "exec" { "exec" } else { "watch" };
            *began.entry(kind).or_default() += 1;
        }
        let count = |kind: &str| began.get(kind).copied().unwrap_or(0);
        match count("watch") >= self.watches.len() && count("exec") >= self.execs.len() {
            true => Ok(()),
            false => Err(format!(
                "{}: the API server holds {began:?} of {} watches and {} exec",
                path.name,
                self.watches.len(),
                self.execs.len()
            )),
        }
    }
}
