//! Lines for people, on standard error: standard output belongs to kubectl.

use std::io::Write;

/// One line. Text that came from elsewhere cannot move the cursor, change colours or forge lines.
pub(crate) fn say(line: &str) {
    // Nobody is there to read it: nothing else to do.
    _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() || is_direction(character) { '\u{fffd}' } else { character }).collect()
}

/// Characters that change the direction of writing.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequences() {
        assert_eq!(printable("a\u{1b}[31mb\r\n\u{9b}c\u{202e}d ü"), "a\u{fffd}[31mb\u{fffd}\u{fffd}\u{fffd}c\u{fffd}d ü");
    }
}
