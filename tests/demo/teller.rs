//! How the demo speaks: numbered steps, `$ command`, the output, and a mark for each check.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use super::support::kubectl::Output;

/// Lines of one output that are shown.
const MAX_LINES: usize = 14;

/// Prints the story and counts its checks.
pub(super) struct Teller {
    step: usize,
    passed: usize,
    failed: usize,
    began: Instant,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self { step: 0, passed: 0, failed: 0, began: Instant::now() }
    }

    /// The next part of the story.
    pub(super) fn step(&mut self, title: &str) {
        self.step += 1;
        say(&format!("\n{}. {title}", self.step));
    }

    /// A sentence in between.
    pub(super) fn note(&self, text: &str) {
        say(&format!("   {text}"));
    }

    /// A command as the person would type it, with what it answered.
    pub(super) fn command(&self, shown: &str, output: &Output) {
        say(&format!("   $ {shown}"));
        let text = format!("{}{}", output.stdout, output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().take(MAX_LINES) {
            say(&format!("     {line}"));
        }
        if lines.len() > MAX_LINES {
            say(&format!("     ... {} more lines", lines.len() - MAX_LINES));
        }
    }

    /// One thing that must be true.
    pub(super) fn check(&mut self, what: &str, holds: bool) {
        let (mark, counter) = if holds { ("ok", &mut self.passed) } else { ("FAILED", &mut self.failed) };
        *counter += 1;
        say(&format!("   [{mark}] {what}"));
    }

    /// The last line, and the exit code.
    pub(super) fn end(&self) -> ExitCode {
        say(&format!("\n(took {} s)", self.began.elapsed().as_secs()));
        say(&format!("demo: {} passed, {} failed", self.passed, self.failed));
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more (a closed pipe): the checks go on all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
