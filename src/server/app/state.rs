//! The state page: what is in force, as JSON without secrets.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Parts;
use crate::server::admin::http::Readiness;
use crate::server::admin::service::StateReader;
use crate::server::ads::{AdsState, StreamView};
use crate::server::clock;
use crate::server::publisher::{ReloadResult, ReloadState};
use crate::server::signing::PublishedKeys;
use crate::xds::resource::TypeUrl;

/// Reads the parts each time it is called.
pub(super) fn reader(parts: &Parts, readiness: &Arc<Readiness>) -> Arc<StateReader> {
    let (reload, ads, envoy, oidc) = (parts.publisher.state(), parts.ads.clone(), parts.envoy.clone(), Arc::clone(&parts.oidc));
    let (snapshot, sessions, trail, readiness) =
        (Arc::clone(&parts.snapshot), Arc::clone(&parts.sessions), parts.trail.clone(), Arc::clone(readiness));
    let signing = Arc::clone(&parts.signing);
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
            "routes": snapshot.load().config().routes.iter().map(|route| json!({"name": route.name, "host": route.host})).collect::<Vec<_>>(),
            "sessions": sessions.len(),
            "keys": PublishedKeys::of(&signing, snapshot.load().config(), clock::unix_now()),
            "identity_providers": providers,
            "audit": {"healthy": trail.healthy(), "lines_written": written, "lines_failed": failed},
            "xds": xds(&ads),
            "envoy": envoy.latest(),
        })
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
            let value = json!({"pushed": counts.pushed, "acknowledged": counts.acked, "refused": counts.nacked, "last_refusal": counts.last_refusal});
            (kind.short_name().to_owned(), value)
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({"streams": ads.streams().iter().map(stream).collect::<Vec<_>>(), "types": types})
}

fn stream(view: &StreamView) -> Value {
    let types: serde_json::Map<_, _> = view
        .types
        .iter()
        .map(|(kind, of)| {
            (kind.short_name().to_owned(), json!({"wanted": of.wanted, "acknowledged": of.state.acknowledged, "refusal": of.refusal}))
        })
        .collect();
    json!({"node": view.node, "cluster": view.cluster, "types": types})
}
