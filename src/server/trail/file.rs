//! One append-only file of JSON lines. A line that could not be written whole leaves no half behind; a file that was moved away is made anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A sink file.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    sync: bool,
    /// `None` after a failure: opened anew at the next write.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: (u64, u64),
    /// Whether truncation makes sense (false for pipes and devices such as `/dev/stdout`).
    regular: bool,
}

impl AuditFile {
    pub(super) fn open(path: &Path, sync: bool) -> io::Result<Self> {
        let open = Open::at(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), sync, open: Some(open) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines, or nothing.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let open = match self.open.take() {
            Some(open) if open.is_still_at(&self.path) => open,
            // Rotated away or failed before.
            _ => Open::at(&self.path)?,
        };
        open.append(lines, self.sync)?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { inode: (metadata.dev(), metadata.ino()), regular: metadata.is_file(), file })
    }

    fn is_still_at(&self, path: &Path) -> bool {
        !self.regular || std::fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }

    fn append(&self, lines: &[u8], sync: bool) -> io::Result<()> {
        let before = if self.regular { self.file.metadata()?.len() } else { 0 };
        let written = (&self.file).write_all(lines).and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if written.is_err() && self.regular {
            // Half a line would join with the next one. If even this fails, the file is opened anew and the error already stops the request.
            let _ = self.file.set_len(before);
        }
        written
    }
}
