//! What a control plane says that it did, line by line in its log, and what that makes of a change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::support::leash::Process;

/// When nothing was said for so long and no answer is missing, a change is over.
const QUIET: Duration = Duration::from_millis(400);

#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Microseconds since the epoch.
    pub(super) at: i64,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Published,
    Node { stream: u64, node: String },
    Pushed { stream: u64, nonce: String },
    Acknowledged { stream: u64, nonce: String },
    Refused { message: String },
}

/// A server's log, read as it grows.
pub(super) struct Log {
    file: PathBuf,
    read: u64,
    parse: fn(&str) -> Option<Event>,
    nodes: BTreeMap<u64, String>,
}

/// What became of one change.
#[derive(Debug, Clone, Default)]
pub(super) struct Settled {
    pub(super) published: i64,
    /// By node: how long after the publication its last acknowledgement came, in microseconds.
    pub(super) acknowledged: BTreeMap<String, i64>,
}

impl Log {
    pub(super) fn new(process: &Process, parse: fn(&str) -> Option<Event>) -> Self {
        Self { file: process.log_path().to_owned(), read: 0, parse, nodes: BTreeMap::new() }
    }

    /// Waits until so many `nodes` have acknowledged something, all that was sent is answered, and all is quiet. `since`: of a publication that
    /// comes after that time (microseconds since the epoch).
    ///
    /// # Errors
    /// When something was refused, or not all was answered in time.
    pub(super) fn settle(&mut self, since: Option<i64>, nodes: usize, patience: Duration) -> Result<Settled, String> {
        let (began, mut last) = (Instant::now(), Instant::now());
        let mut settled = Settled::default();
        let mut open: BTreeMap<(u64, String), i64> = BTreeMap::new();
        loop {
            for event in self.news()? {
                last = Instant::now();
                match event.what {
                    What::Published => settled = Settled { published: event.at, ..Settled::default() },
                    What::Node { stream, node } => drop(self.nodes.insert(stream, node)),
                    What::Pushed { stream, nonce } => drop(open.insert((stream, nonce), event.at)),
                    What::Acknowledged { stream, nonce } => {
                        if open.remove(&(stream, nonce)).is_some() {
                            let node = self.nodes.get(&stream).cloned().unwrap_or_default();
                            settled.acknowledged.insert(node, event.at - settled.published);
                        }
                    }
                    What::Refused { message } => return Err(format!("an answer was a refusal: {message}")),
                }
            }
            let published = since.is_none_or(|since| settled.published >= since);
            if open.is_empty() && last.elapsed() > QUIET && published && settled.acknowledged.len() >= nodes {
                return Ok(settled);
            }
            if began.elapsed() > patience {
                let (missing, heard) = (open.len(), settled.acknowledged.len());
                let seconds = patience.as_secs();
                return Err(format!("not settled after {seconds} s: {missing} answers are missing, {heard} of {nodes} nodes were heard"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn news(&mut self) -> Result<Vec<Event>, String> {
        let mut read = || -> std::io::Result<Vec<Event>> {
            let mut file = File::open(&self.file)?;
            file.seek(SeekFrom::Start(self.read))?;
            let mut reader = BufReader::new(file);
            let (mut line, mut events) = (String::new(), Vec::new());
            // A line that is still being written comes with the next look.
            while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
                self.read += line.len() as u64;
                events.extend((self.parse)(&line));
                line.clear();
            }
            Ok(events)
        };
        read().map_err(|error| format!("{}: {error}", self.file.display()))
    }
}
