//! The operational log (human text or JSON on stderr) and the metrics. Never the audit trail, never a secret.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// How often a warning about what others can cause as often as they like is written.
const SELDOM: Duration = Duration::from_secs(60);

/// Keeps a warning from filling the log.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<(Instant, u64)>>);

impl Seldom {
    /// Whether to write it now: how many were left out since the last one.
    pub fn now(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_mut() {
            Some((written, unsaid)) if now.saturating_duration_since(*written) < SELDOM => {
                *unsaid += 1;
                None
            }
            before => {
                let unsaid = before.map_or(0, |(_, unsaid)| *unsaid);
                *last = Some((now, 0));
                Some(unsaid)
            }
        }
    }
}

/// Installs the subscriber for the process. `filter` is a `tracing_subscriber::EnvFilter` directive such as `info` or `kubepass=debug`.
pub fn install(format: LogFormat, filter: &str) -> Result<(), String> {
    // The library that watches an API server logs every connection that ends, which `cluster_source` tells once.
    let quiet: String = [("kube_client", "off"), ("kube_runtime", "off")]
        .iter()
        .filter(|(library, _)| !filter.contains(library))
        .map(|(library, level)| format!(",{library}={level}"))
        .collect();
    let filter = EnvFilter::try_new(format!("{filter}{quiet}")).map_err(|error| format!("log filter {filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // A line that cannot be written (a full disk) is lost. The library's complaint about it, which cannot be written either, would be a panic
        // of whoever has something to log.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| error.to_string())
}

/// The metrics of the process, in the Prometheus text format. Label values are closed sets or names from the configuration.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    decisions: Family<DecisionLabels, Counter>,
    decision_seconds: Histogram,
    config_reloads: Family<ResultLabel, Counter>,
    logins: Family<LoginLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    route: String,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    idp: String,
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("kubepass");
        let metrics = Self {
            decisions: Family::default(),
            // 20 us to 0.7 s.
            decision_seconds: Histogram::new(exponential_buckets(0.000_02, 2.0, 16)),
            config_reloads: Family::default(),
            logins: Family::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("decisions", "Decisions by route, outcome and reason", metrics.decisions.clone());
        registry.register(
            "decision_seconds",
            "Time from a check's arrival to its answer, audit included",
            metrics.decision_seconds.clone(),
        );
        registry.register("config_reloads", "Configuration changes, by result", metrics.config_reloads.clone());
        registry.register("logins", "Logins, by identity provider and result", metrics.logins.clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    pub fn decided(&self, route: &str, outcome: &'static str, reason: &'static str, took: Duration) {
        self.decisions.get_or_create(&DecisionLabels { route: route.to_owned(), outcome, reason }).inc();
        self.decision_seconds.observe(took.as_secs_f64());
    }

    /// `result` is `applied` or `rejected`.
    pub fn config_reloaded(&self, result: &'static str) {
        self.config_reloads.get_or_create(&ResultLabel { result }).inc();
    }

    /// `result` is `ok` or `refused`.
    pub fn login(&self, idp: &str, result: &'static str) {
        self.logins.get_or_create(&LoginLabels { idp: idp.to_owned(), result }).inc();
    }

    /// Adds a metric of another module at start.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        if let Ok(mut registry) = self.registry.lock() {
            registry.register(name, help, metric);
        }
    }

    /// Adds metrics whose values are read when they are asked for.
    pub fn register_collector(&self, collector: impl Collector) {
        if let Ok(mut registry) = self.registry.lock() {
            registry.register_collector(Box::new(collector));
        }
    }

    /// The OpenMetrics text of all metrics.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            // Writing into a String cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_written_once_in_a_while() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.at(start), Some(0));
        assert_eq!((seldom.at(start), seldom.at(start + SELDOM / 2)), (None, None));
        assert_eq!(seldom.at(start + SELDOM), Some(2));
        assert_eq!(seldom.at(start + SELDOM), None);
    }
}
