//! Who comes in at one service: the peer of each connection, and how many there may be of each.

use std::collections::HashMap;
use std::net::{self, SocketAddr};
use std::os::unix::net as unix;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::net::TcpStream;

use super::link::{Link, LinkStream};
use super::tls::{Tls, TlsError};
use super::turns::{Turn, Turns};
use super::unix_link::UnixLink;
use super::{Accepted, Speech};
use crate::config::NodeIdentity;
use crate::server::peer::{Peer, Standing};
use crate::server::telemetry::{Metrics, Seldom};
use crate::snapshot::{Nodes, Snapshot};

/// Connections at a time. An Envoy has one for each of its worker threads.
const MAX_CONNECTIONS: usize = 4096;
/// Of these, of one node, and of peers that are none.
const MAX_OF_ONE_NODE: usize = 1024;
const MAX_OF_STRANGERS: usize = 32;

/// Where a connection ends with the certificate that it was opened with: whoever took a certificate must not be told secrets, nor believed, for longer
/// than it lasts. Elsewhere each request brings its own credentials, and those under way would be lost.
const END_WITH_CERTIFICATE: [&str; 2] = ["xds", "access_log"];

/// What stands between the accepted connections of a service and the service.
#[derive(Debug)]
pub struct Gate {
    service: &'static str,
    /// `None`: there are no nodes, and never will be.
    snapshot: Option<Arc<ArcSwap<Snapshot>>>,
    own_uid: u32,
    /// What our own user is on the Unix socket.
    own: Standing,
    tls: Option<Tls>,
    turns: Turns,
    connections: Arc<Connections>,
    counts: DoorCounts,
    warned: Seldom,
}

/// What became of connections. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct DoorCounts(Family<Labels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: &'static str,
    result: &'static str,
}

#[derive(Debug, Default)]
struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_number: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    peer: Peer,
    node: Owner,
    handle: Arc<Handle>,
    /// Of its certificate's validity, where the connection ends with it.
    last_second: Option<u64>,
}

/// Whose a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Unnamed,
    Node(Arc<str>),
    Stranger,
}

/// A second hold on a connection, by which it can be ended.
#[derive(Debug)]
pub(super) enum Handle {
    Unix(unix::UnixStream),
    Tcp(net::TcpStream),
}

/// A connection's place among those that are open.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
}

impl DoorCounts {
    /// Adds the metric `kubepass_envoy_connections_total{service, result}`.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register("envoy_connections", "Connections of Envoys to kubepass, by service and what became of them", self.0.clone());
    }
}

impl Gate {
    pub(super) fn for_everyone(own_uid: u32) -> Self {
        Self::with(("socket", None), (own_uid, Standing::Local), None, DoorCounts::default())
    }

    pub(super) fn new(
        service: &'static str,
        speech: Speech,
        snapshot: Arc<ArcSwap<Snapshot>>,
        own: (u32, Standing),
        counts: DoorCounts,
    ) -> Result<Self, TlsError> {
        let config = Arc::clone(snapshot.load().config());
        let tls = config.control_plane.tcp.as_ref().and_then(|tcp| tcp.tls.as_ref());
        let tls = tls.map(|tls| Tls::new(speech, tls)).transpose()?;
        Ok(Self::with((service, Some(snapshot)), own, tls, counts))
    }

    fn with(
        (service, snapshot): (&'static str, Option<Arc<ArcSwap<Snapshot>>>),
        (own_uid, own): (u32, Standing),
        tls: Option<Tls>,
        counts: DoorCounts,
    ) -> Self {
        Self {
            service,
            snapshot,
            own_uid,
            own,
            tls,
            turns: Turns::default(),
            connections: Arc::default(),
            counts,
            warned: Seldom::default(),
        }
    }

    fn nodes(&self) -> Arc<Nodes> {
        self.snapshot.as_ref().map(|snapshot| Arc::clone(snapshot.load().nodes())).unwrap_or_default()
    }

    /// Whether a user of this machine may open the Unix socket at all: our own, root, and those of nodes.
    pub(super) fn may_open_socket(&self, uid: u32) -> bool {
        self.is_own(uid) || self.nodes().by_identity(&NodeIdentity::Uid(uid)).is_some()
    }

    fn is_own(&self, uid: u32) -> bool {
        uid == self.own_uid || uid == 0
    }

    /// Leave to make a handshake.
    pub(super) fn turn(&self, from: SocketAddr) -> Option<Turn> {
        let turn = self.turns.take(from.ip());
        if turn.is_none() {
            self.refuse("too_many", &format!("{from}: too many connections are being opened"));
        }
        turn
    }

    /// Makes the connection known, in the runtime that it will live in; `None` when it came to nothing, which is logged.
    pub async fn admit(self: Arc<Self>, accepted: Accepted) -> Option<Link> {
        match accepted {
            Accepted::Unix { stream, uid } => {
                let standing = if self.is_own(uid) { self.own } else { Standing::Stranger };
                let place_of = |peer: &Peer| self.enter(peer, Handle::Unix(stream.try_clone().ok()?), None);
                let peer = Peer::new(vec![NodeIdentity::Uid(uid)], standing);
                let place = place_of(&peer)?;
                Some(Link::new(LinkStream::Unix(UnixLink::new(stream).ok()?), peer, place))
            }
            Accepted::Tcp { stream, from, turn } => {
                let handle = Handle::Tcp(stream.try_clone().ok()?);
                let stream = TcpStream::from_std(stream).ok()?;
                let (stream, peer, last_second) = match &self.tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok((stream, shown)) => {
                            (LinkStream::Tls(Box::new(stream)), Peer::new(shown.names, Standing::Stranger), Some(shown.last_second))
                        }
                        Err(error) => {
                            self.refuse("handshake_failed", &format!("{from}: {error}"));
                            return None;
                        }
                    },
                    None => (LinkStream::Tcp(stream), Peer::new(vec![NodeIdentity::InsecureLoopback], Standing::Local), None),
                };
                drop(turn);
                let place = self.enter(&peer, handle, last_second)?;
                Some(Link::new(stream, peer, place))
            }
        }
    }

    fn enter(&self, peer: &Peer, handle: Handle, last_second: Option<u64>) -> Option<Place> {
        let node = Owner::of(peer, &self.nodes());
        let of_one = match node {
            Owner::Stranger => MAX_OF_STRANGERS,
            Owner::Unnamed | Owner::Node(_) => MAX_OF_ONE_NODE,
        };
        let mut open = self.connections.open();
        let same = open.by_number.values().filter(|connection| connection.node == node).count();
        if open.by_number.len() >= MAX_CONNECTIONS || same >= of_one {
            drop(open);
            self.refuse("too_many", &format!("{peer} has {same} connections open"));
            return None;
        }
        open.last += 1;
        let number = open.last;
        let last_second = last_second.filter(|_| END_WITH_CERTIFICATE.contains(&self.service));
        open.by_number.insert(number, Connection { peer: peer.clone(), node: node.clone(), handle: Arc::new(handle), last_second });
        drop(open);
        match node {
            Owner::Unnamed | Owner::Node(_) => self.counts.add(self.service, "admitted"),
            // It is told why at its first call.
            Owner::Stranger => self.refuse("unknown", &format!("no node is known by what an Envoy shows: {peer}")),
        }
        Some(Place { connections: Arc::clone(&self.connections), number })
    }

    fn refuse(&self, result: &'static str, why: &str) {
        self.counts.add(self.service, result);
        if let Some(unsaid) = self.warned.now() {
            tracing::warn!(door.service = self.service, door.result = result, why, unsaid, "a connection of an Envoy was refused");
        }
    }

    /// Takes the certificates of a new configuration.
    pub(super) fn renew(&self, snapshot: &Snapshot) {
        let configured = snapshot.config().control_plane.tcp.as_ref().and_then(|tcp| tcp.tls.as_ref());
        if let (Some(tls), Some(configured)) = (&self.tls, configured)
            && let Err(error) = tls.renew(configured)
        {
            tracing::error!(door.service = self.service, %error, "the new certificates of `control_plane.tls` cannot be used; the last ones stay");
        }
    }

    /// The connections of peers that are another node now, or none any more, and those whose certificate is over.
    pub(super) fn leaving(&self, nodes: &Nodes, now: u64) -> Vec<Arc<Handle>> {
        let why = |connection: &Connection| {
            if Owner::of(&connection.peer, nodes) != connection.node {
                return Some("its Envoy is no longer the node that it was");
            }
            connection.last_second.is_some_and(|last| last < now).then_some("its certificate is over")
        };
        let open = self.connections.open();
        let leaving = open.by_number.values().filter_map(|connection| {
            let why = why(connection)?;
            tracing::warn!(door.service = self.service, peer = %connection.peer, why, "a connection of an Envoy ends");
            Some(Arc::clone(&connection.handle))
        });
        leaving.collect()
    }

    /// When the first of the certificates is over.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.connections.open().by_number.values().filter_map(|connection| connection.last_second).min().map(|last| last.saturating_add(1))
    }
}

impl DoorCounts {
    fn add(&self, service: &'static str, result: &'static str) {
        self.0.get_or_create(&Labels { service, result }).inc();
    }
}

impl Owner {
    fn of(peer: &Peer, nodes: &Nodes) -> Self {
        match Peer::view(Some(peer), nodes).map(|node| node.name()) {
            Ok(None) => Self::Unnamed,
            Ok(Some(name)) => Self::Node(Arc::clone(name)),
            Err(_) => Self::Stranger,
        }
    }
}

impl Handle {
    pub(super) fn close(&self) {
        // It may have ended by itself.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(net::Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(net::Shutdown::Both),
        };
    }
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().by_number.remove(&self.number);
    }
}
