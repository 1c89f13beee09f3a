//! The encoded message of a resource. Bodies of one type differ from each other in a few names and addresses, and that of a secret ends in a text
//! which its route holds anyway. Such a body is held as what differs, and is put together again wherever it is read.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

/// It may hold a private key, so `Debug` shows its length alone.
#[derive(Clone)]
pub struct Body(Form);

#[derive(Clone)]
enum Form {
    Whole(Bytes),
    /// Pieces of `other`, and between them bytes of its own: see `Pieces`.
    Pieced {
        length: usize,
        other: Bytes,
        pieces: Box<[u8]>,
    },
}

impl Body {
    /// `whole`, held as its differences from `other` where that is what they make.
    pub(super) fn pieced(whole: Bytes, other: &Bytes, pieces: Vec<u8>) -> Self {
        let body = Self(Form::Pieced { length: whole.len(), other: other.clone(), pieces: pieces.into() });
        if body.bytes() == whole { body } else { Self(Form::Whole(whole)) }
    }

    /// The same without a second copy of the one of these texts that it ends in.
    #[must_use]
    pub fn ending_in(self, texts: &[Bytes]) -> Self {
        let whole = self.bytes();
        let ending = texts.iter().find_map(|text| Some((text, whole.strip_suffix(&**text).filter(|_| !text.is_empty())?)));
        let Some((text, own)) = ending else { return self };
        let mut pieces = Vec::new();
        add_piece(own, 0..text.len(), &mut pieces);
        Self::pieced(whole.clone(), text, pieces)
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Pieced { length, .. } => *length,
        }
    }

    /// Bytes that are its own.
    #[cfg(test)]
    pub(in crate::xds) fn held(&self) -> usize {
        match &self.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Pieced { pieces, .. } => pieces.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> Bytes {
        if let Form::Whole(bytes) = &self.0 {
            return bytes.clone();
        }
        let mut bytes = Vec::with_capacity(self.len());
        self.put(&mut bytes);
        bytes.into()
    }

    /// Adds it to `to`.
    pub fn put(&self, to: &mut Vec<u8>) {
        match &self.0 {
            Form::Whole(bytes) => to.extend_from_slice(bytes),
            Form::Pieced { other, pieces, .. } => {
                for (own, shared) in Pieces(pieces) {
                    to.extend_from_slice(own);
                    to.extend_from_slice(other.get(shared).unwrap_or_default());
                }
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("length", &self.len()).finish_non_exhaustive()
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(whole: T) -> Self {
        Self(Form::Whole(whole.into()))
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Body {}

/// One after the other: the length of own bytes, these, then start and length of what follows them in the other body.
struct Pieces<'p>(&'p [u8]);

impl<'p> Iterator for Pieces<'p> {
    type Item = (&'p [u8], Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let own = self.number()?;
        let (own, rest) = self.0.split_at_checked(own)?;
        self.0 = rest;
        let (start, length) = (self.number()?, self.number()?);
        Some((own, start..start.checked_add(length)?))
    }
}

impl Pieces<'_> {
    fn number(&mut self) -> Option<usize> {
        decode_varint(&mut self.0).ok().and_then(|number| usize::try_from(number).ok())
    }
}

pub(super) fn add_piece(own: &[u8], shared: Range<usize>, to: &mut Vec<u8>) {
    encode_varint(own.len() as u64, to);
    to.extend_from_slice(own);
    encode_varint(shared.start as u64, to);
    encode_varint(shared.len() as u64, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_however_it_is_held() {
        let text = Bytes::from_static(b"-----BEGIN");
        let check = |whole: &'static [u8], shared: bool| {
            let body = Body::from(Bytes::from_static(whole));
            let held = body.clone().ending_in(&[Bytes::new(), Bytes::from_static(b"other"), text.clone()]);
            assert_eq!(matches!(held.0, Form::Pieced { .. }), shared, "{whole:?}");
            assert_eq!((held.bytes(), held.len()), (Bytes::from_static(whole), whole.len()), "{whole:?}");
            assert!(held == body);
        };
        check(b"", false);
        check(b"name", false);
        check(b"name -----BEGIN", true);
        check(b"-----BEGIN", true);
        check(b"name -----BEGIN more", false);
    }

    #[test]
    fn pieces_that_make_another_body_are_not_held() {
        let (whole, other) = (Bytes::from_static(b"whole"), Bytes::from_static(b"other"));
        let mut wrong = Vec::new();
        add_piece(b"wh", 1..4, &mut wrong);
        for pieces in [vec![], vec![9], vec![0xff; 12], vec![0, 200, 200], wrong] {
            assert_eq!(Body::pieced(whole.clone(), &other, pieces).bytes(), whole);
        }
    }
}
