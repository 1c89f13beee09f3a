//! Whether a path did its work: the API server's own audit log of the round, event by event.

use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::paths::{Asked, GROUPS, Path, SeenAs, USER};

/// A log that has not grown for so long belongs to a round that is over.
const QUIET: Duration = Duration::from_millis(100);
/// How long a log stands still before a line that it lacks is missing: the API server writes it after the client has its answer.
const COMPLETE: Duration = Duration::from_secs(2);

/// The API server's audit log, emptied before each round so that it holds the round alone (and the disk no gigabytes).
#[derive(Debug)]
pub(super) struct Proof {
    log: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    impersonated_user: Option<User>,
    response_status: Option<ResponseStatus>,
}

#[derive(Debug, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct ResponseStatus {
    code: i32,
}

/// What the log holds of a round so far.
struct Seen {
    all: usize,
    answered: usize,
}

impl Proof {
    pub(super) fn new(log: &FilePath) -> Self {
        Self { log: log.to_owned() }
    }

    pub(super) fn begin(&self) {
        self.settle();
        // The API server appends, so what it writes next stands at the beginning.
        empty(&self.log);
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Until the last round's requests that its client no longer waited for are answered too.
    fn settle(&self) {
        let mut before = self.size();
        loop {
            std::thread::sleep(QUIET);
            let now = self.size();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// How many requests the API server answered in this round, warm-up included.
    ///
    /// # Errors
    /// When it saw fewer than the client, or one of them otherwise than as the user of the path.
    pub(super) fn end(&self, path: &Path, asked: &Asked, at_least: usize) -> Result<usize, String> {
        loop {
            let size = self.size();
            let seen = self.seen(path, asked)?;
            if seen.answered >= at_least {
                return Ok(seen.all);
            }
            if !self.grows_beyond(size) {
                let answered = seen.answered;
                return Err(format!("{}: the client counts {at_least} answers to {}, the API server {answered}", path.name, asked.path));
            }
        }
    }

    /// Whether the log gets longer than this before it counts as complete.
    fn grows_beyond(&self, size: u64) -> bool {
        let deadline = Instant::now() + COMPLETE;
        while Instant::now() < deadline {
            if self.size() > size {
                return true;
            }
            std::thread::sleep(QUIET);
        }
        false
    }

    fn seen(&self, path: &Path, asked: &Asked) -> Result<Seen, String> {
        let text = std::fs::read_to_string(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let events: Vec<Event> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Event>(line).ok())
            .filter(|event| event.request_uri == asked.path)
            .collect();
        if let Some(event) = events.iter().find(|event| !is_user(event, path.seen_as)) {
            return Err(format!("{}: the API server saw {event:?}", path.name));
        }
        // What a client waited for when its time was over ends in some error, and the client does not count it.
        let answered = events.iter().filter(|event| event.response_status.as_ref().is_some_and(|status| status.code == 200)).count();
        Ok(Seen { all: events.len(), answered })
    }
}

fn is_user(event: &Event, seen_as: SeenAs) -> bool {
    let user = match seen_as {
        SeenAs::Impersonated => event.impersonated_user.as_ref(),
        SeenAs::Authenticated => Some(&event.user),
    };
    user.is_some_and(|user| user.username == USER && GROUPS.iter().all(|group| user.groups.iter().any(|have| have == group)))
}

/// Empties a log that its writer appends to.
pub(super) fn empty(log: &FilePath) {
    let file = std::fs::OpenOptions::new().write(true).open(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    file.set_len(0).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
}

/// Whether kubepass's own trail has a line for every request that it let pass: it is written before the answer, so it holds them all at once.
///
/// # Errors
/// When it has fewer.
pub(super) fn check_trail(trail: &FilePath, at_least: usize) -> Result<(), String> {
    let text = std::fs::read_to_string(trail).map_err(|error| format!("{}: {error}", trail.display()))?;
    let allowed = text.lines().filter(|line| line.contains(r#""event":"decision""#) && line.contains(r#""outcome":"allow""#)).count();
    if allowed < at_least {
        return Err(format!("the client counts {at_least} answers, and kubepass's trail {allowed} requests that were let pass"));
    }
    Ok(())
}
