//! Files that hold secrets: written whole or not at all, readable by their owner alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::random::random_name;

/// Creates `folder` and what is missing above it; the folder itself is for its owner alone, also when it was there before.
pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
    }
    #[cfg(not(unix))]
    std::fs::create_dir_all(folder)
}

/// Opens a file for writing, creating it with mode 0600.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    private_mode(&mut options);
    options.open(path)
}

/// Replaces the file in one step: a reader sees the old text or the new one, and so does the next boot. The permissions of an existing file
/// stay; a new one gets 0600.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    replace_with(path, text, File::sync_all)
}

/// The same without a wait for the disk: after a crash of the machine the file may hold neither text.
pub(crate) fn replace_unsynced(path: &Path, text: &[u8]) -> io::Result<()> {
    replace_with(path, text, |_| Ok(()))
}

fn replace_with(path: &Path, text: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let result = write_new(&temporary, path, text, sync).and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        // Nothing may stay behind; what went wrong is already known.
        _ = std::fs::remove_file(&temporary);
    }
    result
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", random_name()));
    path.with_file_name(name)
}

fn write_new(temporary: &Path, path: &Path, text: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private_mode(&mut options);
    let mut file = options.open(temporary)?;
    if let Ok(metadata) = std::fs::metadata(path) {
        file.set_permissions(metadata.permissions())?;
    }
    file.write_all(text)?;
    sync(&file)
}

#[cfg(unix)]
fn private_mode(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

/// Elsewhere a user's own folders are private by inheritance.
#[cfg(not(unix))]
fn private_mode(_options: &mut OpenOptions) {}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn private_from_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_private_folder(&inner).unwrap();
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o755)).unwrap();
        create_private_folder(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        let file = inner.join("token");
        replace(&file, b"one").unwrap();
        assert_eq!(mode(&file), 0o600);
        replace(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        replace(&file, b"three").unwrap();
        assert_eq!(mode(&file), 0o640);
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 1);
        drop(open_private(&inner.join("lock")).unwrap());
        assert_eq!(mode(&inner.join("lock")), 0o600);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("target")).unwrap();
        std::fs::write(folder.path().join("target/x"), "x").unwrap();
        replace(&folder.path().join("target"), b"text").unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
