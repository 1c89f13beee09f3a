//! Envoy's question and our answer: `convert` reads and renders the messages (`refusal`: what a refused client reads), `service` runs one check,
//! `serve` brings the checks in. Decides nothing itself.

pub mod convert;
mod refusal;
pub mod serve;
pub mod service;

pub use serve::serve;
pub use service::ExtAuthz;
