//! The live sessions, part by part: those in memory first, which need no disk, then those that have to be read.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{BoxStream, try_unfold};
use tonic::Status;

use crate::server::admin::v1::{ListSessionsResponse, Session as ListedSession};
use crate::server::sessions::Sessions;
use crate::session::{Session, SessionId};

/// Sessions in one part of those that are in memory.
const PART: usize = 256;

/// A listing under way.
struct Listing {
    sessions: Sessions,
    /// All when empty.
    user: String,
    /// What is in memory and was not told yet.
    awake: Vec<Arc<Session>>,
    told: HashSet<SessionId>,
    /// Where reading goes on; none when all is read.
    next: Option<Option<SessionId>>,
}

/// Those of `user`, or all when that is empty; in no order.
pub(super) fn list(sessions: &Sessions, user: String) -> BoxStream<'static, Result<ListSessionsResponse, Status>> {
    let awake = sessions.table().awake();
    let told: HashSet<SessionId> = awake.iter().map(|session| session.id).collect();
    // Where all are in memory, a store that cannot be read is no hindrance.
    let next = (sessions.table().len() > told.len()).then_some(None);
    let listing = Listing { sessions: sessions.clone(), user, awake, told, next };
    try_unfold(listing, |listing| listing.part()).boxed()
}

impl Listing {
    async fn part(mut self) -> Result<Option<(ListSessionsResponse, Self)>, Status> {
        let sessions = if !self.awake.is_empty() {
            let rest = self.awake.len().saturating_sub(PART);
            let some = self.awake.split_off(rest);
            some.iter().filter(|session| self.is_wanted(session)).map(|session| listed(session)).collect()
        } else if let Some(after) = self.next {
            let read = self.sessions.store().sessions(after).await;
            let page = read.map_err(|error| Status::unavailable(format!("not all sessions can be read: {error}")))?;
            self.next = page.next.map(Some);
            let untold = |session: &&Session| !self.told.contains(&session.id) && self.is_wanted(session);
            page.read.iter().filter(untold).map(listed).collect()
        } else {
            return Ok(None);
        };
        Ok(Some((ListSessionsResponse { sessions }, self)))
    }

    fn is_wanted(&self, session: &Session) -> bool {
        self.sessions.table().holds(&session.id) && (self.user.is_empty() || session.identity.username == self.user)
    }
}

fn listed(session: &Session) -> ListedSession {
    ListedSession {
        id: session.id.to_string(),
        user: session.identity.username.clone(),
        identity_provider: session.identity.principal.idp.clone(),
        groups: session.identity.groups.as_slice().to_vec(),
        created_at: session.created_at,
        expires_at: session.expires_at,
        client: session.client.clone(),
        source_ip: session.source_ip.clone(),
    }
}
