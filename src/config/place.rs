//! From a place inside a value (a CEL source) to the place in the file, through quotes, escapes, folding and indentation.

use super::error::Spot;
use super::tree::Place;

/// Where in `text` the character stands that is at `line` and `column` (1-based) of `value`, which was read at `spot`.
pub(super) fn inside(text: &str, spot: &Spot, value: &str, line: usize, column: usize) -> Spot {
    let found = spot.place.bytes.and_then(|(start, end)| text.get(start..end)).map(|source| {
        let (line, column) = advance(source, value, offset_of(value, line, column), (spot.place.line, spot.place.column));
        Place { line, column, bytes: None }
    });
    Spot { place: found.unwrap_or(spot.place), path: spot.path.clone() }
}

/// How many characters of `value` stand before its `line` and `column`.
fn offset_of(value: &str, line: usize, column: usize) -> usize {
    let before: usize = value.split('\n').take(line.saturating_sub(1)).map(|line| line.chars().count() + 1).sum();
    before + column.saturating_sub(1)
}

/// Walks the YAML source and the value side by side: what they share moves both; what only the source has (quotes, escapes, indentation)
/// moves the source; a blank that stands for a line break moves both.
fn advance(source: &str, value: &str, offset: usize, start: (usize, usize)) -> (usize, usize) {
    let mut place = start;
    let mut source = source.chars().peekable();
    let step = |place: &mut (usize, usize), c: char| match c {
        '\n' => *place = (place.0 + 1, 1),
        _ => place.1 += 1,
    };
    let mut remaining = offset;
    let mut value = value.chars().peekable();
    while let Some(&current) = source.peek() {
        let wanted = value.peek().copied();
        let same = wanted.is_some_and(|wanted| wanted == current || (wanted == ' ' && current == '\n'));
        if same {
            if remaining == 0 {
                return place;
            }
            remaining -= 1;
            value.next();
        } else if wanted.is_some_and(char::is_whitespace) && !current.is_whitespace() && current != '\\' {
            // A line break that YAML wrote into the value (folding) and that the source does not have here.
            if remaining == 0 {
                return place;
            }
            remaining -= 1;
            value.next();
            continue;
        }
        step(&mut place, current);
        source.next();
    }
    place
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
    use super::super::tree::{Kind, read};
    use super::*;

    /// `marker` stands once in the YAML text and in the value: its place in the value must lead to its place in the text.
    fn check(text: &str, marker: &str) {
        let node = read(text).unwrap();
        let Kind::Map(entries) = &node.kind else { panic!("{text}") };
        let (_, node) = &entries[0];
        let Kind::Text(value) = &node.kind else { panic!("{text}") };
        let position = |text: &str| {
            let before = &text[..text.find(marker).unwrap()];
            (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap().chars().count() + 1)
        };
        let (line, column) = position(value);
        let spot = Spot { place: node.place, path: String::new() };
        let found = inside(text, &spot, value, line, column).place;
        assert_eq!((found.line, found.column), position(text), "{text}");
    }

    #[test]
    fn a_place_inside_a_value_is_found_in_the_file() {
        check("a: one X two\n", "X");
        check("a: X\n", "X");
        check("a: \"one X two\"\n", "X");
        check("a: 'it''s X two'\n", "X");
        check("a: \"say \\\"hi\\\" X\"\n", "X");
        check("a: \"tab \\t X\"\n", "X");
        check("a: |\n  one\n  two X\nb: 1\n", "X");
        check("a: |\n  one\n    two X\n  three\n", "X");
        check("a: |-\n    one ||\n\n      two\n    X\n", "X");
        check("a: >\n  one\n  two X\n", "X");
        check("a: >-\n  one\n\n  two\n  three X\n", "X");
        check("a: one\n  two\n  X\n", "X");
        check("a: ü X\n", "X");
        check("{a: 'b X', c: d}\n", "X");
    }
}
