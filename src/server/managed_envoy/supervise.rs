//! Runs one Envoy until told to stop: starts it again when it ends (after a growing pause), watches its statistics, drains it at the end.
//!
//! An Envoy that ends before it ever answered is an error: its configuration or its machine is wrong, and another try would not help. One
//! that has served is started again for ever, for open sessions wait for it.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admin_interface::AdminInterface;
use super::guard::Guarded;
use super::log_lines;
use super::metrics::{EnvoyMetrics, FILTER};
use crate::xds::bootstrap::{ADMIN_SOCKET, BootstrapInput, managed};
use crate::xds::resources::ACCESS_LOG_FLUSH_MILLISECONDS;

/// Longer than a session, so that even a change that must touch a filter chain lets open streams end by themselves.
const DRAIN_TIME_SECONDS: u32 = 28_800;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After that long, an end is not counted with the ones before.
const STEADY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Until its admin interface has first answered.
const LOOK_AT_FIRST: Duration = Duration::from_millis(50);
/// How long Envoy may take to end once asked; it ends open streams at once.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Until the last entries of its access log have left it, with some room: they complete the audit trail.
const LAST_ENTRIES: Duration = Duration::from_millis(2 * ACCESS_LOG_FLUSH_MILLISECONDS as u64);
/// Longest path of a Unix socket.
const MAX_SOCKET_PATH: usize = 107;

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    pub program: PathBuf,
    /// The control plane's folder of sockets, which exists and is private.
    pub socket_dir: PathBuf,
    /// How long open streams may go on after a stop began.
    pub drain: Duration,
    /// Worker threads; `None` takes one for each processor.
    pub concurrency: Option<u32>,
    /// Envoy's level: `trace`, `debug`, `info`, `warning`, `error`. Below `info` its lines hold requests and headers.
    pub log_level: String,
}

impl Settings {
    pub fn new(program: PathBuf, socket_dir: PathBuf) -> Self {
        Self { program, socket_dir, drain: Duration::from_secs(10), concurrency: None, log_level: "warning".to_owned() }
    }

    /// The admin interface of the Envoy that runs with these settings.
    pub fn admin(&self) -> AdminInterface {
        AdminInterface::new(self.socket_dir.join(ADMIN_SOCKET))
    }
}

/// Why no Envoy can run.
#[derive(Debug, thiserror::Error)]
pub enum ManagedEnvoyError {
    #[error("the socket folder {} is not usable for Envoy: {why}", .folder.display())]
    SocketFolder { folder: PathBuf, why: &'static str },
    #[error("Envoy's bootstrap could not be written to {}: {error}", .path.display())]
    Bootstrap { path: PathBuf, error: io::Error },
    #[error("Envoy could not be started: {0}")]
    Start(#[source] io::Error),
    #[error("Envoy ended before it served ({status}): {last_words}")]
    NeverServed { status: String, last_words: String },
}

/// Runs until `stop`, then drains. `ended` is called each time that Envoy has ended by itself, before it starts again.
///
/// # Errors
/// Envoy never came to serve. Later ends are logged and counted, not returned.
pub async fn run(
    settings: Settings,
    metrics: EnvoyMetrics,
    ended: impl Fn() + Send,
    stop: CancellationToken,
) -> Result<(), ManagedEnvoyError> {
    let config = write_bootstrap(&settings)?;
    let mut pause = FIRST_PAUSE;
    let mut has_served = false;
    loop {
        let began = Instant::now();
        let Ended { status, last_words, served } = match run_once(&settings, &config, &metrics, &stop).await? {
            Outcome::Stopped => return Ok(()),
            Outcome::Ended(ended) => ended,
        };
        has_served |= served;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        if !has_served {
            return Err(ManagedEnvoyError::NeverServed { status, last_words: last_words.join(" | ") });
        }
        metrics.ended();
        ended();
        if began.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        tracing::error!(envoy.status = %status, pause_seconds = pause.as_secs(), "Envoy ended by itself; it starts again after a pause");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

enum Outcome {
    Stopped,
    Ended(Ended),
}

struct Ended {
    status: io::Result<ExitStatus>,
    last_words: Vec<String>,
    served: bool,
}

async fn run_once(
    settings: &Settings,
    config: &std::path::Path,
    metrics: &EnvoyMetrics,
    stop: &CancellationToken,
) -> Result<Outcome, ManagedEnvoyError> {
    let mut envoy = Guarded::start(&settings.program, &arguments(settings, config)).map_err(ManagedEnvoyError::Start)?;
    let log = tokio::spawn(log_lines::pass_on(envoy.take_stderr().ok_or_else(|| ManagedEnvoyError::Start(io::Error::other("no log")))?));
    let admin = settings.admin();
    let mut served = false;
    let status = tokio::select! {
        status = envoy.wait() => Some(status),
        () = watch(&admin, metrics, &mut served) => None,
        () = stop.cancelled() => None,
    };
    match status {
        Some(status) => Ok(Outcome::Ended(Ended { status, last_words: log.await.unwrap_or_default(), served })),
        None => {
            drain(&admin, settings.drain, &mut envoy).await;
            if let Err(error) = envoy.terminate(END_PATIENCE).await {
                tracing::warn!(%error, "Envoy's end was not seen");
            }
            Ok(Outcome::Stopped)
        }
    }
}

/// Looks at the statistics for ever.
async fn watch(admin: &AdminInterface, metrics: &EnvoyMetrics, served: &mut bool) {
    loop {
        if let Ok(stats) = admin.stats(FILTER).await {
            *served = true;
            metrics.set(stats);
        }
        tokio::time::sleep(if *served { LOOK_EVERY } else { LOOK_AT_FIRST }).await;
    }
}

/// Until no request is open, or the time is over.
async fn drain(admin: &AdminInterface, patience: Duration, envoy: &mut Guarded) {
    if let Err(error) = admin.begin_drain().await {
        tracing::warn!(%error, "Envoy could not be drained");
        return;
    }
    let idle = async {
        while open_requests(admin).await != Some(0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(LAST_ENTRIES).await;
    };
    tokio::select! {
        () = idle => {}
        _ = envoy.wait() => {}
        () = tokio::time::sleep(patience) => tracing::warn!("streams are still open at the end of the drain; they end now"),
    }
}

/// `None` when Envoy gives no answer.
async fn open_requests(admin: &AdminInterface) -> Option<u64> {
    let stats = admin.stats(r"^http\.listener-.*downstream_rq_active$").await.ok()?;
    Some(stats.values().sum())
}

fn arguments(settings: &Settings, config: &std::path::Path) -> Vec<String> {
    let mut arguments = vec![
        "--config-path".to_owned(),
        config.to_string_lossy().into_owned(),
        "--disable-hot-restart".to_owned(),
        "--drain-time-s".to_owned(),
        DRAIN_TIME_SECONDS.to_string(),
        "--drain-strategy".to_owned(),
        "gradual".to_owned(),
        "--log-level".to_owned(),
        settings.log_level.clone(),
        "--log-format".to_owned(),
        log_lines::FORMAT.to_owned(),
        "--log-format-escaped".to_owned(),
    ];
    if let Some(threads) = settings.concurrency {
        arguments.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    arguments
}

fn write_bootstrap(settings: &Settings) -> Result<PathBuf, ManagedEnvoyError> {
    let folder = &settings.socket_dir;
    let unusable = |why| ManagedEnvoyError::SocketFolder { folder: folder.clone(), why };
    let text = folder.to_str().ok_or_else(|| unusable("its path is not UTF-8"))?;
    // The longest name in the folder.
    if text.len() + "/access_log.sock".len() > MAX_SOCKET_PATH {
        return Err(unusable("its path is too long: a Unix socket's path has 107 bytes at most"));
    }
    let path = folder.join("envoy-bootstrap.yaml");
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, managed(&BootstrapInput { socket_dir: text }).as_bytes())
    };
    write().map_err(|error| ManagedEnvoyError::Bootstrap { path: path.clone(), error })?;
    Ok(path)
}
