//! Says when the files may have changed: by file system events where there are any, and by comparing what the system says of each file.
//! Knows nothing of what stands in them.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::events::{Events, Touched};
use super::paths;
use super::stamp::Stamp;

pub(super) struct Watch {
    /// `None` where the system gives no events; then only `files_differ` sees changes.
    events: Option<Events>,
    /// Entries that matter; others in the same directories (an audit file, say) do not.
    entries: HashSet<PathBuf>,
    /// Watched directories, each with its inode: a directory that was made anew needs a new watch.
    directories: HashMap<PathBuf, u64>,
    /// By hash, as the others: to compare paths of one long folder takes far longer than to look at the files.
    stamps: HashMap<PathBuf, Option<Stamp>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new() -> Self {
        let events = Events::new().inspect_err(|error| tracing::warn!(%error, "config.watch_unavailable")).ok();
        Self { events, entries: HashSet::new(), directories: HashMap::new(), stamps: HashMap::new() }
    }

    /// Waits for an event that concerns one of the files. What it has waited for is not lost when the wait is broken off.
    pub(super) async fn changed(&mut self) {
        while let Some(events) = &mut self.events {
            match events.next().await {
                Ok(touched) if concerns(&touched, &self.entries) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "config.watch_failed");
                    self.events = None;
                }
            }
        }
        std::future::pending().await
    }

    /// Waits until no event came for `quiet`, at most `longest`.
    pub(super) async fn settle(&mut self, quiet: Duration, longest: Duration) {
        let end = Instant::now() + longest;
        while Instant::now() < end && timeout(quiet, self.changed()).await.is_ok() {}
    }

    /// Whether a file is not what it was at the last `follow` or `note_files`.
    pub(super) fn files_differ(&self) -> bool {
        self.stamps.iter().any(|(file, stamp)| Stamp::at(file) != *stamp)
    }

    /// Notes what the files are now. To be called before they are read.
    pub(super) fn note_files(&mut self) {
        for (file, stamp) in &mut self.stamps {
            *stamp = Stamp::at(file);
        }
    }

    /// Sets the files to follow; says whether one is new. The stamps of those known already stay as noted before reading.
    pub(super) fn follow(&mut self, files: &HashSet<PathBuf>) -> bool {
        let new = files.iter().any(|file| !self.stamps.contains_key(file));
        self.stamps.retain(|file, _| files.contains(file));
        for file in files {
            if !self.stamps.contains_key(file) {
                self.stamps.insert(file.clone(), Stamp::at(file));
            }
        }
        let entries = paths::entries(files);
        let directories: HashSet<&Path> = entries.iter().filter_map(|entry| entry.parent()).collect();
        let inode = |directory: &Path| Some((directory.to_owned(), std::fs::metadata(directory).ok()?.ino()));
        let directories: HashMap<PathBuf, u64> = directories.into_iter().filter_map(inode).collect();
        self.entries = entries;
        self.rewatch(directories);
        new
    }

    fn rewatch(&mut self, wanted: HashMap<PathBuf, u64>) {
        let Some(events) = &mut self.events else { return };
        for (directory, inode) in &self.directories {
            if wanted.get(directory) != Some(inode) {
                events.unwatch(directory);
            }
        }
        let mut watched = HashMap::new();
        for (directory, inode) in wanted {
            if self.directories.get(&directory) != Some(&inode)
                && let Err(error) = events.watch(&directory)
            {
                tracing::warn!(directory = %directory.display(), %error, "config.watch_failed");
                continue;
            }
            watched.insert(directory, inode);
        }
        self.directories = watched;
    }
}

/// In a directory that holds other files too, only the named entries count.
fn concerns(touched: &Touched, entries: &HashSet<PathBuf>) -> bool {
    match touched {
        Touched::Entry(path) => entries.contains(path),
        Touched::Directory | Touched::Anything => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_change_is_seen_without_events() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (folder.path().join("file"), folder.path().join("target"));
        std::fs::write(&target, "one").unwrap();
        std::os::unix::fs::symlink(&target, &file).unwrap();
        let mut watch = Watch::new();
        watch.events = None;
        assert!(watch.follow(&HashSet::from([file.clone()])), "the file is new");
        assert!(!watch.follow(&HashSet::from([file.clone()])), "the file is known");
        let mut check = |what: &str, change: &dyn Fn()| {
            assert!(!watch.files_differ(), "before: {what}");
            change();
            assert!(watch.files_differ(), "{what}");
            watch.note_files();
        };
        check("written", &|| std::fs::write(&target, "three").unwrap());
        check("removed", &|| std::fs::remove_file(&target).unwrap());
        check("back", &|| std::fs::write(&target, "three").unwrap());
        check("replaced", &|| {
            std::fs::write(folder.path().join("new"), "three").unwrap();
            std::fs::rename(folder.path().join("new"), &target).unwrap();
        });
    }

    #[test]
    fn other_files_are_no_change() {
        let entries = HashSet::from([PathBuf::from("/mount/..data")]);
        let check = |touched: Touched, want: bool| assert_eq!(concerns(&touched, &entries), want, "{touched:?}");
        check(Touched::Entry("/mount/..data".into()), true);
        check(Touched::Entry("/mount/audit.jsonl".into()), false);
        check(Touched::Directory, true);
        check(Touched::Anything, true);
    }
}
