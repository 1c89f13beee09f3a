//! `make test-security`: kubepass attacked on the real parts, as a prepared adversary would. Each attack is one line of a table; its verdict is
//! taken from the API servers' own audit logs and from the bytes that a recording upstream kept, never from what kubepass says of itself.
//!
//! An attack is a row of [`attacks::ALL`]. Most are a [`trial`]: what is sent, on which routes, and what must become of it. The [`scene`] is the
//! installation that they share, the [`judge`] knows what came where and in whose name.

#![allow(clippy::disallowed_names, reason = "foo is a person of these attacks")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a step that cannot be done fails its attack, which counts as got through"
)]

#[path = "../support/mod.rs"]
mod support;

mod attack;
mod attacks;
mod change;
mod defences;
mod judge;
mod recorder;
mod rogue_node;
mod run;
mod scene;
mod trial;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run"] => run::run(run::Length::Short, None),
        ["run", filter] => run::run(run::Length::Short, Some(filter)),
        ["long"] => run::run(run::Length::Long, None),
        ["defences"] => defences::run(None),
        ["defences", filter] => defences::run(Some(filter)),
        ["long", filter] => run::run(run::Length::Long, Some(filter)),
        // Cargo and nextest list the tests of every binary; this one has none.
        _ => ExitCode::SUCCESS,
    }
}
