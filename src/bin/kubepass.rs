//! `kubepass`: the user's commands. Only hands over.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kubepass::cli::main()
}
