//! kubepass's own kinds in an API server as configuration: watches them and the Secrets and ConfigMaps that they name, hands all of it to the
//! publisher, and writes back what became of each.
//!
//! While the API server is away what it said last stays. Several kubepass may watch; one of them, the holder of a Lease, writes. It judges
//! nothing: that is `config::objects`.

pub mod crds;
pub mod kinds;

mod book;
mod health;
mod held;
mod lease;
mod status;
mod tracker;
mod watch;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::config::objects::{Judged, Objects};
use book::Book;

pub use health::{Health, Seen};
pub use tracker::{NodeProgress, Progress};

/// An API server that does not even take a connection within this time is away.
const CONNECT: Duration = Duration::from_secs(5);

/// How far the connected Envoys are, each time it is asked.
pub type ProgressReader = Arc<dyn Fn() -> Progress + Send + Sync>;

/// What the API server has, `None` before the first whole list.
pub type ObjectsReceiver = tokio::sync::watch::Receiver<Option<Arc<Objects>>>;

/// Why the API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the kubeconfig {0} cannot be used: {1}")]
    Kubeconfig(PathBuf, String),
    #[error("this is no pod with a service account, and `cluster_source` names no kubeconfig: {0}")]
    NoPod(#[from] InClusterError),
    #[error("no client can be made: {0}")]
    Client(#[from] Box<kube::Error>),
}

/// Without what stands around a mistake, which the parser would show: it may be a token.
fn in_words(error: &KubeconfigError) -> String {
    let KubeconfigError::Parse(error) = error else { return error.to_string() };
    match error.location() {
        Some(at) => format!("line {}, column {}: it is no kubeconfig", at.line(), at.column()),
        None => "it is no kubeconfig".to_owned(),
    }
}

/// One API server, watched.
pub struct ClusterSource {
    client: Client,
    settings: config::ClusterSource,
    objects: tokio::sync::watch::Sender<Option<Arc<Objects>>>,
    book: Book,
    health: Health,
    leading: tokio::sync::watch::Sender<bool>,
}

impl std::fmt::Debug for ClusterSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClusterSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ClusterSource {
    /// Reads how the API server is reached; it is not asked yet. The token of a pod's service account is read again as it is renewed.
    ///
    /// # Errors
    /// `ConnectError`.
    pub async fn connect(settings: &config::ClusterSource) -> Result<Self, ConnectError> {
        let mut config = match &settings.kubeconfig {
            Some(path) => {
                let unusable = |error| ConnectError::Kubeconfig(path.clone(), in_words(&error));
                let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?
            }
            None => kube::Config::incluster()?,
        };
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).map_err(Box::new)?;
        let (objects, leading) = (tokio::sync::watch::Sender::default(), tokio::sync::watch::Sender::default());
        let (book, health) = (Book::default(), Health::default());
        Ok(Self { client, settings: settings.clone(), objects, book, health, leading })
    }

    pub fn objects(&self) -> ObjectsReceiver {
        self.objects.subscribe()
    }

    /// How the watches fare, for the state page.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Watches, and writes statuses while it holds the Lease, until `stop`.
    ///
    /// # Errors
    /// Never: an API server that is away is waited for.
    pub async fn run(
        self,
        judged: tokio::sync::watch::Receiver<Arc<Judged>>,
        progress: ProgressReader,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
            () = self.hold_lease() => {}
            () = self.write_statuses(judged, progress) => {}
        }
        self.release_lease().await;
        Ok(())
    }
}
