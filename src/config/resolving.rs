//! What checking needs besides the draft: the contents of the references, the time, and the list of mistakes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use secrecy::SecretString;

use super::error::{At, Faults, Spot};
use super::model::Route;
use super::place;
use super::reference::{Contents, Reference};
use crate::policy::Compiled;

#[derive(Debug)]
pub(super) struct Resolving<'a> {
    pub(super) faults: Faults,
    /// Unix seconds.
    pub(super) now: u64,
    /// From now until the first certificate that was judged is no longer valid.
    pub(super) valid_at: Range<u64>,
    /// Rules of other routes, or of the configuration before this one.
    pub(super) compiled: Compiled,
    /// The routes of the configuration before this one, by name.
    pub(super) before: HashMap<&'a str, &'a Arc<Route>>,
    contents: &'a Contents,
    /// The configuration text, to find places inside values.
    text: &'a str,
}

impl<'a> Resolving<'a> {
    pub(super) fn new(faults: Faults, contents: &'a Contents, text: &'a str, now: u64) -> Self {
        Self { faults, now, valid_at: now..u64::MAX, compiled: Compiled::default(), before: HashMap::new(), contents, text }
    }

    /// What was judged is good before `end` (Unix seconds) only.
    pub(super) fn expires(&mut self, end: i64) {
        self.valid_at.end = self.valid_at.end.min(u64::try_from(end).unwrap_or_default());
    }

    /// The route, or the one that was equal to it before: whoever keeps something for a route sees by the object that it is the same, and the
    /// memory is needed once.
    pub(super) fn shared(&self, route: Route) -> Arc<Route> {
        let same = self.before.get(route.name.as_str()).filter(|before| ****before == route);
        same.map_or_else(|| Arc::new(route), |same| Arc::clone(same))
    }

    /// The content behind a reference.
    pub(super) fn bytes(&mut self, reference: &At<Reference>) -> Option<&'a [u8]> {
        match self.contents.0.get(&reference.value) {
            Some(Ok(bytes)) => return Some(bytes),
            Some(Err(why)) => self.faults.add(&reference.spot, format!("cannot read {}: {why}", reference.value)),
            None => self.faults.add(&reference.spot, format!("{} was not read", reference.value)),
        }
        None
    }

    pub(super) fn text(&mut self, reference: &At<Reference>) -> Option<&'a str> {
        let bytes = self.bytes(reference)?;
        let text = std::str::from_utf8(bytes).ok();
        if text.is_none() {
            self.faults.add(&reference.spot, format!("{} is not UTF-8 text", reference.value));
        }
        text
    }

    /// A secret of one line: blanks and line breaks at the end are dropped, what remains must be printable ASCII without blanks.
    pub(super) fn token(&mut self, reference: &At<Reference>) -> Option<SecretString> {
        self.one_line(reference, |c| c.is_ascii_graphic(), "holds blanks, line breaks or characters outside ASCII; one token is expected")
    }

    /// As [`Self::token`], but blanks may stand inside (RFC 6749, appendix A.2).
    pub(super) fn client_secret(&mut self, reference: &At<Reference>) -> Option<SecretString> {
        self.one_line(
            reference,
            |c| c == ' ' || c.is_ascii_graphic(),
            "holds line breaks or characters outside ASCII; one line is expected",
        )
    }

    fn one_line(&mut self, reference: &At<Reference>, allowed: fn(char) -> bool, otherwise: &str) -> Option<SecretString> {
        let text = self.text(reference)?.trim();
        let mut complain = |message: &str| self.faults.add(&reference.spot, format!("{} {message}", reference.value));
        if text.is_empty() {
            complain("is empty");
            return None;
        }
        if !text.chars().all(allowed) {
            complain(otherwise);
            return None;
        }
        Some(SecretString::from(text.to_owned()))
    }

    /// The place in the file of `line` and `column` (1-based) inside a value.
    pub(super) fn inside(&self, value: &At<String>, line: usize, column: usize) -> Spot {
        if value.spot.place.line == 0 {
            // An object has no text: the place inside the value stands behind its path.
            return Spot { place: value.spot.place, path: format!("{}:{line}:{column}", value.spot.path) };
        }
        place::inside(self.text, &value.spot, &value.value, line, column)
    }
}
