//! The web part's socket: HTTP/1.1 for Envoy over a Unix socket, with limits on headers, time and connections.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use crate::server::unix_socket::UnixSocket;

use super::limits::{CONNECTIONS, HEADER_BYTES, HEADER_TIMEOUT};

/// For requests under way to end after `shutdown`.
const DRAIN: Duration = Duration::from_secs(10);
/// Header lines of a request.
const MAX_HEADERS: usize = 128;

/// Serves until `shutdown` is done, then lets requests under way end. That the socket's folder is private is the caller's matter.
///
/// # Errors
/// None today: a failed accept is logged and tried again.
pub async fn serve(socket: UnixSocket, router: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES).max_headers(MAX_HEADERS);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, _) = tokio::select! {
            () = &mut shutdown => break,
            accepted = socket.accept() => accepted,
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!("web.too_many_connections");
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A peer that goes away is no fault of ours.
            let _ = connection.await;
            drop(permit);
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}
