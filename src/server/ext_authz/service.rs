//! One check: one snapshot, one time, one decision, one audit line, one answer. Fails closed at every step.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};

use crate::access::{AccessRequest, Answer, Decision, DenyReason, Outcome, authenticate, decide};
use crate::audit::decision_event;
use crate::config::OnAuditFailure;
use crate::server::clock;
use crate::server::ext_authz::convert;
use crate::server::telemetry::Metrics;
use crate::server::trail::Trail;
use crate::session::SessionTable;
use crate::snapshot::Snapshot;

/// Bytes of one check: Envoy's limit on headers, with room for the message around them.
const MAX_CHECK_BYTES: usize = 256 << 10;

/// The ext_authz server.
#[derive(Debug, Clone)]
pub struct ExtAuthz {
    snapshot: Arc<ArcSwap<Snapshot>>,
    sessions: Arc<SessionTable>,
    trail: Trail,
    metrics: Arc<Metrics>,
}

impl ExtAuthz {
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, sessions: Arc<SessionTable>, trail: Trail, metrics: Arc<Metrics>) -> Self {
        Self { snapshot, sessions, trail, metrics }
    }

    /// As the gRPC service.
    pub fn into_service(self) -> AuthorizationServer<Self> {
        AuthorizationServer::new(self).max_decoding_message_size(MAX_CHECK_BYTES)
    }

    async fn answer(&self, check: &CheckRequest) -> CheckResponse {
        let started = Instant::now();
        let now = clock::unix_now();
        let snapshot = self.snapshot.load_full();
        let request = convert::access_request(check);
        let session = authenticate(&snapshot, &request, &self.sessions, now);
        let mut decision = decide(&snapshot, &request, session, now);
        if !matches!(decision.outcome, Outcome::Web) {
            self.record(&snapshot, &request, &mut decision).await;
        }
        self.count(&request, &decision, started);
        render(&snapshot, &request, &decision)
    }

    /// The line stands before the request goes on; where it cannot, the request does not go on (unless configured otherwise).
    async fn record(&self, snapshot: &Snapshot, request: &AccessRequest<'_>, decision: &mut Decision<'_>) {
        let event = decision_event(request, decision, snapshot.version());
        if let Err(error) = self.trail.record(event).await
            && snapshot.config().audit.on_failure == OnAuditFailure::Deny
        {
            tracing::warn!(request.id = request.request_id, %error, "refused: no audit line");
            decision.outcome = Outcome::Deny(DenyReason::AuditUnavailable);
        }
    }

    fn count(&self, request: &AccessRequest<'_>, decision: &Decision<'_>, started: Instant) {
        let route = decision.evidence.route.as_ref().map_or("", |route| &route.name);
        let (outcome, reason) = match &decision.outcome {
            Outcome::Web => ("web", ""),
            Outcome::Allow(_) => ("allow", ""),
            Outcome::Challenge(_) => ("challenge", word(decision)),
            Outcome::Deny(_) => ("deny", word(decision)),
        };
        self.metrics.decided(route, outcome, reason, started.elapsed());
        tracing::debug!(request.id = request.request_id, route.name = route, decision = outcome, deny.reason = reason, "decided");
    }
}

fn word(decision: &Decision<'_>) -> &'static str {
    Answer::to(decision).map_or("", |answer| answer.word)
}

fn render(snapshot: &Snapshot, request: &AccessRequest<'_>, decision: &Decision<'_>) -> CheckResponse {
    match (&decision.outcome, Answer::to(decision)) {
        (Outcome::Web, _) => convert::to_web(),
        (Outcome::Allow(grant), _) => convert::grant(grant, request.request_id),
        (_, Some(answer)) => convert::refuse(&answer, request, snapshot.config().public_url.url.as_str()),
        // INVARIANT: `Answer::to` answers every challenge and refusal; were it not so, this still refuses.
        (_, None) => convert::refuse(&Answer::internal(), request, ""),
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.answer(request.get_ref()).await))
    }
}
