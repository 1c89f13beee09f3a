//! Where checks are answered: on threads of their own, each with its own event loop and its own connections of Envoy.
//!
//! A check is short. On threads that share their work, most of its time would go into waking the next one; here it is read, decided and
//! answered by one thread, and nothing else that kubepass does (log-ins, xDS, the access log) stands before it.

use std::io;
use std::sync::Arc;
use std::thread;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::server::door::{Accepted, Door, Gate};
use crate::server::ext_authz::ExtAuthz;
use crate::server::ext_authz::grpc::Checks;

/// One for each processor, but no more than this: an Envoy has one connection for each of its own worker threads.
const MAX_THREADS: usize = 16;
/// Connections that wait for one thread to take them, and handshakes that it makes at a time.
const WAITING: usize = 64;
/// Checks of one connection that may be taken back before they were looked at. A client who resets their requests has Envoy do that, on the
/// connection that all others share: with the library's 20, made against clients of one's own, one of them could have it closed for all.
const MAX_TAKEN_BACK: usize = 8_192;

/// Why checks are answered no more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("a thread that answers checks could not be started: {0}")]
    Start(#[source] io::Error),
    #[error("a thread that answers checks ended: {0}")]
    Ended(String),
}

/// Answers until `stop`, and then what was asked before it.
///
/// # Errors
/// When a thread cannot start, or ends by itself.
pub async fn serve(service: ExtAuthz, door: impl Into<Door>, stop: CancellationToken) -> Result<(), ServeError> {
    let mut door = door.into();
    let checks = Checks(Arc::new(service));
    let count = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let (mut threads, mut ends) = (Vec::with_capacity(count), FuturesUnordered::new());
    for _ in 0..count {
        let (connections, end) = start(checks.clone(), door.gate(), stop.clone()).map_err(ServeError::Start)?;
        threads.push(connections);
        ends.push(end);
    }
    let mut turns = threads.iter().cycle();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = door.accept() => {
                if let Some(thread) = turns.next() {
                    // Fails when the thread has ended, which the next turn of the loop tells.
                    let _ = thread.send(accepted).await;
                }
            }
            Some(end) = ends.next() => return Err(ServeError::Ended(why(end))),
        }
    }
    while ends.next().await.is_some() {}
    Ok(())
}

type End = oneshot::Receiver<Result<(), String>>;

fn start(checks: Checks, gate: Arc<Gate>, stop: CancellationToken) -> io::Result<(mpsc::Sender<Accepted>, End)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (connections, accepted) = mpsc::channel(WAITING);
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("ext-authz".to_owned()).spawn(move || {
        let links = ReceiverStream::new(accepted).map(move |accepted| Arc::clone(&gate).admit(accepted)).buffer_unordered(WAITING);
        let incoming = links.filter_map(|link| std::future::ready(link.map(Ok::<_, io::Error>)));
        let server = Server::builder().http2_max_pending_accept_reset_streams(Some(MAX_TAKEN_BACK));
        let served = server.serve_with_incoming_shutdown(checks, incoming, stop.cancelled_owned());
        // Nobody waits any more when the process ends without a drain.
        let _ = ended.send(runtime.block_on(served).map_err(|error| error.to_string()));
    })?;
    Ok((connections, end))
}

/// A thread that panicked says nothing.
fn why(end: Result<Result<(), String>, oneshot::error::RecvError>) -> String {
    match end {
        Ok(Ok(())) => "it finished".to_owned(),
        Ok(Err(error)) => error,
        Err(_) => "it panicked".to_owned(),
    }
}
