//! Envoy's question and our answer: `grpc` carries the messages, `question` reads one, `service` runs one check, `convert` renders its answer
//! (`refusal`: what a refused client reads), `serve` brings the checks in. Decides nothing itself.

pub mod convert;
mod grpc;
mod places;
pub mod question;
mod refusal;
pub mod serve;
pub mod service;

pub use crate::server::wire::WireError;
pub use places::Arrived;
pub use serve::serve;
pub use service::ExtAuthz;
