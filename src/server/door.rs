//! Where Envoys come in: for each service its Unix socket and, where the configuration has one, its TCP address. A connection that leaves here has
//! its `Peer` with it; what the peer may have is for the service to say, which asks `Peer::view` at every call.

mod gate;
mod link;
mod tls;
mod turns;
mod unix_link;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::server::clock;
use crate::server::peer::Standing;
use crate::server::unix_socket::{SocketError, UnixSocket};
use crate::snapshot::Snapshot;

pub use gate::{DoorCounts, Gate};
pub use link::Link;
pub use tls::TlsError;

use turns::Turn;

/// How long to wait after an accept failed (out of descriptors, for example) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that is gone without a word is found after about a minute.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// How often it is looked which certificates are over.
const LOOK: Duration = Duration::from_secs(60);
/// From the change of the configuration to the end of the connections of nodes that are no more: xDS streams can still say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a service cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("a local socket cannot be bound: {0}")]
    Socket(#[from] SocketError),
    #[error("the address {address} of `control_plane.{service}` cannot be bound: {error}")]
    Address { service: &'static str, address: SocketAddr, error: io::Error },
    #[error("the certificates of `control_plane.tls` cannot be used: {0}")]
    Tls(#[from] TlsError),
}

/// What a service speaks over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// gRPC: HTTP/2.
    Grpc,
    Http1,
}

/// The bound socket and address of one service.
#[derive(Debug)]
pub struct Door {
    unix: UnixSocket,
    tcp: Option<TcpIncoming>,
    gate: Arc<Gate>,
}

/// A connection of which it is not known yet whose it is. Belongs to no runtime: where it is admitted, there it lives.
#[derive(Debug)]
pub enum Accepted {
    Unix { stream: UnixStream, uid: u32 },
    Tcp { stream: TcpStream, from: SocketAddr, turn: Turn },
}

/// A socket for whoever may open it, where there are no nodes and nothing changes.
impl From<UnixSocket> for Door {
    fn from(unix: UnixSocket) -> Self {
        Self { gate: Arc::new(Gate::for_everyone(unix.own_uid())), unix, tcp: None }
    }
}

impl Door {
    /// Binds what the configuration says of `service`. `own`: what peers of our own user are that no node stands for.
    ///
    /// # Errors
    /// `DoorError`; its text says which address or file.
    pub fn bind(
        service: &'static str,
        speech: Speech,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        own: Standing,
        counts: DoorCounts,
    ) -> Result<Self, DoorError> {
        let config = Arc::clone(snapshot.load().config());
        let control_plane = &config.control_plane;
        let unix = UnixSocket::bind(&control_plane.socket_dir.join(format!("{service}.sock")))?;
        let tcp = control_plane.tcp.as_ref();
        let address = tcp.and_then(|tcp| tcp.addresses().into_iter().find(|(name, _)| *name == service)).map(|(_, address)| address);
        let incoming = match address {
            Some(address) => Some(listen(address).map_err(|error| DoorError::Address { service, address, error })?),
            None => None,
        };
        let gate = Gate::new(service, speech, Arc::clone(snapshot), (unix.own_uid(), own), counts)?;
        Ok(Self { unix, tcp: incoming, gate: Arc::new(gate) })
    }

    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Waits for the next connection that may try. Failures of accept are waited out.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let accepted = tokio::select! {
                (stream, uid) = self.unix.accept_from(|uid| self.gate.may_open_socket(uid)) => stream.into_std().map(|stream| Accepted::Unix { stream, uid }).ok(),
                next = next_tcp(self.tcp.as_mut()) => match next {
                    Ok((stream, from)) => self.gate.turn(from).map(|turn| Accepted::Tcp { stream, from, turn }),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        None
                    }
                },
            };
            if let Some(accepted) = accepted {
                return accepted;
            }
        }
    }

    /// The connections as tonic takes them, each known. The stream never ends and never yields an error.
    pub fn into_links(self) -> impl Stream<Item = io::Result<Link>> + Send {
        futures::stream::unfold((self, FuturesUnordered::new()), |(mut door, mut coming)| async move {
            loop {
                tokio::select! {
                    accepted = door.accept() => coming.push(door.gate().admit(accepted)),
                    Some(link) = coming.next(), if !coming.is_empty() => if let Some(link) = link {
                        return Some((Ok(link), (door, coming)));
                    },
                }
            }
        })
    }
}

/// Keeps the gates up to date with the configuration: new connections get the certificates in force, and nodes that are no more lose theirs. The same
/// happens to connections that are not to outlast their certificates.
///
/// # Errors
/// When nobody publishes configurations any more.
pub async fn follow(
    gates: Vec<Arc<Gate>>,
    mut changes: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) -> Result<(), &'static str> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = changes.changed() => changed.map_err(|_| "the publisher has ended")?,
            () = tokio::time::sleep(until_next_look(&gates)) => {}
        }
        let snapshot = Arc::clone(&changes.borrow_and_update());
        gates.iter().for_each(|gate| gate.renew(&snapshot));
        let leaving: Vec<_> = gates.iter().flat_map(|gate| gate.leaving(snapshot.nodes(), clock::unix_now())).collect();
        if leaving.is_empty() {
            continue;
        }
        tokio::time::sleep(LAST_WORDS).await;
        leaving.iter().for_each(|connection| connection.close());
    }
}

/// To the end of the first certificate; connections that come meanwhile may have one that ends earlier.
fn until_next_look(gates: &[Arc<Gate>]) -> Duration {
    let next = gates.iter().filter_map(|gate| gate.next_end()).min();
    next.map_or(LOOK, |next| Duration::from_secs(next.saturating_sub(clock::unix_now())).min(LOOK))
}

fn listen(address: SocketAddr) -> io::Result<TcpIncoming> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
    let incoming = incoming.with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE));
    Ok(incoming.with_keepalive_interval(Some(KEEPALIVE_INTERVAL)).with_keepalive_retries(Some(KEEPALIVE_RETRIES)))
}

/// Never ready where there is no address.
async fn next_tcp(incoming: Option<&mut TcpIncoming>) -> io::Result<(TcpStream, SocketAddr)> {
    let Some(incoming) = incoming else { return std::future::pending().await };
    let stream = incoming.next().await.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))?;
    let from = stream.peer_addr()?;
    Ok((stream.into_std()?, from))
}
