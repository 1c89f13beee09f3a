//! `make bench-sessions`: what the number of sessions costs kubepass alone, without Envoy and without an API server.
//!
//! `kubepass-server serve` as people get it, with 100 routes and a store of so many sessions: how long from its start until it is ready, how much
//! memory it then has, and has when as many sessions were asked for as may be in memory; and how long a check takes, asked over its own socket as
//! an Envoy asks, of a session that is in memory and of one that has to be read.

mod asking;
mod installation;
mod measure;
mod report;

use std::process::ExitCode;

pub(super) use report::markdown;

pub(super) fn run() -> ExitCode {
    match measure::all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-sessions: {error}");
            ExitCode::FAILURE
        }
    }
}
