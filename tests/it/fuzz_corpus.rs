//! The fuzz targets over their corpora, on the stable toolchain: what a fuzzer once found stays found.

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
