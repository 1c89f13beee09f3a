//! The verbs of `kubepass-server`: parse the command line, call one function, choose the exit code.

use std::process::ExitCode;

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
