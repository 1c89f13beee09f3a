//! One append-only file of JSON lines. A line that could not be written whole leaves no half behind; a file that was moved away is made anew.
//! What a crash cut off stays as a line of its own: nobody was told that it was written, and it must not spoil the next one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
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

    /// False for pipes and devices, of which nobody knows how long a write takes.
    pub(super) fn is_regular(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.regular)
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

/// False for a file that we may not read: then nobody can tell.
fn ends_within_a_line(path: &Path, length: u64) -> bool {
    let Some(last) = length.checked_sub(1) else { return false };
    let mut byte = [0];
    File::open(path).and_then(|file| file.read_exact_at(&mut byte, last)).is_ok_and(|()| byte != *b"\n")
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && ends_within_a_line(path, metadata.len()) {
            (&file).write_all(b"\n")?;
        }
        Ok(Self { inode: (metadata.dev(), metadata.ino()), regular: metadata.is_file(), file })
    }

    fn is_still_at(&self, path: &Path) -> bool {
        !self.regular || std::fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }

    fn append(&self, lines: &[u8], sync: bool) -> io::Result<()> {
        let mut written = 0;
        let result = self.write_counted(lines, &mut written).and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if result.is_err() && self.regular {
            // Half a line would join with the next one. If even this fails, the file is opened anew and the error already stops the request.
            let _ = self.file.metadata().and_then(|metadata| self.file.set_len(metadata.len().saturating_sub(written)));
        }
        result
    }

    /// As `write_all`, which does not say how far it came.
    fn write_counted(&self, mut lines: &[u8], written: &mut u64) -> io::Result<()> {
        while !lines.is_empty() {
            match (&self.file).write(lines) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written += count as u64;
                    lines = lines.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
