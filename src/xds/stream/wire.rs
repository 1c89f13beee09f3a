//! A response as it goes over the wire. It is written piece by piece: a big configuration's first response has tens of megabytes, which are
//! never in memory as a whole.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::super::resource::{Resource, TypeUrl};
use super::protocol::{Protocol, Push};

/// Where both protocols' responses have their resources.
const RESOURCES: u32 = 2;

/// One response on its way.
pub struct Outgoing<P> {
    kind: TypeUrl,
    /// All but the resources: the order of fields is free.
    head: Vec<u8>,
    resources: std::vec::IntoIter<Arc<Resource>>,
    length: usize,
    protocol: PhantomData<fn(P)>,
}

impl<P: Protocol> Outgoing<P> {
    pub fn new(push: Push) -> Self {
        let (kind, head) = (push.kind, P::head(&push));
        let resources = push.resources.iter().map(|resource| length_of(RESOURCES, P::length_of(kind, resource)));
        let length = head.len() + resources.sum::<usize>();
        Self { kind, head, resources: push.resources.into_iter(), length, protocol: PhantomData }
    }

    /// Of the whole message, in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether all is written.
    pub fn is_written(&self) -> bool {
        self.head.is_empty() && self.resources.len() == 0
    }

    /// Adds to `piece` what comes next, until it has at least so many bytes or nothing is left.
    pub fn write(&mut self, piece: &mut Vec<u8>, enough: usize) {
        piece.append(&mut self.head);
        while piece.len() < enough
            && let Some(resource) = self.resources.next()
        {
            let length = P::length_of(self.kind, &resource);
            piece.reserve(length_of(RESOURCES, length));
            begin(RESOURCES, length, piece);
            P::put(self.kind, &resource, piece);
        }
    }
}

impl<P> fmt::Debug for Outgoing<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("kind", &self.kind).field("resources", &self.resources.len()).finish_non_exhaustive()
    }
}

/// Bytes of a field with a content of so many.
pub(super) fn length_of(field: u32, content: usize) -> usize {
    key_len(field) + encoded_len_varint(content as u64) + content
}

/// The beginning of such a field, before its content.
pub(super) fn begin(field: u32, content: usize, to: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(content as u64, to);
}

pub(super) fn put(field: u32, content: &[u8], to: &mut Vec<u8>) {
    begin(field, content.len(), to);
    to.extend_from_slice(content);
}

/// Bytes of a resource as `google.protobuf.Any`.
pub(super) fn length_of_any(kind: TypeUrl, resource: &Resource) -> usize {
    length_of(1, kind.as_str().len()) + length_of(2, resource.body.len())
}

pub(super) fn put_any(kind: TypeUrl, resource: &Resource, to: &mut Vec<u8>) {
    put(1, kind.as_str().as_bytes(), to);
    begin(2, resource.body.len(), to);
    resource.body.put(to);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource as NamedResource};
    use envoy_types::pb::google::protobuf::Any;
    use prost::Message;

    use super::super::{Delta, StateOfTheWorld};
    use super::*;

    const KIND: TypeUrl = TypeUrl::Secret;

    fn push(resources: &[(&str, usize)], removed: &[&str]) -> Push {
        let resource = |(name, length): &(&str, usize)| {
            Arc::new(Resource { name: (*name).into(), version: "7".into(), body: vec![b'x'; *length].into() })
        };
        Push {
            kind: KIND,
            nonce: "3".into(),
            version: "whole".into(),
            resources: resources.iter().map(resource).collect(),
            removed: removed.iter().map(|&name| name.into()).collect(),
        }
    }

    /// In pieces of all sizes.
    fn written<P: Protocol, M: Message + Default>(push: &Push) -> M {
        let whole = |enough: usize| {
            let (mut outgoing, mut all) = (Outgoing::<P>::new(push.clone()), Vec::new());
            let length = outgoing.length();
            while !outgoing.is_written() {
                let mut piece = Vec::new();
                outgoing.write(&mut piece, enough);
                assert!(!piece.is_empty());
                all.extend(piece);
            }
            assert_eq!(all.len(), length);
            all
        };
        let all = whole(usize::MAX);
        (1..300).for_each(|enough| assert_eq!(whole(enough), all, "{enough}"));
        M::decode(&*all).unwrap()
    }

    #[test]
    fn it_is_envoys_own_message() {
        let any = |length| Any { type_url: KIND.as_str().into(), value: vec![b'x'; length] };
        let check = |resources: &[(&str, usize)], removed: &[&str]| {
            let push = push(resources, removed);
            let named = |(name, length): &(&str, usize)| NamedResource {
                name: (*name).into(),
                version: "7".into(),
                resource: Some(any(*length)),
                ..Default::default()
            };
            let delta = DeltaDiscoveryResponse {
                system_version_info: "whole".into(),
                type_url: KIND.as_str().into(),
                nonce: "3".into(),
                resources: resources.iter().map(named).collect(),
                removed_resources: removed.iter().map(|&name| name.into()).collect(),
                ..Default::default()
            };
            assert_eq!(written::<Delta, DeltaDiscoveryResponse>(&push), delta);
            let whole = DiscoveryResponse {
                version_info: "whole".into(),
                type_url: KIND.as_str().into(),
                nonce: "3".into(),
                resources: resources.iter().map(|(_, length)| any(*length)).collect(),
                ..Default::default()
            };
            assert_eq!(written::<StateOfTheWorld, DiscoveryResponse>(&push), whole);
        };
        check(&[], &[]);
        check(&[], &["gone", "ü"]);
        check(&[("a", 0)], &[]);
        check(&[("a", 1), ("b", 127), ("ü", 128), (&"long".repeat(100), 20_000)], &["gone"]);
    }
}
