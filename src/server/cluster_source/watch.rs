//! The watches: lists, follows, lists again after 410 or an outage, and hands on what is whole, not more often than a few times a second.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{SelectAll, Stream, StreamExt};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ClusterSource;
use super::held::{Changed, Held, Watched};
use crate::config::MaterialKind;
use crate::config::objects::{Kind, USE_LABEL};

/// Quiet time after a change, so that what is applied together is judged together, and the longest wait for it.
const QUIET: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Between two tries when the API server is away: the first, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(4);
/// A watch ends after this and begins again where it was: a connection that died without a word is noticed by then.
const WATCH_SECONDS: u32 = 120;

type Events = Pin<Box<dyn Stream<Item = (usize, watcher::Result<Event<DynamicObject>>)> + Send>>;

/// Doubles up to the longest.
#[derive(Debug)]
struct Retry(Duration);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.0;
        self.0 = (now * 2).min(LAST_RETRY);
        Some(now)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = FIRST_RETRY;
    }
}

impl ClusterSource {
    /// Follows the API server for ever.
    pub(super) async fn follow(&self) {
        let watches = self.watches();
        let mut held = Held::new(watches.iter().map(|(watched, _)| *watched), &self.settings.namespace);
        let mut events: SelectAll<Events> =
            watches.into_iter().enumerate().map(|(index, (watched, api))| events(index, watched, api)).collect();
        loop {
            let Some(first) = events.next().await else { return };
            let mut changed = self.take(&mut held, first);
            // Everything up to a pause, or to the end of the longest wait.
            let end = Instant::now() + MAX_WAIT;
            while let Ok(Some(event)) = timeout_at(end.min(Instant::now() + QUIET), events.next()).await {
                changed = changed.and(self.take(&mut held, event));
            }
            if changed.statuses {
                self.book.saw(held.statuses());
            }
            if changed.content && held.is_whole() {
                let objects = Arc::new(held.objects());
                self.objects.send_if_modified(|before| {
                    let new = before.as_ref() != Some(&objects);
                    *before = Some(objects);
                    new
                });
                // The pace: what comes meanwhile waits.
                sleep_until(Instant::now() + QUIET).await;
            }
        }
    }

    fn take(&self, held: &mut Held, (index, event): (usize, watcher::Result<Event<DynamicObject>>)) -> Changed {
        match event {
            Ok(event) => {
                let changed = held.take(index, event);
                self.health.answered(index, held.awaited());
                changed
            }
            Err(error) => {
                self.health.failed(index, &error, held.awaited());
                Changed::default()
            }
        }
    }

    /// Each kind in each namespace, or everywhere.
    fn watches(&self) -> Vec<(Watched, Api<DynamicObject>)> {
        let namespaces: Vec<Option<&str>> = match &self.settings.namespaces {
            Some(namespaces) => namespaces.iter().map(|namespace| Some(namespace.as_str())).collect(),
            None => vec![None],
        };
        let objects = Kind::ALL.map(Watched::Object);
        let materials = [MaterialKind::Secret, MaterialKind::ConfigMap].map(Watched::Material);
        let kinds = objects.into_iter().chain(materials);
        kinds
            .flat_map(|watched| {
                let resource = resource_of(watched);
                namespaces.iter().map(move |namespace| (watched, api(self.client.clone(), *namespace, &resource))).collect::<Vec<_>>()
            })
            .collect()
    }
}

pub(super) fn resource_of(watched: Watched) -> ApiResource {
    match watched {
        Watched::Object(kind) => {
            let plural = match kind {
                Kind::Route => "routes",
                Kind::Policy => "policies",
                Kind::Gateway => "gateways",
                Kind::Grant => "grants",
            };
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("kubepass.dev", "v1alpha1", kind.name()), plural)
        }
        Watched::Material(kind) => {
            let plural = match kind {
                MaterialKind::Secret => "secrets",
                MaterialKind::ConfigMap => "configmaps",
            };
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", kind.name()), plural)
        }
    }
}

fn api(client: kube::Client, namespace: Option<&str>, resource: &ApiResource) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

fn events(index: usize, watched: Watched, api: Api<DynamicObject>) -> Events {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let config = match watched {
        Watched::Object(_) => config,
        Watched::Material(_) => config.labels(&format!("{USE_LABEL}=true")),
    };
    let events = kube::runtime::watcher(api, config).backoff(Retry(FIRST_RETRY));
    events.map(move |event| (index, event)).boxed()
}
