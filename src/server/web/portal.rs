//! `GET /` and `POST /logout`: who am I, what can I use, and the way out.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::config::{Config, OnAuditFailure, Route, Target};
use crate::server::ending::EndError;
use crate::session::Session;
use crate::snapshot::Snapshot;

use super::error::WebError;
use super::form::{self, Purpose, is_same_origin};
use super::pages::{Page, Portal, PortalRoute};
use super::request::Origin;
use super::{Web, cookie, now, public_origin, route_url, takes_provider};

#[derive(Debug, Deserialize)]
pub(super) struct LogoutForm {
    form: String,
}

pub(super) async fn portal(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let snapshot = web.snapshot.load_full();
    let now = now();
    let session = match web.browser_session(&snapshot, &headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return Page::welcome().into_response(),
        Err(error) => return error.page(&Origin::of(&headers).request_id),
    };
    let Ok(logout_form) = form::seal(snapshot.token_keys(), Purpose::Logout, session.id, (), now) else {
        return WebError::Internal.page(&Origin::of(&headers).request_id);
    };
    let config = snapshot.config();
    let idp = &session.identity.principal.idp;
    let routes = config.routes.iter().filter(|route| takes_provider(route, idp));
    let portal = Portal {
        user: session.identity.username.clone(),
        provider: idp.clone(),
        groups: session.identity.groups.as_slice().to_vec(),
        minutes_left: session.expires_at.saturating_sub(now) / 60,
        routes: routes.map(|route| shown(config, route)).collect(),
        logout_form,
    };
    Page::portal(&portal).into_response()
}

fn shown(config: &Config, route: &Route) -> PortalRoute {
    let (name, url) = (route.name.clone(), route_url(config, route));
    match route.target {
        Target::Kubernetes(_) => PortalRoute::Cluster { name, url },
        Target::Http(_) => PortalRoute::Page { name, url },
    }
}

pub(super) async fn logout(State(web): State<Arc<Web>>, headers: HeaderMap, body: Result<Form<LogoutForm>, FormRejection>) -> Response {
    let origin = Origin::of(&headers);
    let result = async {
        let Form(body) = body.map_err(|_| WebError::Form)?;
        let snapshot = web.snapshot.load_full();
        if !is_same_origin(&headers, &public_origin(snapshot.config())) {
            return Err(WebError::CrossSite);
        }
        let now = now();
        let session = web.browser_session(&snapshot, &headers).await?.ok_or(WebError::LoggedOut)?;
        form::open::<()>(snapshot.token_keys(), Purpose::Logout, session.id, &body.form, now).ok_or(WebError::Form)?;
        end_session(&web, &snapshot, &session).await?;
        let mut response = Page::logged_out().into_response();
        response.headers_mut().append(header::SET_COOKIE, cookie::remove(cookie::SESSION));
        Ok(response)
    };
    result.await.unwrap_or_else(|error| error.page(&origin.request_id))
}

pub(super) async fn not_found(headers: HeaderMap) -> Response {
    WebError::NotFound.page(&Origin::of(&headers).request_id)
}

/// Ends the session of the person who asks. A log-out is never refused: what comes back as an error has ended the session in memory all the same.
pub(super) async fn end_session(web: &Web, snapshot: &Snapshot, session: &Session) -> Result<(), WebError> {
    match web.ender.end(&session.id, Some(&session.identity.username), "user").await {
        Ok(()) => Ok(()),
        Err(EndError::Store(error)) => {
            tracing::error!(%error, session = %session.id, "web.store_failed");
            Err(WebError::Store)
        }
        Err(EndError::Trail(error)) => {
            tracing::error!(%error, session = %session.id, "web.audit_failed");
            if snapshot.config().audit.on_failure == OnAuditFailure::Deny { Err(WebError::Audit) } else { Ok(()) }
        }
    }
}
