//! `SECURITY.md` says what is so: the tests that it names exist, and its table of defences is the one that the suite checks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kubepass::defence::Defence;

use crate::fixture;

#[path = "../security/defences/table.rs"]
mod table;

const DOCUMENT: &str = "SECURITY.md";
const BEGIN: &str = "<!-- defences: begin -->";
const END: &str = "<!-- defences: end -->";

#[test]
fn every_test_that_it_names_exists() {
    let text = std::fs::read_to_string(fixture::root().join(DOCUMENT)).unwrap();
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|span| Kind::of(span).is_some()).collect();
    assert!(names.len() > 50, "only {} names were found", names.len());
    let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{DOCUMENT} names tests that are not there: {missing:#?}");
    let promises = text.split("\n## Promises").nth(1).unwrap().split("\n## ").next().unwrap();
    for row in promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
        assert!(row.split('`').any(|span| Kind::of(span).is_some()), "nothing holds this promise: {row}");
    }
}

#[test]
fn names_that_are_none_are_found() {
    for name in [
        "it::defences::gone",
        "it::gone::a_switch_that_is_none_is_refused",
        "lib::header::fault",
        "security::no-such-attack",
        "e2e::headers",
    ] {
        assert!(!exists(name), "{name}");
    }
    assert!(exists("it::security_document::names_that_are_none_are_found"));
}

#[test]
fn its_table_is_the_one_that_the_suite_checks() {
    let path = fixture::root().join(DOCUMENT);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning");
    let (_, after) = rest.split_once(END).expect("the table's end");
    let wanted = format!("{before}{}\n{}{}{after}", BEGIN, markdown(), END);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == wanted,
        "{DOCUMENT} has another table: UPDATE_GOLDEN=1 cargo test --test it security_document"
    );
}

#[test]
fn the_table_has_every_defence_once_and_names_what_is_there() {
    let rows: Vec<&str> = table::ROWS.iter().map(|row| row.defence).collect();
    let all: Vec<&str> = Defence::ALL.iter().map(|defence| defence.name()).collect();
    assert_eq!(rows, all);
    for row in table::ROWS {
        for other in row.layers {
            assert!(all.contains(other) && *other != row.defence, "{}: {other} is no other defence", row.defence);
        }
        assert!(!row.shown_by.is_empty(), "nothing shows that {} is needed", row.defence);
        for name in row.shown_by {
            assert!(exists(&format!("security::{name}")), "{}: there is no attack {name}", row.defence);
        }
    }
}

/// The table of `SECURITY.md`.
fn markdown() -> String {
    let mut text = "| defence | what it stops | without it | shown by |\n|---|---|---|---|\n".to_owned();
    for table::Row { defence, stops, layers, shown_by } in table::ROWS {
        let names = list(layers.iter().map(|layer| format!("`{layer}`")));
        let without = match layers {
            [] => "gets through".to_owned(),
            [_] => format!("{names} holds"),
            _ => format!("{names} hold"),
        };
        let shown = list(shown_by.iter().map(|name| format!("`security::{name}`")));
        writeln!(text, "| `{defence}` | {stops} | {without} | {shown} |").expect("text");
    }
    text
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Where a name is looked for.
#[derive(Clone, Copy)]
enum Kind {
    /// Tests of a binary, or of the library.
    Functions(&'static [&'static str]),
    /// Rows of `make test-security`.
    Attacks,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name.split_once("::")?.0 {
            "it" => Some(Self::Functions(&["tests/it"])),
            "e2e" => Some(Self::Functions(&["tests/e2e"])),
            "lib" => Some(Self::Functions(&["src", "src/server"])),
            "security" => Some(Self::Attacks),
            _ => None,
        }
    }
}

fn exists(name: &str) -> bool {
    let Some((_, rest)) = name.split_once("::") else { return false };
    match Kind::of(name) {
        Some(Kind::Functions(roots)) => rest.rsplit_once("::").is_some_and(|(module, function)| {
            let module = module.replace("::", "/");
            roots
                .iter()
                .flat_map(|root| [format!("{root}/{module}.rs"), format!("{root}/{module}/tests.rs")])
                .any(|file| has_test(&file, function))
        }),
        Some(Kind::Attacks) => attacks().iter().any(|file| std::fs::read_to_string(file).unwrap().contains(&format!("\"{rest}\""))),
        None => false,
    }
}

fn has_test(file: &str, function: &str) -> bool {
    let text = std::fs::read_to_string(fixture::root().join(file)).unwrap_or_default();
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else { return false };
    before
        .lines()
        .rev()
        .map(str::trim)
        .skip_while(|line| line.is_empty() || *line == "async")
        .take_while(|line| line.starts_with("#["))
        .any(|line| line.contains("test"))
}

fn attacks() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&fixture::root().join("tests/security/attacks"), &mut found);
    found
}
