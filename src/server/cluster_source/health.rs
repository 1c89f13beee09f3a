//! How the watches of the API server fare, for the log and the state page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::clock;

/// Characters of an error that are kept.
const MAX_ERROR: usize = 300;

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Seen>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Kinds of which there is no whole list yet.
    pub awaited: Vec<&'static str>,
    /// Why the last request failed; `None` when an answer came since.
    pub last_error: Option<String>,
    /// Unix seconds of the last answer.
    pub last_answer_at: u64,
    /// Whether this kubepass writes the statuses.
    pub leading: bool,
}

impl Health {
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    pub(super) fn answered(&self, awaited: Vec<&'static str>) {
        let mut seen = self.lock();
        if seen.last_error.take().is_some() {
            tracing::info!("cluster_source.answers_again");
        }
        (seen.awaited, seen.last_answer_at) = (awaited, clock::unix_now());
    }

    pub(super) fn failed(&self, error: &dyn std::error::Error, awaited: Vec<&'static str>) {
        let text: String = whole(error).chars().take(MAX_ERROR).collect();
        let mut seen = self.lock();
        if seen.last_error.as_ref() != Some(&text) {
            tracing::warn!(error = text, "cluster_source.failed: what the API server said last stays");
        }
        (seen.awaited, seen.last_error) = (awaited, Some(text));
    }

    pub(super) fn leads(&self, leading: bool) {
        let mut seen = self.lock();
        if std::mem::replace(&mut seen.leading, leading) != leading {
            tracing::info!(lease.held = leading, "cluster_source.lease");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With what is behind it: the client's own words end where the cause begins.
pub(super) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
