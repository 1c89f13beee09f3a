//! What the end-to-end tests and the demo stand on: the real parts (API server, etcd, kwok, Envoy, an OpenID provider), started on free
//! ports of loopback and ended with the process that started them, and clients that act as a person would (kubectl, a browser).
//!
//! Test code: a step that cannot be done panics, with what was awaited and the tail of the log that tells why. It knows nothing of kubepass
//! itself, so that it can judge it.
#![allow(dead_code, unreachable_pub, reason = "each test binary that includes this module uses another part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a failed step ends the test"
)]

pub mod browser;
pub mod cluster;
pub mod document;
pub mod echo;
pub mod envoy_stats;
pub mod fake_idp;
pub mod false_check;
pub mod header_attacks;
pub mod html;
pub mod http;
pub mod https;
pub mod idp;
pub mod jar;
pub mod jwt;
pub mod kubectl;
pub mod leash;
pub mod link;
pub mod logs;
pub mod manifests;
pub mod mount;
pub mod odd_names;
pub mod person;
pub mod pki;
pub mod ports;
pub mod processes;
pub mod proxy;
pub mod raw;
pub mod raw_http2;
pub mod run;
pub mod site;
pub mod tools;
pub mod upstream;
pub mod wait;
pub mod world;
