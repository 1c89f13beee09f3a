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

/// What refusals said, and how many of them: `503, Status with Retry-After`, say. An API server's own 429 is text.
pub(super) type Said = BTreeMap<String, usize>;

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
    /// When the last request ended that was not served as before the load.
    last_bad: Option<Instant>,
    memory_mb: BTreeMap<&'static str, f64>,
}

impl Probe {
    /// `usual`: who is answered within this is served as before the load.
    pub(super) fn start(path: &Path, asked: &str, authority: &str, usual: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (path, stopped) = (path.clone(), Arc::clone(&stop));
            let (url, authority) = (format!("https://{}:{}{asked}", path.host, path.port), authority.to_owned());
            thread::spawn(move || ask_until(&stopped, &path, &url, &authority, usual))
        };
        Self { threads: (0..CLIENTS).map(|_| client()).collect(), stop }
    }

    /// `over`: when the load ended.
    pub(super) fn until_quiet(self, over: Instant) -> Outcome {
        thread::sleep(AFTER);
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Found::default();
        for Found { said, last_bad, memory_mb } in self.threads.into_iter().map(|thread| thread.join().expect("a client")) {
            said.into_iter().for_each(|(what, count)| *all.said.entry(what).or_default() += count);
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

fn ask_until(stopped: &AtomicBool, path: &Path, url: &str, authority: &str, usual: Duration) -> Found {
    let client = client(path, authority);
    let mut found = Found::default();
    while !stopped.load(Ordering::Relaxed) {
        found.ask(&client, path, url, usual);
        for (name, process) in &path.processes {
            let most = found.memory_mb.entry(name).or_default();
            *most = most.max(machine::resident_mb(*process));
        }
        thread::sleep(PAUSE);
    }
    found
}

impl Found {
    fn ask(&mut self, client: &Client, path: &Path, url: &str, usual: Duration) {
        let mut request = client.get(url);
        for (name, value) in &path.headers {
            request = request.header(*name, value);
        }
        let began = Instant::now();
        let refusal = match request.send() {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(said(answer)),
            Err(_) => Some("no answer".to_owned()),
        };
        if refusal.is_some() || began.elapsed() > usual {
            self.last_bad = Some(Instant::now());
        }
        refusal.into_iter().for_each(|refusal| *self.said.entry(refusal).or_default() += 1);
    }
}

fn said(answer: reqwest::blocking::Response) -> String {
    let status = answer.status().as_u16();
    let when = if answer.headers().contains_key("retry-after") { "with" } else { "without" };
    let body: Value = answer.text().ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let form = if body["kind"] == "Status" { "Status" } else { "text" };
    format!("{status}, {form} {when} Retry-After")
}

fn client(path: &Path, authority: &str) -> Client {
    let address = SocketAddr::from(([127, 0, 0, 1], path.port));
    http::builder(&[authority]).no_proxy().resolve(&path.host, address).build().expect("a client")
}
