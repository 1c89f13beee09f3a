//! How the watches of the API server fare, for the log and the state page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher;
use tokio::time::Instant;

use crate::server::clock;

/// Characters of an error that are kept.
const MAX_ERROR: usize = 300;
/// The status code for a resource version that is too old.
const GONE: u16 = 410;

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Why the last request of a watch failed, until it is answered again.
    failing: BTreeMap<usize, (Instant, String)>,
    awaited: Vec<&'static str>,
    last_answer_at: u64,
    leading: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Kinds of which there is no whole list yet.
    pub awaited: Vec<&'static str>,
    /// Why requests fail; `None` when all are answered.
    pub last_error: Option<String>,
    /// Unix seconds of the last answer.
    pub last_answer_at: u64,
    /// Whether this kubepass writes the statuses.
    pub leading: bool,
}

impl Health {
    pub fn seen(&self) -> Seen {
        let inner = self.lock();
        Seen {
            awaited: inner.awaited.clone(),
            last_error: inner.failing.values().next().map(|(_, error)| error.clone()),
            last_answer_at: inner.last_answer_at,
            leading: inner.leading,
        }
    }

    /// The watch `index` brought something.
    pub(super) fn answered(&self, index: usize, awaited: Vec<&'static str>) {
        let mut inner = self.lock();
        inner.mend(|failing, _| failing != index);
        (inner.awaited, inner.last_answer_at) = (awaited, clock::unix_now());
    }

    /// A request of no watch, begun then, was answered: a watch that failed before and has been quiet since goes on as well.
    pub(super) fn reached(&self, asked: Instant) {
        let mut inner = self.lock();
        inner.mend(|_, failed| failed >= asked);
        inner.last_answer_at = clock::unix_now();
    }

    /// A request of the watch `index` failed. One line for an outage, however many watches there are.
    pub(super) fn failed(&self, index: usize, error: &watcher::Error, awaited: Vec<&'static str>) {
        let mut inner = self.lock();
        inner.awaited = awaited;
        if matches!(error, watcher::Error::WatchError(status) if status.code == GONE) {
            tracing::info!("cluster_source.lists_again: the API server has forgotten what came since the last event");
            return;
        }
        let text: String = whole(error).chars().take(MAX_ERROR).collect();
        if inner.failing.is_empty() {
            tracing::warn!(error = text, "cluster_source.failed: what the API server said last stays");
        }
        inner.failing.insert(index, (Instant::now(), text));
    }

    pub(super) fn leads(&self, leading: bool) {
        if std::mem::replace(&mut self.lock().leading, leading) != leading {
            tracing::info!(lease.held = leading, "cluster_source.lease");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn mend(&mut self, still_fails: impl Fn(usize, Instant) -> bool) {
        let before = self.failing.len();
        self.failing.retain(|index, (failed, _)| still_fails(*index, *failed));
        if before > 0 && self.failing.is_empty() {
            tracing::info!("cluster_source.answers_again");
        }
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
