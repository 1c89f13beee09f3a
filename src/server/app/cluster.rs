//! The objects of an API server as a part of the configuration: the watcher, the publisher and the Envoys, put together.

use std::sync::Arc;

use tokio::sync::watch;

use super::StartError;
use crate::config::ClusterSource as Settings;
use crate::config::objects::Judged;
use crate::server::ads::AdsState;
use crate::server::cluster_source::{ClusterSource, Health, NodeProgress, Progress};
use crate::server::lifecycle::Tasks;
use crate::server::publisher::{ObjectViews, Publisher};
use crate::xds::resources::NodeResources;

/// What the start makes of `cluster_source`.
pub(super) struct Cluster {
    source: ClusterSource,
    pub(super) health: Health,
    pub(super) views: ObjectViews,
}

/// Envoy's resources, and the version of the snapshot that they were made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Built {
    pub(super) version: String,
    pub(super) resources: Arc<NodeResources>,
}

impl Cluster {
    pub(super) async fn connect(settings: Option<&Settings>, publisher: &mut Publisher) -> Result<Option<Self>, StartError> {
        let Some(settings) = settings else { return Ok(None) };
        let source = ClusterSource::connect(settings).await?;
        let views = publisher.follow_objects(settings.clone(), source.objects());
        Ok(Some(Self { health: source.health(), source, views }))
    }

    /// Whether the objects are part of the configuration in force.
    pub(super) fn merged(&self) -> watch::Receiver<bool> {
        self.views.merged.clone()
    }

    pub(super) fn judged(&self) -> watch::Receiver<Arc<Judged>> {
        self.views.judged.clone()
    }

    pub(super) fn work(self, ads: AdsState, built: watch::Receiver<Built>, tasks: &Tasks) {
        let progress = Arc::new(move || {
            let Built { version, resources } = built.borrow().clone();
            let takers = ads.takers(|node| resources.of_claimed(node)).into_iter();
            let nodes = takers.map(|taker| NodeProgress {
                view: resources.claimed(&taker.node).clone(),
                name: taker.node,
                up_to_date: taker.has_all,
                refusal: taker.refusal,
            });
            Progress { version, nodes: nodes.collect() }
        });
        tasks.spawn("cluster-source", self.source.run(self.views.judged, progress, tasks.ending()));
    }
}
