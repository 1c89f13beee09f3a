//! `make bench-xds`: what a change of one route costs a control plane, and what a big configuration does.
//!
//! kubepass as it runs (`serve`, a configuration file, the files that it names), a real Envoy and one reference client (`client`); then the
//! same resources and the same changes in go-control-plane's snapshot cache. A change counts from its publication (there from
//! `SetSnapshot`) until the Envoy has acknowledged all that it was sent. Both servers say themselves, with the time, what they publish, send
//! and hear (`events`).

mod client;
mod envoy;
mod events;
mod go_control_plane;
mod kubepass;
mod measure;
mod outcome;
mod report;
mod scene;

use std::process::ExitCode;

pub(super) fn run() -> ExitCode {
    match measure::all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-xds: {error}");
            ExitCode::FAILURE
        }
    }
}
