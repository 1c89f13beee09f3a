//! A child process that ends with us, however we end.
//!
//! Neither a signal handler nor `kill_on_drop` runs when kubepass is killed by SIGKILL, and the kernel's parent-death signal can only be
//! asked for between fork and exec, which safe Rust cannot reach (and it follows the thread that forked, not the process). So the child
//! runs under a few lines of `sh` whose standard input is a pipe that only we hold: each line on it is a signal to pass on, its end means
//! that we are gone. The shell's exit status is the child's.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStderr, ChildStdin, Command};

/// `$@` is the command. `kill` of a process that is gone is no error.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{
  while read -r signal <&3; do kill -s "$signal" "$child" 2>/dev/null; done
  kill -s TERM "$child" 2>/dev/null
  sleep 2
  kill -s KILL "$child" 2>/dev/null
} 2>/dev/null 3<&3 &
guard=$!
exec 3<&-
wait "$child"
status=$?
kill "$guard" 2>/dev/null
exit "$status"
"#;

/// What Envoy needs of our environment. The rest stays here: a secret may stand in any variable, and Envoy's are shown by `/proc`.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH"];

/// A command with no more of our environment than it needs.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

/// A process and the pipe that it hangs on. Dropping it ends the process within about two seconds.
#[derive(Debug)]
pub(super) struct Guarded {
    shell: Child,
    pipe: ChildStdin,
    /// What it writes to standard error.
    stderr: Option<ChildStderr>,
}

impl Guarded {
    /// Starts `program` in a process group of its own, so that Ctrl-C in our terminal leaves its end to us.
    ///
    /// # Errors
    /// There is no `sh`. A program that does not start ends at once, with status 126 or 127.
    pub(super) fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut shell = command("sh")
            .args(["-c", GUARD, "kubepass-envoy-guard"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take().ok_or_else(|| io::Error::other("no pipe to the guard"))?;
        let stderr = shell.stderr.take();
        Ok(Self { shell, pipe, stderr })
    }

    pub(super) fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.shell.wait().await
    }

    /// Asks it to end, waits for `patience`, then makes it. That is told, but where there was to be no patience.
    pub(super) async fn terminate(mut self, patience: Duration) -> io::Result<ExitStatus> {
        // A broken pipe: it has ended already.
        let _ = self.pipe.write_all(b"TERM\n").await;
        if let Ok(status) = tokio::time::timeout(patience, self.shell.wait()).await {
            return status;
        }
        if !patience.is_zero() {
            tracing::warn!(patience_seconds = patience.as_secs_f64(), "Envoy did not end when it was asked to; it is killed now");
        }
        let _ = self.pipe.write_all(b"KILL\n").await;
        self.shell.wait().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::PathBuf;
    use std::sync::Arc;

    use tracing_subscriber::util::SubscriberInitExt;

    use super::*;

    fn script(text: &str) -> (PathBuf, Vec<String>) {
        (PathBuf::from("/bin/sh"), vec!["-c".to_owned(), text.to_owned()])
    }

    fn start(text: &str) -> Guarded {
        let (program, arguments) = script(text);
        Guarded::start(&program, &arguments).unwrap()
    }

    #[tokio::test]
    async fn the_status_is_the_childs() {
        assert_eq!(start("exit 7").wait().await.unwrap().code(), Some(7));
        let mut missing = Guarded::start(Path::new("/nonexistent/envoy"), &[]).unwrap();
        assert_eq!(missing.wait().await.unwrap().code(), Some(127));
    }

    #[tokio::test]
    async fn no_variable_of_ours_is_passed_on_but_the_few_that_are_named() {
        let output = command("env").output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        assert!(names.contains(&"PATH") && names.iter().all(|name| PASSED_ON.contains(name)), "{names:?}");
        // What cargo sets for every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    }

    #[tokio::test]
    async fn it_is_asked_first_and_made_then() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let _log = tracing_subscriber::fmt().with_writer(Arc::new(log.reopen().unwrap())).with_ansi(false).set_default();
        let told = || std::fs::read_to_string(&log).unwrap();
        let polite = start("trap 'exit 3' TERM; echo ready >&2; while :; do sleep 0.05; done");
        let mut polite = wait_for_line(polite).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), polite.wait()).await.is_err(), "it runs on by itself");
        assert_eq!(polite.terminate(Duration::from_secs(10)).await.unwrap().code(), Some(3));
        assert_eq!(told(), "");
        for (patience, want) in [(Duration::ZERO, ""), (Duration::from_millis(100), "patience_seconds=0.1")] {
            let deaf = wait_for_line(start("trap '' TERM; echo ready >&2; while :; do sleep 0.05; done")).await;
            assert_eq!(deaf.terminate(patience).await.unwrap().code(), Some(128 + 9));
            let told = told();
            assert!(told.contains(want) && told.is_empty() == want.is_empty(), "{patience:?}: {told}");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_pipe_is_its_end() {
        let Guarded { mut shell, pipe, stderr: _stderr } =
            wait_for_line(start("trap '' TERM; echo ready >&2; while :; do sleep 0.05; done")).await;
        drop(pipe);
        let status = tokio::time::timeout(Duration::from_secs(10), shell.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(128 + 9));
    }

    async fn wait_for_line(mut guarded: Guarded) -> Guarded {
        use tokio::io::AsyncReadExt;
        let mut stderr = guarded.take_stderr().unwrap();
        let mut byte = [0];
        stderr.read_exact(&mut byte).await.unwrap();
        guarded.stderr = Some(stderr);
        guarded
    }
}
