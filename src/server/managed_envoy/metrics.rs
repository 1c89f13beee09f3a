//! What the managed Envoy says about itself, among kubepass's metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::server::telemetry::Metrics;

/// Envoy's names of what is watched. `listener_modified` above 0 after start means that a change drained open streams.
const WATCHED: [&str; 9] = [
    "listener_manager.listener_modified",
    "listener_manager.listener_in_place_updated",
    "listener_manager.listener_create_failure",
    "listener_manager.total_filter_chains_draining",
    "listener_manager.lds.update_rejected",
    "cluster_manager.cds.update_rejected",
    "server.live",
    "server.uptime",
    "server.memory_allocated",
];

/// Filter for the admin interface that lets `WATCHED` pass.
pub(super) const FILTER: &str = r"^(listener_manager|cluster_manager|server)\.";

/// Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct EnvoyMetrics {
    stats: Family<StatLabel, Gauge<u64, AtomicU64>>,
    restarts: Counter,
    latest: Arc<std::sync::Mutex<BTreeMap<String, u64>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatLabel {
    name: &'static str,
}

impl EnvoyMetrics {
    /// Makes them part of the process's metrics.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register("envoy_stat", "The managed Envoy's own statistics, by Envoy's name", self.stats.clone());
        metrics.register("envoy_restarts", "Times that the managed Envoy ended by itself", self.restarts.clone());
    }

    /// All statistics of the last look, for the state page.
    pub fn latest(&self) -> BTreeMap<String, u64> {
        self.latest.lock().map(|latest| latest.clone()).unwrap_or_default()
    }

    pub(super) fn ended(&self) {
        self.restarts.inc();
    }

    pub(super) fn set(&self, stats: BTreeMap<String, u64>) {
        for name in WATCHED {
            if let Some(value) = stats.get(name) {
                self.stats.get_or_create(&StatLabel { name }).set(*value);
            }
        }
        if let Ok(mut latest) = self.latest.lock() {
            *latest = stats;
        }
    }
}
