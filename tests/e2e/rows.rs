//! Both ways into a cluster, as the rows of one table: a story of the main job is written once and told for both at the same time. A person
//! cannot tell them apart; the API server's audit log can.

use std::panic::resume_unwind;
use std::sync::Arc;

use serde_json::Value;

use super::support::cluster::Cluster;
use super::support::world::{Method, NAMESPACE, PROD_HOST, SERVICE_ACCOUNT, STAGING_HOST, World};

/// A route of the shared installation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) route: &'static str,
    pub(super) host: &'static str,
    pub(super) method: Method,
}

pub(super) const ROWS: [Row; 2] = [
    Row { route: "prod", host: PROD_HOST, method: Method::Impersonate },
    Row { route: "staging", host: STAGING_HOST, method: Method::Jwt },
];

impl Row {
    pub(super) fn cluster<'w>(&self, world: &'w World) -> &'w Arc<Cluster> {
        match self.route {
            "prod" => &world.prod,
            _ => &world.staging,
        }
    }

    /// The other route.
    pub(super) fn other(&self) -> Row {
        if self.route == ROWS[0].route { ROWS[1] } else { ROWS[0] }
    }

    /// Whom the API server served, by its audit event; why not, when that is not how kubepass gets in on this route.
    pub(super) fn served<'e>(&self, event: &'e Value) -> Result<&'e Value, String> {
        let (user, impersonated) = (&event["user"], &event["impersonatedUser"]);
        let account = format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}");
        let (by_kubepass, served) = match self.method {
            Method::Impersonate => (user["username"] == account.as_str() && impersonated.is_object(), impersonated),
            Method::Jwt => (user["extra"]["kubepass.dev/session"].is_array() && impersonated.is_null(), user),
        };
        if by_kubepass { Ok(served) } else { Err(format!("{}: not as kubepass gets in by {:?}: {event}", self.route, self.method)) }
    }

    /// Whether the API server served that user, the way of this route.
    pub(super) fn is_for(&self, event: &Value, username: &str) -> bool {
        self.served(event).is_ok_and(|user| user["username"] == username)
    }
}

/// Tells a story for each row, both at once, since most of a story is waiting. What went wrong names its row.
pub(super) fn for_each_row(world: &World, story: impl Fn(&World, Row) + Sync) {
    std::thread::scope(|scope| {
        let story = &story;
        let told = ROWS.map(|row| {
            let thread = std::thread::Builder::new().name(format!("{:?}", row.method));
            thread.spawn_scoped(scope, move || story(world, row)).expect("a thread")
        });
        // Both end before the first failure is passed on.
        if let Some(failure) = told.map(|row| row.join().err()).into_iter().flatten().next() {
            resume_unwind(failure);
        }
    });
}
