//! What the objects of an API server add to the files' configuration, and what became of each object. Knows nothing of how they come here.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::ClusterSource;
use crate::config::objects::{Judged, Memory, Merged, Objects, Roots, merge};
use crate::server::clock;
use crate::snapshot::Snapshot;

use super::load::{self, ContentHash};
use super::system_roots;

/// Mistakes that one line of the audit trail tells.
const MAX_TOLD: usize = 100;

/// Objects as they come, `None` before the first whole list.
pub(super) type Incoming = watch::Receiver<Option<Arc<Objects>>>;

/// Lets the objects of an API server be part of the configuration.
#[derive(Debug)]
pub(super) struct Overlay {
    /// As it was at the start: another needs a restart.
    source: ClusterSource,
    incoming: Incoming,
    memory: Memory,
    number: u64,
    judged: watch::Sender<Arc<Judged>>,
    merged: watch::Sender<bool>,
    /// Mistakes that were told already.
    told: BTreeSet<String>,
}

/// What the publisher's users learn of it.
#[derive(Debug)]
pub struct ObjectViews {
    /// What became of each object.
    pub judged: watch::Receiver<Arc<Judged>>,
    /// Whether the configuration in force has the objects in it: true from the first whole list on.
    pub merged: watch::Receiver<bool>,
}

impl Overlay {
    pub(super) fn new(source: ClusterSource, incoming: Incoming) -> (Self, ObjectViews) {
        let (judged, merged) = (watch::Sender::default(), watch::Sender::default());
        let views = ObjectViews { judged: judged.subscribe(), merged: merged.subscribe() };
        (Self { source, incoming, memory: Memory::default(), number: 0, judged, merged, told: BTreeSet::new() }, views)
    }

    /// Waits until the API server has something else. Never returns when its watcher is gone: the process is ending.
    pub(super) async fn changed(&mut self) {
        if self.incoming.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// The snapshot of the files with the objects; the files' own before the first whole list.
    pub(super) async fn lay_over(&mut self, base: &Arc<Snapshot>, base_hash: &str) -> Result<Laid, tokio::task::JoinError> {
        let objects = self.incoming.borrow_and_update().clone();
        let Some(objects) = objects else { return Ok(Laid { snapshot: Arc::clone(base), judged: None }) };
        let source = self.source.clone();
        let (base, base_hash, mut memory) = (Arc::clone(base), base_hash.to_owned(), std::mem::take(&mut self.memory));
        let work = move || {
            let roots = Roots(load::read_file(&system_roots::bundle(), load::MAX_FILE_BYTES).map(|(bytes, _)| bytes));
            let Merged { config, identity, verdicts } = merge(base.config(), &source, &objects, &roots, &mut memory, clock::unix_now());
            let mut hash = ContentHash::new();
            hash.add("files", base_hash.as_bytes());
            identity.iter().for_each(|part| hash.add("object", part.as_bytes()));
            (memory, Arc::new(Snapshot::new(Arc::new(config), &hash.finish())), verdicts)
        };
        let (memory, snapshot, verdicts) = tokio::task::spawn_blocking(work).await?;
        self.memory = memory;
        Ok(Laid { snapshot, judged: Some(verdicts) })
    }

    /// Tells what became of the objects, now that the snapshot is in force. Returns the mistakes that are new.
    pub(super) fn tell(&mut self, laid: Laid) -> Vec<String> {
        let Some(verdicts) = laid.judged else { return Vec::new() };
        let mistakes: BTreeSet<String> = verdicts.iter().flat_map(|verdict| verdict.errors()).map(str::to_owned).collect();
        let new: Vec<String> = mistakes.difference(&self.told).take(MAX_TOLD).cloned().collect();
        for mistake in &new {
            tracing::warn!(config.error = mistake, "config.object_refused");
        }
        self.told = mistakes;
        let version = laid.snapshot.version().to_owned();
        if self.judged.borrow().version != version {
            self.number += 1;
        }
        self.judged.send_replace(Arc::new(Judged { number: self.number, version, verdicts }));
        self.merged.send_replace(true);
        new
    }
}

/// A snapshot that waits to be put in force.
#[derive(Debug)]
pub(super) struct Laid {
    pub(super) snapshot: Arc<Snapshot>,
    judged: Option<Vec<crate::config::objects::Verdict>>,
}
