//! The fuzz targets over their corpora, on the stable toolchain: what a fuzzer once found stays found.

mod encoded;
#[path = "../fuzz/entry.rs"]
mod entry;

use proptest::prelude::*;
use proptest::sample::select;

use super::fixture;

#[test]
fn every_corpus_entry_ends_in_a_value() {
    for (target, run) in entry::ALL {
        let folder = fixture::root().join("tests/fuzz/corpus").join(target);
        let entries: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(entries.len() > 2, "{} is almost empty", folder.display());
        for path in entries {
            run(&std::fs::read(path).unwrap());
        }
    }
}

/// A target that has no program is one that nobody fuzzes.
#[test]
fn every_target_has_its_program() {
    let folder = fixture::root().join("tests/fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (target, _) in entry::ALL {
        let program = std::fs::read_to_string(folder.join("targets").join(format!("{target}.rs"))).unwrap();
        assert!(program.contains("fuzz_target!(|data: &[u8]| entry::"), "{target}");
        assert!(manifest.contains(&format!("name = \"{target}\"\npath = \"targets/{target}.rs\"")), "{target} is not in Cargo.toml");
    }
    assert_eq!(std::fs::read_dir(folder.join("targets")).unwrap().count(), entry::ALL.len(), "a program whose corpus is not run");
}

/// Entries that are encoded messages: `UPDATE_GOLDEN=1 cargo test --test it fuzz_corpus` writes them anew.
#[test]
fn encoded_entries_are_what_they_are_called() {
    for (target, name, bytes) in encoded::entries() {
        let path = fixture::root().join("tests/fuzz/corpus").join(target).join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).is_ok_and(|found| found == bytes), "{target}/{name} is another; UPDATE_GOLDEN=1 writes it anew");
    }
}

/// The corpus reaches what it is there for: each kind of answer, and a session that is found.
#[test]
fn the_decisions_of_the_corpus_are_of_every_kind() {
    let scene = entry::decision::Scene::get();
    let mut seen = std::collections::BTreeSet::new();
    for (_, name, bytes) in encoded::entries().into_iter().filter(|(target, ..)| *target == "decision") {
        seen.insert((name, scene.outcome(&bytes)));
    }
    let of = |name: &str| seen.iter().find(|(entry, _)| *entry == name).map(|(_, outcome)| *outcome);
    for (name, outcome) in [
        ("get-pods", "allow"),
        ("wiki", "allow"),
        ("wiki-admin", "allow"),
        ("no-credential", "challenge"),
        ("impersonation", "deny"),
        ("other-host", "deny"),
        ("web", "web"),
    ] {
        assert_eq!(of(name), Some(outcome), "{name}");
    }
}

const KINDS: [&str; 6] = ["cds", "eds", "lds", "rds", "sds", "ecds"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "*"];

/// One line of `xds_stream`'s language.
fn xds_line() -> impl Strategy<Value = String> {
    let resource = (select(&KINDS[..]), select(&NAMES[..4]), 0..3u8).prop_map(|(kind, name, version)| format!("{kind}/{name}={version}"));
    let word = (select(&["+", "-", "have:"][..]), select(&NAMES[..])).prop_map(|(sign, name)| match sign {
        "have:" => format!("have:{name}=1"),
        _ => format!("{sign}{name}"),
    });
    let verb = select(&["ask", "ack", "ack", "ack", "nack", "stale"][..]);
    prop_oneof![
        2 => prop::collection::vec(resource, 0..12).prop_map(|words| format!("set {}", words.join(" "))),
        8 => (verb, select(&KINDS[..]), prop::collection::vec(word, 0..4)).prop_map(|(verb, kind, words)| format!("{verb} {kind} {}", words.join(" "))),
        1 => Just("reconnect".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a fuzzer would do first, on the stable toolchain.
    #[test]
    fn an_xds_stream_holds_its_rules_under_any_requests(lines in prop::collection::vec(xds_line(), 1..60)) {
        entry::xds_stream::run(lines.join("\n").as_bytes());
    }
}
