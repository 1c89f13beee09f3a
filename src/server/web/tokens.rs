//! The endpoints of the command line: one-time code to login token, login token to session token, log-out, the list of routes. Errors are OAuth JSON. No
//! cookie counts here, and no token ever stands in a URL.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::audit::{AuditEvent, TokenIssuedEvent};
use crate::config::{Config, Route};
use crate::session::{Session, Shown};
use crate::snapshot::Snapshot;
use crate::token::TokenRejection;

use super::codes::Destination;
use super::error::ApiError;
use super::portal::end_session;
use super::request::{Origin, bearer, host_name};
use super::{Web, now, public_origin, random, route_url, takes_provider};

#[derive(Debug, Deserialize)]
pub(super) struct CodeForm {
    grant_type: String,
    code: String,
    code_verifier: String,
    redirect_uri: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SessionTokenForm {
    host: String,
}

/// `POST /cli/token`: the access token request of RFC 6749, 4.1.3, with RFC 7636's verifier.
pub(super) async fn login_token(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    form: Result<Form<CodeForm>, FormRejection>,
) -> Result<Response, ApiError> {
    let (origin, now) = (limited(&web, &headers)?, now());
    let Form(form) =
        form.map_err(|_| ApiError::invalid_request("the form needs grant_type, code, code_verifier and redirect_uri, each once"))?;
    if form.grant_type != "authorization_code" {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "only authorization_code is taken"));
    }
    // One answer for every fault: which part was wrong is nobody's business who did not make them all.
    let fault = || {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_grant",
            "the code is unknown, was used, has expired, or is another client's: log in again",
        )
    };
    let destination = Destination::Program(form.redirect_uri);
    let session = web.codes.redeem(&form.code, &form.code_verifier, &destination, now).map_err(|refusal| {
        tracing::info!(?refusal, source_ip = origin.source_ip, "web.code_refused");
        fault()
    })?;
    let session = web.live(&session).await.map_err(|error| ApiError::unavailable(&error))?.ok_or_else(fault)?;
    let snapshot = web.snapshot.load_full();
    let claims = session.login_token_claims(&public_origin(snapshot.config()), random::id(), now);
    let token = snapshot.token_keys().sign_login_token(&claims).map_err(|_| server_error())?;
    issued(&web, &snapshot, &origin, &session, "").await?;
    let expires_in = session.expires_at.saturating_sub(now);
    Ok(Json(json!({"login_token": token, "expires_in": expires_in, "user": session.identity.username})).into_response())
}

/// `POST /cli/session-token`: a token for one route, while the session lives.
pub(super) async fn session_token(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    form: Result<Form<SessionTokenForm>, FormRejection>,
) -> Result<Response, ApiError> {
    let (origin, now) = (limited(&web, &headers)?, now());
    let snapshot = web.snapshot.load_full();
    let session = authenticated(&web, &snapshot, &headers, now).await?;
    let Form(form) = form.map_err(|_| ApiError::invalid_request("the form needs host"))?;
    let route = host_name(&form.host).and_then(|host| snapshot.route_by_host(&host).cloned());
    let route =
        route.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "unknown_route", "there is no route at this host: check the address"))?;
    let idp = &session.identity.principal.idp;
    if !takes_provider(&route, idp) {
        let text = format!("the route {} takes no log-ins of the identity provider {idp}: log in at one that it takes", route.name);
        return Err(ApiError::new(StatusCode::FORBIDDEN, "access_denied", text));
    }
    let claims = session.session_token_claims(&route.host, random::id(), now);
    let token = snapshot.token_keys().sign_session_token(&claims).map_err(|_| server_error())?;
    issued(&web, &snapshot, &origin, &session, &route.name).await?;
    Ok(Json(json!({"session_token": token, "expires_at": claims.expires_at, "route": route.name})).into_response())
}

/// `POST /cli/logout`: the session ends, everywhere.
pub(super) async fn logout(State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, ApiError> {
    limited(&web, &headers)?;
    let snapshot = web.snapshot.load_full();
    let session = authenticated(&web, &snapshot, &headers, now()).await?;
    end_session(&web, &snapshot, &session).await.map_err(|error| ApiError::unavailable(&error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /cli/routes`: what this session can get tokens for.
pub(super) async fn routes(State(web): State<Arc<Web>>, headers: HeaderMap) -> Result<Response, ApiError> {
    limited(&web, &headers)?;
    let snapshot = web.snapshot.load_full();
    let session = authenticated(&web, &snapshot, &headers, now()).await?;
    let config = snapshot.config();
    let routes = config.routes.iter().filter(|route| takes_provider(route, &session.identity.principal.idp));
    let routes: Vec<_> = routes.map(|route| route_entry(config, route)).collect();
    Ok(Json(json!({"routes": routes})).into_response())
}

fn route_entry(config: &Config, route: &Route) -> Value {
    json!({"name": route.name, "host": route.host, "url": route_url(config, route), "kind": route.kind()})
}

fn limited(web: &Web, headers: &HeaderMap) -> Result<Origin, ApiError> {
    let origin = Origin::of(headers);
    if web.token_requests.allow(&origin.source_ip, now()) {
        Ok(origin)
    } else {
        Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "slow_down", "too many requests from this address: try again in a minute"))
    }
}

async fn authenticated(web: &Web, snapshot: &Snapshot, headers: &HeaderMap, now: u64) -> Result<Arc<Session>, ApiError> {
    let token = bearer(headers).ok_or_else(|| ApiError::invalid_token("a login token is needed: log in"))?;
    let audience = public_origin(snapshot.config());
    let invalid = |rejection: TokenRejection| ApiError::invalid_token(rejection.to_string());
    match web.sessions.table().authenticate_login(snapshot.token_keys(), token, &audience, now).map_err(invalid)? {
        Shown::Live(authenticated) => Ok(authenticated.session),
        Shown::AtRest { session, .. } => {
            let session = web.live(&session).await.map_err(|error| ApiError::unavailable(&error))?;
            session.ok_or_else(|| invalid(TokenRejection::SessionEnded))
        }
    }
}

/// The audit line of a token, before the token leaves. `route` is empty for a login token.
async fn issued(web: &Web, snapshot: &Snapshot, origin: &Origin, session: &Session, route: &str) -> Result<(), ApiError> {
    let event = TokenIssuedEvent {
        session: session.id.to_string(),
        user: session.identity.username.clone(),
        route: route.to_owned(),
        client: "kubepass".to_owned(),
        source_ip: origin.source_ip.clone(),
    };
    web.record(snapshot, AuditEvent::TokenIssued(event)).await.map_err(|error| ApiError::unavailable(&error))
}

fn server_error() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "something failed inside kubepass: try again")
}
