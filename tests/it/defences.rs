//! The switches by which the security suite turns defences off: they are for tests, and each of them turns off something.

use std::path::{Path, PathBuf};
use std::process::Command;

use kubepass::defence::Defence;

use crate::fixture;

/// Not written whole, so that this file is not found.
const VARIABLE: &str = concat!("KUBEPASS_TEST_", "DEFENCES_OFF");

#[test]
fn a_switch_that_is_none_is_refused() {
    let check = |names: &str, wanted: &str| {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_kubepass-server"))
            .args(["up", "--config"])
            .arg(folder.path().join("there-is-none.yaml"))
            .env(VARIABLE, names)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(wanted), "{names}: {said}");
        said
    };
    let said = check("early-strip,gard", "there is no defence \"gard\"");
    assert!(said.contains(VARIABLE) && said.contains("guard") && !said.contains("TURNED OFF"), "{said}");
    // Loud before anything is served: here not even the configuration is there.
    check("guard,early-strip", "DEFENCES ARE TURNED OFF");
    assert!(!check("", "there-is-none.yaml").contains("TURNED OFF"));
}

#[test]
fn no_release_build_knows_the_switches() {
    let naming: Vec<(PathBuf, String)> = sources().into_iter().filter(|(_, text)| text.contains(VARIABLE)).collect();
    let [(path, text)] = naming.as_slice() else {
        panic!("{VARIABLE} stands in {:?}", naming.iter().map(|(path, _)| path).collect::<Vec<_>>())
    };
    let before = text.split(VARIABLE).next().unwrap();
    let function = before.rfind("\nfn ").expect("it stands in a function");
    assert!(before[..function].ends_with("#[cfg(debug_assertions)]"), "{}: the function is in release builds too", path.display());
    let defence = std::fs::read_to_string(fixture::root().join("src/defence.rs")).unwrap();
    assert!(
        defence.contains("#[cfg(not(debug_assertions))]\npub const fn off(_: Defence) -> bool {\n    false\n}"),
        "a defence in a release build is no constant"
    );
    let manifest = std::fs::read_to_string(fixture::root().join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("debug-assertions"), "a profile has debug assertions of its own");
}

#[test]
fn each_defence_is_asked_for_where_it_is_decided() {
    let code: String = sources().into_iter().filter(|(path, _)| !path.ends_with("defence.rs")).map(|(_, text)| text).collect();
    for defence in Defence::ALL {
        assert!(code.contains(&format!("off(Defence::{defence:?})")), "nothing asks for {defence}");
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&fixture::root().join("src"), &mut found);
    found
}
