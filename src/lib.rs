//! kubepass: an identity-aware access proxy for Kubernetes API servers.
//!
//! Envoy carries the traffic; kubepass configures it over xDS and answers its ext_authz checks. The modules stand here in reading order.
//! First the pure ones: values in, values out, no I/O, no clock, no randomness. A check is
//! `access::decide(&Snapshot, &AccessRequest, session, now) -> Decision`; a configuration change is `config` -> `snapshot` -> `xds`.
//! Then the shell (`server`), which moves bytes and keeps time, and the two programs' verbs (`operator`, `cli`).
//! Which module may use which is a fixed table, held by `tests/it/structure.rs`.

#![forbid(unsafe_code)]

// What the security suite turns off to show that it is needed.
pub mod defence;

// Kubernetes words as types.
pub mod kubernetes;

// What Envoy's configuration and our answers to its checks call the same thing.
#[cfg(feature = "server")]
pub mod envoy_names;

// The CEL engine behind one door.
#[cfg(feature = "server")]
pub mod expression;

// The only text that may become a header upstream.
#[cfg(feature = "server")]
pub mod header;

// Who someone is, and the mapping from claims.
#[cfg(feature = "server")]
pub mod identity;

// Signing, verifying, sealing; one key and one type for each use.
#[cfg(feature = "server")]
pub mod token;

// Rules compiled and evaluated to a verdict.
#[cfg(feature = "server")]
pub mod policy;

// A login as a value, and the table of those that live.
#[cfg(feature = "server")]
pub mod session;

// From text to values that are valid.
#[cfg(feature = "server")]
pub mod config;

// The immutable value that all readers share.
#[cfg(feature = "server")]
pub mod snapshot;

// The decision.
#[cfg(feature = "server")]
pub mod access;

// The event that a decision, a login or a change leaves.
#[cfg(feature = "server")]
pub mod audit;

// Envoy's resources, and the ADS stream as a state machine.
#[cfg(feature = "server")]
pub mod xds;

// What an Envoy's configuration lacks that others wrote.
#[cfg(feature = "server")]
pub mod envoy_check;

// Above: pure. Below: the shell.

// The shell: sockets, files, clock, tasks.
#[cfg(feature = "server")]
pub mod server;

// The verbs of `kubepass-server`.
#[cfg(feature = "server")]
pub mod operator;

// The commands of `kubepass`.
pub mod cli;
