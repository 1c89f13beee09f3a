//! The operator's window: readiness and metrics on TCP; state, sessions and what Envoys are given on a Unix socket (0600). Decides nothing.

pub mod client;
pub mod given;
pub mod http;
mod listing;
pub mod service;

pub use given::GivenResources;
pub use service::AdminService;

/// The API of `proto/kubepass/admin/v1/admin.proto`.
#[allow(unreachable_pub, missing_debug_implementations, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("kubepass.admin.v1");
}
