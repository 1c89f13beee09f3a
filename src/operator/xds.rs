//! `xds status`, `xds diff` and `xds dump`: what Envoys have, what a configuration would change for them, and what they are given. No secret is shown.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::session::{self, Running, table};
use crate::server::admin::v1::admin_client::AdminClient;
use crate::server::admin::v1::{DumpResourcesRequest, DumpedResource};
use crate::server::publisher;
use crate::snapshot::NodeView;
use crate::xds::difference::{self, Difference, What};
use crate::xds::dump::{Shown, document};
use crate::xds::resource::{ResourceSet, TypeUrl};
use crate::xds::resources::{self, NodeResources};

/// Digits of a version that are shown.
const SHOWN: usize = 12;

/// The Envoys of a running kubepass: for each type what it should have, what it has acknowledged, and why not if it has not.
///
/// # Errors
/// A text for the operator.
pub fn status(running: &Running) -> Result<String, String> {
    let state: Value = serde_json::from_str(&session::state(running)?).map_err(|error| error.to_string())?;
    Ok(status_text(part(&state, "xds")))
}

/// What Envoys would be told if `file` took the place of the configuration `current`, and whether open connections would drain.
///
/// # Errors
/// One of the two is not valid.
pub fn diff(current: &Path, file: &Path) -> Result<String, String> {
    let resources = |file: &Path| -> Result<NodeResources, String> {
        let snapshot = publisher::load_once(file).map_err(|error| error.to_string())?;
        resources::build_all(&snapshot).map_err(|error| error.to_string())
    };
    Ok(diff_of_nodes(&resources(current)?, &resources(file)?))
}

/// Which resources are shown.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose.
    pub node: Option<String>,
    /// Only this type, by its short name.
    pub kind: Option<String>,
    /// Only those whose names contain this.
    pub name: Option<String>,
}

/// What an Envoy of a running kubepass is given, as JSON in the form of Envoy's config dump. kubepass leaves secrets out before it sends it.
///
/// # Errors
/// A text for the operator.
pub fn dump(running: &Running, wanted: Wanted) -> Result<String, String> {
    let is_part = wanted.kind.is_some() || wanted.name.is_some();
    let Wanted { node, kind, name } = wanted;
    let request = DumpResourcesRequest { node: node.unwrap_or_default(), r#type: kind.unwrap_or_default(), name: name.unwrap_or_default() };
    let dumped = session::ask(running, async |admin: AdminClient<Channel>| collect(admin, request).await)?;
    if dumped.is_empty() && is_part {
        return Err("it is given no such resource; without --type and --name all are shown".to_owned());
    }
    let shown: Vec<Shown> = dumped.into_iter().map(read).collect::<Result<_, _>>()?;
    serde_json::to_string_pretty(&document(&shown)).map_err(|error| error.to_string())
}

async fn collect(mut admin: AdminClient<Channel>, request: DumpResourcesRequest) -> Result<Response<Vec<DumpedResource>>, Status> {
    let mut stream = admin.dump_resources(request).await?.into_inner();
    let mut dumped = Vec::new();
    while let Some(resource) = stream.message().await? {
        dumped.push(resource);
    }
    Ok(Response::new(dumped))
}

fn read(dumped: DumpedResource) -> Result<Shown, String> {
    let DumpedResource { type_url, name, version, json } = dumped;
    let kind = TypeUrl::from_wire(&type_url)
        .ok_or_else(|| format!("kubepass shows a resource of the type {type_url:?}, which this program does not know"))?;
    Ok(Shown { kind, name, version, message: serde_json::from_str(&json).map_err(|error| error.to_string())? })
}

/// For every node that is in one of the two; nodes that are told the same stand together.
pub fn diff_of_nodes(before: &NodeResources, after: &NodeResources) -> String {
    if before.nodes().is_empty() && after.nodes().is_empty() {
        return diff_text(&before.of(NodeView::UNNAMED), &after.of(NodeView::UNNAMED));
    }
    let names: BTreeSet<&str> =
        before.nodes().iter().chain(after.nodes().iter()).filter_map(|node| node.name().map(|name| &**name)).collect();
    let of = |resources: &NodeResources, name: &str| resources.nodes().named(name).map(|node| resources.of(node)).unwrap_or_default();
    let mut parts: Vec<(Vec<&str>, String)> = Vec::new();
    for name in names {
        let text = diff_text(&of(before, name), &of(after, name))
            .replace("Every connected Envoy is told this", "Every Envoy of these nodes is told this");
        match parts.iter_mut().find(|(_, same)| *same == text) {
            Some((names, _)) => names.push(name),
            None => parts.push((vec![name], text)),
        }
    }
    parts.iter().map(|(names, text)| format!("{}:\n{text}", names.join(", "))).collect::<Vec<_>>().join("\n\n")
}

/// `xds`: that part of the state.
pub fn status_text(xds: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let short = |value: &Value| text(value).chars().take(SHOWN).collect::<String>();
    let mut rows = vec![["NODE", "ENVOY", "PROTOCOL", "TYPE", "WANTED", "ACKNOWLEDGED", "STATE"].map(str::to_owned)];
    for stream in part(xds, "streams").as_array().into_iter().flatten() {
        let types = part(stream, "types").as_object().into_iter().flatten();
        for (kind, of) in types.filter(|(_, of)| part(of, "requested") == &Value::Bool(true)) {
            let node = if part(stream, "node") == &Value::from("") { "?".to_owned() } else { text(part(stream, "node")) };
            let state = type_state(of);
            let untested = if part(stream, "tested") == &Value::Bool(false) { " (not tested)" } else { "" };
            rows.push([
                node,
                format!("{}{untested}", text(part(stream, "version"))),
                text(part(stream, "protocol")),
                kind.clone(),
                short(part(of, "wanted")),
                short(part(of, "acknowledged")),
                state,
            ]);
        }
    }
    let mut counts = vec![["TYPE", "PUSHED", "ACKNOWLEDGED", "REFUSED", "STALE"].map(str::to_owned)];
    for (kind, of) in part(xds, "types").as_object().into_iter().flatten() {
        counts.push([
            kind.clone(),
            part(of, "pushed").to_string(),
            part(of, "acknowledged").to_string(),
            part(of, "refused").to_string(),
            part(of, "stale").to_string(),
        ]);
    }
    let mut away = vec![["NODE", "ENVOY", "TIMES", "TURNED AWAY, FOR"].map(str::to_owned)];
    for of in part(xds, "turned_away").as_array().into_iter().flatten() {
        let node = if part(of, "node") == &Value::from("") { "?".to_owned() } else { text(part(of, "node")) };
        away.push([node, text(part(of, "version")), part(of, "times").to_string(), text(part(of, "reason"))]);
    }
    let away = if away.len() == 1 { String::new() } else { format!("\n\n{}", table(&away)) };
    let streams = if rows.len() == 1 { "no Envoy is connected".to_owned() } else { table(&rows) };
    format!("{streams}{away}\n\nsince kubepass started:\n{}", table(&counts))
}

/// Null where there is no such key.
fn part<'v>(value: &'v Value, key: &str) -> &'v Value {
    value.get(key).unwrap_or(&Value::Null)
}

fn type_state(of: &Value) -> String {
    if let Some(refusal) = part(of, "refusal").as_str() {
        return format!("REFUSED: {refusal}");
    }
    match (part(of, "waiting_ms").as_u64(), part(of, "converged_ms").as_u64()) {
        (Some(waiting), _) => format!("waiting for {waiting} ms"),
        (None, Some(took)) => format!("ok, took {took} ms"),
        (None, None) => String::new(),
    }
}

pub fn diff_text(before: &ResourceSet, after: &ResourceSet) -> String {
    let differences = difference::between(before, after);
    if differences.is_empty() {
        return "no Envoy would be told anything".to_owned();
    }
    let line = |difference: &Difference| {
        let sign = match difference.what {
            What::Added => '+',
            What::Changed => '~',
            What::Removed => '-',
        };
        format!("{sign} {:4} {}", difference.kind.short_name(), difference.name)
    };
    let mut lines: Vec<String> = differences.iter().map(line).collect();
    let drained: Vec<String> = differences
        .iter()
        .filter(|difference| difference.drains())
        .map(|difference| format!("{} ({})", difference.name, difference.drained))
        .collect();
    lines.push(String::new());
    lines.push(if drained.is_empty() {
        "Every connected Envoy is told this; no open connection drains.".to_owned()
    } else {
        format!("Every connected Envoy is told this. Open connections DRAIN on: {}", drained.join(", "))
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_says_who_has_what_and_why_not() {
        let of = |acknowledged: Value, refusal: Value, waiting: Value, converged: Value| {
            json!({"requested": true, "wanted": "0123456789abcdef", "acknowledged": acknowledged, "refusal": refusal,
                   "waiting_ms": waiting, "converged_ms": converged})
        };
        let types = json!({
            "cds": of("0123456789abcdef".into(), Value::Null, Value::Null, 12.into()),
            "lds": of(Value::Null, Value::Null, 300.into(), Value::Null),
            "rds": of("fedcba".into(), "no such cluster".into(), 5.into(), Value::Null),
            "ecds": json!({"requested": false}),
        });
        let state = json!({
            "streams": [
                {"node": "edge-1", "version": "1.40.0", "tested": true, "protocol": "delta", "types": types},
                {"node": "edge-2", "version": "1.41.0", "tested": false, "protocol": "delta",
                 "types": {"cds": of("0123456789abcdef".into(), Value::Null, Value::Null, 7.into())}},
            ],
            "turned_away": [{"node": "old", "version": "1.38.3", "reason": "no test has shown", "times": 3, "seconds_ago": 1}],
            "types": {"cds": {"pushed": 3, "acknowledged": 2, "refused": 1, "stale": 0}},
        });
        let expected = "\
NODE    ENVOY                PROTOCOL  TYPE  WANTED        ACKNOWLEDGED  STATE
edge-1  1.40.0               delta     cds   0123456789ab  0123456789ab  ok, took 12 ms
edge-1  1.40.0               delta     lds   0123456789ab                waiting for 300 ms
edge-1  1.40.0               delta     rds   0123456789ab  fedcba        REFUSED: no such cluster
edge-2  1.41.0 (not tested)  delta     cds   0123456789ab  0123456789ab  ok, took 7 ms

NODE  ENVOY   TIMES  TURNED AWAY, FOR
old   1.38.3  3      no test has shown

since kubepass started:
TYPE  PUSHED  ACKNOWLEDGED  REFUSED  STALE
cds   3       2             1        0";
        assert_eq!(status_text(&state), expected);
        assert!(status_text(&json!({"streams": [], "types": {}})).starts_with("no Envoy is connected"));
    }
}
