//! The shell: sockets, files, clock, tasks. It converts messages, publishes snapshots, keeps sessions and writes the audit trail; it decides nothing.

pub mod access_log;
pub mod admin;
pub mod ads;
pub mod app;
pub mod clock;
pub mod cluster_source;
pub mod door;
pub mod ending;
pub mod ext_authz;
pub mod file_modes;
pub mod lifecycle;
pub mod live_streams;
pub mod managed_envoy;
pub mod oidc;
pub mod own_process;
pub mod peer;
pub mod publisher;
pub mod sessions;
pub mod signing;
pub mod store;
pub mod telemetry;
pub mod trail;
pub mod under_way;
pub mod unix_socket;
pub mod web;
mod wire;
