//! The web part's door: HTTP/1.1 for Envoy, with limits on headers, time and connections.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use crate::server::door::Door;

use super::limits::{CONNECTIONS, HEADER_BYTES, HEADER_TIMEOUT};

/// For requests under way to end after `shutdown`.
const DRAIN: Duration = Duration::from_secs(10);
/// Header lines of a request.
const MAX_HEADERS: usize = 128;

/// Serves until `shutdown` is done, then lets requests under way end.
///
/// # Errors
/// None today: a failed accept is logged and tried again.
pub async fn serve(door: impl Into<Door>, router: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let mut door = door.into();
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES).max_headers(MAX_HEADERS);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = door.accept() => accepted,
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!("web.too_many_connections");
            continue;
        };
        let (gate, router, http, watcher) = (door.gate(), router.clone(), http.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Some(link) = gate.admit(accepted).await {
                let service = TowerToHyperService::new(router.layer(Extension(link.peer().clone())));
                // A peer that goes away is no fault of ours.
                let _ = watcher.watch(http.serve_connection(TokioIo::new(link), service)).await;
            }
            drop(permit);
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}
