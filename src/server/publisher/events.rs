//! What the system tells of directories: that an entry came, went, or was written and closed. Not each write: another file of the same directory
//! may be written all the time (an audit trail at every request), and every write would wake us and cost its writer.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};

/// Bytes of events that are read at a time.
const BUFFER_BYTES: usize = 4096;

/// Directories that are watched, by inotify.
pub(super) struct Events {
    watches: Watches,
    reading: Reading,
    directories: HashMap<WatchDescriptor, PathBuf>,
}

enum Reading {
    /// Nobody has waited yet. A stream belongs to the runtime of who does.
    NotYet(Option<Inotify>),
    Stream(EventStream<Vec<u8>>),
}

/// What an event is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Entry(PathBuf),
    /// The directory itself went, moved, or has other rights.
    Directory,
    /// Events were lost.
    Anything,
}

impl Events {
    /// # Errors
    /// Where the system gives no events, or no more of them.
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        Ok(Self { watches: inotify.watches(), reading: Reading::NotYet(Some(inotify)), directories: HashMap::new() })
    }

    pub(super) fn watch(&mut self, directory: &Path) -> io::Result<()> {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::CLOSE_WRITE | WatchMask::ATTRIB;
        let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        let descriptor = self.watches.add(directory, mask | itself)?;
        self.directories.insert(descriptor, directory.to_owned());
        Ok(())
    }

    pub(super) fn unwatch(&mut self, directory: &Path) {
        for (descriptor, _) in self.directories.extract_if(|_, path| path == directory) {
            // It may be gone, and its watch with it.
            let _ = self.watches.remove(descriptor);
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// When events can no longer be read.
    pub(super) async fn next(&mut self) -> io::Result<Touched> {
        loop {
            let event = self.reading.stream()?.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                return Ok(Touched::Anything);
            }
            // Of a directory that is no longer watched.
            let Some(directory) = self.directories.get(&event.wd) else { continue };
            if event.mask.contains(EventMask::IGNORED) {
                self.directories.remove(&event.wd);
                return Ok(Touched::Directory);
            }
            return Ok(event.name.map_or(Touched::Directory, |name| Touched::Entry(directory.join(name))));
        }
    }
}

impl Reading {
    fn stream(&mut self) -> io::Result<&mut EventStream<Vec<u8>>> {
        if let Self::NotYet(inotify) = self {
            let inotify = inotify.take().ok_or(io::ErrorKind::UnexpectedEof)?;
            *self = Self::Stream(inotify.into_event_stream(vec![0; BUFFER_BYTES])?);
        }
        match self {
            Self::Stream(stream) => Ok(stream),
            Self::NotYet(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_write_to_an_open_file_tells_nothing_and_its_end_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut open = std::fs::File::create(path("audit.jsonl")).unwrap();
        let mut events = Events::new().unwrap();
        events.watch(folder.path()).unwrap();
        for _ in 0..3 {
            open.write_all(b"line\n").unwrap();
        }
        std::fs::write(path("kubepass.yaml"), "a: 1").unwrap();
        // Made, and closed: the lines before them left nothing.
        assert_eq!(events.next().await.unwrap(), Touched::Entry(path("kubepass.yaml")));
        assert_eq!(events.next().await.unwrap(), Touched::Entry(path("kubepass.yaml")));
        drop(open);
        assert_eq!(events.next().await.unwrap(), Touched::Entry(path("audit.jsonl")));
    }

    #[tokio::test]
    async fn each_way_to_change_a_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "one").unwrap();
        let elsewhere = tempfile::tempdir_in(folder.path().parent().unwrap()).unwrap();
        std::fs::write(elsewhere.path().join("new"), "two").unwrap();
        let mut events = Events::new().unwrap();
        events.watch(folder.path()).unwrap();
        let mut check = async |change: &dyn Fn(), want: &[Touched]| {
            change();
            for want in want {
                assert_eq!(events.next().await.unwrap(), *want);
            }
        };
        let file = || Touched::Entry(path("file"));
        check(&|| std::fs::write(path("file"), "two").unwrap(), &[file()]).await;
        check(&|| std::fs::rename(elsewhere.path().join("new"), path("file")).unwrap(), &[file()]).await;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        check(&|| std::fs::set_permissions(path("file"), std::fs::Permissions::clone(&private)).unwrap(), &[file()]).await;
        check(&|| std::fs::remove_file(path("file")).unwrap(), &[file()]).await;
        check(&|| std::fs::remove_dir(folder.path()).unwrap(), &[Touched::Directory, Touched::Directory]).await;
    }
}
