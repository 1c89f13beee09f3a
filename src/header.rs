//! `HeaderValue`: the only text that may become a header upstream.
//!
//! Values reach the API server through Envoy's dynamic metadata, which skips Envoy's own header checks, so this type is what stands between a
//! claim and a forged header. Go trims blanks, and a user name that is blank would run as the service account itself.

use std::fmt;

use crate::defence::{Defence, off};

/// Text that is one header line and the same text again when the API server has read it: not empty, bounded, no control characters, no
/// blanks at its ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderValue(String);

/// Why a text cannot be a header value. Says nothing of the text itself, which may be hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeaderValue {
    #[error("is empty")]
    Empty,
    #[error("is longer than {max} bytes ({actual})", max = HeaderValue::MAX_BYTES)]
    TooLong { actual: usize },
    #[error("holds a control character")]
    ControlCharacter,
    #[error("begins or ends with a blank")]
    BlankAtEnd,
}

impl HeaderValue {
    /// Upper bound in bytes: far above any user or group name, and 256 of them still fit beside each other only as far as Envoy's own limit on
    /// headers allows.
    pub const MAX_BYTES: usize = 1024;

    /// # Errors
    /// See [`InvalidHeaderValue`].
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidHeaderValue> {
        Self::new_or_back(text.into()).map_err(|(_, invalid)| invalid)
    }

    /// As [`Self::new`], and gives back what is refused, for who wants to say what it was.
    ///
    /// # Errors
    /// See [`InvalidHeaderValue`].
    pub fn new_or_back(text: String) -> Result<Self, (String, InvalidHeaderValue)> {
        match fault(&text) {
            None => Ok(Self(text)),
            Some(invalid) => Err((text, invalid)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

fn fault(text: &str) -> Option<InvalidHeaderValue> {
    if off(Defence::HeaderValue) {
        return None;
    }
    if text.is_empty() {
        return Some(InvalidHeaderValue::Empty);
    }
    if text.len() > HeaderValue::MAX_BYTES {
        return Some(InvalidHeaderValue::TooLong { actual: text.len() });
    }
    // C0, DEL and C1, and the two Unicode characters that end a line without being controls.
    if text.chars().any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')) {
        return Some(InvalidHeaderValue::ControlCharacter);
    }
    (text.starts_with(is_blank) || text.ends_with(is_blank)).then_some(InvalidHeaderValue::BlankAtEnd)
}

/// White space, and what is drawn as nothing: a name made of it would look empty in every log.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for HeaderValue {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), InvalidHeaderValue>) {
        assert_eq!(HeaderValue::new(text).map(|_| ()), expected, "{text:?}");
    }

    #[test]
    fn takes_names_as_they_are() {
        for text in ["foo@example.com", "a", "group, with comma", "grüße", "日本", "a b", "a\u{a0}b", "system:masters", "\"quoted\"", "%0a"]
        {
            check(text, Ok(()));
            assert_eq!(HeaderValue::new(text).map(HeaderValue::into_string).as_deref(), Ok(text));
        }
        check(&"x".repeat(HeaderValue::MAX_BYTES), Ok(()));
    }

    #[test]
    fn refuses_what_would_not_arrive_as_it_is() {
        check("", Err(InvalidHeaderValue::Empty));
        check(&"x".repeat(1025), Err(InvalidHeaderValue::TooLong { actual: 1025 }));
        check(&"ü".repeat(513), Err(InvalidHeaderValue::TooLong { actual: 1026 }));
        for text in [
            "a\r\nimpersonate-group: system:masters",
            "a\nb",
            "a\0",
            "\tx",
            "a\tb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{9f}",
            "a\u{2028}b",
            "a\u{2029}b",
        ] {
            check(text, Err(InvalidHeaderValue::ControlCharacter));
        }
        for text in [" ", " a", "a ", "\u{a0}a", "a\u{3000}", "\u{2003}", "\u{200b}", "a\u{feff}", "\u{1680}x"] {
            check(text, Err(InvalidHeaderValue::BlankAtEnd));
        }
    }
}
