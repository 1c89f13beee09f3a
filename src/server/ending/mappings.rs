//! The end of sessions whose person the configuration makes another of, or nobody: a session says what the mapping of its identity provider made of
//! the login's claims, and a prefix that keeps two providers apart, a condition or a list of domains that came since would otherwise count for
//! nobody who was there before. A provider that is gone is `access::decide`'s matter: it vouches for nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SessionEnder;
use crate::config::IdentityProvider;
use crate::server::store::StoreError;
use crate::session::Session;
use crate::snapshot::Snapshot;

/// What such an end is called in the trail.
const IDENTITY_CHANGED: &str = "identity_changed";
/// Sessions that are looked at before others have a turn: a mapping may be some work.
const TOGETHER: usize = 16;
/// How often a store that cannot be read is tried again. Until then each session at rest is judged when it is read.
const RETRY: Duration = Duration::from_secs(1);

/// Ends them at the start, for the configuration may have changed meanwhile, and at each change of a mapping: those in memory at once, those that
/// rest one after the other. Whoever reads one of these before asks [`is_still`] first.
///
/// # Errors
/// When nobody publishes configurations any more.
pub async fn follow(
    ender: SessionEnder,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) -> Result<(), &'static str> {
    let mut before: Option<Arc<Snapshot>> = None;
    let mut concerned = BTreeSet::new();
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let providers = snapshot.config().identity_providers.iter();
        let changed = providers.filter(|provider| before.as_ref().is_none_or(|before| is_changed(before, provider)));
        concerned.extend(changed.map(|provider| provider.name.clone()));
        let interrupted = || stop.is_cancelled() || snapshots.has_changed().unwrap_or(true);
        match end_others(&ender, &snapshot, &concerned, interrupted).await {
            Ok(true) => concerned.clear(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "not all sessions can be compared with the configuration yet"),
        }
        before = Some(snapshot);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = snapshots.changed() => changed.map_err(|_| "the publisher has ended")?,
            () = tokio::time::sleep(RETRY), if !concerned.is_empty() => {}
        }
    }
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
        if let Err(error) = self.end(&session.id, Some(&session.identity.username), IDENTITY_CHANGED).await {
            tracing::warn!(%error, session = %session.id, "the end of a session is not whole");
        }
    }
}

/// Says whether it has come to an end.
async fn end_others(
    ender: &SessionEnder,
    snapshot: &Snapshot,
    concerned: &BTreeSet<String>,
    interrupted: impl Fn() -> bool,
) -> Result<bool, StoreError> {
    if concerned.is_empty() {
        return Ok(true);
    }
    let (sessions, mut ended) = (ender.sessions(), 0);
    let is_other = |session: &Session| {
        concerned.contains(&session.identity.principal.idp) && sessions.table().holds(&session.id) && !is_still(snapshot, session)
    };
    for session in sessions.table().awake().iter().filter(|session| is_other(session)) {
        ender.end_changed(session).await;
        ended += 1;
    }
    let mut after = None;
    let whole = loop {
        let page = sessions.store().sessions(after).await?;
        for some in page.read.chunks(TOGETHER) {
            for session in some.iter().filter(|session| is_other(session)) {
                ender.end_changed(session).await;
                ended += 1;
            }
            tokio::task::yield_now().await;
        }
        after = page.next;
        if after.is_none() {
            break true;
        }
        if interrupted() {
            break false;
        }
    };
    if ended > 0 {
        tracing::warn!(
            sessions.ended = ended,
            "sessions ended, for the configuration makes other identities of their log-ins now, or none"
        );
    }
    Ok(whole)
}

fn is_changed(before: &Snapshot, provider: &IdentityProvider) -> bool {
    before.identity_provider(&provider.name).is_none_or(|before| !before.mapping.is_same_as(&provider.mapping))
}
