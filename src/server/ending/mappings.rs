//! The end of sessions whose person the configuration makes another of, or nobody: a session says what the mapping of its identity provider made of
//! the login's claims, and a prefix that keeps two providers apart, a condition or a list of domains that came since would otherwise count for
//! nobody who was there before. A provider that is gone is `access::decide`'s matter: it vouches for nobody.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SessionEnder;
use crate::config::IdentityProvider;
use crate::session::Session;
use crate::snapshot::Snapshot;

/// What such an end is called in the trail.
const IDENTITY_CHANGED: &str = "identity_changed";

/// Ends them at each change of a mapping, from `first` on.
///
/// # Errors
/// When nobody publishes configurations any more.
pub async fn follow(
    ender: SessionEnder,
    first: Arc<Snapshot>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) -> Result<(), &'static str> {
    let mut before = first;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        end_others(&ender, &snapshot, |provider| is_changed(&before, provider)).await;
        before = snapshot;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = snapshots.changed() => changed.map_err(|_| "the publisher has ended")?,
        }
    }
}

/// Ends all of them, as at a start: the configuration may have changed meanwhile.
pub async fn end_all(ender: &SessionEnder, snapshot: &Snapshot) {
    end_others(ender, snapshot, |_| true).await;
}

/// Whether the claims of the session's login make the same identity still.
pub fn is_still(snapshot: &Snapshot, session: &Session) -> bool {
    let identity = &session.identity;
    let Some(provider) = snapshot.identity_provider(&identity.principal.idp) else { return true };
    provider.mapping.map(&identity.principal.idp, &identity.claims).is_ok_and(|now| now == *identity)
}

impl SessionEnder {
    /// Ends a session that is none any more.
    pub async fn end_changed(&self, session: &Session) {
        if let Err(error) = self.end(session, IDENTITY_CHANGED).await {
            tracing::warn!(%error, session = %session.id, "the end of a session is not whole");
        }
    }
}

async fn end_others(ender: &SessionEnder, snapshot: &Snapshot, concerns: impl Fn(&IdentityProvider) -> bool) {
    let concerned: Vec<&str> =
        snapshot.config().identity_providers.iter().filter(|provider| concerns(provider)).map(|provider| provider.name.as_str()).collect();
    if concerned.is_empty() {
        return;
    }
    let mut ended = 0;
    for session in ender.sessions().list() {
        if concerned.contains(&session.identity.principal.idp.as_str()) && !is_still(snapshot, &session) {
            ender.end_changed(&session).await;
            ended += 1;
        }
    }
    if ended > 0 {
        tracing::warn!(
            sessions.ended = ended,
            "sessions ended, for the configuration makes other identities of their log-ins now, or none"
        );
    }
}

fn is_changed(before: &Snapshot, provider: &IdentityProvider) -> bool {
    before.identity_provider(&provider.name).is_none_or(|before| !before.mapping.is_same_as(&provider.mapping))
}
