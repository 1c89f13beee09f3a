//! The fuzz targets over their corpora, on the stable toolchain: what a fuzzer once found stays found.

#[path = "../fuzz/entry.rs"]
mod entry;

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
