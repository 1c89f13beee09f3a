//! What one server did at one size: figures of its changes, its memory and its CPU time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::figures::median;
use super::scene::Change;

/// Envoy's `initial_fetch_timeout`. go-control-plane's delta cache does not send the endpoints of a cluster again when the cluster changed; Envoy
/// waits so long for them before it goes on with those that it knows.
const FETCH_TIMEOUT_MS: f64 = 15_000.0;

/// One change.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Publication until the Envoy's last acknowledgement, and until that of the slowest of the reference clients.
    pub(super) envoy_ms: Option<f64>,
    pub(super) clients_ms: f64,
    /// To one client.
    pub(super) bytes: u64,
    pub(super) cpu_ms: f64,
    /// From the file to the publication; not where there is no file.
    pub(super) file_ms: Option<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) samples: BTreeMap<Change, Vec<Sample>>,
    pub(super) memory_mb: f64,
    pub(super) start_cpu_seconds: f64,
    /// Why there are no figures.
    pub(super) failure: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    /// Publication until acknowledgement: the Envoy's, or the slowest client's where there is no Envoy. Medians, and the worst.
    pub(super) change_to_ack_ms: f64,
    pub(super) worst_ms: f64,
    pub(super) client_ms: f64,
    pub(super) bytes_per_change: f64,
    pub(super) cpu_ms_per_change: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_to_publish_ms: Option<f64>,
}

impl Figures {
    pub(super) fn of(samples: &[Sample]) -> Self {
        let ms = |sample: &Sample| sample.envoy_ms.unwrap_or(sample.clients_ms);
        let middle = |get: &dyn Fn(&Sample) -> f64| median(samples.iter().map(get).collect());
        let files: Vec<f64> = samples.iter().filter_map(|sample| sample.file_ms).collect();
        Self {
            change_to_ack_ms: middle(&ms),
            worst_ms: samples.iter().map(ms).fold(0.0, f64::max),
            client_ms: middle(&|sample| sample.clients_ms),
            bytes_per_change: middle(&|sample| sample.bytes as f64),
            cpu_ms_per_change: middle(&|sample| sample.cpu_ms),
            file_to_publish_ms: (!files.is_empty()).then(|| median(files)),
        }
    }
}

impl Outcome {
    pub(super) fn by_change(&self) -> BTreeMap<&'static str, Figures> {
        self.samples.iter().map(|(change, samples)| (change.key(), Figures::of(samples))).collect()
    }

    /// The change that took longest, by its median.
    pub(super) fn worst(&self) -> Option<Figures> {
        let figures = self.samples.values().map(|samples| Figures::of(samples));
        figures.max_by(|one, other| one.change_to_ack_ms.total_cmp(&other.change_to_ack_ms))
    }

    /// The same among those after which Envoy did not wait in vain for something that the server never sends.
    pub(super) fn worst_without_timeout(&self) -> Option<Figures> {
        let figures =
            self.samples.values().map(|samples| Figures::of(samples)).filter(|figures| figures.change_to_ack_ms < FETCH_TIMEOUT_MS);
        figures.max_by(|one, other| one.change_to_ack_ms.total_cmp(&other.change_to_ack_ms))
    }

    /// The most that any change sent.
    pub(super) fn bytes(&self) -> f64 {
        self.samples.values().map(|samples| Figures::of(samples).bytes_per_change).fold(0.0, f64::max)
    }
}
