//! Who else can get at a file: read a secret, or put something else in the place of a file or a socket. It judges what it is shown; what follows
//! from it is up to the caller.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ROOT: u32 = 0;
const STICKY: u32 = 0o1000;

/// A place where another user could put something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaceable {
    pub place: PathBuf,
    pub why: String,
}

/// Why others than we and root can read a file, if they can.
pub fn exposed(file: &Metadata) -> Option<String> {
    exposed_to_others(file.uid(), file.mode(), own_uid())
}

/// Where on the way to `path`, as it is written and as links lead, others than we and root could put something else. What does not exist yet
/// is left out: whoever makes it makes it private.
///
/// # Errors
/// A part of the way that cannot be looked at.
pub fn replaceable(path: &Path) -> io::Result<Vec<Replaceable>> {
    let written = std::path::absolute(path)?;
    let mut places: BTreeSet<PathBuf> = written.ancestors().map(Path::to_path_buf).collect();
    let existing = written.ancestors().find_map(|part| part.canonicalize().ok());
    places.extend(existing.iter().flat_map(|led| led.ancestors()).map(Path::to_path_buf));
    let mut found = Vec::new();
    for place in places {
        let metadata = match std::fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let why = replaceable_by_others(metadata.is_dir(), metadata.uid(), metadata.mode(), own_uid());
        found.extend(why.map(|why| Replaceable { place, why }));
    }
    Ok(found)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn exposed_to_others(owner: u32, mode: u32, own: u32) -> Option<String> {
    if owner != own && owner != ROOT {
        return Some(format!("it belongs to user {owner}"));
    }
    (mode & 0o077 != 0).then(|| format!("mode {:04o} lets others in", mode & 0o7777))
}

/// Its owner can always replace it; a folder that others may write to lets them replace what is in it, unless it is sticky.
fn replaceable_by_others(is_folder: bool, owner: u32, mode: u32, own: u32) -> Option<String> {
    if owner != own && owner != ROOT {
        return Some(format!("it belongs to user {owner}"));
    }
    let open = is_folder && mode & 0o022 != 0 && mode & STICKY == 0;
    open.then(|| format!("mode {:04o} lets others replace what is in it", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_secret_is_for_its_owner() {
        let check = |owner: u32, mode: u32, want: Option<&str>| {
            assert_eq!(exposed_to_others(owner, mode, 1000).as_deref(), want, "{owner} {mode:o}");
        };
        check(1000, 0o100_600, None);
        check(1000, 0o100_400, None);
        check(0, 0o100_600, None);
        check(1000, 0o100_640, Some("mode 0640 lets others in"));
        check(0, 0o100_604, Some("mode 0604 lets others in"));
        check(1001, 0o100_600, Some("it belongs to user 1001"));
    }

    #[test]
    fn what_others_could_replace() {
        let check = |folder: bool, owner: u32, mode: u32, want: Option<&str>| {
            assert_eq!(replaceable_by_others(folder, owner, mode, 1000).as_deref(), want, "{folder} {owner} {mode:o}");
        };
        check(true, 1000, 0o700, None);
        check(true, 0, 0o755, None);
        check(true, 0, 0o1777, None);
        check(true, 1000, 0o777, Some("mode 0777 lets others replace what is in it"));
        check(true, 0, 0o2775, Some("mode 2775 lets others replace what is in it"));
        check(true, 1001, 0o700, Some("it belongs to user 1001"));
        // A link's own mode says nothing, its owner does.
        check(false, 1000, 0o777, None);
        check(false, 1001, 0o777, Some("it belongs to user 1001"));
    }

    #[test]
    fn the_way_is_looked_at_as_written_and_as_links_lead() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, mode: u32| {
            let path = root.path().canonicalize().unwrap().join(name);
            std::fs::create_dir_all(&path).unwrap();
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        let (open, closed) = (folder("open", 0o777), folder("closed", 0o700));
        symlink(&open, closed.join("to-open")).unwrap();
        symlink(&closed, open.join("to-closed")).unwrap();
        let check = |path: PathBuf, want: &[&PathBuf]| {
            let found = replaceable(&path).unwrap().into_iter().map(|found| found.place).collect::<Vec<_>>();
            assert_eq!(found.iter().collect::<Vec<_>>(), want, "{}", path.display());
        };
        check(closed.join("not-there-yet/file"), &[]);
        check(open.join("file"), &[&open]);
        check(closed.join("to-open/file"), &[&open]);
        check(open.join("to-closed/file"), &[&open]);
    }
}
