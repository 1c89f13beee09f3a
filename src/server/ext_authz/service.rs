//! One check: one snapshot, one time, one decision, one audit line, one answer. Fails closed at every step.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tonic::Status;

use crate::access::{
    AccessRequest, Answer, AtRest, Challenge, Decision, DenyReason, Evidence, Grant, Outcome, SessionState, authenticate, decide,
};
use crate::audit::{AuditEvent, decision_event};
use crate::config::{HttpTarget, Jwt, KubernetesTarget, Method, OnAuditFailure, Target};
use crate::defence::{Defence, off};
use crate::header::HeaderValue;
use crate::kubernetes::RequestInfo;
use crate::server::clock;
use crate::server::ext_authz::convert::{self, Minted};
use crate::server::ext_authz::places::{Arrived, Places};
use crate::server::ext_authz::question;
use crate::server::live_streams::{Begun, LiveStreams, StreamId, TooMany};
use crate::server::peer::{Peer, UnknownPeer};
use crate::server::sessions::Sessions;
use crate::server::signing::{AssertionTokenRequest, MintRefusal, Signing, UpstreamTokenRequest};
use crate::server::telemetry::{Metrics, Seldom};
use crate::server::trail::Trail;
use crate::snapshot::Snapshot;

/// The ext_authz server.
#[derive(Debug, Clone)]
pub struct ExtAuthz {
    snapshot: Arc<ArcSwap<Snapshot>>,
    sessions: Sessions,
    signing: Arc<Signing>,
    trail: Trail,
    metrics: Arc<Metrics>,
    places: Arc<Places>,
    streams: Arc<LiveStreams>,
    warned: Arc<Seldom>,
    unread: Arc<Seldom>,
}

impl ExtAuthz {
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, sessions: Sessions, signing: Arc<Signing>, trail: Trail, metrics: Arc<Metrics>) -> Self {
        let (places, streams) = (Arc::new(Places::new()), Arc::default());
        Self { snapshot, sessions, signing, trail, metrics, places, streams, warned: Arc::default(), unread: Arc::default() }
    }

    /// Counts streams where others hear of their end.
    #[must_use]
    pub fn with_streams(self, streams: Arc<LiveStreams>) -> Self {
        Self { streams, ..self }
    }

    /// A check has come, and will be looked at. It counts until what this gives is dropped.
    pub fn arrive(&self) -> Arrived {
        self.places.arrive()
    }

    /// Answers a `CheckRequest` of this peer with a `CheckResponse`, both encoded.
    ///
    /// # Errors
    /// When the peer is no node of the configuration, or the bytes are no question. Envoy refuses on an error.
    pub async fn check(&self, message: &[u8], peer: Option<&Peer>) -> Result<Vec<u8>, Status> {
        let started = Instant::now();
        let snapshot = self.snapshot.load_full();
        let node = Peer::view(peer, snapshot.nodes()).inspect_err(|unknown| self.warn(unknown))?;
        let request = question::read(message, node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(self.answer(&snapshot, &request, started).await)
    }

    async fn answer(&self, snapshot: &Snapshot, request: &AccessRequest<'_>, started: Instant) -> Vec<u8> {
        let now = clock::unix_now();
        let mut session = self.session(snapshot, request, now).await;
        let place = self.places.take(&session, request.source_ip);
        if place.is_some() && self.places.is_crowded() {
            // Others have come, and are to have their places before this one is answered.
            tokio::task::yield_now().await;
            session = self.session(snapshot, request, now).await;
        }
        let mut decision = match place {
            Some(_) => decide(snapshot, request, session, now),
            None => without_place(session),
        };
        let token = self.mint(snapshot, &mut decision, now);
        let stream = self.begin_stream(snapshot, request, &mut decision, &token, now);
        let mut answer = Answer::to(&decision);
        if !matches!(decision.outcome, Outcome::Web) && !self.recorded(snapshot, request, &decision, answer.as_ref()).await {
            decision.outcome = Outcome::Deny(DenyReason::AuditUnavailable);
            answer = Answer::to(&decision);
        } else if let Some(stream) = stream {
            stream.granted();
        }
        self.count(request, &decision, answer.as_ref(), started);
        render(snapshot, request, &decision, answer, &token)
    }

    /// What the credential is worth; a session that rests is read.
    async fn session(&self, snapshot: &Snapshot, request: &AccessRequest<'_>, now: u64) -> SessionState {
        match authenticate(snapshot, request, self.sessions.table(), now) {
            // In memory of its own: most checks need none of it.
            SessionState::AtRest(at_rest) => Box::pin(self.read(at_rest, request)).await,
            known => known,
        }
    }

    /// What a session that rests is worth. One that cannot be read stays at rest, which is refused: others, in memory, are not touched by it.
    async fn read(&self, at_rest: AtRest, request: &AccessRequest<'_>) -> SessionState {
        match self.sessions.read(&at_rest.session).await {
            Ok(session) => at_rest.read(session),
            Err(error) => {
                if let Some(unsaid) = self.unread.now() {
                    tracing::warn!(request.id = request.request_id, %error, unsaid, "refused: the session cannot be read");
                }
                SessionState::AtRest(at_rest)
            }
        }
    }

    /// The token of a grant that needs one. Where none can be made, the request does not go on.
    fn mint(&self, snapshot: &Snapshot, decision: &mut Decision<'_>, now: u64) -> Minted {
        let Outcome::Allow(grant) = &decision.outcome else { return Minted::Nothing };
        let (minted, groups) = match &grant.route().target {
            Target::Kubernetes(KubernetesTarget { method: Method::Impersonate(_), .. }) => return Minted::Nothing,
            Target::Kubernetes(KubernetesTarget { method: Method::Jwt(jwt), .. }) => {
                let token = self.signing.upstream_token(&token_request(snapshot, grant, jwt), now);
                (token.map(Minted::Upstream), grant.identity().groups().len())
            }
            Target::Http(target) => {
                let token = self.signing.assertion_token(&assertion_request(snapshot, grant, target), now);
                (token.map(Minted::Assertion), grant.session().identity.groups.as_slice().len())
            }
        };
        minted.unwrap_or_else(|refusal| {
            decision.outcome = without_token(refusal, groups);
            Minted::Nothing
        })
    }

    /// Whether there is room for what was granted: for its headers, and for a stream where it is one, which counts from here on.
    fn begin_stream(
        &self,
        snapshot: &Snapshot,
        request: &AccessRequest<'_>,
        decision: &mut Decision<'_>,
        token: &Minted,
        now: u64,
    ) -> Option<Begun<'_>> {
        let Outcome::Allow(grant) = &decision.outcome else { return None };
        if !request.headers.size.fits_with(convert::added(grant, token, request.request_id)) {
            decision.outcome = Outcome::Deny(DenyReason::NoRoomForHeaders);
            return None;
        }
        let lasts = decision.evidence.request_info.as_ref().is_some_and(RequestInfo::is_long_running);
        if !lasts && !request.headers.provenance.upgrades() {
            return None;
        }
        let (stream, max) = (StreamId::new(request.node.name(), request.request_id), snapshot.config().sessions.max_streams);
        match self.streams.begin(&grant.session().identity.principal, stream, max, now) {
            Ok(begun) => Some(begun),
            Err(TooMany) if off(Defence::StreamsOfOne) => None,
            Err(TooMany) => {
                decision.outcome = Outcome::Deny(DenyReason::TooManyStreams { max });
                None
            }
        }
    }

    /// The line stands before the request goes on; where it cannot, the request must not go on (unless configured otherwise).
    async fn recorded(&self, snapshot: &Snapshot, request: &AccessRequest<'_>, decision: &Decision<'_>, answer: Option<&Answer>) -> bool {
        let event = decision_event(request, decision, answer, snapshot.version());
        match self.trail.record(AuditEvent::Decision(&event)).await {
            Ok(()) => true,
            Err(error) if snapshot.config().audit.on_failure == OnAuditFailure::Deny && !off(Defence::AuditFirst) => {
                tracing::warn!(request.id = request.request_id, %error, "refused: no audit line");
                false
            }
            Err(_) => true,
        }
    }

    fn warn(&self, unknown: &UnknownPeer) {
        if let Some(unsaid) = self.warned.now() {
            tracing::warn!(%unknown, unsaid, "a check was refused");
        }
    }

    fn count(&self, request: &AccessRequest<'_>, decision: &Decision<'_>, answer: Option<&Answer>, started: Instant) {
        let route = decision.evidence.route.as_ref().map_or("", |route| &route.name);
        let outcome = match &decision.outcome {
            Outcome::Web => "web",
            Outcome::Allow(_) => "allow",
            Outcome::Challenge(_) => "challenge",
            Outcome::Deny(_) => "deny",
        };
        let reason = answer.map_or("", |answer| answer.word);
        self.metrics.decided(route, outcome, reason, started.elapsed());
        tracing::debug!(request.id = request.request_id, route.name = route, decision = outcome, deny.reason = reason, "decided");
    }
}

/// Whose checks fill their places: told, and nothing else looked at.
fn without_place<'a>(session: SessionState) -> Decision<'a> {
    let session = match session {
        SessionState::Live(authenticated) | SessionState::LiveByCookie(authenticated) => Some(authenticated.session),
        SessionState::NoCredential | SessionState::Rejected(_) | SessionState::AtRest(_) => None,
    };
    Decision { outcome: Outcome::Deny(DenyReason::TooManyChecks), evidence: Evidence { session, ..Evidence::default() } }
}

fn token_request<'a>(snapshot: &'a Snapshot, grant: &'a Grant, jwt: &'a Jwt) -> UpstreamTokenRequest<'a, HeaderValue> {
    let identity = grant.identity();
    UpstreamTokenRequest {
        session: grant.session(),
        route_id: grant.route().id(),
        issuer: snapshot.config().public_url.origin(),
        audience: &jwt.audience,
        lifetime_seconds: jwt.lifetime_seconds,
        username: identity.user().as_str(),
        uid: identity.uid().map(HeaderValue::as_str),
        groups: identity.groups(),
        extra: identity.extra(),
        policy_version: snapshot.version(),
    }
}

fn assertion_request<'a>(snapshot: &'a Snapshot, grant: &'a Grant, target: &'a HttpTarget) -> AssertionTokenRequest<'a> {
    let issuer = snapshot.config().public_url.origin();
    AssertionTokenRequest { session: grant.session(), route_id: grant.route().id(), issuer, audience: &target.audience }
}

fn without_token(refusal: MintRefusal, groups: usize) -> Outcome {
    match refusal {
        MintRefusal::TooLarge => Outcome::Deny(DenyReason::TokenTooLarge { groups }),
        MintRefusal::SessionEnded => Outcome::Challenge(Challenge::SessionAboutToEnd),
        MintRefusal::NoKey | MintRefusal::Library => {
            tracing::error!(%refusal, "no token for an upstream");
            Outcome::Deny(DenyReason::TokenUnavailable)
        }
    }
}

fn render(snapshot: &Snapshot, request: &AccessRequest<'_>, decision: &Decision<'_>, answer: Option<Answer>, token: &Minted) -> Vec<u8> {
    match (&decision.outcome, answer) {
        (Outcome::Web, _) => convert::to_web(),
        (Outcome::Allow(grant), _) => convert::grant(grant, token, request.request_id),
        (_, Some(answer)) => convert::refuse(&answer, request, snapshot.config().public_url.url.as_str()),
        // INVARIANT: `Answer::to` answers every challenge and refusal; were it not so, this still refuses.
        (_, None) => convert::refuse(&Answer::internal(), request, ""),
    }
}
