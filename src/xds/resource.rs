//! Envoy resources as values: encoded once, named, versioned by content; their bodies (`body`), of which what many have in common is held once
//! (`template`); and sets of them (`set`) that know what changed since the set before. Knows nothing of the snapshot that they are made from, nor of
//! streams.

mod body;
mod set;
mod template;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use prost::Message;

pub use body::Body;
pub use set::{InvalidResource, ResourceSet, ResourceSetBuilder};
pub use template::Templates;

/// Longest resource name, in bytes.
pub const MAX_NAME_LENGTH: usize = 1024;

/// Hex digits of a version: 96 bits of SHA-256, enough that two contents never share one.
const VERSION_DIGITS: usize = 24;

/// The resource types that kubepass serves. The order is the order of pushing: clusters first, what listeners refer to by name last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TypeUrl {
    Cluster,
    ClusterLoadAssignment,
    Listener,
    /// Which route configuration serves a host (SRDS).
    ScopedRouteConfiguration,
    RouteConfiguration,
    Secret,
    /// An HTTP filter's configuration that a listener names instead of holding it (ECDS).
    ExtensionConfig,
}

impl TypeUrl {
    /// All types in the order of pushing.
    pub const ALL: [Self; 7] = [
        Self::Cluster,
        Self::ClusterLoadAssignment,
        Self::Listener,
        Self::ScopedRouteConfiguration,
        Self::RouteConfiguration,
        Self::Secret,
        Self::ExtensionConfig,
    ];

    /// The type URL on the wire, also the one inside `google.protobuf.Any`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::ScopedRouteConfiguration => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// `None` for a type that kubepass does not serve.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The discovery service's usual short name: for metrics and the state page.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::ClusterLoadAssignment => "eds",
            Self::Listener => "lds",
            Self::ScopedRouteConfiguration => "srds",
            Self::RouteConfiguration => "rds",
            Self::Secret => "sds",
            Self::ExtensionConfig => "ecds",
        }
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One resource, encoded once and shared by every set and stream. Its body may hold a private key, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Hash of `body`: equal content has an equal version.
    pub version: Arc<str>,
    /// The encoded message: the value of its `google.protobuf.Any`.
    pub body: Body,
}

impl Resource {
    /// Encodes `message`. The encoding must be deterministic (no map with more than one entry in it), or equal content gets new versions.
    pub fn new(name: impl Into<Arc<str>>, message: &impl Message) -> Self {
        let body = Bytes::from(message.encode_to_vec());
        Self { name: name.into(), version: content_hash(&[&body]).into(), body: body.into() }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Each part goes in with its length before it, so that moving bytes from one part to the next is another content.
fn content_hash(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let digits = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).take(VERSION_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    use super::*;

    fn cluster(name: &str, alt: &str) -> Resource {
        Resource::new(name, &Cluster { name: name.into(), alt_stat_name: alt.into(), ..Cluster::default() })
    }

    fn set(resources: &[(TypeUrl, Resource)]) -> ResourceSet {
        let mut builder = ResourceSet::builder();
        for (kind, resource) in resources {
            builder.insert(*kind, resource.clone()).unwrap();
        }
        builder.build()
    }

    #[test]
    fn type_urls_are_envoys_and_distinct() {
        for kind in TypeUrl::ALL {
            assert_eq!(TypeUrl::from_wire(kind.as_str()), Some(kind));
        }
        assert_eq!(TypeUrl::from_wire("type.googleapis.com/envoy.service.runtime.v3.Runtime"), None);
        let wire = envoy_types::util::pack_any(Cluster::default());
        assert_eq!(wire.type_url, TypeUrl::Cluster.as_str());
    }

    #[test]
    fn the_version_is_of_the_content() {
        assert_eq!(cluster("a", "x").version, cluster("a", "x").version);
        assert_ne!(cluster("a", "x").version, cluster("a", "y").version);
        assert_eq!(cluster("a", "x").version.len(), VERSION_DIGITS);
    }

    #[test]
    fn a_set_is_equal_by_content_whatever_the_order_of_insertion() {
        let (a, b) = ((TypeUrl::Cluster, cluster("a", "")), (TypeUrl::Cluster, cluster("b", "")));
        assert_eq!(set(&[a.clone(), b.clone()]), set(&[b.clone(), a.clone()]));
        assert_ne!(set(&[a.clone(), b]), set(std::slice::from_ref(&a)));
        let secret = set(&[(TypeUrl::Secret, cluster("a", ""))]);
        assert_ne!(secret, set(std::slice::from_ref(&a)), "the type is part of the content");
        assert_eq!(secret.type_version(TypeUrl::Cluster), ResourceSet::default().type_version(TypeUrl::Cluster));
    }

    #[test]
    fn debug_does_not_show_the_body() {
        let shown = format!("{:?}", Resource::new("s", &Cluster { name: "key-material".into(), ..Cluster::default() }));
        assert!(!shown.contains("key-material") && shown.contains("\"s\""), "{shown}");
    }
}
