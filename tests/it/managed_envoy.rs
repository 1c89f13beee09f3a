//! The managed Envoy as a process: it starts, starts again, drains, and ends with us.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kubepass::server::ads::{Ads, AdsLimits, AdsState};
use kubepass::server::managed_envoy::{EnvoyMetrics, ManagedEnvoyError, Settings, locate, run};
use kubepass::server::unix_socket::UnixSocket;
use kubepass::snapshot::Snapshot;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::{NodeResources, build};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fixture;
use crate::support::pki::Authority;
use crate::support::ports;
use crate::support::tools::Tools;

const PATIENCE: Duration = Duration::from_secs(30);

/// A private folder and settings for an Envoy without a control plane.
fn prepared() -> (tempfile::TempDir, Settings) {
    let folder = tempfile::Builder::new().prefix("kp-").permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap();
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
    let task = tokio::spawn(run(settings.clone(), metrics.clone(), || {}, stop.clone()));
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
    let ends = Arc::new(AtomicUsize::new(0));
    let ended = {
        let ends = Arc::clone(&ends);
        move || {
            ends.fetch_add(1, Ordering::Relaxed);
        }
    };
    let task = tokio::spawn(run(settings.clone(), metrics.clone(), ended, stop.clone()));
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
    assert_eq!(ends.load(Ordering::Relaxed), 1, "who counts its streams was told");
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    assert_eq!(ends.load(Ordering::Relaxed), 1, "an end that was asked for is none of its own");
}

#[tokio::test]
async fn one_that_never_serves_is_an_error_with_its_words() {
    let (folder, mut settings) = prepared();
    // A folder stands where its admin socket should be.
    std::fs::create_dir(folder.path().join("envoy-admin.sock")).unwrap();
    let run = |settings: Settings| run(settings, EnvoyMetrics::default(), || {}, CancellationToken::new());
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
    runtime.block_on(run(settings, EnvoyMetrics::default(), || {}, CancellationToken::new())).unwrap();
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

/// The control plane's part of the socket folder, with a first configuration.
fn control_plane(folder: &Path, first: ResourceSet) -> (watch::Sender<Arc<NodeResources>>, AdsState) {
    let (sender, receiver) = watch::channel(Arc::new(first.into()));
    let state = AdsState::default();
    let service = Ads::service(receiver, state.clone(), AdsLimits::default(), CancellationToken::new());
    let socket = UnixSocket::bind(&folder.join("xds.sock")).unwrap();
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, Box::pin(socket.into_incoming())));
    (sender, state)
}

/// The example with two clusters on `port`; `contents` replaces what its files hold.
fn resources(port: u16, change: impl Fn(String) -> String, contents: &BTreeMap<&str, Option<Vec<u8>>>) -> ResourceSet {
    let path = "config/two-clusters.yaml";
    let text = std::fs::read_to_string(fixture::root().join(path)).unwrap().replace("[::]:443", &format!("127.0.0.1:{port}"));
    let config = fixture::load(&change(text), path, contents).unwrap_or_else(|errors| panic!("{errors}"));
    build(&Snapshot::new(Arc::new(config), "0123456789abcdef")).unwrap()
}

/// Until the one Envoy has acknowledged everything of `set`.
async fn until_acknowledged(state: &AdsState, set: &ResourceSet) {
    let began = Instant::now();
    let is_there = |kind: TypeUrl| {
        let streams = state.streams();
        streams.iter().any(|stream| {
            let view = stream.types.get(&kind);
            // What no configuration of ours names, Envoy does not ask for.
            let is_unknown = kind == TypeUrl::ExtensionConfig && set.resources(kind).next().is_none();
            is_unknown
                || view.is_some_and(|view| {
                    view.wanted == set.type_version(kind) && view.state.acknowledged.as_deref() == Some(set.type_version(kind))
                })
        })
    };
    while !TypeUrl::ALL.into_iter().all(is_there) {
        assert!(began.elapsed() < PATIENCE, "not acknowledged: {:#?}", state.streams());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn changes_of_routes_and_secrets_are_acknowledged_and_modify_no_listener() {
    let (folder, settings) = prepared();
    let port = ports::free_port();
    let before = resources(port, |text| text, &BTreeMap::new());
    let (sender, state) = control_plane(folder.path(), before.clone());
    let (metrics, stop) = (EnvoyMetrics::default(), CancellationToken::new());
    let task = tokio::spawn(run(settings.clone(), metrics.clone(), || {}, stop.clone()));
    until_acknowledged(&state, &before).await;
    assert!(settings.admin().is_ready().await.unwrap());
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();

    let authority = Authority::new("rotated");
    let serving = authority.server(&["pass.example.com", "*.k8s.example.com"]);
    let contents = BTreeMap::from([
        ("tls.crt", Some(serving.cert.into_bytes())),
        ("tls.key", Some(serving.key.into_bytes())),
        ("prod-ca.crt", Some(authority.pem().as_bytes().to_vec())),
        ("prod-token", Some(b"rotated-token".to_vec())),
    ]);
    let after = resources(port, |text| text.replace("10.0.0.1", "10.0.0.2").replace("name: staging", "name: other"), &contents);
    for kind in TypeUrl::ALL {
        let stays = matches!(kind, TypeUrl::Listener | TypeUrl::ScopedRouteConfiguration | TypeUrl::ExtensionConfig);
        assert_eq!(before.type_version(kind) == after.type_version(kind), stays, "{kind}");
    }
    sender.send(Arc::new(after.clone().into())).unwrap();
    until_acknowledged(&state, &after).await;

    let stats = settings.admin().stats("^listener_manager").await.unwrap();
    let of = |name: &str| stats[&format!("listener_manager.{name}")];
    assert_eq!((of("listener_added"), of("listener_modified"), of("listener_in_place_updated"), of("listener_removed")), (1, 0, 0, 0));
    for kind in TypeUrl::ALL {
        assert_eq!(state.counts(kind).nacked, 0, "{kind}");
    }
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
}
