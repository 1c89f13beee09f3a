//! What the system says of a file, by which another content shows without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Seconds within which a file may be written twice and look the same: some file systems count whole ones or two.
const TICK_SECONDS: i64 = 2;

/// Device, inode, size, and the times of content and of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of what a path leads to.
    pub(super) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// Whether a file that was read at `now` (Unix seconds), or later, and changes after that will have another stamp.
    pub(super) fn is_settled(&self, now: u64) -> bool {
        let latest = self.modified.0.max(self.changed.0);
        i64::try_from(now).is_ok_and(|now| now.saturating_sub(latest) > TICK_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_may_change_and_look_as_before() {
        let check = |modified: i64, changed: i64, now: u64, want: bool| {
            let stamp = Stamp { device: 1, inode: 1, size: 1, modified: (modified, 0), changed: (changed, 0) };
            assert_eq!(stamp.is_settled(now), want, "{modified} {changed} {now}");
        };
        check(100, 100, 100, false);
        check(100, 100, 102, false);
        check(100, 100, 103, true);
        check(0, 100, 101, false);
        check(100, 0, 101, false);
        // A clock that is behind.
        check(100, 100, 50, false);
    }
}
