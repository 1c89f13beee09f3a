//! The web part: login pages, the protocol of the command line, the contract of pomerium-cli, the portal. It is reached through Envoy alone.
//! It decides who gets a session (`oidc` verified, `identity` mapped, the audit line written) and hands out its tokens; what a session may do at a
//! cluster is not decided here.
//!
//! Hosts: the one of `public_url`, and those of the routes, where only `/.kubepass/`, `/.pomerium/` and the probes of pomerium-cli arrive.

mod codes;
mod confirm;
mod cookie;
mod discovery;
mod error;
mod form;
mod limits;
mod login;
pub mod pages;
mod portal;
mod random;
mod redirect;
mod request;
mod route_host;
mod route_login;
mod serve;
mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::ServiceExt;
use url::Url;

use crate::audit::AuditEvent;
use crate::config::{Config, IdentityProvider, OnAuditFailure, Route};
use crate::server::clock;
use crate::server::ending::SessionEnder;
use crate::server::oidc::Providers;
use crate::server::peer::Peer;
use crate::server::sessions::Sessions;
use crate::server::signing::Signing;
use crate::server::telemetry::{Metrics, Seldom};
use crate::server::trail::Trail;
use crate::server::under_way::{Source, UnderWay};
use crate::session::{Session, SessionId};
use crate::snapshot::Snapshot;

use codes::OneTimeCodes;
use error::WebError;
use limits::{RateLimit, UsedStates};

pub use serve::serve;

/// What the pages and endpoints work on.
#[derive(Debug)]
pub struct Web {
    snapshot: Arc<ArcSwap<Snapshot>>,
    sessions: Sessions,
    trail: Trail,
    ender: SessionEnder,
    oidc: Arc<Providers>,
    signing: Arc<Signing>,
    metrics: Arc<Metrics>,
    codes: OneTimeCodes,
    used_states: UsedStates,
    token_requests: RateLimit,
    login_returns: RateLimit,
    under_way: Arc<UnderWay<Source>>,
    /// By identity provider.
    logins: Arc<UnderWay<String>>,
    warned: Seldom,
}

/// Which route's host was asked.
#[derive(Debug, Clone)]
struct AskedRoute(Arc<Route>);

#[derive(Clone)]
struct Hosts {
    web: Arc<Web>,
    public: Router,
    routes: Router,
}

impl Web {
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        ender: SessionEnder,
        oidc: Arc<Providers>,
        signing: Arc<Signing>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            sessions: ender.sessions().clone(),
            trail: ender.trail().clone(),
            ender,
            snapshot,
            oidc,
            signing,
            metrics,
            codes: OneTimeCodes::default(),
            used_states: UsedStates::default(),
            token_requests: RateLimit::new(limits::TOKEN_REQUESTS_PER_MINUTE),
            login_returns: RateLimit::new(limits::LOGINS_PER_MINUTE),
            under_way: UnderWay::new(limits::UNDER_WAY_PER_SOURCE),
            logins: UnderWay::new(limits::CONCURRENT_LOGINS),
            warned: Seldom::default(),
        }
    }

    /// The session, when it lives.
    async fn live(&self, id: &SessionId) -> Result<Option<Arc<Session>>, WebError> {
        self.sessions.live(id).await.map_err(|error| {
            tracing::error!(%error, session = %id, "web.store_failed");
            WebError::Store
        })
    }

    /// The browser's session, when its cookie is ours and the session lives.
    async fn browser_session(&self, snapshot: &Snapshot, headers: &HeaderMap) -> Result<Option<Arc<Session>>, WebError> {
        match cookie::session(snapshot.token_keys(), headers) {
            Some(id) => self.live(&id).await,
            None => Ok(None),
        }
    }

    /// The browser's session, when it is one that may be handed on: long enough, and of an identity provider that `route` takes.
    async fn session_for(
        &self,
        snapshot: &Snapshot,
        headers: &HeaderMap,
        route: Option<&Route>,
        now: u64,
    ) -> Result<Option<Arc<Session>>, WebError> {
        let least = limits::LEAST_SESSION_SECONDS.min(snapshot.config().sessions.lifetime_seconds / 2);
        let session = self.browser_session(snapshot, headers).await?;
        Ok(session.filter(|session| {
            session.expires_at.saturating_sub(now) > least
                && route.is_none_or(|route| takes_provider(route, &session.identity.principal.idp))
        }))
    }

    /// Writes an audit event before what it tells of happens.
    ///
    /// # Errors
    /// When the line is not written and the configuration demands it.
    async fn record(&self, snapshot: &Snapshot, event: AuditEvent<'_>) -> Result<(), WebError> {
        match self.trail.record(event).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "web.audit_failed");
                if snapshot.config().audit.on_failure == OnAuditFailure::Deny { Err(WebError::Audit) } else { Ok(()) }
            }
        }
    }
}

/// All hosts of the web part.
pub fn router(web: Arc<Web>) -> Router {
    let public = Router::new()
        .route("/", get(portal::portal))
        .route("/login", get(login::login))
        .route("/callback", get(login::callback))
        .route("/logout", post(portal::logout))
        .route("/cli/login", get(confirm::cli_login))
        .route("/pomerium/login", get(confirm::pomerium_login))
        .route("/route/login", get(route_login::route_login))
        .route("/confirm", post(confirm::confirm))
        .route("/cli/token", post(tokens::login_token))
        .route("/cli/session-token", post(tokens::session_token))
        .route("/cli/logout", post(tokens::logout))
        .route("/cli/routes", get(tokens::routes))
        .route(discovery::OPENID_CONFIGURATION, get(discovery::openid_configuration))
        .route(discovery::JWKS, get(discovery::jwks))
        .route(discovery::ASSERTION_JWKS, get(discovery::assertion_jwks))
        .fallback(portal::not_found)
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES))
        .with_state(Arc::clone(&web));
    let routes = Router::new()
        .route("/.kubepass/config", get(route_host::config))
        .route("/.kubepass/start", get(route_login::start))
        .route("/.kubepass/callback", get(route_login::callback))
        .route("/.kubepass/logout", get(route_login::logout))
        .route("/.pomerium/api/v1/login", get(route_host::pomerium_login))
        .route("/.pomerium/api/v1/routes", get(route_host::pomerium_routes))
        .route("/healthz", get(route_host::probe))
        .route("/livez", get(route_host::probe))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "nothing at this address") })
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES))
        .with_state(Arc::clone(&web));
    Router::new().fallback(by_host).layer(middleware::map_response(hardened)).with_state(Hosts { web, public, routes })
}

async fn by_host(State(hosts): State<Hosts>, mut request: Request) -> Response {
    let snapshot = hosts.web.snapshot.load();
    let Some(host) = request::host(request.headers()) else {
        return plain(StatusCode::BAD_REQUEST, "exactly one valid Host header is needed");
    };
    let node = match Peer::view(request.extensions().get::<Peer>(), snapshot.nodes()) {
        Ok(node) => node,
        Err(unknown) => {
            if let Some(unsaid) = hosts.web.warned.now() {
                tracing::warn!(%unknown, unsaid, "web.refused");
            }
            return plain(StatusCode::FORBIDDEN, "this Envoy is no node of kubepass's configuration");
        }
    };
    let router = if host == snapshot.config().public_url.host && snapshot.has_login_pages(node) {
        hosts.public
    } else if let Some(route) = snapshot.route_by_host(&host).filter(|route| node.serves(route)) {
        request.extensions_mut().insert(AskedRoute(Arc::clone(route)));
        hosts.routes
    } else {
        return plain(StatusCode::MISDIRECTED_REQUEST, "this host is not served here");
    };
    let request::Origin { source_ip, request_id, .. } = request::Origin::of(request.headers());
    let Some(_under_way) = hosts.web.under_way.begin(Source::of(&source_ip)) else {
        return plain(StatusCode::TOO_MANY_REQUESTS, "too many requests of this address are under way: try again in a moment");
    };
    let answer = tokio::time::timeout(limits::REQUEST_TIMEOUT, router.oneshot(request)).await;
    match answer {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => WebError::Slow.page(&request_id),
    }
}

async fn hardened(mut response: Response) -> Response {
    pages::harden(response.headers_mut());
    response
}

/// What our addresses begin with, and the audience of login tokens.
fn public_origin(config: &Config) -> String {
    config.public_url.origin().to_owned()
}

/// Where identity providers send browsers back to.
fn callback_url(config: &Config) -> Result<Url, WebError> {
    config.public_url.url.join("/callback").map_err(|_| WebError::Internal)
}

/// `https://host[:port]` of a route.
fn route_url(config: &Config, route: &Route) -> String {
    config.public_url.origin_of(&route.host)
}

/// Whether a route takes sessions of this identity provider.
fn takes_provider(route: &Route, provider: &str) -> bool {
    route.identity_providers.as_ref().is_none_or(|listed| listed.iter().any(|name| name == provider))
}

/// The identity providers that a login for `route` may use, in the configuration's order.
fn providers_for<'a>(config: &'a Config, route: Option<&Route>) -> Vec<&'a Arc<IdentityProvider>> {
    config.identity_providers.iter().filter(|provider| route.is_none_or(|route| takes_provider(route, &provider.name))).collect()
}

fn see_other(location: &str) -> Result<Response, WebError> {
    let location = HeaderValue::from_str(location).map_err(|_| WebError::Internal)?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response()
}

fn now() -> u64 {
    clock::unix_now()
}
