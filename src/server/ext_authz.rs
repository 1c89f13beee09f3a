//! Envoy's question and our answer: `convert` reads and renders the messages, `service` runs one check. Decides nothing itself.

pub mod convert;
pub mod service;

pub use service::ExtAuthz;
