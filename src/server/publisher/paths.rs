//! Which directory entries decide what a path leads to: the file itself and every symbolic link on the way.
//!
//! Kubernetes mounts a ConfigMap as `file -> ..data/file` and `..data -> ..2026_01_01/`, and changes it by replacing `..data`: a watch on
//! the file alone would never see it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows on one path.
const MAX_LINKS: usize = 40;

/// The entries (directory and name) whose change can change what `file` leads to. Where the path breaks off, the missing entry is the last.
pub(super) fn entries(file: &Path) -> BTreeSet<PathBuf> {
    let mut entries = BTreeSet::new();
    let mut rest = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for _ in 0..=MAX_LINKS {
        match walk(&rest, &mut entries) {
            Some(next) => rest = next,
            None => break,
        }
    }
    entries
}

/// Walks to the end or to the first link; returns the path with that link resolved.
fn walk(path: &Path, entries: &mut BTreeSet<PathBuf>) -> Option<PathBuf> {
    let mut current = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        match component {
            Component::ParentDir => {
                current.pop();
                continue;
            }
            Component::Normal(_) => current.push(component),
            Component::RootDir | Component::Prefix(_) | Component::CurDir => {
                current.push(component);
                continue;
            }
        }
        match std::fs::symlink_metadata(&current) {
            Ok(metadata) if metadata.is_symlink() => {
                entries.insert(current.clone());
                let target = std::fs::read_link(&current).ok()?;
                current.pop();
                return Some(current.join(target).join(components.as_path()));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    entries.insert(current);
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(root: &Path, file: &str, want: &[&str]) {
        let got: Vec<_> =
            entries(&root.join(file)).into_iter().map(|entry| entry.strip_prefix(root).unwrap_or(&entry).display().to_string()).collect();
        assert_eq!(got, want, "{file}");
    }

    #[test]
    fn every_link_on_the_way_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("mount/..2026")).unwrap();
        std::fs::write(root.join("mount/..2026/tls.crt"), "x").unwrap();
        symlink("..2026", root.join("mount/..data")).unwrap();
        symlink("..data/tls.crt", root.join("mount/tls.crt")).unwrap();
        symlink("mount", root.join("live")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        std::fs::write(root.join("plain"), "x").unwrap();
        check(&root, "plain", &["plain"]);
        check(&root, "mount/tls.crt", &["mount/..2026/tls.crt", "mount/..data", "mount/tls.crt"]);
        check(&root, "live/tls.crt", &["live", "mount/..2026/tls.crt", "mount/..data", "mount/tls.crt"]);
        check(&root, "live/../plain", &["live", "plain"]);
        check(&root, "missing/folder/file", &["missing"]);
        check(&root, "mount/missing", &["mount/missing"]);
        check(&root, "loop", &["loop"]);
    }
}
