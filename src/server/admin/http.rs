//! Metrics and readiness over TCP. Nothing secret, nothing that changes anything; a Host check keeps web pages of other origins out, and limits keep
//! whoever can reach it from taking the process's descriptors.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::defence::{Defence, off};
use crate::server::telemetry::Metrics;

/// Connections at a time; further ones are closed at once.
const CONNECTIONS: usize = 256;
/// For the headers of the request, and for all of it with its answer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const HEADER_BYTES: usize = 16 * 1024;
/// How long to wait after an accept failed (out of descriptors, for example) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Serves one request for each connection, until `shutdown` is done.
///
/// # Errors
/// Never: a failed accept is tried again.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) -> Result<(), Infallible> {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false).max_buf_size(HEADER_BYTES);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // A client that goes away, or does nothing, is no fault of ours.
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, connection).await;
            drop(permit);
        });
    }
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
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
    async fn who_connects_and_says_nothing_keeps_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router(Arc::default(), Arc::default(), address), std::future::pending()));
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n");
            let mut answer = String::new();
            let _ = stream.write_all(request.as_bytes()).await;
            let _ = stream.read_to_string(&mut answer).await;
            answer
        };
        assert!(ask().await.starts_with("HTTP/1.1 200"), "it is answered, and the connection ends by itself");
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(ask().await, "", "no more than so many");
        for mut stream in idle {
            let end = tokio::time::timeout(HEADER_TIMEOUT * 4, stream.read(&mut [0; 64])).await.unwrap();
            assert!(!matches!(end, Ok(1..)), "ended without a word: {end:?}");
        }
        assert!(ask().await.starts_with("HTTP/1.1 200"));
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
