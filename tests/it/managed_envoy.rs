//! The managed Envoy as a process: it starts, starts again, drains, and ends with us.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kubepass::server::managed_envoy::{EnvoyMetrics, ManagedEnvoyError, Settings, locate, run};
use tokio_util::sync::CancellationToken;

use crate::support::tools::Tools;

const PATIENCE: Duration = Duration::from_secs(30);

/// A private folder and settings for an Envoy without a control plane.
fn prepared() -> (tempfile::TempDir, Settings) {
    let folder = tempfile::Builder::new().prefix("kp-").tempdir().unwrap();
    let mut settings = Settings::new(Tools::ensure().envoy(), folder.path().to_owned());
    settings.concurrency = Some(1);
    (folder, settings)
}

async fn until_it_answers(settings: &Settings) {
    let began = Instant::now();
    while settings.admin().is_ready().await.is_err() {
        assert!(began.elapsed() < PATIENCE, "Envoy does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until the supervisor itself has seen it serve.
async fn until_seen(metrics: &EnvoyMetrics) {
    let began = Instant::now();
    while !metrics.latest().contains_key("server.live") {
        assert!(began.elapsed() < PATIENCE, "Envoy is not seen to serve");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes whose command line holds `text`.
fn running(text: &Path) -> Vec<u32> {
    let text = text.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str().unwrap().parse::<u32>().ok());
    pids.filter(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text)))
        .collect()
}

async fn until_none_runs(folder: &Path) {
    let began = Instant::now();
    while !running(folder).is_empty() {
        assert!(began.elapsed() < PATIENCE, "still running: {:?}", running(folder));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_pinned_envoy_is_located() {
    let found = locate(Some(&Tools::ensure().envoy())).await.unwrap();
    assert_eq!(found.version, "1.40.0");
}

#[tokio::test]
async fn it_serves_its_private_admin_socket_and_ends_when_told() {
    let (folder, settings) = prepared();
    let (metrics, stop) = (EnvoyMetrics::default(), CancellationToken::new());
    let task = tokio::spawn(run(settings.clone(), metrics.clone(), stop.clone()));
    until_it_answers(&settings).await;
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("envoy-admin.sock"), mode("envoy-bootstrap.yaml")), (0o600, 0o600));
    until_seen(&metrics).await;
    assert_eq!(metrics.latest().get("listener_manager.listener_modified"), Some(&0));
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    until_none_runs(folder.path()).await;
}

#[tokio::test]
async fn one_that_dies_is_started_again() {
    let (folder, settings) = prepared();
    let (metrics, stop) = (EnvoyMetrics::default(), CancellationToken::new());
    let task = tokio::spawn(run(settings.clone(), metrics.clone(), stop.clone()));
    until_seen(&metrics).await;
    let before = envoys(folder.path());
    assert_eq!(before.len(), 1);
    kill(before[0], "KILL");
    let began = Instant::now();
    while envoys(folder.path()).is_empty() || envoys(folder.path()) == before {
        assert!(began.elapsed() < PATIENCE, "Envoy does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until_it_answers(&settings).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn one_that_never_serves_is_an_error_with_its_words() {
    let (folder, mut settings) = prepared();
    // A folder stands where its admin socket should be.
    std::fs::create_dir(folder.path().join("envoy-admin.sock")).unwrap();
    let run = |settings: Settings| run(settings, EnvoyMetrics::default(), CancellationToken::new());
    let error = tokio::time::timeout(PATIENCE, run(settings.clone())).await.unwrap().unwrap_err();
    assert!(matches!(&error, ManagedEnvoyError::NeverServed { .. }) && error.to_string().contains("envoy-admin.sock"), "{error}");
    settings.program = "/nonexistent/envoy".into();
    let error = tokio::time::timeout(PATIENCE, run(settings.clone())).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/envoy"), "{error}");
    settings.socket_dir = folder.path().join("x".repeat(100));
    let error = run(settings).await.unwrap_err();
    assert!(error.to_string().contains("107"), "{error}");
}

/// The part of the test below that is killed: runs an Envoy until then.
#[test]
#[ignore = "started by it_ends_with_a_parent_that_is_killed"]
fn parent_that_is_killed() {
    let folder = std::env::var("KUBEPASS_TEST_FOLDER").unwrap();
    let mut settings = Settings::new(Tools::ensure().envoy(), folder.into());
    settings.concurrency = Some(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(settings, EnvoyMetrics::default(), CancellationToken::new())).unwrap();
}

#[tokio::test]
async fn it_ends_with_a_parent_that_is_killed() {
    let (folder, settings) = prepared();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "managed_envoy::parent_that_is_killed"])
        .env("KUBEPASS_TEST_FOLDER", folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until_it_answers(&settings).await;
    assert_eq!(envoys(folder.path()).len(), 1);
    parent.kill().unwrap();
    parent.wait().unwrap();
    until_none_runs(folder.path()).await;
}

/// Without the shell that guards them.
fn envoys(folder: &Path) -> Vec<u32> {
    let is_envoy = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("envoy"));
    running(folder).into_iter().filter(is_envoy).collect()
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
}
