//! Judges the configuration of an Envoy that somebody else wrote and that uses kubepass's checks: what is missing, what is unsafe, and what is
//! not understood, which counts as unsafe. `envoy/own.yaml` is what it asks for.
//!
//! It works on the JSON tree of a bootstrap or of a `/config_dump`, with the names of fields in either spelling. It must never be silent on
//! something that it does not know: every message that matters is compared with the list of its known fields.

mod access_log;
mod cluster;
mod connection_manager;
mod document;
mod ext_authz;
mod guard;
mod http_filters;
mod listener;
mod mutations;
mod part;
mod per_route;
mod process;
mod protected;
mod routes;
mod tls;

use serde_json::Value;

use self::document::Document;
use self::part::{Findings, Part};
use self::protected::{Protection, Survey};

/// What is wrong with one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The path in the document, as `static_resources.listeners[0].name`.
    pub at: String,
    pub kind: Kind,
    /// A fixed word for the mistake.
    pub code: &'static str,
    /// One sentence.
    pub why: String,
    /// What to write there.
    pub instead: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody could reach an API server otherwise than as themselves, or without kubepass.
    Unsafe,
    /// Something here is unknown to this judge, so it may be unsafe.
    NotUnderstood,
    /// Safe, but something that people do would fail.
    Breaks,
}

/// What was found, and how much was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Most serious first, each place and mistake once.
    pub findings: Vec<Finding>,
    pub listeners: usize,
    pub clusters: usize,
    /// Clusters behind kubepass's checks, by name.
    pub protected: Vec<String>,
}

/// The document is neither a bootstrap nor a config dump.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no configuration of Envoy: neither a bootstrap (with `static_resources` or `dynamic_resources`) nor a config dump (with `configs`)"
)]
pub struct NotEnvoy;

/// Judges a bootstrap or a config dump.
///
/// # Errors
/// It is neither.
pub fn check(document: &Value) -> Result<Report, NotEnvoy> {
    let findings = Findings::default();
    let document = Document::read(Part::root(document, &findings)).ok_or(NotEnvoy)?;
    let survey = Survey::of(&document);
    process::judge(&document);
    for listener in &document.listeners {
        listener::judge(listener, &document, &survey);
    }
    for cluster in survey.clusters() {
        cluster::judge(cluster, &document);
    }
    cluster::shared_grants(&survey);
    if !survey.clusters().any(|cluster| matches!(cluster.protection, Some(Protection::Kubernetes | Protection::Http))) {
        document.bootstrap.report(
            Kind::Unsafe,
            "nothing-protected",
            "no cluster here is behind kubepass: none has a guard, a target or a credential of a route.",
            "what envoy/own.yaml holds: ext_authz with the route's target, and a cluster with the guard for it",
        );
    }
    Ok(Report {
        listeners: document.listeners.len(),
        clusters: survey.clusters().count(),
        protected: survey.clusters().filter(|cluster| cluster.protection.is_some()).map(|cluster| cluster.name.to_owned()).collect(),
        findings: findings.into_sorted(),
    })
}
