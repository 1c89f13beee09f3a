//! End-to-end stories on the real parts: Envoy, kube-apiserver, OIDC provider, kubectl. Few, each a story from a user's or an attacker's view;
//! the verdict is taken from the API server's own audit log wherever there is one.
#![allow(clippy::disallowed_names, reason = "foo is a person of these stories")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod endurance;
mod fault_script;
mod faults;
mod floods;
mod gateways;
mod headers;
mod headers_names;
mod headers_spellings;
mod hosting;
mod jwt;
mod keys;
mod leaks;
mod limits;
mod live;
mod logins;
mod logins_web;
mod objects;
mod overload;
mod own_envoy;
mod pomerium;
mod rbac;
mod readme;
mod request_info;
mod rows;
mod secrets;
mod serve;
mod shared;
mod soak;
mod sources;
mod stories;
mod versions;
mod web_pages;
