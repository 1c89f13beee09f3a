//! How the parts fare, as metrics that are read when they are asked for. The state page tells the same at more length.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Parts;
use crate::server::oidc::Providers;
use crate::server::store::Store;
use crate::server::trail::Trail;
use crate::session::SessionTable;
use crate::snapshot::Snapshot;

/// `kubepass_config_info{version}`, `kubepass_store_healthy`, `kubepass_audit_healthy`, `kubepass_sessions`, `kubepass_idp_up{idp}`.
pub(super) struct Health {
    snapshot: Arc<ArcSwap<Snapshot>>,
    store: Store,
    trail: Trail,
    sessions: Arc<SessionTable>,
    oidc: Arc<Providers>,
}

impl Health {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            snapshot: Arc::clone(&parts.snapshot),
            store: parts.store.clone(),
            trail: parts.trail.clone(),
            sessions: Arc::clone(&parts.sessions),
            oidc: Arc::clone(&parts.oidc),
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Collector for Health {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.snapshot.load();
        let mut info = encoder.encode_descriptor("config", "The configuration in force", None, MetricType::Info)?;
        info.encode_info(&[("version", snapshot.version())])?;
        let sessions = i64::try_from(self.sessions.len()).unwrap_or(i64::MAX);
        gauge(&mut encoder, "sessions", "Sessions that live", sessions)?;
        gauge(&mut encoder, "store_healthy", "Whether sessions can be stored", self.store.healthy().into())?;
        gauge(&mut encoder, "audit_healthy", "Whether audit lines can be written", self.trail.healthy().into())?;
        // One that was not asked yet is neither up nor down.
        let known: Vec<_> = self.oidc.health().into_iter().filter_map(|idp| Some((idp.name, idp.reachable?))).collect();
        if known.is_empty() {
            return Ok(());
        }
        let mut up = encoder.encode_descriptor("idp_up", "Whether the identity provider answers", None, MetricType::Gauge)?;
        for (name, reachable) in &known {
            value(up.encode_family(&[("idp", name.as_str())])?, (*reachable).into())?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, number: i64) -> fmt::Result {
    value(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?, number)
}

fn value(metric: MetricEncoder<'_>, number: i64) -> fmt::Result {
    ConstGauge::new(number).encode(metric)
}
