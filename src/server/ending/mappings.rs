//! The end of sessions whose person the configuration makes another of, or nobody: a session says what the mapping of its identity provider made of
//! the login's claims, and a prefix that keeps two providers apart, a condition or a list of domains that came since would otherwise count for
//! nobody who was there before. The same holds where another issuer stands under the provider's name: its subjects are other people. A provider that
//! is gone is `access::decide`'s matter: it vouches for nobody.
//!
//! Each session is judged by the configuration in force at that moment, never by the one that began this work: who logs in meanwhile does so by a
//! newer one, and must not be ended for what an older one says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::SessionEnder;
use crate::config::IdentityProvider;
use crate::server::store::StoreError;
use crate::session::Session;
use crate::snapshot::Snapshot;

/// What such an end is called in the trail.
const IDENTITY_CHANGED: &str = "identity_changed";
/// Sessions that are looked at before others have a turn, for a mapping may be some work, and ends that are written at a time.
const TOGETHER: usize = 16;
/// How often a store that cannot be read is tried again. Until then each session at rest is judged when it is read.
const RETRY: Duration = Duration::from_secs(1);

/// Ends them at the start, for the configuration may have changed meanwhile, and at each change of a mapping: those in memory at once, those that
/// rest one after the other. Whoever reads one of these before asks [`is_still`] first.
///
/// # Errors
/// When nobody publishes configurations any more.
pub async fn follow(ender: SessionEnder, snapshots: watch::Receiver<Arc<Snapshot>>, stop: CancellationToken) -> Result<(), &'static str> {
    let mut changes = Changes { snapshots, before: None };
    let mut concerned = changes.look().concerned;
    loop {
        let mut fresh = Seen::default();
        // Not by a change of something else, of which there may be more than there is time between: what rests would never be gone through.
        let interrupted = || {
            fresh.add(changes.look());
            !fresh.concerned.is_empty() || stop.is_cancelled()
        };
        match end_others(&ender, &concerned, interrupted).await {
            Ok(true) => concerned.clear(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "not all sessions can be compared with the configuration yet"),
        }
        if !fresh.another {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = changes.snapshots.changed() => changed.map_err(|_| "the publisher has ended")?,
                () = tokio::time::sleep(RETRY), if !concerned.is_empty() => {}
            }
            fresh = changes.look();
        }
        concerned.extend(fresh.concerned);
    }
}

/// Whether the claims of the session's login make the same identity still.
pub fn is_still(snapshot: &Snapshot, session: &Session) -> bool {
    let identity = &session.identity;
    let Some(provider) = snapshot.identity_provider(&identity.principal.idp) else { return true };
    let vouches = identity.claims.get("iss").and_then(|issuer| issuer.as_str()).is_none_or(|issuer| is_issuer(&provider.issuer, issuer));
    vouches && provider.mapping.map(&identity.principal.idp, &identity.claims).is_ok_and(|now| now == *identity)
}

/// As ID tokens name it: a `Url` of a host alone ends in `/`, where most issuers do not.
fn is_issuer(configured: &Url, said: &str) -> bool {
    let configured = configured.as_str();
    said == configured || Some(said) == configured.strip_suffix('/')
}

impl SessionEnder {
    /// Ends a session that is none any more.
    pub async fn end_changed(&self, session: &Session) {
        if let Err(error) = self.end(&session.id, Some(&session.identity.username), IDENTITY_CHANGED).await {
            tracing::warn!(%error, session = %session.id, "the end of a session is not whole");
        }
    }

    /// Ends those of these of which `is_other` is true, and says how many. None counts any more before the first of their ends is written, however
    /// long that takes.
    async fn end_others(&self, sessions: &[Arc<Session>], is_other: impl Fn(&Session) -> bool) -> usize {
        let mut others = Vec::new();
        for some in sessions.chunks(TOGETHER) {
            for session in some.iter().filter(|session| is_other(session)) {
                self.sessions().table().end(&session.id);
                others.push(session);
            }
            tokio::task::yield_now().await;
        }
        for some in others.chunks(TOGETHER) {
            join_all(some.iter().map(|session| self.end_changed(session))).await;
        }
        others.len()
    }
}

/// Compares each configuration with the one that it saw before.
struct Changes {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    before: Option<Arc<Snapshot>>,
}

/// What came since a look.
#[derive(Default)]
struct Seen {
    /// Another configuration. There may have been others in between, by which somebody has logged in: those who log in are in memory.
    another: bool,
    /// The names of the providers whose people it sees otherwise than the one before.
    concerned: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, later: Self) {
        self.another |= later.another;
        self.concerned.extend(later.concerned);
    }
}

impl Changes {
    /// Since the last look; all providers at the first. By the value itself: whoever waits for a change has marked it as seen.
    fn look(&mut self) -> Seen {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        if self.before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &snapshot)) {
            return Seen::default();
        }
        let before = self.before.replace(Arc::clone(&snapshot));
        let providers = snapshot.config().identity_providers.iter();
        let changed = providers.filter(|provider| before.as_ref().is_none_or(|before| is_changed(before, provider)));
        Seen { another: true, concerned: changed.map(|provider| provider.name.clone()).collect() }
    }
}

/// Those in memory, whatever has changed, and those at rest of the providers that are `concerned`. Says whether it has come to an end.
async fn end_others(ender: &SessionEnder, concerned: &BTreeSet<String>, mut interrupted: impl FnMut() -> bool) -> Result<bool, StoreError> {
    let sessions = ender.sessions();
    let is_other = |session: &Session| sessions.table().holds(&session.id) && !sessions.counts(session);
    report(ender.end_others(&sessions.table().awake(), is_other).await);
    if concerned.is_empty() {
        return Ok(true);
    }
    let (mut after, mut ended) = (None, 0);
    let whole = loop {
        let page = sessions.store().sessions(after).await?;
        let read: Vec<_> = page.read.into_iter().map(Arc::new).collect();
        ended += ender.end_others(&read, |session| concerned.contains(&session.identity.principal.idp) && is_other(session)).await;
        after = page.next;
        if interrupted() {
            break false;
        }
        if after.is_none() {
            break true;
        }
    };
    report(ended);
    Ok(whole)
}

fn report(ended: usize) {
    if ended > 0 {
        tracing::warn!(
            sessions.ended = ended,
            "sessions ended, for the configuration makes other identities of their log-ins now, or none"
        );
    }
}

fn is_changed(before: &Snapshot, provider: &IdentityProvider) -> bool {
    before
        .identity_provider(&provider.name)
        .is_none_or(|before| before.issuer != provider.issuer || !before.mapping.is_same_as(&provider.mapping))
}
