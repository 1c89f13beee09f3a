//! The process that runs the plugin. When one and the same kubectl asks twice within its life, the API server has refused the first token.

use serde::{Deserialize, Serialize};

/// A process id alone is used again by the system; with the time of its start it names one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Caller {
    process: u32,
    started: String,
}

impl Caller {
    /// `None` where the system does not tell; then it is unknown whether a token was refused.
    pub(crate) fn current() -> Option<Self> {
        let process = parent()?;
        Some(Self { process, started: start_time(process)? })
    }
}

#[cfg(unix)]
fn parent() -> Option<u32> {
    Some(std::os::unix::process::parent_id())
}

#[cfg(not(unix))]
fn parent() -> Option<u32> {
    None
}

/// Clock ticks since boot: field 22 of `/proc/PID/stat`, counted after the process name, which may hold blanks and parentheses itself.
#[cfg(target_os = "linux")]
fn start_time(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// `ps` is part of POSIX, `lstart` of the BSDs and macOS.
#[cfg(all(unix, not(target_os = "linux")))]
fn start_time(process: u32) -> Option<String> {
    let output = std::process::Command::new("/bin/ps").args(["-o", "lstart=", "-p", &process.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(not(unix))]
fn start_time(_process: u32) -> Option<String> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_process_has_one_start() {
        let this = start_time(std::process::id()).unwrap();
        assert_eq!(start_time(std::process::id()).unwrap(), this);
        this.parse::<u64>().unwrap();
        assert_ne!(start_time(1).unwrap(), this);
        assert_eq!(start_time(u32::MAX), None);
        assert_eq!(Caller::current(), Caller::current());
    }
}
