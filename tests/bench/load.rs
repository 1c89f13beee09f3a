//! One round of load with h2load: its command line, and the log of every single request that it leaves.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::{Request, Round};
use super::paths::Path as Way;
use super::support::leash;

/// How long connections are warmed before requests count.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);

/// How to get h2load; `make bench` cannot build it itself.
const MISSING: &str = "h2load is not there: apt-get install nghttp2-client (Debian, Ubuntu), brew install nghttp2 (macOS)";

/// The version line of h2load.
///
/// # Errors
/// The command that installs it, when it is missing.
pub(super) fn version() -> Result<String, String> {
    let output = Command::new("h2load").arg("--version").output().map_err(|_| MISSING.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// How much is asked in a round.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    /// As much as is answered in this time.
    Time(Duration),
    /// So many from each client: for answers that take so long that a time would cut too many of them off.
    FromEachClient(usize),
}

/// More than is answered: what is offered does not wait for answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) clients: usize,
    /// Requests of one client that may be under way; beyond that even this load waits.
    pub(super) streams: usize,
    /// Of all clients together.
    pub(super) per_second: f64,
    pub(super) time: Duration,
}

/// Sends requests over `clients` connections, one at a time on each.
///
/// # Errors
/// When h2load fails, or an answer is not 200.
pub(super) fn round(way: &Way, path: &str, clients: usize, amount: Amount, log: &Path) -> Result<Round, String> {
    let mut arguments = vec![format!("-c{clients}"), "-m1".to_owned()];
    match amount {
        Amount::Time(time) => {
            arguments.push(format!("--duration={}ms", time.as_millis()));
            arguments.push(format!("--warm-up-time={}ms", WARM_UP.as_millis()));
        }
        Amount::FromEachClient(count) => arguments.push(format!("--requests={}", count * clients)),
    }
    let Ran { mut requests, text, .. } = h2load(way, path, &arguments, log)?;
    drop_unfinished(&mut requests, clients);
    Round::of(&requests).map_err(|error| format!("{error}\n{text}"))
}

/// Offers requests at a fixed rate; returns all, however they were answered, and when the load was over. Those that were not answered have a status
/// below 200.
///
/// # Errors
/// When h2load fails.
pub(super) fn offer(way: &Way, path: &str, offer: &Offer, log: &Path) -> Result<(Vec<Request>, Instant), String> {
    let Offer { clients, streams, per_second, time } = offer;
    let rate = per_second / *clients as f64;
    let arguments =
        [format!("-c{clients}"), format!("-m{streams}"), format!("--rps={rate:.1}"), format!("--duration={}ms", time.as_millis())];
    h2load(way, path, &arguments, log).map(|ran| (ran.requests, ran.ended))
}

/// Of one run: its log of every request, what it says of all, and when it had ended.
struct Ran {
    requests: Vec<Request>,
    text: String,
    ended: Instant,
}

fn h2load(way: &Way, path: &str, arguments: &[String], log: &Path) -> Result<Ran, String> {
    let _ = std::fs::remove_file(log);
    let mut command = leash::command("h2load");
    command.args(["-t", "1"]).args(arguments);
    command.arg(format!("--log-file={}", log.display())).arg(format!("--connect-to=127.0.0.1:{}", way.port));
    for (name, value) in &way.headers {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    command.arg(format!("https://{}:{}{path}", way.host, way.port));
    let output = command.stdin(Stdio::null()).output().map_err(|_| MISSING.to_owned())?;
    let ended = Instant::now();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("h2load failed: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let requests = std::fs::read_to_string(log).map_err(|error| format!("{}: {error}", log.display()))?;
    Ok(Ran { requests: requests.lines().map(request).collect::<Result<_, _>>()?, text, ended })
}

/// When the time is over h2load logs what each connection still waited for, with the status 0.
fn drop_unfinished(requests: &mut Vec<Request>, clients: usize) {
    let unfinished = requests.iter().filter(|request| request.status == 0).count();
    if unfinished <= clients {
        requests.retain(|request| request.status != 0);
    }
}

/// `start in microseconds since the epoch, status, microseconds until the end`.
fn request(line: &str) -> Result<Request, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let read = || {
        Some(Request { start: fields.first()?.parse().ok()?, status: fields.get(1)?.parse().ok()?, micros: fields.get(2)?.parse().ok()? })
    };
    read().ok_or_else(|| format!("a line of h2load's log: {line:?}"))
}
