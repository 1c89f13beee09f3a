//! The verbs of `kubepass-server`: parse the command line, call one function, choose the exit code.

pub mod check_config;
pub mod cluster_rbac;
pub mod policy_explain;

use std::process::ExitCode;

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
