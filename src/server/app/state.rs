//! The state page: what is in force, as JSON without secrets.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Parts;
use crate::config::objects::Judged;
use crate::server::admin::http::Readiness;
use crate::server::admin::service::StateReader;
use crate::server::ads::{AdsState, StreamView, TurnedAway, TypeView};
use crate::server::clock;
use crate::server::cluster_source::Seen;
use crate::server::publisher::{ReloadResult, ReloadState};
use crate::server::signing::PublishedKeys;
use crate::xds::bootstrap::is_tested;
use crate::xds::resource::TypeUrl;

/// Mistakes of objects that are shown.
const MAX_ERRORS: usize = 100;

/// Reads the parts each time it is called.
pub(super) fn reader(parts: &Parts, readiness: &Arc<Readiness>) -> Arc<StateReader> {
    let (reload, ads, envoy, oidc) = (parts.publisher.state(), parts.ads.clone(), parts.envoy.clone(), Arc::clone(&parts.oidc));
    let (snapshot, sessions, trail, readiness) =
        (Arc::clone(&parts.snapshot), parts.sessions.clone(), parts.trail.clone(), Arc::clone(readiness));
    let signing = Arc::clone(&parts.signing);
    let cluster = parts.cluster.as_ref().map(|cluster| (cluster.health.clone(), cluster.judged()));
    Arc::new(move || {
        let (written, failed) = trail.counts();
        let providers: Vec<Value> = oidc
            .health()
            .into_iter()
            .map(|health| {
                json!({"name": health.name, "reachable": health.reachable, "last_success_at": health.last_success_at, "last_error": health.last_error})
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "waiting_for": readiness.awaited(),
            "configuration": configuration(&reload.load()),
            "cluster_source": cluster.as_ref().map(|(health, judged)| cluster_source(&health.seen(), &judged.borrow())),
            "routes": snapshot.load().config().routes.iter().map(|route| json!({"name": route.name, "host": route.host})).collect::<Vec<_>>(),
            "sessions": sessions.table().len(),
            "sessions_in_memory": sessions.table().awake_len(),
            "keys": PublishedKeys::of(&signing, snapshot.load().config(), clock::unix_now()),
            "identity_providers": providers,
            "audit": {"healthy": trail.healthy(), "lines_written": written, "lines_failed": failed},
            "xds": xds(&ads),
            "envoy": envoy.latest(),
        })
    })
}

fn cluster_source(seen: &Seen, judged: &Judged) -> Value {
    let in_force = judged.verdicts.iter().filter(|verdict| verdict.in_force.as_ref().is_some_and(|in_force| in_force.route().is_some()));
    json!({
        "waiting_for": seen.awaited,
        "last_error": seen.last_error,
        "last_answer_at": seen.last_answer_at,
        "writes_statuses": seen.leading,
        "objects": judged.verdicts.len(),
        "routes_in_force": in_force.count(),
        "errors": judged.verdicts.iter().flat_map(|verdict| verdict.errors()).take(MAX_ERRORS).collect::<Vec<_>>(),
    })
}

fn configuration(state: &ReloadState) -> Value {
    json!({
        "version": state.version,
        "last_change": match state.last_result { ReloadResult::Applied => "applied", ReloadResult::Rejected => "rejected" },
        "errors": state.errors,
        "last_attempt_at": state.last_attempt_at,
        "in_force_since": state.last_success_at,
        "applied": state.applied,
        "rejected": state.rejected,
        "restart_needed": state.restart_needed,
    })
}

fn xds(ads: &AdsState) -> Value {
    let types: Value = TypeUrl::ALL
        .iter()
        .map(|kind| {
            let counts = ads.counts(*kind);
            let value = json!({"pushed": counts.pushed, "acknowledged": counts.acked, "refused": counts.nacked, "stale": counts.stale, "last_refusal": counts.last_refusal});
            (kind.short_name().to_owned(), value)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "streams": ads.streams().iter().map(stream).collect::<Vec<_>>(),
        "turned_away": ads.turned_away().iter().map(turned_away).collect::<Vec<_>>(),
        "types": types,
    })
}

fn turned_away(envoy: &TurnedAway) -> Value {
    json!({
        "node": envoy.node,
        "version": envoy.version,
        "reason": envoy.reason,
        "times": envoy.times,
        "seconds_ago": envoy.last.elapsed().as_secs(),
    })
}

fn stream(view: &StreamView) -> Value {
    let types: serde_json::Map<_, _> = view.types.iter().map(|(kind, of)| (kind.short_name().to_owned(), type_of_stream(of))).collect();
    json!({
        "node": view.node,
        "cluster": view.cluster,
        "version": view.version,
        "tested": is_tested(&view.version),
        "protocol": view.protocol.name(),
        "only": view.only.map(TypeUrl::short_name),
        "types": types,
    })
}

fn type_of_stream(of: &TypeView) -> Value {
    let milliseconds = |duration: Option<Duration>| duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    json!({
        "requested": of.state.requested,
        "wanted": of.wanted,
        "acknowledged": of.state.acknowledged,
        "refusal": of.refusal,
        "waiting_ms": milliseconds(of.waiting()),
        "converged_ms": milliseconds(of.converged_in),
    })
}
