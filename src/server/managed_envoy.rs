//! An Envoy of kubepass's own: found, tried (does it treat headers as we rely on?), started, watched, drained. It knows Envoy as a
//! program; what Envoy is told comes from `xds`.

mod http_exchange;
mod scratch;
mod self_test;

pub use self_test::{Difference, SelfTestFailure, self_test};
