//! Whether Envoy accepts connections: it acknowledges a listener before its workers listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;

/// Long enough for this machine, short enough for a probe.
const CONNECT: Duration = Duration::from_millis(100);

/// Asked until it held once: from then on the acknowledgement of the listener says enough.
#[derive(Debug)]
pub(super) struct Accepts {
    snapshot: Arc<ArcSwap<Snapshot>>,
    held: AtomicBool,
}

impl Accepts {
    pub(super) fn new(snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { snapshot, held: AtomicBool::new(false) }
    }

    /// Whether every listener took a connection.
    pub(super) fn holds(&self) -> bool {
        if !self.held.load(Ordering::Relaxed) {
            let snapshot = self.snapshot.load();
            let all = snapshot
                .config()
                .listeners
                .iter()
                .all(|listener| TcpStream::connect_timeout(&reachable(listener.address), CONNECT).is_ok());
            self.held.store(all, Ordering::Relaxed);
        }
        self.held.load(Ordering::Relaxed)
    }
}

/// Where a listener on all addresses is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:443"), "127.0.0.1:443");
        assert_eq!(reached("[::]:443"), "[::1]:443");
        assert_eq!(reached("192.0.2.1:443"), "192.0.2.1:443");
    }
}
