//! The directory of one run: files, sockets and logs of everything that the run starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::leash::{self, Process};

/// Lines of each log that a failed test shows.
const SHOWN: usize = 15;

/// A directory for one run. Under the temporary directory it is removed when the process has ended, unless a test that owned it failed;
/// then its path and the ends of its logs are printed.
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
}

impl Run {
    /// A fresh directory; `name` appears in its path (keep it short: Unix sockets allow 107 bytes).
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::at(&leash::base().join(format!("{name}-{number}")))
    }

    /// A given directory, made if missing, which stays after the run (`target/demo`).
    pub fn at(path: &Path) -> Self {
        std::fs::create_dir_all(path.join("logs")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory inside, made if missing.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file inside, with its directories, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().expect("a file in a directory")).expect("the directory");
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Starts a command of [`leash::command`] with its output in `logs/NAME.log`.
    pub fn start(&self, name: &str, command: Command) -> Process {
        Process::start(name, &self.log_path(name), command)
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        let mut logs: Vec<PathBuf> =
            std::fs::read_dir(self.path.join("logs")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.sort();
        logs.iter().map(|log| leash::tail(log, SHOWN)).collect()
    }

    /// Shows the logs if the test fails while the returned value lives; for runs that several tests share.
    pub fn watch(&self) -> Watch<'_> {
        Watch(self)
    }
}

impl Drop for Run {
    /// A run of many installations would otherwise hold gigabytes until its end; what could not be removed goes with the process.
    fn drop(&mut self) {
        show_if_panicking(self);
        if !std::thread::panicking() && self.path.starts_with(leash::base()) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// See [`Run::watch`].
#[derive(Debug)]
pub struct Watch<'a>(&'a Run);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        show_if_panicking(self.0);
    }
}

fn show_if_panicking(run: &Run) {
    if std::thread::panicking() {
        leash::keep();
        eprintln!("{}\nlogs and files of the failed run: {}", run.tails(), run.path.display());
    }
}
