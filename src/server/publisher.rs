//! The only writer of snapshots: reads the configuration and the files that it names, watches them, and puts each valid state in force.
//!
//! A change with a mistake changes nothing: it is logged whole, shown in [`ReloadState`] and told to the audit trail, and the last good
//! snapshot stays. It decides no request and knows nothing of Envoy; who needs the snapshot reads it from the shared place.

mod events;
mod known;
mod load;
mod overlay;
mod paths;
mod stamp;
mod state;
mod system_roots;
mod watch;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::audit::ConfigChangedEvent;
use crate::config::ClusterSource;
use crate::server::clock;
use crate::snapshot::Snapshot;
use known::Known;
use load::{Attempt, Exposed, InForce, Outcome};
use overlay::{Incoming, Overlay};
use state::restart_needed;
use watch::Watch;

pub use load::{LoadError, admin_socket, cluster_source, load_before_tokens, load_once, reach};
pub use overlay::ObjectViews;
pub use state::{ReloadResult, ReloadState};

/// How often the files are looked at although no event came: file systems without events, and events that were lost.
const POLL: Duration = Duration::from_secs(1);
/// Quiet time after an event, so that several files written together are read together.
const QUIET: Duration = Duration::from_millis(150);
/// The longest wait for quiet.
const MAX_WAIT: Duration = Duration::from_millis(600);

/// Told of every change that was put in force or refused. Must not block.
pub type ChangeHook = Box<dyn Fn(ConfigChangedEvent) + Send + Sync>;

/// The configuration in force, kept up to date by [`Publisher::run`].
#[derive(Debug)]
pub struct Publisher {
    file: PathBuf,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: tokio::sync::watch::Sender<Arc<Snapshot>>,
    state: Arc<ArcSwap<ReloadState>>,
    trigger: Arc<Notify>,
    watch: Watch,
    /// What the files say, and the hash of their contents: as they were last good.
    base: Arc<Snapshot>,
    in_force: String,
    /// What they were made of. `None` has everything read anew.
    known: Option<Known>,
    /// That the files are to be looked at once more.
    again: Notify,
    /// Puts an API server's objects on top of it.
    overlay: Option<Overlay>,
    /// Hash of the contents that were refused last, so that each is reported once.
    refused: Option<String>,
    /// Secret files of which it was said already that others may read them.
    exposed: HashSet<PathBuf>,
}

/// The task that keeps the configuration up to date has failed.
#[derive(Debug, thiserror::Error)]
pub enum PublisherError {
    #[error("reading the configuration ended abnormally: {0}")]
    Reading(#[from] tokio::task::JoinError),
}

impl Publisher {
    /// Reads the configuration for the first time and begins to watch its files.
    ///
    /// # Errors
    /// When it cannot be read or has mistakes: a service without a valid configuration must not start.
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let mut watch = Watch::new();
        let mut known = None;
        let attempt = load::attempt(file, InForce::default(), &mut known, clock::unix_now());
        watch.follow(&attempt.files);
        let Attempt { outcome, hash, exposed, .. } = attempt;
        let snapshot = outcome.into_snapshot()?;
        let mut publisher = Self {
            file: file.to_owned(),
            state: Arc::new(ArcSwap::from_pointee(ReloadState::first(snapshot.version(), clock::unix_now()))),
            snapshot: Arc::new(ArcSwap::new(Arc::clone(&snapshot))),
            base: Arc::clone(&snapshot),
            overlay: None,
            changes: tokio::sync::watch::Sender::new(snapshot),
            trigger: Arc::default(),
            watch,
            in_force: hash,
            known,
            again: Notify::new(),
            refused: None,
            exposed: HashSet::new(),
        };
        publisher.warn_of_exposed(exposed);
        Ok(publisher)
    }

    /// Lets the objects of the API server `source` be part of the configuration. To be called before [`Publisher::run`].
    pub fn follow_objects(&mut self, source: ClusterSource, incoming: Incoming) -> ObjectViews {
        let (overlay, views) = Overlay::new(source, incoming);
        self.overlay = Some(overlay);
        views
    }

    /// Where every check reads the snapshot in force.
    pub fn snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.snapshot)
    }

    /// Wakes on every new snapshot.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<Arc<Snapshot>> {
        self.changes.subscribe()
    }

    /// How the last change went.
    pub fn state(&self) -> Arc<ArcSwap<ReloadState>> {
        Arc::clone(&self.state)
    }

    /// Makes the running publisher read all of its files now (SIGHUP), whatever the system says of them.
    pub fn trigger(&self) -> Arc<Notify> {
        Arc::clone(&self.trigger)
    }

    /// Follows the files until `stop`. The first call of the hook tells of the configuration that is in force at the start.
    ///
    /// # Errors
    /// When reading panicked: the service must end rather than go on with a configuration that nobody renews.
    pub async fn run(mut self, hook: ChangeHook, stop: CancellationToken) -> Result<(), PublisherError> {
        hook(applied(self.snapshot.load().version()));
        // What changed between the first reading and now left no event.
        self.reload(&hook).await?;
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.watch.changed() => self.watch.settle(QUIET, MAX_WAIT).await,
                () = self.trigger.notified() => self.known = None,
                () = self.again.notified() => {}
                () = changed(&mut self.overlay) => {
                    self.lay_over(&hook).await?;
                    continue;
                }
                _ = poll.tick() => {
                    if !self.watch.files_differ() {
                        continue;
                    }
                    self.watch.settle(QUIET, MAX_WAIT).await;
                }
            }
            self.reload(&hook).await?;
        }
    }

    async fn reload(&mut self, hook: &ChangeHook) -> Result<(), PublisherError> {
        // The state of the files before they are read: what changes meanwhile is seen at the next look.
        self.watch.note_files();
        let (file, hash, before) = (self.file.clone(), self.in_force.clone(), Arc::clone(self.base.config()));
        let mut known = self.known.take();
        let reading = move || {
            let attempt = load::attempt(&file, InForce { hash: &hash, config: Some(&before) }, &mut known, clock::unix_now());
            (attempt, known)
        };
        let (attempt, known) = tokio::task::spawn_blocking(reading).await?;
        self.known = known;
        if self.watch.follow(&attempt.files) {
            // A file that was not followed while it was read may have changed since.
            self.again.notify_one();
        }
        self.warn_of_exposed(attempt.exposed);
        match attempt.outcome {
            Outcome::Unchanged => self.keep(),
            Outcome::Valid(snapshot) => self.take_files(snapshot, attempt.hash, hook).await?,
            Outcome::Refused(error) if self.refused.as_ref() != Some(&attempt.hash) => self.refuse(&error, attempt.hash, hook),
            Outcome::Refused(_) => {}
        }
        Ok(())
    }

    /// The contents are those in force; a refused change in between was taken back.
    fn keep(&mut self) {
        if self.refused.take().is_some() {
            tracing::info!(config.version = self.snapshot.load().version(), "config.restored");
            let state = ReloadState::clone(&self.state.load()).restored(clock::unix_now());
            self.state.store(Arc::new(state));
        }
    }

    /// What the files say is good.
    async fn take_files(&mut self, files: Arc<Snapshot>, hash: String, hook: &ChangeHook) -> Result<(), PublisherError> {
        let restart = restart_needed(self.base.config(), files.config());
        if !restart.is_empty() {
            tracing::warn!(config.keys = restart.join(", "), "config.restart_needed");
        }
        (self.base, self.in_force, self.refused) = (files, hash, None);
        self.put_in_force(hook, |state, version| state.applied(version, restart, clock::unix_now())).await
    }

    /// What the API server's objects say has changed.
    async fn lay_over(&mut self, hook: &ChangeHook) -> Result<(), PublisherError> {
        self.put_in_force(hook, |state, version| state.with_objects(version, clock::unix_now())).await
    }

    async fn put_in_force(
        &mut self,
        hook: &ChangeHook,
        state: impl FnOnce(ReloadState, &str) -> ReloadState,
    ) -> Result<(), PublisherError> {
        let laid = match &mut self.overlay {
            Some(overlay) => Some(overlay.lay_over(&self.base, &self.in_force).await?),
            None => None,
        };
        let snapshot = Arc::clone(laid.as_ref().map_or(&self.base, |laid| &laid.snapshot));
        let before = self.snapshot.load_full();
        if snapshot.version() != before.version() {
            tracing::info!(config.version = snapshot.version(), config.previous_version = before.version(), "config.applied");
            self.snapshot.store(Arc::clone(&snapshot));
            self.changes.send_replace(Arc::clone(&snapshot));
            hook(applied(snapshot.version()));
            let state = state(ReloadState::clone(&self.state.load()), snapshot.version());
            self.state.store(Arc::new(state));
        }
        let new = self.overlay.as_mut().zip(laid).map(|(overlay, laid)| overlay.tell(laid)).unwrap_or_default();
        if !new.is_empty() {
            hook(ConfigChangedEvent { outcome: "rejected", version: snapshot.version().to_owned(), errors: new });
        }
        Ok(())
    }

    fn refuse(&mut self, error: &LoadError, hash: String, hook: &ChangeHook) {
        let version = self.snapshot.load().version().to_owned();
        tracing::error!(config.version = version, config.errors = %error, "config.rejected");
        let errors = error.lines();
        let state = ReloadState::clone(&self.state.load()).rejected(errors.clone(), clock::unix_now());
        self.state.store(Arc::new(state));
        self.refused = Some(hash);
        hook(ConfigChangedEvent { outcome: "rejected", version, errors });
    }

    fn warn_of_exposed(&mut self, files: Vec<Exposed>) {
        for Exposed { file, why } in files {
            if self.exposed.insert(file.clone()) {
                tracing::warn!(file = %file.display(), why, "config.secret_file_readable_by_others");
            }
        }
    }
}

/// Waits for the objects of an API server; for ever where there is none.
async fn changed(overlay: &mut Option<Overlay>) {
    match overlay {
        Some(overlay) => overlay.changed().await,
        None => std::future::pending().await,
    }
}

fn applied(version: &str) -> ConfigChangedEvent {
    ConfigChangedEvent { outcome: "applied", version: version.to_owned(), errors: Vec::new() }
}
