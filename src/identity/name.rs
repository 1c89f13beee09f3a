//! What a username or a group name may be, wherever it goes later: a header, a log line, the eyes of an operator.

use crate::defence::{Defence, off};

/// A username, a group name or a subject has at most this many bytes; the prefix of a route comes on top.
pub const MAX_NAME_BYTES: usize = 512;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("is empty")]
    Empty,
    #[error("is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    #[error("has a control character in it")]
    Control,
    #[error("has an invisible character in it, which makes it look like another")]
    Invisible,
    #[error("begins or ends with a blank")]
    BlankEnd,
    /// Of an e-mail address alone.
    #[error("has more than one `@` in it, so that nobody can tell whose domain it is in")]
    SeveralDomains,
}

pub(super) fn check(name: &str) -> Result<(), NameFault> {
    if off(Defence::LoginNames) {
        Ok(())
    } else if name.is_empty() {
        Err(NameFault::Empty)
    } else if name.len() > MAX_NAME_BYTES {
        Err(NameFault::TooLong)
    } else if name.chars().any(char::is_control) {
        Err(NameFault::Control)
    } else if name.chars().any(is_invisible) {
        Err(NameFault::Invisible)
    } else if name.trim() != name {
        Err(NameFault::BlankEnd)
    } else {
        Ok(())
    }
}

/// Characters that show nothing and turn, split or hide what stands around them (Unicode general categories Cf, Zl, Zp). The two joiners
/// U+200C and U+200D pass: some scripts cannot be written without them.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let good = |name: &str| assert_eq!(check(name), Ok(()), "{name:?}");
        good("alice@example.com");
        good("Team, EU");
        good("Zürich 東京 می\u{200c}خواهم");
        good("system:masters");
        good(&"x".repeat(MAX_NAME_BYTES));

        let bad = |name: &str, fault| assert_eq!(check(name), Err(fault), "{name:?}");
        bad("", NameFault::Empty);
        bad(&"x".repeat(MAX_NAME_BYTES + 1), NameFault::TooLong);
        bad(&"é".repeat(MAX_NAME_BYTES / 2 + 1), NameFault::TooLong);
        for control in ["\0", "\t", "\n", "\r", "\u{1b}", "\u{7f}", "\u{85}", "\u{9f}"] {
            bad(control, NameFault::Control);
            bad(&format!("a{control}b"), NameFault::Control);
            bad(&format!("a{control}"), NameFault::Control);
        }
        for blank in [" ", "\u{a0}", "\u{2003}", "\u{3000}"] {
            bad(blank, NameFault::BlankEnd);
            bad(&format!("{blank}a"), NameFault::BlankEnd);
            bad(&format!("a{blank}"), NameFault::BlankEnd);
        }
        for invisible in ["\u{200b}", "\u{202e}", "\u{2028}", "\u{2066}", "\u{feff}", "\u{e0041}"] {
            bad(&format!("ali{invisible}ce"), NameFault::Invisible);
        }
    }
}
