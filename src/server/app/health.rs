//! How the parts fare, as metrics that are read when they are asked for. The state page tells the same at more length.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use tokio::sync::watch;

use super::Parts;
use crate::config::objects::Judged;
use crate::server::cluster_source;
use crate::server::live_streams::LiveStreams;
use crate::server::oidc::Providers;
use crate::server::sessions::Sessions;
use crate::server::store::Store;
use crate::server::trail::Trail;
use crate::snapshot::Snapshot;

/// `kubepass_config_info{version}`, `kubepass_store_healthy`, `kubepass_audit_healthy`, `kubepass_sessions`, `kubepass_sessions_in_memory`,
/// `kubepass_live_streams`, `kubepass_idp_up{idp}`; with a `cluster_source` also `kubepass_cluster_source_up`, `kubepass_objects` and
/// `kubepass_objects_with_mistakes`.
pub(super) struct Health {
    snapshot: Arc<ArcSwap<Snapshot>>,
    store: Store,
    trail: Trail,
    sessions: Sessions,
    streams: Arc<LiveStreams>,
    oidc: Arc<Providers>,
    cluster: Option<(cluster_source::Health, watch::Receiver<Arc<Judged>>)>,
}

impl Health {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            snapshot: Arc::clone(&parts.snapshot),
            store: parts.store.clone(),
            trail: parts.trail.clone(),
            sessions: parts.sessions.clone(),
            streams: Arc::clone(&parts.streams),
            oidc: Arc::clone(&parts.oidc),
            cluster: parts.cluster.as_ref().map(|cluster| (cluster.health.clone(), cluster.judged())),
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
        let sessions = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        gauge(&mut encoder, "sessions", "Sessions that live", sessions(self.sessions.table().len()))?;
        gauge(&mut encoder, "sessions_in_memory", "Those among them that need not be read", sessions(self.sessions.table().awake_len()))?;
        let streams = i64::try_from(self.streams.len()).unwrap_or(i64::MAX);
        gauge(&mut encoder, "live_streams", "Watches, exec and other requests that go on", streams)?;
        gauge(&mut encoder, "store_healthy", "Whether sessions can be stored", self.store.healthy().into())?;
        gauge(&mut encoder, "audit_healthy", "Whether audit lines can be written", self.trail.healthy().into())?;
        if let Some((health, judged)) = &self.cluster {
            let (up, judged) = (health.seen().last_error.is_none(), judged.borrow());
            let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let with_mistakes = judged.verdicts.iter().filter(|verdict| verdict.errors().next().is_some()).count();
            gauge(&mut encoder, "cluster_source_up", "Whether the API server of the objects answers", up.into())?;
            gauge(&mut encoder, "objects", "Objects of that API server that were judged", count(judged.verdicts.len()))?;
            gauge(&mut encoder, "objects_with_mistakes", "Those among them that are not as they say", count(with_mistakes))?;
        }
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
