//! A gigabyte as `kubectl cp` gets it (`exec` of `tar`, over a WebSocket) and as `kubectl logs` does, path by path by turns; and what kubepass has to
//! do with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Instant;

use serde::Serialize;

use super::super::figures::{Timed, median};
use super::super::installation::Installation;
use super::super::machine;
use super::super::paths::{ENVOY_FLOOR, NAMESPACE, Path};
use super::super::support::envoy_stats;
use super::Amounts;
use super::client::Client;

/// What is loaded down, and how it is asked for.
const WAYS: [(&str, &str); 2] =
    [("cp", "exec?command=tar&command=cf&command=-&command=big.bin&container=web&stdout=true"), ("logs", "log?container=web")];

/// A line of a pod's log, without its head.
const LINE_BYTES: usize = 1_000;

/// Of one path.
#[derive(Debug, Serialize)]
pub(super) struct Download {
    mb_per_second: Timed,
    /// Of the throughput of Envoy alone, round by round.
    of_envoy_floor: Option<Timed>,
    /// Between this path's Envoy and kubepass while a download went on, at most, and kubepass's CPU time for one.
    kubepass_bytes: Option<u64>,
    kubepass_cpu_ms: Option<f64>,
}

/// By way, then by path.
pub(super) type Downloads = BTreeMap<&'static str, BTreeMap<&'static str, Download>>;

#[derive(Debug, Clone, Copy)]
struct Sample {
    mb_per_second: f64,
    kubepass: Option<(u64, f64)>,
}

pub(super) async fn measure(installation: &Installation, client: &Client, paths: &[&Path], amounts: &Amounts) -> Result<Downloads, String> {
    make_files(installation, amounts.bytes).map_err(|error| error.to_string())?;
    let mut all = Downloads::new();
    for (way, asked) in WAYS {
        let asked = format!("/api/v1/namespaces/{NAMESPACE}/pods/web-000/{asked}");
        let mut order = paths.to_vec();
        let mut samples: BTreeMap<&'static str, Vec<Sample>> = BTreeMap::new();
        for number in 1..=amounts.rounds {
            let mut line = format!("  {way}, round {number}:");
            for path in &order {
                let sample =
                    one(installation, client, path, way, &asked, amounts.bytes).await.map_err(|error| format!("{}: {error}", path.name))?;
                line.push_str(&format!("  {} {:.0} MB/s", path.name, sample.mb_per_second));
                samples.entry(path.name).or_default().push(sample);
            }
            println!("{line}");
            order.rotate_left(1);
        }
        let floor = samples.get(ENVOY_FLOOR).cloned().unwrap_or_default();
        all.insert(way, samples.into_iter().map(|(path, samples)| (path, figures(&samples, &floor))).collect());
    }
    Ok(all)
}

fn figures(samples: &[Sample], floor: &[Sample]) -> Download {
    let of_floor: Vec<f64> = samples.iter().zip(floor).map(|(one, floor)| one.mb_per_second / floor.mb_per_second).collect();
    let kubepass: Vec<(u64, f64)> = samples.iter().filter_map(|sample| sample.kubepass).collect();
    Download {
        mb_per_second: Timed::of(samples.iter().map(|sample| sample.mb_per_second).collect()),
        of_envoy_floor: (!of_floor.is_empty()).then(|| Timed::of(of_floor)),
        kubepass_bytes: kubepass.iter().map(|(bytes, _)| *bytes).max(),
        kubepass_cpu_ms: (!kubepass.is_empty()).then(|| median(kubepass.iter().map(|(_, cpu)| *cpu).collect())),
    }
}

async fn one(installation: &Installation, client: &Client, path: &Path, way: &str, asked: &str, bytes: u64) -> Result<Sample, String> {
    let before = with_kubepass(installation, path);
    let began = Instant::now();
    let got = if way == "cp" { exec(client, path, asked).await } else { get(client, path, asked).await };
    let got = got.map_err(|error| error.to_string())?;
    let seconds = began.elapsed().as_secs_f64();
    if got < bytes {
        return Err(format!("{got} of {bytes} bytes came"));
    }
    let after = with_kubepass(installation, path);
    let kubepass = before.zip(after).map(|(before, after)| (after.0 - before.0, (after.1 - before.1) * 1e3));
    Ok(Sample { mb_per_second: got as f64 / 1e6 / seconds, kubepass })
}

async fn exec(client: &Client, path: &Path, asked: &str) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let (mut exec, mut got) = (client.exec(path, asked).await?, 0);
    while let Some(length) = exec.read().await? {
        got += length as u64;
    }
    Ok(got)
}

async fn get(client: &Client, path: &Path, asked: &str) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let (mut answer, mut got) = (client.get(path, asked).await?, 0);
    while let Some(part) = answer.part().await? {
        got += part.len() as u64;
    }
    Ok(got)
}

/// Bytes between the path's Envoy and all of kubepass's sockets so far, as Envoy counts them, and kubepass's CPU seconds.
fn with_kubepass(installation: &Installation, path: &Path) -> Option<(u64, f64)> {
    let process = path.processes.iter().find(|(name, _)| *name == "kubepass").map(|(_, process)| *process)?;
    let stats = envoy_stats::read(&installation.envoy_admin(path)?, "upstream_cx_.x_bytes_total");
    let bytes = stats.iter().filter(|(name, _)| name.starts_with("cluster.kubepass-")).map(|(_, bytes)| bytes).sum();
    Some((bytes, machine::cpu_seconds(process)))
}

/// A file for `tar`, all holes, which cost the disk nothing; and the pod's log, which has to be one.
fn make_files(installation: &Installation, bytes: u64) -> std::io::Result<()> {
    let pod = installation.cluster.work_dir();
    File::create(pod.join("big.bin"))?.set_len(bytes)?;
    let log = pod.parent().unwrap_or(&pod).join("pod.log");
    let mut log = BufWriter::with_capacity(1 << 20, File::create(log)?);
    let line = format!("2026-01-01T00:00:00.000000000Z stdout F {}\n", "x".repeat(LINE_BYTES - 1));
    for _ in 0..bytes.div_ceil(LINE_BYTES as u64) {
        log.write_all(line.as_bytes())?;
    }
    log.flush()
}
