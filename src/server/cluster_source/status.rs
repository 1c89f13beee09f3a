//! Writes what became of each object into its status: only what changed, only while the Lease is held, and not faster than an API server likes.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::book::Book;
use super::held::{SeenStatus, Watched, version_of};
use super::kinds::{Condition, Status};
use super::tracker::Tracker;
use super::watch::resource_of;
use super::{ClusterSource, ProgressReader, health};
use crate::config::objects::{Judged, Kind, ObjectId, Verdict, conditions};

/// Who has written a field, for the API server.
const FIELD_MANAGER: &str = "kubepass";
/// How often it is looked at which Envoys have what.
const LOOK: Duration = Duration::from_millis(500);
/// Statuses that are written at one time, and in one round; then there is a pause.
const AT_ONCE: usize = 4;
const IN_A_ROUND: usize = 50;
const PAUSE: Duration = Duration::from_secs(1);
/// Before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// A status that is to be written.
#[derive(Debug, Clone, PartialEq)]
struct Due {
    id: ObjectId,
    uid: String,
    status: Status,
}

impl ClusterSource {
    pub(super) async fn write_statuses(&self, mut judged: watch::Receiver<Arc<Judged>>, progress: ProgressReader) {
        let mut tracker = Tracker::default();
        let mut leading = self.leading.subscribe();
        let mut told = None;
        loop {
            let now = Instant::now();
            let current = Arc::clone(&judged.borrow_and_update());
            tracker.look(&current, &progress(), now);
            if *leading.borrow_and_update() {
                let due = due(&current, &tracker, &self.book, now);
                let (round, more) = (due.len().min(IN_A_ROUND), due.len() > IN_A_ROUND);
                let failed = self.write(due.into_iter().take(round)).await;
                // One line for what goes wrong in the same way again and again.
                if let Some(error) = failed.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                    tracing::warn!(error, "cluster_source.status_not_written");
                }
                told = failed;
                if more || told.is_some() {
                    sleep(if told.is_some() { RETRY } else { PAUSE }).await;
                    continue;
                }
            }
            tokio::select! {
                changed = judged.changed() => if changed.is_err() { return },
                _ = leading.changed() => {}
                () = self.book.changed.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Writes some; what went wrong first, if anything did.
    async fn write(&self, due: impl Iterator<Item = Due>) -> Option<String> {
        let written: Vec<_> = stream::iter(due).map(|due| self.write_one(due)).buffered(AT_ONCE).collect().await;
        written.into_iter().find_map(Result::err)
    }

    async fn write_one(&self, due: Due) -> Result<(), String> {
        let Due { id, uid, status } = due;
        let resource = resource_of(Watched::Object(id.kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &id.namespace, &resource);
        // The uid: what was judged is not what another object of that name says.
        let patch = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": id.name, "namespace": id.namespace, "uid": uid}, "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&id.name, &parameters, &Patch::Apply(&patch)).await {
            Ok(object) => {
                self.book.wrote(id, SeenStatus { uid, version: version_of(&object), status: Some(status) });
                Ok(())
            }
            // It is gone, or was made anew: then there is another verdict soon.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(error) => Err(health::whole(&error)),
        }
    }
}

fn due(judged: &Judged, tracker: &Tracker, book: &Book, now: Instant) -> Vec<Due> {
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    judged.verdicts.iter().filter_map(|verdict| due_of(verdict, tracker, book, now, &time)).collect()
}

/// `None` when the status says it already, and for a kind without one.
fn due_of(verdict: &Verdict, tracker: &Tracker, book: &Book, now: Instant, time: &str) -> Option<Due> {
    if verdict.id.kind == Kind::Grant {
        return None;
    }
    let before = book.status_of(&verdict.id, &verdict.uid)?;
    let status = status_of(verdict, tracker, &before, now, time);
    let says = |status: &Status| status.conditions.clone().unwrap_or_default();
    let missing = says(&status).iter().any(|condition| !says(&before).contains(condition));
    let same = !missing && before.observed_generation == status.observed_generation;
    (!same).then(|| Due { id: verdict.id.clone(), uid: verdict.uid.clone(), status })
}

fn status_of(verdict: &Verdict, tracker: &Tracker, before: &Status, now: Instant, time: &str) -> Status {
    let said = before.conditions.as_deref().unwrap_or_default();
    let conditions = conditions(verdict, &tracker.programmed(&verdict.id, now)).into_iter().map(|condition| {
        let status = condition.status.name().to_owned();
        let earlier = said.iter().find(|said| said.r#type == condition.kind && said.status == status);
        Condition {
            r#type: condition.kind.to_owned(),
            status,
            observed_generation: Some(verdict.generation),
            last_transition_time: earlier.map_or_else(|| time.to_owned(), |earlier| earlier.last_transition_time.clone()),
            reason: condition.reason.to_owned(),
            message: condition.message,
        }
    });
    Status { observed_generation: Some(verdict.generation), conditions: Some(conditions.collect()) }
}
