//! Builds all of it in order, binds, and returns a running `App`: the one composition root, for the program and for tests.

mod cluster;
mod health;
mod housekeeping;
mod paths;
mod readiness;
mod serving;
mod state;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config::StoreSettings;
use crate::defence;
use crate::server::admin::http::{Condition, Readiness};
use crate::server::ads::{Admission, AdsState, announce_drains};
use crate::server::clock;
use crate::server::cluster_source::ConnectError;
use crate::server::door::DoorError;
use crate::server::ending::{SessionEnder, mappings};
use crate::server::lifecycle::{Failures, TaskFailure, Tasks};
use crate::server::live_streams::LiveStreams;
use crate::server::managed_envoy::{self, EnvoyMetrics, EnvoyProgram, LocateError, SelfTestFailure, Settings};
use crate::server::oidc::Providers;
use crate::server::publisher::{LoadError, Publisher};
use crate::server::sessions::Sessions;
use crate::server::signing::{Signing, SigningError};
use crate::server::store::{Store, StoreError};
use crate::server::telemetry::Metrics;
use crate::server::trail::Trail;
use crate::server::unix_socket::SocketError;
use crate::session::SessionId;
use crate::snapshot::Snapshot;
use crate::xds::resource::InvalidResource;
use crate::xds::resources::{Maker, NodeResources};
use cluster::{Built, Cluster};
pub use paths::Unsafe;

/// How often an identity provider that is away is tried again.
const IDP_RETRY: Duration = Duration::from_secs(30);

/// What a start needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: PathBuf,
    pub envoy: WhichEnvoy,
}

/// Who starts Envoy.
#[derive(Debug, Clone)]
pub enum WhichEnvoy {
    /// kubepass does, and supervises it: this program, or else the first on `PATH`.
    Managed(Option<PathBuf>),
    /// Others do, as many as they like: of versions that were tested, or that the configuration names.
    Others,
}

/// Why kubepass does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration is not valid:\n{0}")]
    Config(#[from] LoadError),
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    #[error("the audit trail cannot be opened: {0}")]
    Trail(std::io::Error),
    #[error("the session store cannot be opened: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("a local socket cannot be bound: {0}")]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(
        "`up` starts an Envoy that needs listeners, and the configuration has none but those of gateways: use `serve`, or write top-level `listeners`"
    )]
    NoListeners,
    #[error("the admin address {address} cannot be bound: {error}")]
    AdminAddress { address: SocketAddr, error: std::io::Error },
    #[error("no Envoy to run: {0}")]
    Envoy(#[from] LocateError),
    #[error("this Envoy is not served: {0}")]
    SelfTest(#[from] SelfTestFailure),
    #[error("the API server of `cluster_source` cannot be watched: {0}")]
    ClusterSource(#[from] ConnectError),
    #[error("Envoy's resources cannot be built: {0}")]
    Resources(#[from] InvalidResource),
}

/// A running kubepass.
#[derive(Debug)]
pub struct App {
    tasks: Tasks,
    failures: Failures,
    readiness: Arc<Readiness>,
    /// Where metrics and readiness are answered.
    pub admin_address: SocketAddr,
}

/// What the tasks share.
struct Parts {
    snapshot: Arc<arc_swap::ArcSwap<Snapshot>>,
    publisher: Publisher,
    cluster: Option<Cluster>,
    built: watch::Sender<Built>,
    trail: Trail,
    store: Store,
    signing: Arc<Signing>,
    sessions: Sessions,
    /// Sessions whose time was over before the start.
    expired: Vec<SessionId>,
    streams: Arc<LiveStreams>,
    oidc: Arc<Providers>,
    ads: AdsState,
    envoy: EnvoyMetrics,
    metrics: Arc<Metrics>,
}

impl App {
    /// Starts everything. Returns when all is bound and a managed Envoy is on its way; readiness comes when that has acknowledged its listener.
    ///
    /// # Errors
    /// `StartError`; nothing is left running.
    pub async fn start(options: &Options) -> Result<Self, StartError> {
        let parts = Parts::build(options).await?;
        let program = match &options.envoy {
            WhichEnvoy::Managed(path) => Some(tried(path.as_deref()).await?),
            WhichEnvoy::Others => None,
        };
        if program.is_some() && parts.snapshot.load().config().listeners.is_empty() {
            return Err(StartError::NoListeners);
        }
        let (tasks, failures) = Tasks::new();
        let readiness = Arc::new(parts.readiness(&tasks, program.is_some()));
        let allowed = parts.snapshot.load().config().control_plane.allow_envoy_versions.clone();
        let admission = match &options.envoy {
            WhichEnvoy::Managed(_) => Admission::Tried { allowed },
            WhichEnvoy::Others => Admission::Tested { allowed },
        };
        let admin_address = parts.serve(admission, &tasks, &readiness)?;
        if let Some(program) = program {
            let settings = Settings::new(program.path, parts.snapshot.load().config().control_plane.socket_dir.clone());
            let streams = Arc::clone(&parts.streams);
            // It has no name.
            let ended = move || streams.forget_those_of(None);
            // It ends first: open streams and the requests of its last connections need all the others.
            tasks.spawn_first("envoy", managed_envoy::run(settings, parts.envoy.clone(), ended, tasks.draining()));
        }
        parts.work(&tasks);
        tracing::info!(admin.address = %admin_address, "kubepass runs");
        Ok(Self { tasks, failures, readiness, admin_address })
    }

    /// Names of what readiness still waits for.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.readiness.awaited()
    }

    /// Runs until `stop` or the failure of a task, then drains.
    ///
    /// # Errors
    /// The task that ended although nobody asked it to.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), TaskFailure> {
        let failure = tokio::select! {
            () = stop => None,
            failure = self.failures.first() => Some(failure),
        };
        if !self.tasks.drain().await {
            tracing::warn!("not everything ended in time");
        }
        // A part that broke while the drain went on is a failure as well.
        failure.or_else(|| self.failures.any()).map_or(Ok(()), Err)
    }
}

/// The Envoy to run, after it was seen that it does as the identity path needs.
async fn tried(path: Option<&Path>) -> Result<EnvoyProgram, StartError> {
    let program = managed_envoy::locate(path).await?;
    match managed_envoy::self_test(&program.path).await {
        Err(SelfTestFailure::Differs(differences)) if defence::any_off() => {
            tracing::warn!(?differences, "the header self-test misses the defences that are off");
        }
        result => result?,
    }
    tracing::info!(envoy.path = %program.path.display(), envoy.version = program.version, "this Envoy treats headers as we rely on");
    Ok(program)
}

/// The first random bytes of a process cost the library some 80 ms of jitter measurements, which a start would stand and wait for. Begun now, on a thread of
/// its own, they are there when the first key or nonce is made; where the thread does not start, whoever needs them first waits, as without it.
fn gather_entropy() {
    let gather = || {
        let _ = aws_lc_rs::rand::fill(&mut [0; 16]);
    };
    let _ = std::thread::Builder::new().name("entropy".into()).spawn(gather);
}

impl Parts {
    async fn build(options: &Options) -> Result<Self, StartError> {
        gather_entropy();
        let mut publisher = Publisher::load(&options.config)?;
        let snapshot = publisher.snapshot();
        paths::check(snapshot.load().config())?;
        let cluster = Cluster::connect(snapshot.load().config().cluster_source.as_ref(), &mut publisher).await?;
        let (config, keys) = (Arc::clone(snapshot.load().config()), Arc::clone(snapshot.load().token_keys()));
        let trail = Trail::open(&config.audit).map_err(StartError::Trail)?;
        let StoreSettings::Embedded { path } = &config.sessions.store;
        let store = Store::open(path, keys)?;
        let signing = Signing::open(&config, &store, clock::unix_now()).await?;
        let (sessions, found) = Sessions::at_rest(store.clone(), clock::unix_now()).await?;
        tracing::info!(sessions.live = found.live, sessions.expired = found.expired.len(), "sessions found");
        if found.refused > 0 {
            tracing::warn!(sessions.refused = found.refused, "there are more stored sessions than are taken");
        }
        let current = Arc::clone(&snapshot);
        let sessions = sessions.judged_by(move |session| mappings::is_still(&current.load(), session));
        let parts = Self {
            snapshot,
            publisher,
            cluster,
            built: watch::Sender::default(),
            trail,
            store,
            signing,
            sessions,
            expired: found.expired,
            streams: Arc::default(),
            oidc: Arc::default(),
            ads: AdsState::default(),
            envoy: EnvoyMetrics::default(),
            metrics: Arc::default(),
        };
        parts.ads.register(&parts.metrics);
        parts.envoy.register(&parts.metrics);
        parts.signing.register(&parts.metrics);
        parts.metrics.register_collector(health::Health::of(&parts));
        Ok(parts)
    }

    /// `managed`: with an Envoy of our own, traffic may come when that takes it. Envoys of others have a readiness of their own.
    fn readiness(&self, tasks: &Tasks, managed: bool) -> Readiness {
        let (store, trail, draining) = (self.store.clone(), self.trail.clone(), tasks.draining());
        let mut conditions = vec![Condition { name: "the end of the drain", holds: Box::new(move || !draining.is_cancelled()) }];
        if managed {
            let (listener, accepts) = (self.ads.listener_acknowledged(), readiness::Accepts::new(Arc::clone(&self.snapshot)));
            conditions.push(Condition { name: "Envoy to acknowledge its listener", holds: Box::new(move || *listener.borrow()) });
            conditions.push(Condition { name: "Envoy to accept connections", holds: Box::new(move || accepts.holds()) });
        }
        if let Some(merged) = self.cluster.as_ref().map(Cluster::merged) {
            conditions.push(Condition { name: "the API server's first whole list of objects", holds: Box::new(move || *merged.borrow()) });
        }
        conditions.push(Condition { name: "the session store", holds: Box::new(move || store.healthy()) });
        conditions.push(Condition { name: "the audit trail", holds: Box::new(move || trail.healthy()) });
        Readiness(conditions)
    }

    fn ender(&self, tasks: &Tasks) -> SessionEnder {
        SessionEnder::new(self.sessions.clone(), self.trail.clone(), tasks.errands())
    }

    /// Everything that runs in the background and answers nobody.
    fn work(self, tasks: &Tasks) {
        let ender = self.ender(tasks);
        let Self { snapshot, publisher, cluster, built, ads, trail, store, signing, sessions, expired, streams, oidc, metrics, .. } = self;
        if let Some(cluster) = cluster {
            cluster.work(ads, built.subscribe(), tasks);
        }
        let keys = signing.follow(publisher.subscribe(), store.clone(), trail.clone(), tasks.ending());
        tasks.spawn("signing-keys", keys);
        tasks.spawn("session-keys", housekeeping::follow_keys(publisher.subscribe(), store.clone(), tasks.ending()));
        tasks.spawn("session-mappings", mappings::follow(ender, publisher.subscribe(), tasks.ending()));
        tasks.spawn("session-owners", housekeeping::learn_owners(sessions.clone(), tasks.ending()));
        tasks.spawn("session-sweep", housekeeping::sweep_sessions(sessions, expired, trail.clone(), tasks.ending()));
        tasks.spawn("stream-sweep", housekeeping::sweep_streams(streams, tasks.ending()));
        tasks.spawn("session-store", housekeeping::watch_store(store, tasks.ending()));
        tasks.spawn("audit-trail", housekeeping::mend_trail(trail.clone(), tasks.ending()));
        tasks.spawn("identity-providers", housekeeping::keep_providers_fresh(oidc, snapshot, IDP_RETRY, tasks.ending()));
        tasks.spawn("hangup", housekeeping::reload_on_hangup(publisher.trigger(), tasks.ending()));
        let (changed, changes) = mpsc::unbounded_channel();
        tasks.spawn("configuration-events", housekeeping::record_changes(changes, trail, metrics, tasks.ending()));
        // The receiver lives as long as the process drains; after that nobody needs the event.
        let hook = Box::new(move |event| drop(changed.send(event)));
        tasks.spawn("configuration", publisher.run(hook, tasks.ending()));
    }

    /// Every node's resources of the snapshot in force, rebuilt with each new one. Those that cannot be built leave the last in force.
    fn resources(&self, tasks: &Tasks) -> Result<watch::Receiver<Arc<NodeResources>>, StartError> {
        let mut maker = Maker::default();
        let mut build = move |snapshot: &Snapshot| -> Result<Built, InvalidResource> {
            Ok(Built { version: snapshot.version().to_owned(), resources: Arc::new(maker.make(snapshot)?) })
        };
        let first = build(&self.snapshot.load())?;
        let (sender, receiver) = watch::channel(Arc::clone(&first.resources));
        let built = self.built.clone();
        built.send_replace(first);
        let (mut snapshots, stop) = (self.publisher.subscribe(), tasks.ending());
        tasks.spawn("envoy-resources", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = snapshots.changed() => changed.map_err(|_| "the publisher has ended")?,
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                match build(&snapshot) {
                    Ok(new) => {
                        announce_drains(&sender.borrow(), &new.resources);
                        sender.send_replace(Arc::clone(&new.resources));
                        built.send_replace(new);
                    }
                    Err(error) => tracing::error!(%error, "Envoy's resources cannot be built; it keeps the last ones"),
                }
            }
            #[allow(unreachable_code, reason = "names the error type")]
            Ok::<(), &'static str>(())
        });
        Ok(receiver)
    }

    /// Resolves when Envoys may have the configuration. An Envoy that comes back to a kubepass that was started anew must not lose what stands in
    /// objects, only because the API server has not been asked yet: until then it keeps what it has.
    fn may_serve(&self) -> impl Future<Output = ()> + Send + use<> {
        let cluster = self.cluster.as_ref().map(|cluster| (cluster.merged(), cluster.judged()));
        let mut built = self.built.subscribe();
        async move {
            let Some((mut merged, judged)) = cluster else { return };
            // Errors mean that the process is ending.
            if merged.wait_for(|merged| *merged).await.is_ok() {
                let _ = built.wait_for(|built| built.version == judged.borrow().version).await;
            }
        }
    }
}
