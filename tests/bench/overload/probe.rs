//! Some others who ask one request after the other, during and after, and read what they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::Value;

use super::super::machine;
use super::super::paths::Path;
use super::super::support::http;

/// How many they are: enough to meet refusals, too few to matter.
const CLIENTS: usize = 8;
/// Between two requests of one.
const PAUSE: Duration = Duration::from_millis(10);
/// How long it goes on after the load.
const AFTER: Duration = Duration::from_secs(2);
/// Who is answered within this is served as on a quiet day.
const QUIET: Duration = Duration::from_millis(50);

/// What refusals said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) refusals: usize,
    /// A Kubernetes `Status` with `Retry-After`.
    pub(super) in_form: usize,
}

/// What they saw.
pub(super) struct Outcome {
    pub(super) said: Said,
    /// From the end of the load until everything is answered, and at once.
    pub(super) recovery_ms: f64,
    /// The most, by process.
    pub(super) memory_mb: BTreeMap<&'static str, f64>,
}

pub(super) struct Probe {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Found>>,
}

#[derive(Default)]
struct Found {
    said: Said,
    /// When the last request ended that was not served as on a quiet day.
    last_bad: Option<Instant>,
    memory_mb: BTreeMap<&'static str, f64>,
}

impl Probe {
    pub(super) fn start(path: &Path, asked: &str, authority: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (path, stopped) = (path.clone(), Arc::clone(&stop));
            let (url, authority) = (format!("https://{}:{}{asked}", path.host, path.port), authority.to_owned());
            thread::spawn(move || ask_until(&stopped, &path, &url, &authority))
        };
        Self { threads: (0..CLIENTS).map(|_| client()).collect(), stop }
    }

    /// `over`: when the load ended.
    pub(super) fn until_quiet(self, over: Instant) -> Outcome {
        thread::sleep(AFTER);
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Found::default();
        for Found { said, last_bad, memory_mb } in self.threads.into_iter().map(|thread| thread.join().expect("a client")) {
            all.said = Said { refusals: all.said.refusals + said.refusals, in_form: all.said.in_form + said.in_form };
            all.last_bad = all.last_bad.max(last_bad);
            for (name, megabytes) in memory_mb {
                let most = all.memory_mb.entry(name).or_default();
                *most = most.max(megabytes);
            }
        }
        let recovery = all.last_bad.map_or(Duration::ZERO, |last| last.saturating_duration_since(over));
        Outcome { said: all.said, recovery_ms: recovery.as_secs_f64() * 1e3, memory_mb: all.memory_mb }
    }
}

fn ask_until(stopped: &AtomicBool, path: &Path, url: &str, authority: &str) -> Found {
    let client = client(path, authority);
    let mut found = Found::default();
    while !stopped.load(Ordering::Relaxed) {
        found.ask(&client, path, url);
        for (name, process) in &path.processes {
            let most = found.memory_mb.entry(name).or_default();
            *most = most.max(machine::resident_mb(*process));
        }
        thread::sleep(PAUSE);
    }
    found
}

impl Found {
    fn ask(&mut self, client: &Client, path: &Path, url: &str) {
        let mut request = client.get(url);
        for (name, value) in &path.headers {
            request = request.header(*name, value);
        }
        let began = Instant::now();
        let answer = request.send();
        let refused = match answer {
            Ok(answer) if answer.status().is_success() => false,
            Ok(answer) => {
                let tells_when = answer.headers().contains_key("retry-after");
                let body: Value = answer.text().ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                self.said.refusals += 1;
                self.said.in_form += usize::from(tells_when && body["kind"] == "Status");
                true
            }
            Err(_) => {
                self.said.refusals += 1;
                true
            }
        };
        if refused || began.elapsed() > QUIET {
            self.last_bad = Some(Instant::now());
        }
    }
}

fn client(path: &Path, authority: &str) -> Client {
    let address = SocketAddr::from(([127, 0, 0, 1], path.port));
    http::builder(&[authority]).no_proxy().resolve(&path.host, address).build().expect("a client")
}
