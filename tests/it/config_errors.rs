//! What a wrong configuration is answered with: one golden file per case, so that messages are read whole when they change.
//! `UPDATE_GOLDEN=1 cargo test --test it config_errors` rewrites them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::fixture;

/// Every `*.yaml` in the folder has its messages in the `*.txt` beside it.
#[test]
fn messages_are_the_golden_ones() {
    let folder = fixture::root().join("tests/it/golden/config_errors");
    let cases = yaml_files(&folder);
    assert!(cases.len() > 5, "the golden files are gone");
    let mut golden = fixture::Golden::default();
    for case in cases {
        let text = std::fs::read_to_string(&case).unwrap();
        let name = case.file_name().unwrap().to_str().unwrap();
        let got = match fixture::load(&text, name, &contents()) {
            Ok(_) => panic!("{name} has no mistakes"),
            Err(errors) => format!("{errors}\n"),
        };
        assert!(!got.contains("hunter2") && !got.contains("test-only-content"), "a message holds a secret: {got}");
        golden.compare(&case.with_extension("txt"), &got);
    }
    golden.assert();
}

#[test]
fn every_example_is_valid() {
    let examples = yaml_files(&fixture::root().join("config"));
    assert!(examples.len() >= 3, "the examples are gone");
    for example in examples {
        let path = example.strip_prefix(fixture::root()).unwrap().to_str().unwrap();
        fixture::snapshot_of(path);
    }
}

/// What YAML gives a meaning to.
const PIECES: &[&str] =
    &["", "\"", "'", "\n", "\t", "- ", ": ", "{", "]", "|", "&a ", "*a", "!!int ", "\u{0}", "\u{e9}", "~", "12", "%", "#", "<<: *a"];

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(400))]

    /// Whatever is cut out of or put into a valid configuration ends in a configuration or in located messages, never in a panic or silence.
    #[test]
    fn a_damaged_configuration_ends_in_messages(
        example in proptest::sample::select(vec!["kubepass", "two-clusters", "several-identity-providers", "web-pages"]),
        at in 0.0..1.0f64,
        length in 0usize..40,
        put in proptest::sample::select(PIECES),
    ) {
        let text = std::fs::read_to_string(fixture::root().join(format!("config/{example}.yaml"))).unwrap();
        let characters: Vec<char> = text.chars().collect();
        let begin = (at * characters.len() as f64) as usize;
        let end = (begin + length).min(characters.len());
        let damaged: String =
            characters[..begin].iter().collect::<String>() + put + &characters[end..].iter().collect::<String>();
        if let Err(errors) = fixture::load(&damaged, "damaged.yaml", &BTreeMap::new()) {
            proptest::prop_assert!(!errors.0.is_empty());
            let lines = damaged.lines().count();
            for error in &errors.0 {
                proptest::prop_assert!(!error.message.is_empty() && error.line <= lines + 1, "{error}");
            }
        }
    }
}

fn yaml_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    files.sort();
    files
}

/// What the references of the cases lead to, besides what their names promise.
fn contents() -> BTreeMap<&'static str, Option<Vec<u8>>> {
    BTreeMap::from([
        ("missing.crt", None),
        ("missing-token", None),
        ("UNSET", None),
        ("empty", Some(b" \n".to_vec())),
        ("short", Some(b"hunter2".to_vec())),
        ("monotone", Some(b"abababababababababababababababababababab".to_vec())),
        ("two-lines", Some(b"hunter2\nhunter2\n".to_vec())),
        ("binary", Some(vec![0xff; 40])),
        ("garbage.crt", Some(b"hunter2".to_vec())),
        ("broken.crt", Some(b"-----BEGIN CERTIFICATE-----\nhunter2!!\n-----END CERTIFICATE-----\n".to_vec())),
        ("not-x509.crt", Some(b"-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n".to_vec())),
        ("garbage.key", Some(b"hunter2".to_vec())),
        ("encrypted.key", Some(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n".to_vec())),
        ("other.key", Some(fixture::fixed("other.key"))),
        ("expired.crt", Some(fixture::fixed("expired.crt"))),
        ("unordered.crt", Some(fixture::fixed("unordered.crt"))),
        ("garbage.pem", Some(b"hunter2".to_vec())),
        ("broken.pem", Some(b"-----BEGIN PRIVATE KEY-----\nhunter2!!\n-----END PRIVATE KEY-----\n".to_vec())),
        ("two.pem", Some([fixture::fixed("keys/signing.pem"), fixture::fixed("keys/rsa.pem")].concat())),
        ("missing.pem", None),
        ("key-by-mistake.crt", Some(fixture::fixed("tls.key"))),
    ])
}
