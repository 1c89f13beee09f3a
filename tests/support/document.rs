//! Documents whose commands a test follows to the letter.

use std::path::Path;

/// The `sh` blocks of a section of a document in the repository's root, each with the word behind `sh`. A section ends where the next begins.
pub fn blocks(document: &str, heading: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).expect("the document");
    let section = text.split(&format!("\n{heading}\n")).nth(1).expect("the section").split("\n## ").next().expect("a part");
    let section = section.split("\n### ").next().expect("a part");
    let mut found = Vec::new();
    let mut rest = section;
    while let Some((_, after)) = rest.split_once("```sh") {
        let (kind, after) = after.split_once('\n').expect("a block");
        let (text, after) = after.split_once("\n```").expect("the end of a block");
        found.push((kind.trim().to_owned(), text.to_owned()));
        rest = after;
    }
    found
}
