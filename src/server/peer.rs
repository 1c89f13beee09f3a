//! Whose connection it is, from what the kernel or TLS says of the other side: read once, when the connection is accepted. Which node of the
//! configuration that is, is asked again at every call, so that a node that was taken out gets nothing more. What an Envoy says of itself is no matter here.

use std::sync::Arc;

use tonic::Status;

use crate::config::NodeIdentity;
use crate::defence::{Defence, off};
use crate::snapshot::{NodeView, Nodes};

/// The other side of one connection. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer(Arc<Shown>);

#[derive(Debug, PartialEq, Eq)]
struct Shown {
    /// Each of them could be a node's.
    identities: Vec<NodeIdentity>,
    standing: Standing,
}

/// What a peer is that no node is configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody.
    Stranger,
    /// The unnamed node as long as the configuration has no nodes: what opens our sockets, or plain loopback.
    Local,
    /// The unnamed node always: the Envoy that kubepass started.
    Own,
}

/// Why a peer gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPeer {
    #[error("no node of the configuration is known by what this Envoy shows ({0}); add it to `nodes`")]
    NoNode(String),
    #[error("what this Envoy shows ({0}) belongs to several nodes of the configuration; give each node a certificate of its own")]
    SeveralNodes(String),
}

impl Peer {
    pub fn new(identities: Vec<NodeIdentity>, standing: Standing) -> Self {
        Self(Arc::new(Shown { identities, standing }))
    }

    /// The node that `peer` is. Without a peer (nobody looked at the connection) there must be no nodes either.
    ///
    /// # Errors
    /// It is none.
    pub fn view<'n>(peer: Option<&Self>, nodes: &'n Nodes) -> Result<&'n NodeView, UnknownPeer> {
        match peer {
            Some(peer) => peer.node(nodes),
            None if nodes.is_empty() => Ok(NodeView::UNNAMED),
            None => Err(UnknownPeer::NoNode("nothing".to_owned())),
        }
    }

    fn node<'n>(&self, nodes: &'n Nodes) -> Result<&'n NodeView, UnknownPeer> {
        let mut found = self.0.identities.iter().filter_map(|identity| nodes.by_identity(identity));
        match (found.next(), self.0.standing) {
            (Some(node), _) if found.all(|other| other == node) => Ok(node),
            (Some(_), _) => Err(UnknownPeer::SeveralNodes(self.to_string())),
            (None, Standing::Own) => Ok(NodeView::UNNAMED),
            (None, _) if off(Defence::NodeIdentity) => Ok(NodeView::UNNAMED),
            (None, Standing::Local) if nodes.is_empty() => Ok(NodeView::UNNAMED),
            (None, _) => Err(UnknownPeer::NoNode(self.to_string())),
        }
    }

    /// Whether kubepass started it.
    pub fn is_own(&self) -> bool {
        self.0.standing == Standing::Own
    }
}

/// What it shows.
impl std::fmt::Display for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.identities.is_empty() {
            return formatter.write_str("a certificate without names");
        }
        for (index, identity) in self.0.identities.iter().take(MAX_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let text: String =
                identity.to_string().chars().take(MAX_SHOWN_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
            write!(formatter, "{separator}{text}")?;
        }
        if self.0.identities.len() > MAX_SHOWN { formatter.write_str(", ...") } else { Ok(()) }
    }
}

/// Names in a message, and characters of each: a certificate may hold thousands.
const MAX_SHOWN: usize = 4;
const MAX_SHOWN_CHARACTERS: usize = 256;

impl From<UnknownPeer> for Status {
    fn from(unknown: UnknownPeer) -> Self {
        Self::permission_denied(unknown.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::Node;

    fn nodes(identities: &[NodeIdentity]) -> Nodes {
        let node = |(index, identity): (usize, &NodeIdentity)| Node { name: format!("node-{index}"), identity: identity.clone() };
        Nodes::new(&identities.iter().enumerate().map(node).collect::<Vec<_>>(), &[])
    }

    fn uri(text: &str) -> NodeIdentity {
        NodeIdentity::Uri(text.to_owned())
    }

    fn dns(text: &str) -> NodeIdentity {
        NodeIdentity::Dns(text.to_owned())
    }

    #[test]
    fn a_node_is_known_by_exactly_what_it_shows() {
        let nodes = nodes(&[uri("spiffe://a/one"), dns("two.example.com"), NodeIdentity::Uid(1000), NodeIdentity::InsecureLoopback]);
        let check = |shown: &[NodeIdentity], standing, expected: Result<Option<&str>, &str>| {
            let peer = Peer::new(shown.to_vec(), standing);
            let got = Peer::view(Some(&peer), &nodes).map(|node| node.name().map(|name| &**name));
            match (got, expected) {
                (Err(unknown), Err(part)) => assert!(unknown.to_string().contains(part), "{shown:?}: {unknown}"),
                (got, expected) => assert_eq!(got.ok(), expected.ok(), "{shown:?}"),
            }
        };
        check(&[uri("spiffe://a/one")], Standing::Stranger, Ok(Some("node-0")));
        check(&[uri("spiffe://a/none"), dns("two.example.com")], Standing::Stranger, Ok(Some("node-1")));
        check(&[NodeIdentity::Uid(1000)], Standing::Local, Ok(Some("node-2")));
        check(&[NodeIdentity::Uid(1000)], Standing::Own, Ok(Some("node-2")));
        check(&[NodeIdentity::InsecureLoopback], Standing::Local, Ok(Some("node-3")));
        // A name of the other kind, of another case, or a part of it, is another name.
        for other in [dns("spiffe://a/one"), uri("two.example.com"), uri("spiffe://a/One"), uri("spiffe://a/one/"), uri("spiffe://a/on")] {
            check(&[other], Standing::Stranger, Err("no node of the configuration"));
        }
        check(&[uri("spiffe://a/one"), dns("two.example.com")], Standing::Stranger, Err("several nodes"));
        check(&[], Standing::Stranger, Err("a certificate without names"));
        check(&[NodeIdentity::Uid(7)], Standing::Local, Err("uid 7"));
        check(&[NodeIdentity::Uid(7)], Standing::Own, Ok(None));
        assert!(Peer::view(None, &nodes).is_err());
    }

    #[test]
    fn without_nodes_only_what_is_local_is_served() {
        let none = Nodes::default();
        let check = |standing, served: bool| {
            let peer = Peer::new(vec![uri("spiffe://a/one")], standing);
            assert_eq!(Peer::view(Some(&peer), &none).is_ok(), served, "{standing:?}");
        };
        check(Standing::Own, true);
        check(Standing::Local, true);
        check(Standing::Stranger, false);
        assert_eq!(Peer::view(None, &none), Ok(NodeView::UNNAMED));
    }

    #[test]
    fn what_a_stranger_shows_is_bounded_and_clean() {
        let peer = Peer::new(vec![uri(&"x\n".repeat(1000)); 9], Standing::Stranger);
        let text = Peer::view(Some(&peer), &Nodes::default()).unwrap_err().to_string();
        assert!(text.len() < 1500 && !text.contains('\n') && text.contains(", ..."), "{text}");
    }
}
