//! How much later an event of a watch comes by a path than straight from the API server: both watch the same objects at the same time, and one
//! clock sees both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::figures::Timed;
use super::super::installation::Installation;
use super::super::paths::{DIRECT, ENVOY_FLOOR, IMPERSONATE, JWT, NAMESPACE, Path};
use super::client::{Client, Watch};

const PATHS: [&str; 4] = [DIRECT, ENVOY_FLOOR, IMPERSONATE, JWT];
/// For one event.
const PATIENCE: Duration = Duration::from_secs(30);

/// Microseconds later than direct, by path.
pub(super) async fn measure(
    installation: &Installation,
    client: &Client,
    paths: &BTreeMap<&str, Path>,
    events: usize,
) -> Result<BTreeMap<&'static str, Timed>, String> {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let series = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // One object of a name of its own: the others that are open see none of it.
    let name = format!("seen-by-few-{series}");
    let asked = format!("{}&fieldSelector=metadata.name%3D{name}", watch_of(NAMESPACE));
    let (told, mut arrived) = mpsc::unbounded_channel();
    let mut watching = JoinSet::new();
    for (index, path) in PATHS.into_iter().enumerate() {
        let mut watch = client.get(&paths[path], &asked).await.map_err(|error| error.to_string())?;
        let (told, name) = (told.clone(), name.clone());
        watching.spawn(async move { while until_named(&mut watch, &name).await.is_ok() && told.send((index, Instant::now())).is_ok() {} });
    }
    let mut added: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for number in 0..events {
        match number {
            0 => create(installation, NAMESPACE, &name),
            number => touch(installation, NAMESPACE, &name, number),
        }
        let mut arrivals = [None; PATHS.len()];
        while arrivals.iter().any(Option::is_none) {
            let next = tokio::time::timeout(PATIENCE, arrived.recv()).await;
            let (index, at) = next.ok().flatten().ok_or("an event did not come")?;
            arrivals[index] = Some(at);
        }
        let [direct, others @ ..] = arrivals.map(|at: Option<Instant>| at.expect("all have come"));
        for (path, at) in PATHS.iter().skip(1).zip(others) {
            let later = at.saturating_duration_since(direct).as_secs_f64() - direct.saturating_duration_since(at).as_secs_f64();
            added.entry(path).or_default().push(later * 1e6);
        }
    }
    Ok(added.into_iter().map(|(path, times)| (path, Timed::of(times))).collect())
}

/// The watch of all config maps of a namespace.
pub(super) fn watch_of(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps?watch=1&timeoutSeconds=3000")
}

/// Until an event names an object.
pub(super) async fn until_named(watch: &mut Watch, name: &str) -> Result<(), String> {
    let named = format!("\"name\":\"{name}\"");
    loop {
        let line = watch.line().await.map_err(|error| error.to_string())?;
        if String::from_utf8_lossy(&line).contains(&named) {
            return Ok(());
        }
    }
}

pub(super) fn create(installation: &Installation, namespace: &str, name: &str) {
    blocking(|| _ = installation.cluster.kubectl_admin(&["create", "configmap", name, "-n", namespace]).ok());
}

fn touch(installation: &Installation, namespace: &str, name: &str, number: usize) {
    let value = format!("touched={number}");
    blocking(|| _ = installation.cluster.kubectl_admin(&["annotate", "configmap", name, "-n", namespace, "--overwrite", &value]).ok());
}

/// The watches go on meanwhile.
fn blocking(act: impl FnOnce()) {
    tokio::task::block_in_place(act);
}
