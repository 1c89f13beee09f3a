//! `kubepass-server check-envoy FILE|URL`: what a hand-written Envoy lacks. Reads a bootstrap, a saved config dump, or asks an admin interface.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::envoy_check::{self, Finding, Kind, Report};
use crate::server::managed_envoy::AdminInterface;

/// Nothing was found.
pub const GOOD: u8 = 0;
/// Something is missing, unsafe or not understood.
pub const FINDINGS: u8 = 1;
/// There is nothing to judge: it cannot be read, or it is no configuration of Envoy.
pub const UNREADABLE: u8 = 2;

/// What an admin interface may answer, and how long that may take.
const MAX_DUMP: u64 = 512 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);
/// With the endpoints, for a cluster is also known by where it leads.
const DUMP: &str = "/config_dump?include_eds";

/// Judges and writes one paragraph for each finding to `out`. Returns the exit code.
pub fn check_envoy(source: &str, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let report = read(source).and_then(|document| envoy_check::check(&document).map_err(|error| error.to_string()));
    // Nobody reads a closed pipe; the exit code still tells.
    match report {
        Err(error) => {
            let _ = writeln!(err, "{source}: {error}");
            UNREADABLE
        }
        Ok(report) if report.findings.is_empty() => {
            let _ = writeln!(out, "{source}: good: {}", seen(&report));
            GOOD
        }
        Ok(report) => {
            let _ = report.findings.iter().try_for_each(|finding| writeln!(out, "{}\n", paragraph(finding)));
            let _ = writeln!(out, "{source}: {} finding(s) in {}", report.findings.len(), seen(&report));
            FINDINGS
        }
    }
}

fn seen(Report { listeners, clusters, protected, .. }: &Report) -> String {
    format!("{listeners} listener(s), {clusters} cluster(s), of which behind kubepass: {}", protected.join(", "))
}

fn paragraph(Finding { at, kind, code, why, instead }: &Finding) -> String {
    let kind = match kind {
        Kind::Unsafe => "UNSAFE",
        Kind::NotUnderstood => "NOT UNDERSTOOD, so judged unsafe:",
        Kind::Breaks => "BREAKS",
    };
    format!("{kind} {code} at {at}\n  why: {why}\n  instead: {instead}")
}

fn read(source: &str) -> Result<Value, String> {
    if let Some(path) = source.strip_prefix("unix:") {
        return parse(&by_socket(path.strip_prefix("//").unwrap_or(path).into())?);
    }
    if source.starts_with("http://") {
        return parse(&by_tcp(source)?);
    }
    if source.starts_with("https://") {
        return Err("Envoy's admin interface speaks no TLS: http://HOST:PORT, or unix:PATH".to_owned());
    }
    parse(&std::fs::read_to_string(source).map_err(|error| error.to_string())?)
}

/// Envoy leaves out what has this tag as if it were a comment, and only Envoy does.
const LEFT_OUT: &str = "!ignore";

/// JSON first: a dump may be large, and is JSON always.
fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"));
    }
    if text.contains(LEFT_OUT) {
        return Err(format!("what has the tag `{LEFT_OUT}` is not there for Envoy: take it out of the file"));
    }
    serde_yaml::from_str(text).map_err(|error| format!("neither YAML nor JSON: {error}"))
}

fn by_socket(path: PathBuf) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(AdminInterface::new(path).config_dump()).map_err(|error| error.to_string())
}

fn by_tcp(url: &str) -> Result<String, String> {
    // Another provider can only be there in a test process; any will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::blocking::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build();
    let answer = client.and_then(|client| client.get(format!("{}{DUMP}", url.trim_end_matches('/'))).send());
    let answer = answer.map_err(|error| format!("Envoy's admin interface does not answer: {error}"))?;
    if answer.status() != 200 {
        return Err(format!("Envoy's admin interface answers {}", answer.status()));
    }
    let mut text = String::new();
    let read = answer.take(MAX_DUMP).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| format!("Envoy's admin interface does not answer: {error}"))
}
