//! An Envoy of kubepass's own: found, tried (does it treat headers as we rely on?), started, watched, drained. It knows Envoy as a
//! program; what Envoy is told comes from `xds`.

mod admin_interface;
mod guard;
mod http_exchange;
mod locate;
mod log_lines;
mod metrics;
mod scratch;
mod self_test;
mod supervise;

pub use admin_interface::{AdminError, AdminInterface};
pub use locate::{EnvoyProgram, LocateError, locate};
pub use metrics::EnvoyMetrics;
pub use self_test::{Difference, SelfTestFailure, self_test};
pub use supervise::{ManagedEnvoyError, Settings, run};
