//! What stands in the objects' statuses: as the watches saw it, and as it was written since.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::held::SeenStatus;
use super::kinds::Status;
use crate::config::objects::ObjectId;

#[derive(Debug)]
pub(super) struct Book {
    pages: Mutex<Pages>,
    pub(super) changed: tokio::sync::Notify,
    /// By which this process is told from others as holder of the Lease.
    identity: String,
}

#[derive(Debug, Default)]
struct Pages {
    seen: BTreeMap<ObjectId, SeenStatus>,
    /// By us, and not seen yet.
    written: HashMap<ObjectId, SeenStatus>,
}

impl Default for Book {
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "kubepass".to_owned());
        let identity = format!("{host}_{}", uuid::Uuid::new_v4());
        Self { pages: Mutex::default(), changed: tokio::sync::Notify::new(), identity }
    }
}

impl Book {
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// What the watches have of all objects.
    pub(super) fn saw(&self, seen: BTreeMap<ObjectId, SeenStatus>) {
        let mut pages = self.pages();
        pages.written.retain(|id, written| seen.get(id).is_some_and(|seen| seen.uid == written.uid && seen.version < written.version));
        pages.seen = seen;
        drop(pages);
        self.changed.notify_one();
    }

    pub(super) fn wrote(&self, id: ObjectId, status: SeenStatus) {
        self.pages().written.insert(id, status);
    }

    /// What an object's status says, as far as is known; `None` for an object that is gone or was made anew.
    pub(super) fn status_of(&self, id: &ObjectId, uid: &str) -> Option<Status> {
        let pages = self.pages();
        let seen = pages.written.get(id).or_else(|| pages.seen.get(id)).filter(|seen| seen.uid == uid)?;
        Some(seen.status.clone().unwrap_or_default())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::objects::Kind;

    fn status(version: u64, generation: i64) -> SeenStatus {
        let status = Status { observed_generation: Some(generation), conditions: None };
        SeenStatus { uid: "u".to_owned(), version, status: Some(status) }
    }

    #[test]
    fn what_was_written_counts_until_it_or_something_newer_is_seen() {
        let book = Book::default();
        let id = ObjectId { kind: Kind::Route, namespace: "shop".to_owned(), name: "web".to_owned() };
        let check = |what: &str, want: Option<i64>| {
            assert_eq!(book.status_of(&id, "u").map(|status| status.observed_generation.unwrap_or_default()), want, "{what}");
        };
        let saw = |version, generation| book.saw(BTreeMap::from([(id.clone(), status(version, generation))]));
        check("never seen", None);
        saw(5, 1);
        check("seen", Some(1));
        book.wrote(id.clone(), status(7, 2));
        check("written", Some(2));
        saw(6, 1);
        check("an older view", Some(2));
        saw(8, 3);
        check("somebody else wrote", Some(3));
        assert!(book.status_of(&id, "another").is_none(), "made anew");
        book.saw(BTreeMap::new());
        check("gone", None);
    }
}
