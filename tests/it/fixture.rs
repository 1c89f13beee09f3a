//! Snapshots of the example configurations with fixed contents, so that golden files that are made from them stay equal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kubepass::config::{self, Config, ConfigErrors, Contents, Reference};
use kubepass::snapshot::Snapshot;

/// 2026-01-01. The certificates are valid for 100 years from 2025.
pub(crate) const NOW: u64 = 1_767_225_600;

/// The snapshot of a configuration file, by its path from the root of the repository. The version is fixed.
pub(crate) fn snapshot_of(path: &str) -> Arc<Snapshot> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let config = load(&text, path, &BTreeMap::new()).unwrap_or_else(|errors| panic!("{path}:\n{errors}"));
    Arc::new(Snapshot::new(Arc::new(config), "0123456789abcdef0123456789abcdef"))
}

/// Parses and resolves; `overrides` replaces the content of references (by file name or variable name), `None` takes it away.
pub(crate) fn load(text: &str, path: &str, overrides: &BTreeMap<&str, Option<Vec<u8>>>) -> Result<Config, ConfigErrors> {
    load_after(None, text, path, overrides)
}

/// The same, with `before` in force.
pub(crate) fn load_after(
    before: Option<&Config>,
    text: &str,
    path: &str,
    overrides: &BTreeMap<&str, Option<Vec<u8>>>,
) -> Result<Config, ConfigErrors> {
    let draft = config::parse(text, path)?;
    let content = |reference: &Reference| {
        let name = name_of(reference);
        let content = overrides.get(name.as_str()).cloned().unwrap_or_else(|| Some(content_of(&name)));
        (reference.clone(), content.ok_or_else(|| "No such file or directory (os error 2)".to_owned()))
    };
    let contents = Contents(draft.references().keys().map(content).collect());
    config::resolve_after(before, draft, &contents, NOW)
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of the fixed files in `tests/it/fixture`. Those in `keys` were made by openssl and are what their names say.
pub(crate) fn fixed(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/it/fixture").join(name)).unwrap()
}

fn name_of(reference: &Reference) -> String {
    match reference {
        Reference::File(path) => path.file_name().unwrap().to_str().unwrap().to_owned(),
        Reference::Environment(name) => name.clone(),
        Reference::Object(reference) => reference.key.clone(),
        Reference::SystemRoots => "system-roots-ca.crt".to_owned(),
    }
}

/// What the name promises: `*ca.crt` a CA bundle, `*.crt` the serving chain, `*.key` its key, `*.pem` a signing key, anything else a secret of
/// its own.
fn content_of(name: &str) -> Vec<u8> {
    match name {
        name if name.ends_with("ca.crt") => fixed("ca.crt"),
        name if name.ends_with(".crt") => fixed("tls.crt"),
        name if name.ends_with(".key") => fixed("tls.key"),
        name if name.ends_with(".pem") => fixed(&format!("keys/{name}")),
        name => format!("test-only-content-of-{name}-0123456789abcdef\n").into_bytes(),
    }
}

/// Rewrites `tests/it/fixture`: `cargo test --test it fixture::rewrite -- --ignored`. Golden files change with it.
#[test]
#[ignore = "makes new keys"]
fn rewrite() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
    let folder = root().join("tests/it/fixture");
    let parameters = |name: &str, names: &[&str], years: (i32, i32)| {
        let mut parameters = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_before = date_time_ymd(years.0, 1, 1);
        parameters.not_after = date_time_ymd(years.1, 1, 1);
        parameters
    };
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = parameters("kubepass test CA", &[], (2025, 2125));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = |name: &str, names: &[&str], years: (i32, i32)| {
        let mut leaf = parameters(name, names, years);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.signed_by(&key, &issuer).unwrap().pem()
    };
    let hosts = ["pass.example.com", "*.k8s.example.com"];
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("ca.crt", ca_pem.clone());
    write("tls.crt", leaf("kubepass test", &hosts, (2025, 2125)) + &ca_pem);
    write("expired.crt", leaf("expired", &hosts, (2024, 2025)) + &ca_pem);
    write("unordered.crt", ca_pem + &leaf("kubepass test", &hosts, (2025, 2125)));
    write("tls.key", key.serialize_pem());
    write("other.key", KeyPair::generate().unwrap().serialize_pem());
}

/// The same, loaded once for tests that ask thousands of times.
pub(crate) fn snapshot_of_cached(path: &'static str) -> Arc<Snapshot> {
    static CACHE: std::sync::Mutex<BTreeMap<&str, Arc<Snapshot>>> = std::sync::Mutex::new(BTreeMap::new());
    Arc::clone(CACHE.lock().unwrap().entry(path).or_insert_with(|| snapshot_of(path)))
}

/// Compares with a golden file, by its path from the root of the repository; `UPDATE_GOLDEN=1` rewrites it.
#[track_caller]
pub(crate) fn compare_golden(path: &str, got: &str) {
    let mut golden = Golden::default();
    golden.compare(&root().join(path), got);
    golden.assert();
}

/// Comparisons with golden files, reported together.
#[derive(Default)]
pub(crate) struct Golden {
    differences: Vec<String>,
}

impl Golden {
    pub(crate) fn compare(&mut self, golden: &Path, got: &str) {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
            std::fs::write(golden, got).unwrap();
        }
        let wanted = std::fs::read_to_string(golden).unwrap_or_default();
        if wanted != got {
            let first = wanted.lines().zip(got.lines()).find(|(wanted, got)| wanted != got);
            let (had, has) = (wanted.lines().count(), got.lines().count());
            self.differences.push(format!("{} ({had} lines, now {has}); first: {first:#?}\nnow:\n{got}", golden.display()));
        }
    }

    #[track_caller]
    pub(crate) fn assert(&self) {
        assert!(self.differences.is_empty(), "UPDATE_GOLDEN=1 takes these as right:\n\n{}", self.differences.join("\n"));
    }
}
