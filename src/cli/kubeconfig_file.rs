//! Where the kubeconfig is, as kubectl chooses it, and how it is changed: under kubectl's own lock, in one step.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcetera::home_dir;

use super::kubeconfig::{Entry, KubeconfigError, merge};
use super::private_file::{create_private_folder, replace};

/// How long another program may take to write.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// `KUBECONFIG` may list several files: the first that exists is written, else the last; without it `~/.kube/config`.
pub(crate) fn default_path() -> Result<PathBuf, KubeconfigError> {
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if let Some(path) = listed.iter().find(|path| path.exists()).or(listed.last()) {
        return Ok(path.clone());
    }
    Ok(home_dir().map_err(|_| KubeconfigError::NoHome)?.join(".kube").join("config"))
}

/// The name alone when the `PATH` leads to this very program, else its path.
pub(crate) fn plugin_command() -> String {
    let Ok(this) = std::env::current_exe().and_then(std::fs::canonicalize) else { return "kubepass".to_owned() };
    let file_name = format!("kubepass{}", std::env::consts::EXE_SUFFIX);
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|folder| folder.join(&file_name)).find(|file| file.is_file()));
    match on_path.and_then(|file| std::fs::canonicalize(file).ok()) {
        Some(found) if found == this => "kubepass".to_owned(),
        _ => this.display().to_string(),
    }
}

/// Merges the entry into the file, which is made when it is missing.
pub(crate) fn update(path: &Path, entry: &Entry<'_>) -> Result<(), KubeconfigError> {
    let io_error = |source| KubeconfigError::Io { path: path.display().to_string(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        create_private_folder(folder).map_err(io_error)?;
    }
    let _lock = FileLock::take(path)?;
    let existing = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(error)),
    };
    let merged = merge(existing.as_deref(), entry)?;
    // A symbolic link stays one: its target is replaced.
    let target = if existing.is_some() { std::fs::canonicalize(path).map_err(io_error)? } else { path.to_owned() };
    replace(&target, merged.as_bytes()).map_err(io_error)
}

/// client-go's lock on a kubeconfig: a file beside it that only one can create.
struct FileLock {
    path: PathBuf,
}

impl FileLock {
    fn take(kubeconfig: &Path) -> Result<Self, KubeconfigError> {
        let mut name = kubeconfig.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(KubeconfigError::Locked(path.display().to_string()));
                }
                Err(source) => return Err(KubeconfigError::Io { path: path.display().to_string(), source }),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Gone already: nothing to do.
        _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            name: "prod",
            server: "https://prod.example.com",
            certificate_authority_data: None,
            command: "kubepass".to_owned(),
            set_current_context: true,
        }
    }

    #[test]
    fn writes_in_one_step_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kube/config");
        update(&path, &entry()).unwrap();
        let once = std::fs::read_to_string(&path).unwrap();
        update(&path, &entry()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), once);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::write(&path, "clusters: {}").unwrap();
        update(&path, &entry()).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "clusters: {}");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn follows_a_link_and_respects_a_lock() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "current-context: a\n").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        update(&link, &entry()).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&target).unwrap().contains("https://prod.example.com"));
        let fresh = folder.path().join("fresh");
        update(&fresh, &entry()).unwrap();
        assert_eq!(std::fs::metadata(&fresh).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(folder.path().join("fresh.lock"), "").unwrap();
        assert!(matches!(update(&fresh, &entry()), Err(KubeconfigError::Locked(_))));
        assert!(folder.path().join("fresh.lock").exists());
    }
}
