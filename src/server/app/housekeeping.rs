//! Background work that belongs to no other part: sessions that expire, keys that change, events of the configuration.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditEvent, ConfigChangedEvent, LogoutEvent};
use crate::server::clock;
use crate::server::live_streams::LiveStreams;
use crate::server::oidc::Providers;
use crate::server::sessions::Sessions;
use crate::server::store::Store;
use crate::server::telemetry::Metrics;
use crate::server::trail::Trail;
use crate::session::SessionId;
use crate::snapshot::Snapshot;

/// How often expired sessions are swept. A check never takes one for alive in between: each compares the time itself.
const SWEEP: Duration = Duration::from_secs(30);

/// Expired sessions whose rows are read and removed together.
const SWEPT_TOGETHER: usize = 256;

/// How often the store is tried again for whose its sessions are.
const OWNERS_RETRY: Duration = Duration::from_secs(1);

/// How often a trail that failed is tried again.
const TRAIL_RETRY: Duration = Duration::from_secs(1);

/// Brings a trail that failed back by itself, with a line that says what is missing.
///
/// # Errors
/// The trail's writer has ended, which nothing but a new start brings back.
pub(super) async fn mend_trail(trail: Trail, stop: CancellationToken) -> Result<(), &'static str> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TRAIL_RETRY) => trail.report_loss().await,
        }
        if trail.has_ended() {
            return Err("the audit writer has ended");
        }
    }
}

/// Learns whose the sessions are that were found in the store, in the background: checks need it not, and log-ins wait for it.
pub(super) async fn learn_owners(sessions: Sessions, stop: CancellationToken) -> Result<(), Infallible> {
    while !sessions.owners_are_known() {
        match sessions.learn_owners().await {
            Ok(unreadable) => {
                let live = sessions.table().len();
                tracing::info!(sessions.live = live, sessions.unreadable = unreadable, "it is known whose the stored sessions are");
            }
            Err(error) => {
                tracing::warn!(%error, "it is not known yet whose the stored sessions are: log-ins wait");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(OWNERS_RETRY) => {}
                }
            }
        }
    }
    stop.cancelled().await;
    Ok(())
}

/// Removes expired sessions from the table and the store, each with its audit line; `found` are those that had expired before the start.
pub(super) async fn sweep_sessions(
    sessions: Sessions,
    found: Vec<SessionId>,
    trail: Trail,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    if let Err(error) = sessions.store().remove_all(found).await {
        tracing::warn!(%error, "sessions that expired before the start stay in the store for now");
    }
    let mut period = tokio::time::interval(SWEEP);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = period.tick() => {}
        }
        for some in sessions.table().remove_expired(clock::unix_now()).chunks(SWEPT_TOGETHER) {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sweep(&sessions, some, &trail) => {}
            }
        }
    }
}

/// Forgets streams of which nothing was heard for long.
pub(super) async fn sweep_streams(streams: Arc<LiveStreams>, stop: CancellationToken) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(SWEEP) => {}
        }
        while streams.forget_some(clock::unix_now()) {
            tokio::task::yield_now().await;
        }
    }
}

/// Sessions that are out of the table already.
async fn sweep(sessions: &Sessions, expired: &[SessionId], trail: &Trail) {
    let mut users = Vec::with_capacity(expired.len());
    for id in expired {
        let session = sessions.store().get(id).await;
        users.push(session.ok().flatten().map(|session| session.identity.username).unwrap_or_default());
    }
    if let Err(error) = sessions.store().remove_all(expired.to_vec()).await {
        tracing::warn!(%error, "expired sessions stay in the store for now");
    }
    for (id, user) in expired.iter().zip(users) {
        let event = LogoutEvent { session: id.to_string(), user, by: "expired" };
        if let Err(error) = trail.record(AuditEvent::Logout(event)).await {
            tracing::warn!(%error, "the end of a session leaves no audit line");
        }
    }
}

/// Lets the store seal with the keys in force.
pub(super) async fn follow_keys(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    store: Store,
    stop: CancellationToken,
) -> Result<(), String> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = snapshots.changed() => changed.map_err(|_| "the publisher has ended".to_owned())?,
        }
        store.set_keys(Arc::clone(snapshots.borrow_and_update().token_keys()));
    }
}

/// Looks at the configuration's files on SIGHUP, which would otherwise end the process.
pub(super) async fn reload_on_hangup(trigger: Arc<Notify>, stop: CancellationToken) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = hangup.recv() => trigger.notify_one(),
        }
    }
}

/// Writes configuration changes into the audit trail and counts them.
pub(super) async fn record_changes(
    mut changes: mpsc::UnboundedReceiver<ConfigChangedEvent>,
    trail: Trail,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            change = changes.recv() => change,
        };
        let Some(change) = change else {
            stop.cancelled().await;
            return Ok(());
        };
        metrics.config_reloaded(change.outcome);
        if let Err(error) = trail.record(AuditEvent::ConfigChanged(change)).await {
            tracing::warn!(%error, "a configuration change leaves no audit line");
        }
    }
}

/// Ends with an error when the store's writer has ended: what cannot be stored must not be given out.
pub(super) async fn watch_store(store: Store, stop: CancellationToken) -> Result<(), &'static str> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = store.ended() => Err("the session store's writer has ended"),
    }
}

/// Keeps discovery documents and keys of the identity providers at hand.
pub(super) async fn keep_providers_fresh(
    oidc: Arc<Providers>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    retry: Duration,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = oidc.keep_fresh(|| Arc::clone(snapshot.load().config()), retry) => {}
    }
    Ok(())
}
