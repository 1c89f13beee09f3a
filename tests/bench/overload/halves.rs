//! One half of the processors for what is measured, the other for who asks: what the load itself takes is then not missing there, and twice as much as
//! can be answered is really sent. (Two threads of one core in different halves, or a quota for all processors, still take from each other.)

use std::process::Command;

use serde::Serialize;

use super::super::machine;

/// The two halves, as `taskset` reads them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Halves {
    serving: String,
    asking: String,
}

impl Halves {
    /// Of the processors that this program may use.
    ///
    /// # Errors
    /// When there are not two of them, or the system does not say (Linux does).
    pub(super) fn of_machine() -> Result<Self, String> {
        let all = machine::processors();
        if all.is_empty() {
            return Err("the system does not say which processors there are: this needs Linux".to_owned());
        }
        if all.len() < 2 {
            return Err("two processors are needed, for one is to make the load".to_owned());
        }
        let (serving, asking) = all.split_at(all.len() / 2);
        let list = |half: &[usize]| half.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(Self { serving: list(serving), asking: list(asking) })
    }

    /// What this thread, the first of the program, starts from now on is measured.
    pub(super) fn serve(&self) -> Result<(), String> {
        run_on(&self.serving)
    }

    /// What it starts from now on asks.
    pub(super) fn ask(&self) -> Result<(), String> {
        run_on(&self.asking)
    }
}

/// Whatever a thread starts runs where it does itself.
fn run_on(processors: &str) -> Result<(), String> {
    let output = Command::new("taskset")
        .args(["--cpu-list", "--pid", processors, &std::process::id().to_string()])
        .output()
        .map_err(|_| "taskset is not there: apt-get install util-linux (Debian, Ubuntu)".to_owned())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("taskset {processors}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
