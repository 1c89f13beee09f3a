//! The one decision function: route, who, what, policy, names. Every path ends in a `Decision`; nothing waits and nothing is guessed.

use std::sync::Arc;

use crate::access::authenticate::SessionState;
use crate::access::decision::{Challenge, Decision, DenyReason, Evidence, Grant, Outcome, Reader};
use crate::access::request::{AccessRequest, RequestTarget};
use crate::access::upstream::{self, Beside, NameRefusal};
use crate::config::{HttpTarget, IdentityProvider, Route, Target};
use crate::defence::{Defence, off};
use crate::kubernetes::request_info::RequestInfo;
use crate::policy::{Allowance, PolicyInput, RequestView, RouteView, UserView, Verdict};
use crate::session::{Authenticated, Session};
use crate::snapshot::Snapshot;
use crate::token::TokenRejection;

/// The shortest stream that is let through: Envoy counts milliseconds and takes 0 for "no limit".
const MIN_STREAM_SECONDS: u64 = 1;

/// Decides a request at `now` (Unix seconds) against one snapshot.
pub fn decide<'a>(snapshot: &Snapshot, request: &AccessRequest<'a>, session: SessionState, now: u64) -> Decision<'a> {
    let mut evidence = Evidence::default();
    let _allowance = Allowance::begin();
    let outcome = outcome(snapshot, request, session, now, &mut evidence).unwrap_or_else(|refusal| refusal);
    Decision { outcome, evidence }
}

/// `Err` is an outcome too: the early returns.
fn outcome<'a>(
    snapshot: &Snapshot,
    request: &AccessRequest<'a>,
    session: SessionState,
    now: u64,
    evidence: &mut Evidence<'a>,
) -> Result<Outcome, Outcome> {
    let route = match request.target {
        RequestTarget::Web if request.is_directed() => return Ok(Outcome::Web),
        RequestTarget::Web => return Err(Outcome::Deny(DenyReason::Misdirected)),
        RequestTarget::Unknown => return Err(Outcome::Deny(DenyReason::UnknownRoute)),
        RequestTarget::Kubernetes(id) | RequestTarget::Http(id) => {
            snapshot.route_by_id(id).filter(|route| is_of_kind(route, request)).ok_or(Outcome::Deny(DenyReason::UnknownRoute))?
        }
    };
    evidence.route = Some(Arc::clone(route));
    evidence.reader = reader(route, request);
    if !request.node.serves(route) {
        return Err(Outcome::Deny(DenyReason::RouteNotServed));
    }
    if !request.is_directed() {
        return Err(Outcome::Deny(DenyReason::Misdirected));
    }
    if let Some(malformed) = request.headers.malformed {
        return Err(Outcome::Deny(DenyReason::Malformed(malformed)));
    }
    let by_cookie = matches!(session, SessionState::LiveByCookie(_));
    let authenticated = live(session, route, request)?;
    let session = &authenticated.session;
    evidence.session = Some(Arc::clone(session));
    let info = match &route.target {
        Target::Kubernetes(_) => RequestInfo::parse(request.method, request.path),
        Target::Http(_) => RequestInfo::plain(request.method, request.path),
    };
    let info = info.map_err(|ambiguous| Outcome::Deny(DenyReason::Ambiguous(ambiguous)))?;
    let info = evidence.request_info.insert(info);
    if request.headers.impersonates.is_some() && !off(Defence::ImpersonationRefusal) {
        return Err(Outcome::Deny(DenyReason::ImpersonationRequested));
    }
    if let Target::Http(target) = &route.target {
        accept_browser(snapshot, route, target, request, by_cookie)?;
    }
    accept_identity_provider(snapshot, route, session)?;
    let user = user_view(session, now);
    let verdict = route.policy.evaluate(&policy_input(route, request, &user, info, now));
    evidence.rule.clone_from(&verdict.rule);
    let allowed = allowed(&verdict);
    evidence.rule_faults = verdict.errors;
    allowed?;
    let (identity, dropped) = match &route.target {
        Target::Kubernetes(target) => upstream::map(&session.identity, &user, target, beside(snapshot, route, session)),
        // The groups stand in the token that the upstream verifies.
        Target::Http(_) => (upstream::name(&session.identity), Vec::new()),
    };
    evidence.dropped_groups = dropped;
    let identity = identity.map_err(|refusal| {
        Outcome::Deny(match refusal {
            NameRefusal::TooManyGroups { have, max } => DenyReason::TooManyGroups { have, max },
            other => DenyReason::Name(other),
        })
    })?;
    let seconds = stream_seconds(route, session, now).ok_or(Outcome::Challenge(Challenge::SessionAboutToEnd))?;
    let grant = Grant::new(Arc::clone(route), Arc::clone(session), identity, seconds.saturating_mul(1_000));
    Ok(Outcome::Allow(Box::new(match &route.target {
        Target::Kubernetes(_) => grant,
        Target::Http(_) => grant.with_cookies(request.headers.cookies.for_upstream()),
    })))
}

/// Envoy and we must mean the same kind of upstream, or its guard and header path would be another's.
fn is_of_kind(route: &Route, request: &AccessRequest<'_>) -> bool {
    matches!(
        (&route.target, request.target),
        (Target::Kubernetes(_), RequestTarget::Kubernetes(_)) | (Target::Http(_), RequestTarget::Http(_))
    )
}

fn reader(route: &Route, request: &AccessRequest<'_>) -> Reader {
    let headers = &request.headers;
    match &route.target {
        Target::Kubernetes(_) => Reader::Kubernetes,
        Target::Http(_) if headers.accepts_html && headers.provenance.opens_a_page(request.method) => Reader::Visitor,
        Target::Http(_) if headers.accepts_html => Reader::Browser,
        Target::Http(_) => Reader::Program,
    }
}

/// What a browser may do on a plain HTTP route: no WebSockets where the route has none, and with its cookie only what its own pages ask.
fn accept_browser(
    snapshot: &Snapshot,
    route: &Route,
    target: &HttpTarget,
    request: &AccessRequest<'_>,
    by_cookie: bool,
) -> Result<(), Outcome> {
    let provenance = &request.headers.provenance;
    if provenance.upgrades() && !target.websocket {
        return Err(Outcome::Deny(DenyReason::UpgradeNotAllowed));
    }
    let own_origin = snapshot.config().public_url.origin_of(&route.host);
    if by_cookie && !provenance.lets_cookies_count(request.method, &own_origin) && !off(Defence::CrossSite) {
        return Err(Outcome::Deny(DenyReason::CrossSite));
    }
    Ok(())
}

fn live(session: SessionState, route: &Route, request: &AccessRequest<'_>) -> Result<Authenticated, Outcome> {
    match session {
        SessionState::Live(authenticated) => Ok(authenticated),
        SessionState::LiveByCookie(authenticated) if route.http().is_some() || off(Defence::CookieKind) => Ok(authenticated),
        SessionState::LiveByCookie(_) | SessionState::NoCredential => {
            Err(Outcome::Challenge(Challenge::NoCredential { browser: request.headers.accepts_html }))
        }
        SessionState::Rejected(rejection) => Err(Outcome::Challenge(Challenge::Token(rejection))),
        // It could not be read.
        SessionState::AtRest(_) => Err(Outcome::Deny(DenyReason::SessionUnavailable)),
    }
}

/// A provider that the configuration does not have any more vouches for nobody, also when another one has its name now.
fn accept_identity_provider(snapshot: &Snapshot, route: &Route, session: &Session) -> Result<(), Outcome> {
    let idp = &session.identity.principal.idp;
    let listed = route.identity_providers.as_ref().is_none_or(|listed| listed.contains(idp));
    if listed && snapshot.identity_provider(idp).is_some_and(|provider| is_issuer(provider, session)) {
        return Ok(());
    }
    Err(Outcome::Deny(DenyReason::IdentityProviderNotAccepted { idp: idp.clone() }))
}

fn beside<'s>(snapshot: &'s Snapshot, route: &Route, session: &Session) -> Beside<'s> {
    let provider = snapshot.identity_provider(&session.identity.principal.idp);
    let provider_prefix = provider.map_or("", |provider| provider.mapping.username_prefix());
    Beside { neighbours: snapshot.neighbours(route), provider_prefix }
}

/// Whether this provider, and not another under the same name, made the session's claims. Discovery takes issuers of a host alone with and
/// without a slash at the end.
fn is_issuer(provider: &IdentityProvider, session: &Session) -> bool {
    let issuer = session.identity.claims.get("iss").and_then(|issuer| issuer.as_str());
    issuer.is_none_or(|issuer| issuer.trim_end_matches('/') == provider.issuer.as_str().trim_end_matches('/'))
}

fn allowed(verdict: &Verdict) -> Result<(), Outcome> {
    if verdict.allowed {
        return Ok(());
    }
    Err(Outcome::Deny(match &verdict.rule {
        Some(rule) => DenyReason::Rule { rule: Arc::clone(rule), message: verdict.message.clone() },
        None => DenyReason::NoRuleMatched,
    }))
}

/// Seconds that a stream may live: until the session ends or the route's ceiling. `None` when that is too short to begin.
fn stream_seconds(route: &Route, session: &Session, now: u64) -> Option<u64> {
    let left = session.expires_at.checked_sub(now)?;
    let limit = route.max_stream_seconds.map_or(left, |ceiling| left.min(ceiling));
    (limit >= MIN_STREAM_SECONDS).then_some(limit)
}

/// Who asks, as rules and the expressions of a route see them.
pub fn user_view(session: &Session, now: u64) -> UserView<'_> {
    let identity = &session.identity;
    UserView {
        name: &identity.username,
        email: &identity.email,
        groups: identity.groups.as_slice(),
        claims: &identity.claims,
        idp: &identity.principal.idp,
        session_age: now.saturating_sub(session.created_at),
    }
}

/// What the rules of a route see.
pub fn policy_input<'v>(
    route: &'v Route,
    request: &'v AccessRequest<'_>,
    user: &'v UserView<'v>,
    info: &'v RequestInfo<'v>,
    now: u64,
) -> PolicyInput<'v> {
    PolicyInput {
        user: *user,
        request: RequestView {
            info,
            method: request.method,
            // Not as the client wrote it: another case is the same host to Envoy, and must be to a rule.
            host: &route.host,
            source_ip: request.source_ip,
            user_agent: request.headers.user_agent,
            time: now,
        },
        route: RouteView { name: &route.name, labels: &route.labels },
    }
}

impl From<TokenRejection> for Challenge {
    fn from(rejection: TokenRejection) -> Self {
        Self::Token(rejection)
    }
}
