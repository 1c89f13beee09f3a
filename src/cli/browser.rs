//! Brings the user's browser to a page, or tells the user to.

use std::path::Path;
use std::process::{Command, Stdio};

use super::terminal::say;

/// How the user opens pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Browser {
    /// What the desktop has chosen.
    Default,
    /// A program, run with the URL as its last argument.
    Command(String),
    /// None here: the URL is only printed.
    None,
}

impl Browser {
    /// Always prints the URL as well: a browser may fail without a word. Standard output stays untouched.
    pub(crate) fn open(&self, url: &str) {
        let result = match self {
            Self::Default => {
                say("Opening the browser to log in. If it does not open, visit:");
                webbrowser::open(url).map_err(|error| error.to_string())
            }
            Self::Command(command) => {
                say("Opening the browser to log in. If it does not open, visit:");
                run(command, url)
            }
            Self::None => {
                say("To log in, open this page in a browser on this machine:");
                Ok(())
            }
        };
        say(&format!("  {url}"));
        if let Err(why) = result {
            say(&format!("The browser could not be started: {why}"));
        }
    }
}

fn run(command: &str, url: &str) -> Result<(), String> {
    let mut words = command.split_whitespace();
    let (program, arguments) = if Path::new(command).is_file() {
        (command, Vec::new())
    } else {
        (words.next().ok_or("the browser command is empty")?, words.collect())
    };
    let spawned = Command::new(program).args(arguments).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    // Not waited for: a browser may live on.
    spawned.map(drop).map_err(|error| format!("{program}: {error}"))
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn commands() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        run(&format!("cp /dev/null {}", folder.path().display()), "/dev/null").unwrap_or_default();
        run(&format!("touch {}", out.display()), &folder.path().join("url").display().to_string()).unwrap();
        assert!((0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            out.exists() && folder.path().join("url").exists()
        }));
        run("/nowhere/browser", "x").unwrap_err();
        run(" ", "x").unwrap_err();
    }
}
