//! Child processes that end with this process, however it ends: at its normal end, by panic, Ctrl-C, SIGTERM or SIGKILL.
//!
//! Each child leads a process group of its own and registers it in a directory (`leash.sh run`). One guard process (`leash.sh guard`) reads
//! from a pipe whose other end only this process holds: when this process is gone, for whatever reason, the guard sees the end of the
//! pipe and ends all registered groups. Dropping a [`Process`] ends its group at once and waits for it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Characters of a log line that are shown.
const LINE: usize = 240;

struct Leash {
    /// Holds the leash directory and the run directories; the guard removes it.
    base: PathBuf,
    dir: PathBuf,
    /// Its standard input is the pipe.
    _guard: Child,
}

fn leash() -> &'static Leash {
    static LEASH: OnceLock<Leash> = OnceLock::new();
    LEASH.get_or_init(|| {
        let base = tempfile::Builder::new().prefix("kubepass-").tempdir().expect("a temporary directory").keep();
        let dir = base.join("leash");
        std::fs::create_dir_all(dir.join("groups")).expect("the leash directory");
        let mut guard = Command::new(script());
        guard.arg("guard").arg(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Leash { base, dir, _guard: guard.spawn().expect("leash.sh starts") }
    })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/leash.sh")
}

/// The directory of this process for everything temporary. Removed after its end, unless [`keep`] was called.
pub fn base() -> &'static Path {
    &leash().base
}

/// Leaves [`base`] in place after the end, for a person to look at.
pub fn keep() {
    let _ = File::create(leash().dir.join("keep"));
}

/// A command that runs `program` on the leash. Arguments, environment and standard streams are up to the caller.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(script());
    command.arg("run").arg(&leash().dir).arg(program.as_ref()).process_group(0);
    command
}

/// A process on the leash that logs to a file. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command made by [`command`], with standard output and error appended to the file `log`.
    pub fn start(name: &str, log: &Path, mut command: Command) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("the log file");
        let err = out.try_clone().expect("the log file");
        let child =
            command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    /// Takes over a child that was started from [`command`] with streams of its own.
    pub fn adopt(name: &str, log: &Path, child: Child) -> Self {
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, which is also the id of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status when the process has ended by itself or by [`Process::stop`].
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the state of a child");
            if self.ended.is_some() {
                self.end_group();
            }
        }
        self.ended
    }

    /// Waits until `look` gives a value. Panics with the tail of the log when the process ends before, or the time is over.
    pub fn until<T>(&mut self, what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}) before {what}\n{}", self.name, self.tail(30));
            }
            if began.elapsed() > timeout {
                panic!("{}: not within {} s: {what}\n{}", self.name, timeout.as_secs(), self.tail(30));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Waits until the log holds `text`.
    pub fn until_log(&mut self, text: &str, timeout: Duration) {
        let log = self.log.clone();
        self.until(&format!("the log says {text:?}"), timeout, || read(&log).contains(text).then_some(()));
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// The last lines of the log, headed by its name.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Sends a signal to the process group.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = kill_process_group(self.group(), signal);
        }
    }

    /// SIGTERM, after five seconds SIGKILL; returns when the process has ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let began = Instant::now();
        while self.ended().is_none() && began.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill()
    }

    /// SIGKILL to the whole group; returns when the process has ended.
    pub fn kill(&mut self) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            self.ended = Some(self.child.wait().expect("the end of a child"));
            self.end_group();
        }
        self.ended.expect("set above")
    }

    /// What the process started itself and left behind ends too, and the guard forgets the group.
    fn end_group(&self) {
        if test_kill_process_group(self.group()).is_ok() {
            let _ = kill_process_group(self.group(), Signal::KILL);
        }
        let _ = std::fs::remove_file(leash().dir.join("groups").join(self.id().to_string()));
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a file, headed by its path; what is not readable is said instead.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = read_end(path, 64 * 1024).unwrap_or_else(|error| format!("({error})"));
    let all: Vec<String> = text.lines().map(|line| line.chars().take(LINE).collect()).collect();
    format!("--- {} ---\n{}\n", path.display(), all[all.len().saturating_sub(lines)..].join("\n"))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn read_end(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
