//! `kubepass`: the user's commands. Only hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubepass::cli::main()
}
