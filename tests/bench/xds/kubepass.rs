//! kubepass as the control plane alone, with a configuration file of many routes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kubepass::server::publisher;
use kubepass::xds::difference::{self, What as Differs};
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources;
use serde_json::Value;

use super::super::support::http;
use super::super::support::leash::{self, Process};
use super::super::support::run::Run;
use super::super::support::world::server_binary;
use super::events::{Event, Log, What};
use super::scene::Scene;

/// The first reading of a big configuration.
const START: Duration = Duration::from_secs(120);

pub(super) struct Kubepass {
    pub(super) process: Process,
    pub(super) log: Log,
}

impl Kubepass {
    pub(super) fn start(run: &Run, scene: &Scene) -> Self {
        let mut command = leash::command(server_binary());
        command.arg("serve").arg("--config").arg(scene.config()).current_dir(scene.folder());
        command.args(["--log-format", "json", "--log", "info,kubepass::server::ads=debug"]);
        let mut process = run.start("kubepass", command);
        let (client, url) = (http::client(&[]), format!("http://127.0.0.1:{}/readyz", scene.admin_port()));
        process.until("kubepass is ready", START, || client.get(&url).send().ok()?.status().is_success().then_some(()));
        let log = Log::new(&process, parse);
        Self { process, log }
    }
}

/// What an Envoy gets of the configuration as it stands in the file.
///
/// # Errors
/// When it is not valid.
pub(super) fn resources_of(scene: &Scene) -> Result<Arc<ResourceSet>, String> {
    let snapshot = publisher::load_once(&scene.config()).map_err(|error| error.to_string())?;
    resources::build(&snapshot).map(Arc::new).map_err(|error| error.to_string())
}

/// What differs, by type: names that came or changed, and names that are gone.
pub(super) fn changes(before: &ResourceSet, after: &ResourceSet) -> Vec<(TypeUrl, BTreeSet<String>, BTreeSet<String>)> {
    let differences = difference::between(before, after);
    let of = |kind: TypeUrl, gone: bool| {
        differences
            .iter()
            .filter(|difference| difference.kind == kind && (difference.what == Differs::Removed) == gone)
            .map(|difference| difference.name.to_string())
            .collect::<BTreeSet<String>>()
    };
    let all = TypeUrl::ALL.into_iter().map(|kind| (kind, of(kind, false), of(kind, true)));
    all.filter(|(_, new, gone)| !new.is_empty() || !gone.is_empty()).collect()
}

fn parse(line: &str) -> Option<Event> {
    // Most lines are about the streams; the rest is not looked at.
    let value: Value = serde_json::from_str(line).ok()?;
    let at = value["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok()?.as_microsecond();
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let stream = value["xds.stream"].as_u64().unwrap_or_default();
    let what = match value["message"].as_str()? {
        "config.applied" => What::Published,
        "an Envoy connected" => What::Node { stream, node: text("xds.node") },
        "pushed" => What::Pushed { stream, nonce: text("nonce") },
        "acknowledged" => What::Acknowledged { stream, nonce: text("nonce") },
        "Envoy refused its configuration" => What::Refused { message: text("message") },
        "config.rejected" => What::Refused { message: text("config.errors") },
        _ => return None,
    };
    Some(Event { at, what })
}
