//! `make bench`: what kubepass adds to a request, shown side by side in one run on the real parts.
//!
//! The same two requests go to one real API server by several paths (`paths`), in alternating rounds, so that what else the machine does
//! meets all of them alike. Each round is proven by the API server's own audit log (`proof`): a path that was fast because it did less does not
//! count. `make bench-report` makes the plot and the table of the README from the summary that a run leaves. Other questions have runs of their own,
//! whose answers stand in the same summary (`part`): the user's side (`user`), load beyond what can be answered (`overload`), long
//! requests (`streams`), and how the cost of a check and of a reload grows (`growth`). So have `make bench-xds` (`xds`) and `make bench-sessions`
//! (`sessions`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what ends a benchmark is shown whole"
)]

#[path = "../support/mod.rs"]
mod support;

mod always_allow;
mod envoys;
mod figures;
#[path = "../it/fixture.rs"]
#[allow(dead_code, reason = "made for other tests; only its configurations are needed here")]
mod fixture;
mod growth;
mod installation;
mod kubepass;
mod load;
mod machine;
mod multiples;
mod overload;
mod part;
mod paths;
mod profile;
mod proof;
mod report;
mod run;
mod scene;
mod sessions;
mod streams;
mod summary;
mod table;
mod user;
mod xds;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run"] => run::run(),
        ["report"] => report::run(),
        ["profile"] => profile::run(),
        ["sessions"] => sessions::run(),
        ["xds"] => xds::run(),
        ["growth"] => part::run("growth", growth::measure),
        ["streams"] => part::run("streams", streams::measure),
        ["overload"] => part::run("overload", overload::measure),
        ["user"] => part::run("user", user::measure),
        [user::ONCE, program, arguments @ ..] => user::once(program, arguments),
        [always_allow::VERB, socket] => always_allow::serve(socket.as_ref()),
        // Cargo and nextest list the tests of every binary; this one has none.
        _ => ExitCode::SUCCESS,
    }
}
