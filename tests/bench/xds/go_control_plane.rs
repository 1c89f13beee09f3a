//! The reference: go-control-plane's snapshot cache and server (`tests/tools/go/xds`), fed with the resources that kubepass makes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use prost::Message as _;
use serde_json::Value;

use super::super::support::leash::{self, Process};
use super::super::support::run::Run;
use super::events::{Event, Log, What};
use super::kubepass::changes;

const START: Duration = Duration::from_secs(30);

pub(super) struct GoControlPlane {
    pub(super) process: Process,
    pub(super) log: Log,
}

impl GoControlPlane {
    /// Serves on `xds.sock` in `folder`.
    pub(super) fn start(run: &Run, program: &Path, folder: &Path) -> Self {
        let socket = folder.join("xds.sock");
        let log = run.log_path("go-control-plane");
        let out = std::fs::File::create(&log).expect("the log");
        let err = out.try_clone().expect("the log");
        let mut command = leash::command(program);
        command.arg(&socket).stdin(Stdio::piped()).stdout(out).stderr(err);
        let child = command.spawn().expect("the server starts");
        let mut process = Process::adopt("go-control-plane", &log, child);
        process.until("it listens", START, || socket.exists().then_some(()));
        let log = Log::new(&process, parse);
        Self { process, log }
    }

    /// Makes what a file of [`encoded`] changes the next snapshot.
    pub(super) fn publish(&mut self, file: &Path) {
        let stdin = self.process.child().stdin.as_mut().expect("its input");
        writeln!(stdin, "{}", file.display()).expect("it reads");
    }
}

/// The server's program, built when it is missing.
pub(super) fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/ensure");
    let output = Command::new(&script).arg("--xds").stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("tests/tools/ensure");
    assert!(output.status.success(), "tests/tools/ensure failed; it says above what is missing");
    let text = String::from_utf8(output.stdout).expect("paths");
    PathBuf::from(text.lines().last().expect("a directory")).join("xds-reference")
}

/// What changes, as messages of which each has its length before it.
pub(super) fn encoded(before: &ResourceSet, after: &ResourceSet) -> Vec<u8> {
    let message = |(kind, new, gone): (TypeUrl, std::collections::BTreeSet<String>, std::collections::BTreeSet<String>)| {
        let resource = |name: &String| {
            let resource = after.get(kind, name).expect("it is there");
            let any = Any { type_url: kind.as_str().to_owned(), value: resource.body.bytes().to_vec() };
            Resource { name: name.clone(), version: resource.version.to_string(), resource: Some(any), ..Resource::default() }
        };
        DeltaDiscoveryResponse {
            type_url: kind.as_str().to_owned(),
            resources: new.iter().map(resource).collect(),
            removed_resources: gone.into_iter().collect(),
            ..DeltaDiscoveryResponse::default()
        }
    };
    changes(before, after).into_iter().flat_map(|change| message(change).encode_length_delimited_to_vec()).collect()
}

fn parse(line: &str) -> Option<Event> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let stream = value["stream"].as_u64().unwrap_or_default();
    let what = match value["event"].as_str()? {
        "published" => What::Published,
        "node" => What::Node { stream, node: text("node") },
        "pushed" => What::Pushed { stream, nonce: text("type") + &text("nonce") },
        "acknowledged" => What::Acknowledged { stream, nonce: text("type") + &text("nonce") },
        "refused" => What::Refused { message: text("message") },
        _ => return None,
    };
    Some(Event { at: value["at_us"].as_i64()?, what })
}
