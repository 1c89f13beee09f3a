//! Metrics and readiness over TCP. Nothing secret, nothing that changes anything; a Host check keeps web pages of other origins out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::defence::{Defence, off};
use crate::server::telemetry::Metrics;

/// One thing that must hold before traffic may come.
pub struct Condition {
    pub name: &'static str,
    pub holds: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Condition").field("name", &self.name).field("holds", &(self.holds)()).finish()
    }
}

/// All conditions of readiness.
#[derive(Debug, Default)]
pub struct Readiness(pub Vec<Condition>);

impl Readiness {
    /// Names of the conditions that do not hold; empty when ready.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.0.iter().filter(|condition| !(condition.holds)()).map(|condition| condition.name).collect()
    }
}

#[derive(Debug, Clone)]
struct HttpState {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    address: SocketAddr,
}

/// `GET /livez`, `/readyz` and `/metrics`.
pub fn router(metrics: Arc<Metrics>, readiness: Arc<Readiness>, address: SocketAddr) -> Router {
    let state = HttpState { metrics, readiness, address };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .layer(middleware::from_fn_with_state(state.clone(), check_host))
        .with_state(state)
}

async fn readyz(State(state): State<HttpState>) -> Response {
    match state.readiness.awaited().as_slice() {
        [] => "ready\n".into_response(),
        awaited => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: waiting for {}\n", awaited.join(", "))).into_response(),
    }
}

async fn metrics_text(State(state): State<HttpState>) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], state.metrics.encode()).into_response()
}

/// Refuses names: a page whose name was rebound to this address (DNS rebinding) shows that name here.
async fn check_host(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    if host_is_local(request.headers(), state.address) || off(Defence::AdminHost) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "ask by IP address or as localhost\n").into_response()
}

fn host_is_local(headers: &HeaderMap, address: SocketAddr) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let (name, port) = split_port(host);
    if port.is_some_and(|port| port.parse() != Ok(address.port())) {
        return false;
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use axum::body::Body;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tower::ServiceExt;

    async fn status(router: &Router, path: &str, host: Option<&str>) -> u16 {
        let mut request = axum::http::Request::get(path);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn only_addresses_and_localhost_are_answered() {
        let router = router(Arc::default(), Arc::default(), "127.0.0.1:9902".parse().unwrap());
        for host in ["127.0.0.1:9902", "localhost:9902", "10.1.2.3:9902", "[::1]:9902", "127.0.0.1", "LOCALHOST:9902"] {
            assert_eq!(status(&router, "/metrics", Some(host)).await, 200, "{host}");
        }
        for host in ["evil.example", "evil.example:9902", "127.0.0.1:80", "127.0.0.1.evil.example:9902", "", "localhost.:9902", "[::1"] {
            assert_eq!(status(&router, "/metrics", Some(host)).await, 421, "{host}");
        }
        assert_eq!(status(&router, "/metrics", None).await, 421);
    }

    #[tokio::test]
    async fn ready_only_while_every_condition_holds() {
        let holds = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&holds);
        let condition = Condition { name: "listener", holds: Box::new(move || seen.load(Ordering::SeqCst)) };
        let router = router(Arc::default(), Arc::new(Readiness(vec![condition])), "127.0.0.1:1".parse().unwrap());
        assert_eq!(status(&router, "/readyz", Some("127.0.0.1")).await, 503);
        assert_eq!(status(&router, "/livez", Some("127.0.0.1")).await, 200);
        holds.store(true, Ordering::SeqCst);
        assert_eq!(status(&router, "/readyz", Some("127.0.0.1")).await, 200);
    }
}
