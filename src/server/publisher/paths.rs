//! Which directory entries decide what a path leads to: the file itself and every symbolic link on the way.
//!
//! Kubernetes mounts a ConfigMap as `file -> ..data/file` and `..data -> ..2026_01_01/`, and changes it by replacing `..data`: a watch on
//! the file alone would never see it.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows on one path.
const MAX_LINKS: usize = 40;

/// The entries (directory and name) whose change can change what one of `files` leads to. Where a path breaks off, the missing entry is its
/// last.
pub(super) fn entries<'p>(files: impl IntoIterator<Item = &'p PathBuf>) -> HashSet<PathBuf> {
    let (mut entries, mut plain) = (HashSet::new(), HashSet::new());
    for file in files {
        let mut rest = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        for _ in 0..=MAX_LINKS {
            match walk(&rest, &mut entries, &mut plain) {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    entries
}

/// Walks to the end or to the first link; returns the path with that link resolved. `plain`: directories that no link leads to, in which many
/// files may stand; they are walked to once.
fn walk(path: &Path, entries: &mut HashSet<PathBuf>, plain: &mut HashSet<PathBuf>) -> Option<PathBuf> {
    let known = path.parent().zip(path.file_name()).filter(|(parent, _)| plain.contains(*parent));
    let (mut current, mut components) = match known {
        Some((parent, name)) => (parent.to_owned(), Path::new(name).components()),
        None => (PathBuf::new(), path.components()),
    };
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
    if let Some(parent) = current.parent().filter(|parent| !plain.contains(*parent)) {
        plain.insert(parent.to_owned());
    }
    entries.insert(current);
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(root: &Path, files: &[&str], want: &[&str]) {
        let paths: Vec<PathBuf> = files.iter().map(|file| root.join(file)).collect();
        let shown = |entry: PathBuf| entry.strip_prefix(root).unwrap_or(&entry).display().to_string();
        let mut got: Vec<_> = entries(&paths).into_iter().map(shown).collect();
        got.sort();
        assert_eq!(got, want, "{files:?}");
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
        check(&root, &["plain"], &["plain"]);
        check(&root, &["mount/tls.crt"], &["mount/..2026/tls.crt", "mount/..data", "mount/tls.crt"]);
        check(&root, &["live/tls.crt"], &["live", "mount/..2026/tls.crt", "mount/..data", "mount/tls.crt"]);
        check(&root, &["live/../plain"], &["live", "plain"]);
        check(&root, &["missing/folder/file"], &["missing"]);
        check(&root, &["mount/missing"], &["mount/missing"]);
        check(&root, &["loop"], &["loop"]);
        // What was learnt of a folder on the way to one file holds for the next, and for no link beside it.
        let both = ["live", "mount/..2026/tls.crt", "mount/..data", "mount/missing", "mount/tls.crt"];
        check(&root, &["mount/missing", "live/tls.crt"], &both);
        check(&root, &["mount/tls.crt", "live/missing"], &both);
        check(
            &root,
            &["mount/missing", "live", "live/tls.crt", "missing/a", "missing/b", "plain"],
            &["live", "missing", "mount", "mount/..2026/tls.crt", "mount/..data", "mount/missing", "mount/tls.crt", "plain"],
        );
    }
}
