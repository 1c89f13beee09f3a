//! What kubepass answers clients on a route's own host: where to log in, and the contract of pomerium-cli. Everything else there is the upstream's.
//! Nothing here redirects and no cookie counts: for browsers, which plain HTTP routes have, there is `route_login`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::config::Route;
use crate::session::{Session, Shown};
use crate::snapshot::Snapshot;

use super::error::WebError;
use super::redirect::{LoopbackUri, query};
use super::request::bearer;
use super::{AskedRoute, Web, now, plain, public_origin, route_url, takes_provider};

/// What pomerium-cli puts before its token in a bearer.
const POMERIUM_BEARER: &str = "Pomerium-";

#[derive(Debug, Deserialize)]
pub(super) struct PomeriumQuery {
    pomerium_redirect_uri: Option<String>,
}

/// `GET /.kubepass/config`: where the command line logs in.
pub(super) async fn config(State(web): State<Arc<Web>>, Extension(AskedRoute(route)): Extension<AskedRoute>) -> Response {
    let public_url = public_origin(web.snapshot.load().config());
    Json(json!({"public_url": public_url, "route": route.name, "host": route.host, "kind": route.kind()})).into_response()
}

/// `GET /.pomerium/api/v1/login`: the address that pomerium-cli opens in a browser.
pub(super) async fn pomerium_login(
    State(web): State<Arc<Web>>,
    Extension(AskedRoute(route)): Extension<AskedRoute>,
    query_string: Result<Query<PomeriumQuery>, QueryRejection>,
) -> Response {
    if !route.pomerium_cli {
        return plain(StatusCode::NOT_FOUND, "pomerium-cli is not enabled on this route: use the kubepass command line");
    }
    let Ok(Query(PomeriumQuery { pomerium_redirect_uri })) = query_string else {
        return plain(StatusCode::BAD_REQUEST, "the query cannot be read");
    };
    let Some(redirect_uri) = pomerium_redirect_uri else {
        return plain(StatusCode::NOT_FOUND, "pomerium_redirect_uri is missing");
    };
    if LoopbackUri::parse(&redirect_uri).is_err() {
        return plain(StatusCode::BAD_REQUEST, "pomerium_redirect_uri is not http on a loopback address with a port of at least 1024");
    }
    let public_url = public_origin(web.snapshot.load().config());
    let address = format!("{public_url}/pomerium/login?{}", query(&[("redirect_uri", &redirect_uri), ("route", &route.host)]));
    (StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], address).into_response()
}

/// `GET /.pomerium/api/v1/routes`: for `pomerium-cli routes list`.
pub(super) async fn pomerium_routes(
    State(web): State<Arc<Web>>,
    Extension(AskedRoute(route)): Extension<AskedRoute>,
    headers: HeaderMap,
) -> Response {
    let snapshot = web.snapshot.load_full();
    let session = match pomerium_session(&web, &snapshot, &route, &headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return unauthorized(),
        Err(_) => return unavailable(),
    };
    let config = snapshot.config();
    let usable = config.routes.iter().filter(|route| route.pomerium_cli && takes_provider(route, &session.identity.principal.idp));
    let routes = usable.map(|route| {
        json!({"id": route.name, "name": route.name, "type": "http", "from": route_url(config, route), "description": "Kubernetes API server"})
    });
    Json(json!({"routes": routes.collect::<Vec<_>>()})).into_response()
}

/// `GET /healthz` and `/livez` with pomerium-cli's bearer: it asks before each command whether its token still lives.
pub(super) async fn probe(
    State(web): State<Arc<Web>>,
    Extension(AskedRoute(route)): Extension<AskedRoute>,
    headers: HeaderMap,
) -> Response {
    let snapshot = web.snapshot.load_full();
    match pomerium_session(&web, &snapshot, &route, &headers).await {
        Ok(Some(_)) => plain(StatusCode::OK, "ok"),
        Ok(None) => unauthorized(),
        Err(_) => unavailable(),
    }
}

async fn pomerium_session(web: &Web, snapshot: &Snapshot, route: &Route, headers: &HeaderMap) -> Result<Option<Arc<Session>>, WebError> {
    let bearer = bearer(headers).filter(|_| route.pomerium_cli);
    let Some(token) = bearer.and_then(|bearer| bearer.strip_prefix(POMERIUM_BEARER)) else { return Ok(None) };
    let session = match web.sessions.table().authenticate(snapshot.token_keys(), token, &route.host, now()) {
        Ok(Shown::Live(authenticated)) => Some(authenticated.session),
        Ok(Shown::AtRest { session, .. }) => web.live(&session).await?,
        Err(_) => None,
    };
    Ok(session.filter(|session| takes_provider(route, &session.identity.principal.idp)))
}

/// Not the answer to a token that has ended: the client would throw it away.
fn unavailable() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the session cannot be read at the moment: try again")
}

fn unauthorized() -> Response {
    let mut response = plain(StatusCode::UNAUTHORIZED, "log in again");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    response
}
