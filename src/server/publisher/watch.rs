//! Says when the files may have changed: by file system events where there are any, and by comparing what the system says of each file.
//! Knows nothing of what stands in them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::paths;

/// What the system says of a file: device, inode, size, time of content and of metadata (ns).
type Stamp = (u64, u64, u64, i128, i128);

pub(super) struct Watch {
    /// `None` where the system gives no events; then only `files_differ` sees changes.
    watcher: Option<RecommendedWatcher>,
    event: Arc<Notify>,
    /// Entries that matter; others in the same directories (an audit file, say) do not.
    entries: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Watched directories, each with its inode: a directory that was made anew needs a new watch.
    directories: BTreeMap<PathBuf, u64>,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new() -> Self {
        let event = Arc::new(Notify::new());
        let entries = Arc::new(Mutex::new(BTreeSet::new()));
        let (told, relevant) = (Arc::clone(&event), Arc::clone(&entries));
        let watcher = notify::recommended_watcher(move |result: notify::Result<notify::Event>| {
            let matters = match result {
                Ok(event) => concerns(&event, &relevant.lock().unwrap_or_else(PoisonError::into_inner)),
                Err(_) => true,
            };
            if matters {
                told.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "config.watch_unavailable")).ok();
        Self { watcher, event, entries, directories: BTreeMap::new(), stamps: BTreeMap::new() }
    }

    /// Waits for an event that concerns one of the files.
    pub(super) async fn changed(&self) {
        self.event.notified().await;
    }

    /// Waits until no event came for `quiet`, at most `longest`.
    pub(super) async fn settle(&self, quiet: Duration, longest: Duration) {
        let end = Instant::now() + longest;
        while Instant::now() < end && timeout(quiet, self.event.notified()).await.is_ok() {}
    }

    /// Whether a file is not what it was at the last `follow` or `note_files`.
    pub(super) fn files_differ(&self) -> bool {
        self.stamps.iter().any(|(file, stamp)| stamp_of(file) != *stamp)
    }

    /// Notes what the files are now. To be called before they are read.
    pub(super) fn note_files(&mut self) {
        for (file, stamp) in &mut self.stamps {
            *stamp = stamp_of(file);
        }
    }

    /// Sets the files to follow; says whether one is new. The stamps of those known already stay as noted before reading.
    pub(super) fn follow(&mut self, files: &BTreeSet<PathBuf>) -> bool {
        let new = files.iter().any(|file| !self.stamps.contains_key(file));
        self.stamps.retain(|file, _| files.contains(file));
        for file in files {
            self.stamps.entry(file.clone()).or_insert_with(|| stamp_of(file));
        }
        let entries: BTreeSet<PathBuf> = files.iter().flat_map(|file| paths::entries(file)).collect();
        let directories = entries.iter().filter_map(|entry| entry.parent());
        let directories: BTreeMap<PathBuf, u64> =
            directories.filter_map(|directory| Some((directory.to_owned(), std::fs::metadata(directory).ok()?.ino()))).collect();
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = entries;
        self.rewatch(directories);
        new
    }

    fn rewatch(&mut self, wanted: BTreeMap<PathBuf, u64>) {
        let Some(watcher) = &mut self.watcher else { return };
        for (directory, inode) in &self.directories {
            if wanted.get(directory) != Some(inode) {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(directory);
            }
        }
        let mut watched = BTreeMap::new();
        for (directory, inode) in wanted {
            if self.directories.get(&directory) != Some(&inode)
                && let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive)
            {
                tracing::warn!(directory = %directory.display(), %error, "config.watch_failed");
                continue;
            }
            watched.insert(directory, inode);
        }
        self.directories = watched;
    }
}

/// Reading is no change; and in a directory that holds other files too, only the named entries count.
fn concerns(event: &notify::Event, entries: &BTreeSet<PathBuf>) -> bool {
    let is_change = !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    let is_named = |path: &PathBuf| entries.contains(path) || entries.iter().any(|entry| entry.parent() == Some(path.as_path()));
    event.need_rescan() || (is_change && (event.paths.is_empty() || event.paths.iter().any(is_named)))
}

fn stamp_of(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (modified, changed) = (time(metadata.mtime(), metadata.mtime_nsec()), time(metadata.ctime(), metadata.ctime_nsec()));
    Some((metadata.dev(), metadata.ino(), metadata.size(), modified, changed))
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
        watch.watcher = None;
        assert!(watch.follow(&BTreeSet::from([file.clone()])), "the file is new");
        assert!(!watch.follow(&BTreeSet::from([file.clone()])), "the file is known");
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
    fn reading_and_other_files_are_no_change() {
        let entries = BTreeSet::from([PathBuf::from("/mount/..data")]);
        let check = |kind: EventKind, path: &str, want: bool| {
            let event = notify::Event::new(kind).add_path(PathBuf::from(path));
            assert_eq!(concerns(&event, &entries), want, "{event:?}");
        };
        check(EventKind::Create(notify::event::CreateKind::Any), "/mount/..data", true);
        check(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/mount/..data", false);
        check(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/mount/..data", false);
        check(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/mount/..data", true);
        check(EventKind::Modify(notify::event::ModifyKind::Any), "/mount/audit.jsonl", false);
        check(EventKind::Remove(notify::event::RemoveKind::Folder), "/mount", true);
    }
}
