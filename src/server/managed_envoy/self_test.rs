//! Does this very Envoy treat headers as the header path relies on? Starts it for a moment with the filter chain of `xds`, a scripted
//! ext_authz and an upstream that echoes what reached it, and compares. Runs before anything is served; takes about a second.

mod cases;
mod script;
mod upstream;

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use self::cases::{CASES, Case};
use self::script::Script;
use self::upstream::Upstream;
use super::guard::Guarded;
use super::http_exchange::exchange;
use super::scratch::ScratchFolder;
use crate::xds::resources::self_test::{SelfTestSockets, bootstrap};

/// A busy machine may take its time to start a process.
const START_PATIENCE: Duration = Duration::from_secs(20);
const REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// Why an Envoy must not be used.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestFailure {
    #[error("the header self-test could not prepare its sockets: {0}")]
    Prepare(#[source] io::Error),
    #[error("the header self-test could not start {program}: {why}")]
    Start { program: String, why: String },
    #[error("this Envoy treats headers otherwise than kubepass relies on, so it must not carry requests:{}", listed(.0))]
    Differs(Vec<Difference>),
}

/// One thing that this Envoy does otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What kubepass relies on.
    pub semantic: &'static str,
    pub seen: String,
}

fn listed(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("\n  - expected: {}; seen: {}", difference.semantic, difference.seen)).collect()
}

/// Tries the Envoy at `program`.
///
/// # Errors
/// It does not start, or it differs in at least one respect; the text names each.
pub async fn self_test(program: &Path) -> Result<(), SelfTestFailure> {
    let folder = ScratchFolder::create().map_err(SelfTestFailure::Prepare)?;
    let socket = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (listener, admin, ext_authz, upstream) = (socket("l"), socket("a"), socket("z"), socket("u"));
    let sockets = SelfTestSockets { listener: &listener, admin: &admin, ext_authz: &ext_authz, upstream: &upstream };
    let config = folder.path().join("bootstrap.pb");
    std::fs::write(&config, bootstrap(&sockets)).map_err(SelfTestFailure::Prepare)?;

    let _script = Script::serve(Path::new(&ext_authz)).map_err(SelfTestFailure::Prepare)?;
    let upstream = Upstream::serve(Path::new(&upstream)).map_err(SelfTestFailure::Prepare)?;
    let mut envoy = start(program, &config)?;
    let ready = wait_until_it_listens(program, &mut envoy, Path::new(&listener)).await;
    let differences = match ready {
        Ok(()) => differences(Path::new(&listener), &upstream).await,
        Err(failure) => return Err(failure),
    };
    // It has nothing to finish.
    let _ = envoy.terminate(Duration::ZERO).await;
    if differences.is_empty() { Ok(()) } else { Err(SelfTestFailure::Differs(differences)) }
}

async fn differences(listener: &Path, upstream: &Upstream) -> Vec<Difference> {
    let mut found: Vec<_> = join_all(CASES.iter().map(|case| difference(listener, case))).await.into_iter().flatten().collect();
    let reached = upstream.targets();
    let leaked = CASES.iter().filter(|case| case.nothing_upstream && reached.iter().any(|target| *target == case.target()));
    found.extend(leaked.map(|case| Difference { semantic: case.semantic, seen: "the request reached the upstream".to_owned() }));
    found
}

async fn difference(listener: &Path, case: &Case) -> Option<Difference> {
    let seen = match exchange(listener, &case.request(), REPLY_PATIENCE).await {
        Ok(reply) => (case.expect)(&reply).err()?,
        Err(error) => format!("no answer ({error})"),
    };
    Some(Difference { semantic: case.semantic, seen })
}

fn start(program: &Path, config: &Path) -> Result<Guarded, SelfTestFailure> {
    let fixed = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"].map(str::to_owned);
    let arguments: Vec<_> = fixed.into_iter().chain([config.to_string_lossy().into_owned()]).collect();
    Guarded::start(program, &arguments).map_err(|error| failed(program, &error.to_string()))
}

async fn wait_until_it_listens(program: &Path, envoy: &mut Guarded, listener: &Path) -> Result<(), SelfTestFailure> {
    let connected = async {
        while UnixStream::connect(listener).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = connected => Ok(()),
        status = envoy.wait() => {
            let said = last_words(envoy).await;
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(failed(program, &format!("it ended with {status}: {said}")))
        }
        () = tokio::time::sleep(START_PATIENCE) => Err(failed(program, "it did not listen in time")),
    }
}

/// The end of what it wrote, for the reason of its end stands there.
async fn last_words(envoy: &mut Guarded) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stderr) = envoy.take_stderr() {
        let _ = tokio::time::timeout(Duration::from_secs(1), stderr.read_to_end(&mut bytes)).await;
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

fn failed(program: &Path, why: &str) -> SelfTestFailure {
    SelfTestFailure::Start { program: program.display().to_string(), why: why.to_owned() }
}
