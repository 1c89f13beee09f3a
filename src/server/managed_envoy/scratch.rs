//! A private folder for the sockets and files of a moment; gone when dropped.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A folder with mode 0700 and a short path: a Unix socket's path has 107 bytes at most.
#[derive(Debug)]
pub(super) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// # Errors
    /// The folder for temporary files is missing, full or not writable.
    pub(super) fn create() -> io::Result<Self> {
        let name = format!("kubepass-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // Best effort: it holds nothing but sockets and a configuration without real secrets.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
