//! kubepass: an identity-aware access proxy for Kubernetes API servers.
//!
//! Envoy carries the traffic; kubepass configures it over xDS and answers its ext_authz checks. The modules stand here in reading order.
//! First the pure ones: values in, values out, no I/O, no clock, no randomness. A check is
//! `access::decide(&Snapshot, &AccessRequest, session, now) -> Decision`; a configuration change is `config` -> `snapshot` -> `xds`.
//! Then the shell (`server`), which moves bytes and keeps time, and the two programs' verbs (`operator`, `cli`).
//! Which module may use which is a fixed table, held by `tests/it/structure.rs`.

pub mod kubernetes;

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod expression;
#[cfg(feature = "server")]
pub mod header;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod policy;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod snapshot;
#[cfg(feature = "server")]
pub mod token;
#[cfg(feature = "server")]
pub mod xds;

#[cfg(feature = "server")]
pub mod operator;
#[cfg(feature = "server")]
pub mod server;

pub mod cli;
