//! Bodies that others of their type are like. What all routes share stands there once; of each further one only what differs is held.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::body::{Body, add_piece};
use super::{Resource, TypeUrl};

/// Templates of one type: clusters, for one, are of few kinds. What is like none of them is held whole.
const MAX_TEMPLATES: usize = 8;

/// Fewer equal bytes are not worth naming where they stand.
const WINDOW: usize = 8;

type Window = [u8; WINDOW];

/// By type, in the order in which they came.
#[derive(Debug, Default)]
pub struct Templates(BTreeMap<TypeUrl, Vec<Template>>);

impl Templates {
    /// The resource, held as what differs where one before it was like it. One that is like none is the template of those that follow.
    pub fn hold(&mut self, kind: TypeUrl, resource: Resource) -> Resource {
        let (templates, whole) = (self.0.entry(kind).or_default(), resource.body.bytes());
        let pieces = |template: &Template| Some(template.pieces(&whole)).filter(|pieces| pieces.len() * 2 <= whole.len());
        if let Some((template, pieces)) = templates.iter().find_map(|template| Some((template, pieces(template)?))) {
            let body = Body::pieced(whole.clone(), &template.body, pieces);
            return Resource { body, ..resource };
        }
        if templates.len() == MAX_TEMPLATES {
            // Of what is gone, with all that was like it.
            templates.retain(|template| !template.body.is_unique());
        }
        if templates.len() < MAX_TEMPLATES {
            templates.push(Template::new(whole));
        }
        resource
    }
}

struct Template {
    body: Bytes,
    /// Where each sequence of so many bytes stands first.
    places: HashMap<Window, usize>,
}

impl Template {
    fn new(body: Bytes) -> Self {
        let mut places = HashMap::new();
        for (place, window) in body.array_windows().enumerate() {
            places.entry(*window).or_insert(place);
        }
        Self { body, places }
    }

    /// What makes `whole` of the template: what both have is named, the rest stands between.
    fn pieces(&self, whole: &[u8]) -> Vec<u8> {
        let mut pieces = Vec::new();
        let (mut at, mut own_from, mut expected) = (0, 0, 0);
        while let Some(rest) = whole.get(at..).filter(|rest| !rest.is_empty()) {
            // Usually as many bytes are others as there were; then the two go on side by side.
            let Some(shared) = self.find(rest, expected + at - own_from) else {
                at += 1;
                continue;
            };
            add_piece(whole.get(own_from..at).unwrap_or_default(), shared.clone(), &mut pieces);
            at += shared.len();
            (own_from, expected) = (at, shared.end);
        }
        if own_from < at {
            add_piece(whole.get(own_from..at).unwrap_or_default(), 0..0, &mut pieces);
        }
        pieces
    }

    /// As much of what `rest` begins with as stands in the template too; there by preference.
    fn find(&self, rest: &[u8], preferred: usize) -> Option<Range<usize>> {
        let window = rest.first_chunk::<WINDOW>()?;
        let is_there = self.body.get(preferred..).is_some_and(|body| body.starts_with(window));
        let start = if is_there { preferred } else { *self.places.get(window)? };
        let common = self.body.get(start..)?.iter().zip(rest).take_while(|(one, other)| one == other).count();
        Some(start..start + common)
    }
}

/// Of a body it shows nothing.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: TypeUrl = TypeUrl::Cluster;

    fn resource(body: &[u8]) -> Resource {
        Resource { name: "r".into(), version: "1".into(), body: Bytes::copy_from_slice(body).into() }
    }

    /// Bytes that are held of `body` itself.
    fn pieces(template: &str, body: &str) -> usize {
        Template::new(Bytes::copy_from_slice(template.as_bytes())).pieces(body.as_bytes()).len()
    }

    #[test]
    fn what_differs_is_held() {
        let template = "the cluster-00001 at 10.0.0.1:6443, with all that every cluster has, and the secret of cluster-00001";
        let check = |body: &str, most: usize| {
            let held = pieces(template, body);
            assert!(held <= most, "{held} of {}: {body}", body.len());
        };
        check(template, 3);
        check(&template.replace("00001", "00731"), 24);
        // Of another length.
        check(&template.replace("00001", "1").replace("10.0.0.1", "192.168.100.100"), 40);
        check("short", 8);
        check("", 0);
    }

    #[test]
    fn each_kind_has_a_template_and_what_is_like_none_is_held_whole() {
        let mut templates = Templates::default();
        let of_kind = |kind: u8, number: u8| resource(&[vec![kind; 100], vec![number; 10], vec![kind; 100]].concat());
        let mut all = Vec::new();
        for number in 0..3 {
            for kind in 0..20 {
                let held = templates.hold(KIND, of_kind(kind, 100 + number));
                assert!(held == of_kind(kind, 100 + number));
                all.push(held);
            }
        }
        assert_eq!(templates.0.get(&KIND).map(Vec::len), Some(MAX_TEMPLATES));
    }

    #[test]
    fn a_template_of_nothing_that_is_left_makes_room() {
        let mut templates = Templates::default();
        let mut hold =
            |kind: u8, number: u8| templates.hold(KIND, resource(&[vec![kind; 100], vec![number; 10], vec![kind; 100]].concat()));
        let mut held: Vec<_> = (0..8).flat_map(|kind| [hold(kind, 100), hold(kind, 101)]).collect();
        let of_a_ninth = |hold: &mut dyn FnMut(u8, u8) -> Resource| [hold(9, 100), hold(9, 101)].map(|resource| resource.body.held());
        assert_eq!(of_a_ninth(&mut hold), [210, 210], "all others are in use");
        // What one of them is a template of is left still.
        held.remove(0);
        assert_eq!(of_a_ninth(&mut hold), [210, 210]);
        held.remove(0);
        let [first, second] = [hold(9, 100), hold(9, 101)];
        assert_eq!(first.body.held(), 210);
        assert!(second.body.held() < 50);
        assert!(held.iter().all(|resource| resource.body.len() == 210));
    }

    proptest! {
        #[test]
        fn a_body_comes_back_as_it_was(bodies in prop::collection::vec(prop::collection::vec(0_u8..3, 0..200), 1..20)) {
            let mut templates = Templates::default();
            for body in bodies {
                let held = templates.hold(KIND, resource(&body));
                prop_assert_eq!(held.body.bytes(), &body);
                prop_assert_eq!(held.body.len(), body.len());
            }
        }
    }
}
