//! The path: split into segments, each decoded once, refused where decoding or splitting could be done in two ways.

use std::borrow::Cow;

use super::Ambiguous;
use crate::defence::{Defence, off};

/// No field of a request stands further right: `apis/GROUP/VERSION/watch/namespaces/NAMESPACE/RESOURCE/NAME/SUBRESOURCE`.
const MEANINGFUL: usize = 9;

/// The segments that carry meaning, decoded, and how many there are in all. `take` moves on; past the end it gives the empty string.
#[derive(Clone)]
pub(super) struct Segments<'a> {
    first: [Cow<'a, str>; MEANINGFUL],
    position: usize,
    total: usize,
    /// The first segment that holds `%` once decoded.
    percent_at: Option<usize>,
}

/// Where an encoded `%` is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PercentRefused {
    Everywhere,
    /// Only in the segments already taken: the rest belongs to a workload behind `proxy`.
    BeforeRest,
}

impl<'a> Segments<'a> {
    /// How many segments are left.
    pub(super) fn len(&self) -> usize {
        self.total.saturating_sub(self.position)
    }

    pub(super) fn peek(&self) -> &str {
        self.first.get(self.position).map_or("", AsRef::as_ref)
    }

    pub(super) fn take(&mut self) -> Cow<'a, str> {
        let segment = self.first.get_mut(self.position).map(std::mem::take).unwrap_or_default();
        self.position = self.position.saturating_add(1).min(self.total);
        segment
    }

    pub(super) fn refuse_percent(&self, refused: PercentRefused) -> Result<(), Ambiguous> {
        match self.percent_at {
            Some(at) if refused == PercentRefused::Everywhere || at < self.position => Err(Ambiguous::EncodedPercent),
            _ => Ok(()),
        }
    }
}

/// The whole path, decoded once, and its segments. One slash at the end is kept in the path and gives no segment, as in the API server.
pub(super) fn read(raw: &str) -> Result<(Cow<'_, str>, Segments<'_>), Ambiguous> {
    let inner = raw.strip_prefix('/').ok_or(Ambiguous::NotAPath)?;
    check_raw_bytes(raw)?;
    let mut segments = Segments { first: Default::default(), position: 0, total: 0, percent_at: None };
    let mut path = if raw.contains('%') { Cow::Owned(String::with_capacity(raw.len())) } else { Cow::Borrowed(raw) };
    for raw_segment in inner.strip_suffix('/').unwrap_or(inner).split('/').filter(|_| !inner.is_empty()) {
        let segment = decode(raw_segment)?;
        if segment.contains('%') {
            segments.percent_at.get_or_insert(segments.total);
        }
        if let Cow::Owned(path) = &mut path {
            path.push('/');
            path.push_str(&segment);
        }
        if let Some(slot) = segments.first.get_mut(segments.total) {
            *slot = segment;
        }
        segments.total = segments.total.saturating_add(1);
    }
    if let Cow::Owned(path) = &mut path
        && raw.ends_with('/')
    {
        path.push('/');
    }
    Ok((path, segments))
}

/// Every client encodes these bytes; Envoy, Go and a log would each do something else with them.
fn check_raw_bytes(raw: &str) -> Result<(), Ambiguous> {
    match raw.bytes().find(|byte| !matches!(byte, 0x21..=0x7e) || matches!(byte, b'\\' | b'#')) {
        None => Ok(()),
        Some(b'\\') => Err(Ambiguous::EncodedSlash),
        Some(_) => Err(Ambiguous::RawCharacter),
    }
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let segment = if raw.contains('%') { Cow::Owned(decode_escapes(raw)?) } else { Cow::Borrowed(raw) };
    match &*segment {
        _ if off(Defence::PathRefusal) => Ok(segment),
        "" => Err(Ambiguous::EmptySegment),
        "." | ".." => Err(Ambiguous::DotSegment),
        _ => Ok(segment),
    }
}

fn decode_escapes(raw: &str) -> Result<String, Ambiguous> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match if byte == b'%' { unescape(&mut bytes)? } else { byte } {
            b'/' | b'\\' if !off(Defence::PathRefusal) => return Err(Ambiguous::EncodedSlash),
            byte => decoded.push(byte),
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| Ambiguous::NotUtf8)?;
    if text.chars().any(char::is_control) { Err(Ambiguous::ControlCharacter) } else { Ok(text) }
}

/// The byte that the two hexadecimal digits after a `%` stand for.
pub(super) fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, Ambiguous> {
    let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Ambiguous::InvalidEscape);
    let value = digit()? * 16 + digit()?;
    u8::try_from(value).map_err(|_| Ambiguous::InvalidEscape)
}
