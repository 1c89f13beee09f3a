//! The harness proves itself: what the end-to-end tests and the demo take for granted really works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod clusters;
mod logins;
mod pages;
mod processes;
mod tools;
