//! `make bench-parts`: the parts of a check and of a reload, each by itself, in process (divan). Time is for comparing two versions on one
//! machine; the allocations beside it are exact.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "benchmarks")]

#[path = "../../it/fixture.rs"]
#[allow(dead_code, reason = "made for the tests; only its configurations are needed here")]
mod fixture;
#[path = "../scene.rs"]
mod scene;

mod check;
mod reload;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}
