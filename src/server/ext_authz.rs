//! Envoy's question and our answer: `convert` reads and renders the messages (`refusal`: what a refused client reads), `service` runs one check. Decides nothing itself.

pub mod convert;
mod refusal;
pub mod service;

pub use service::ExtAuthz;
