//! The pinned kubectl (or any other command of a user), run as a person would: with a kubeconfig, a home of its own, and nothing else of
//! this process's environment.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::leash::{self, Process};

/// How long a command that should end by itself may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A command with its environment; each `run` or `start` is one process.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    env: BTreeMap<String, String>,
    limit: Duration,
    dir: PathBuf,
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics unless the exit code is 0; returns standard output.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Panics unless the command failed; returns standard error.
    pub fn err(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "code {:?}, stdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        self.stderr
    }
}

impl Kubectl {
    /// `home` becomes HOME (discovery cache, credentials) and the working directory; `kubeconfig` becomes KUBECONFIG.
    pub fn new(program: &Path, kubeconfig: &Path, home: &Path) -> Self {
        let command = Self::command(program, home);
        command.env("KUBECONFIG", &kubeconfig.display().to_string())
    }

    /// A command that is not kubectl, in the same clean environment.
    pub fn command(program: &Path, home: &Path) -> Self {
        std::fs::create_dir_all(home).expect("the home directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let env = [("HOME", home.display().to_string()), ("PATH", path), ("LC_ALL", "C".to_owned())];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { program: program.to_owned(), env, limit: LIMIT, dir: home.to_owned() }
    }

    /// Another program in the same environment.
    pub fn with_program(&self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..self.clone() }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Another program (helm) in the same environment.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Puts a directory before the others in PATH: where an exec plugin stands.
    pub fn path_first(self, dir: &Path) -> Self {
        let path = format!("{}:{}", dir.display(), self.env["PATH"]);
        self.env("PATH", &path)
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same as a command of its own, for who measures: `run` looks only every few milliseconds whether it has ended.
    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().envs(&self.env).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.start(args).finish()
    }

    /// Runs to the end with `input` on standard input.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut running = self.start(args);
        running.write(input);
        running.finish()
    }

    /// Starts a command that goes on (logs -f, get -w, exec -i, port-forward). Dropping it ends it.
    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = leash::command(&self.program);
        command.args(args).env_clear().envs(&self.env).current_dir(&self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{} {}", self.program.file_name().unwrap_or_default().to_string_lossy(), args.join(" "));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let (stdout, out_reader) = Stream::read(child.stdout.take().expect("piped"));
        let (stderr, err_reader) = Stream::read(child.stderr.take().expect("piped"));
        let stdin = child.stdin.take();
        let process = Process::adopt(&shown, Path::new("/dev/null"), child);
        Running { shown, process, stdin, stdout, stderr, readers: vec![out_reader, err_reader], limit: self.limit }
    }
}

/// A command that goes on. Its output is read as it comes.
#[derive(Debug)]
pub struct Running {
    shown: String,
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    readers: Vec<JoinHandle<()>>,
    limit: Duration,
}

impl Running {
    /// Waits for a line of standard output, among those not yet returned, for which `wanted` holds; returns it.
    pub fn wait_line(&mut self, what: &str, wanted: impl FnMut(&str) -> bool) -> String {
        let found = self.stdout.wait_line(self.limit, wanted);
        found.unwrap_or_else(|| panic!("{}: no line with {what}\n{}", self.shown, self.seen()))
    }

    /// The same for standard error.
    pub fn wait_error_line(&mut self, what: &str, wanted: impl FnMut(&str) -> bool) -> String {
        let found = self.stderr.wait_line(self.limit, wanted);
        found.unwrap_or_else(|| panic!("{}: no error line with {what}\n{}", self.shown, self.seen()))
    }

    /// The next line of standard output that holds `text`.
    pub fn wait_text(&mut self, text: &str) -> String {
        self.wait_line(&format!("{text:?}"), |line| line.contains(text))
    }

    pub fn write(&mut self, input: &[u8]) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        // A command that ended early shows by its exit code, not here.
        let _ = stdin.write_all(input).and_then(|()| stdin.flush());
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// As Ctrl-C would.
    pub fn interrupt(&mut self) {
        self.process.signal(Signal::INT);
    }

    /// Closes standard input and waits for the end; panics after the limit.
    pub fn finish(mut self) -> Output {
        self.close_stdin();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.process.ended() {
                break status;
            }
            assert!(began.elapsed() < self.limit, "{}: still running after {} s\n{}", self.shown, self.limit.as_secs(), self.seen());
            thread::sleep(Duration::from_millis(5));
        };
        self.output(status.code())
    }

    /// Ends it and returns what it wrote.
    pub fn stop(mut self) -> Output {
        let status = self.process.stop();
        self.output(status.code())
    }

    fn output(&mut self, code: Option<i32>) -> Output {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Output { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// What it has written so far.
    pub fn seen(&self) -> String {
        format!("stdout: {}\nstderr: {}", self.stdout.text(), self.stderr.text())
    }
}

/// One output stream, filled by a thread.
#[derive(Debug, Default)]
struct Stream {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Bytes that `wait_line` has passed.
    taken: usize,
    closed: bool,
}

impl Stream {
    fn read(from: impl Read + Send + 'static) -> (Arc<Self>, JoinHandle<()>) {
        let stream = Arc::new(Self::default());
        let filling = Arc::clone(&stream);
        let reader = thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                let read = match from.fill_buf() {
                    Ok(part) if !part.is_empty() => {
                        filling.state.lock().unwrap().bytes.extend_from_slice(part);
                        part.len()
                    }
                    _ => break,
                };
                from.consume(read);
                filling.changed.notify_all();
            }
            filling.state.lock().unwrap().closed = true;
            filling.changed.notify_all();
        });
        (stream, reader)
    }

    fn wait_line(&self, limit: Duration, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
        let until = Instant::now() + limit;
        let mut state = self.state.lock().unwrap();
        loop {
            while let Some(end) = state.bytes[state.taken..].iter().position(|&byte| byte == b'\n') {
                let line = String::from_utf8_lossy(&state.bytes[state.taken..state.taken + end]).into_owned();
                state.taken += end + 1;
                if wanted(&line) {
                    return Some(line);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().bytes).into_owned()
    }
}
