//! Which Envoy: the one that was named, or the first on `PATH`, and whether its version is one that kubepass knows.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guard;

/// Oldest version that is taken: before it, faults in ext_authz and upgrades let requests past a check
/// (CVE-2026-47205, CVE-2026-47774).
const OLDEST: (u32, u32) = (1, 39);

const PATIENCE: Duration = Duration::from_secs(10);

/// An Envoy that runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyProgram {
    pub path: PathBuf,
    /// Such as `1.40.0`.
    pub version: String,
}

/// Why there is no Envoy to run.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error("no Envoy: {0} names none, KUBEPASS_ENVOY is not set, and there is no `envoy` on PATH; give one with --envoy FILE")]
    Nowhere(&'static str),
    #[error("the Envoy at {} (from {from}) does not run: {why}", .path.display())]
    DoesNotRun { path: PathBuf, from: &'static str, why: String },
    #[error("{} says {said:?} to --version: that is no Envoy", .path.display())]
    NoVersion { path: PathBuf, said: String },
    #[error("the Envoy at {} is {version}; kubepass needs {}.{} or newer", .path.display(), OLDEST.0, OLDEST.1)]
    TooOld { path: PathBuf, version: String },
}

/// Takes `named` (`--envoy`), else `KUBEPASS_ENVOY`, else `envoy` on `PATH`, and asks it for its version.
///
/// # Errors
/// There is none, or what is there is not an Envoy that kubepass takes.
pub async fn locate(named: Option<&Path>) -> Result<EnvoyProgram, LocateError> {
    let environment = std::env::var_os("KUBEPASS_ENVOY").filter(|value| !value.is_empty());
    let (path, from) = choose(named, environment.as_deref(), std::env::var_os("PATH").as_deref())?;
    let version = version_of(&path, from).await?;
    Ok(EnvoyProgram { path, version })
}

fn choose(named: Option<&Path>, environment: Option<&OsStr>, path: Option<&OsStr>) -> Result<(PathBuf, &'static str), LocateError> {
    if let Some(named) = named {
        return Ok((named.to_owned(), "--envoy"));
    }
    if let Some(environment) = environment {
        return Ok((PathBuf::from(environment), "KUBEPASS_ENVOY"));
    }
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let found = folders.map(|folder| folder.join("envoy")).find(|candidate| candidate.is_file());
    found.map(|found| (found, "PATH")).ok_or(LocateError::Nowhere("--envoy"))
}

async fn version_of(path: &Path, from: &'static str) -> Result<String, LocateError> {
    let does_not_run = |why: String| LocateError::DoesNotRun { path: path.to_owned(), from, why };
    let run = guard::command(path).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, run).await.map_err(|_| does_not_run("it does not answer to --version".to_owned()))?;
    let output = output.map_err(|error| does_not_run(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Some((version, numbers)) = parse(&said) else {
        return Err(LocateError::NoVersion { path: path.to_owned(), said: said.chars().take(200).collect() });
    };
    if numbers < OLDEST {
        return Err(LocateError::TooOld { path: path.to_owned(), version: version.to_owned() });
    }
    Ok(version.to_owned())
}

/// Reads `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn parse(said: &str) -> Option<(&str, (u32, u32))> {
    let version = said.split_once("version:")?.1.split('/').nth(1)?;
    let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
    Some((version, (numbers.next()?.ok()?, numbers.next()?.ok()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn versions_as_envoy_writes_them() {
        let said = |version: &str| format!("/usr/bin/envoy  version: 9e55/{version}/Clean/RELEASE/BoringSSL");
        for (version, numbers) in [("1.40.0", (1, 40)), ("1.41.0-dev", (1, 41)), ("2.0.1", (2, 0))] {
            assert_eq!(parse(&said(version)), Some((version, numbers)));
        }
        for text in ["", "nginx version: nginx/1.2", "version: 1.40.0", "envoy version: a/b.c/d"] {
            assert!(parse(text).is_none_or(|(_, numbers)| numbers < OLDEST), "{text}");
        }
    }

    #[test]
    fn the_nearest_name_counts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("envoy"), "").unwrap();
        let path = std::env::join_paths(["/nonexistent".as_ref(), folder.path()]).unwrap();
        let from = |named: Option<&str>, environment: Option<&str>| {
            choose(named.map(Path::new), environment.map(OsStr::new), Some(&path)).unwrap()
        };
        assert_eq!(from(Some("/a"), Some("/b")), (PathBuf::from("/a"), "--envoy"));
        assert_eq!(from(None, Some("/b")), (PathBuf::from("/b"), "KUBEPASS_ENVOY"));
        assert_eq!(from(None, None), (folder.path().join("envoy"), "PATH"));
        assert!(matches!(choose(None, None, Some(OsStr::new("/nonexistent"))), Err(LocateError::Nowhere(_))));
    }

    #[tokio::test]
    async fn what_is_no_envoy_is_said() {
        let error = locate(Some(Path::new("/bin/echo"))).await.unwrap_err();
        assert!(matches!(error, LocateError::NoVersion { .. }), "{error}");
        let error = locate(Some(Path::new("/nonexistent"))).await.unwrap_err();
        assert!(error.to_string().contains("(from --envoy) does not run"), "{error}");
    }
}
