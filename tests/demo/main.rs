//! `make demo`: the whole story on this machine, step by step, each with the real command and its real output, and each checked.
//! `make demo-up`: the same installation, left running for a person's own browser and kubectl.

#![allow(clippy::disallowed_names, reason = "foo is a person of this story")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "what ends the demo is shown whole")]

#[path = "../support/mod.rs"]
mod support;

mod second_cluster;
mod story;
mod teller;
mod up;

fn main() -> std::process::ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("run") => story::run(),
        Some("up") => up::run(),
        // Cargo and nextest list the tests of every binary; this one has none.
        _ => std::process::ExitCode::SUCCESS,
    }
}
