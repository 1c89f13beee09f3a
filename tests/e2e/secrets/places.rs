//! Where a secret could come to light: what is said, logged, written, shown by Envoy and by the system.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::support::http;
use super::super::support::processes::envoys;
use super::super::support::world::World;
use super::HELD;

pub(super) struct Place {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// The names of secrets that belong here.
    pub(super) may_hold: &'static [&'static str],
    pub(super) may_be_empty: bool,
}

impl Place {
    pub(super) fn new(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), bytes: bytes.into(), may_hold: &[], may_be_empty: false }
    }
}

/// All places of a running installation, and what was said before.
pub(super) fn of(world: &mut World, said: Vec<(String, String)>) -> Vec<Place> {
    let mut places: Vec<Place> = said.into_iter().map(|(name, text)| Place::new(&name, text)).collect();
    let server = world.server().id();
    let log = std::fs::read(world.run.log_path("kubepass-server")).unwrap();
    let text = String::from_utf8_lossy(&log).into_owned();
    assert!(text.contains("TRACE") && text.contains("DEBUG"), "the log is not at its most talkative");
    assert!(!text.contains("panicked at"), "a panic");
    places.push(Place::new("the log", log));
    for path in ["metrics", "readyz", "livez", "nothing"] {
        let answer = http::client(&[]).get(format!("http://127.0.0.1:{}/{path}", world.admin_port)).send().unwrap();
        let head = format!("{answer:?}\n");
        places.push(Place::new(path, head + &answer.text().unwrap()));
    }
    for cluster in [&world.prod, &world.staging] {
        places.push(Place::new(&format!("the audit log of {}", cluster.name()), std::fs::read(cluster.audit_log()).unwrap()));
        let name = format!("{}-kube-apiserver", cluster.name());
        places.push(Place { may_be_empty: true, ..Place::new(&name, std::fs::read(world.run.log_path(&name)).unwrap()) });
    }
    for path in ["config_dump?include_eds", "certs", "clusters?format=json", "listeners", "stats", "server_info", "runtime", "init_dump"] {
        places.push(Place { may_be_empty: true, ..Place::new(&format!("Envoy's /{path}"), envoy(world, path)) });
    }
    let dump =
        places.iter().find(|place| place.name.contains("config_dump")).map(|place| String::from_utf8_lossy(&place.bytes).into_owned());
    assert!(
        dump.is_some_and(|dump| dump.contains("SecretsConfigDump") && dump.contains("[redacted]")),
        "Envoy holds secrets, and hides them"
    );
    for pid in envoys(world).into_iter().chain([server]) {
        for what in ["environ", "cmdline"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{what}")).unwrap();
            // That is where it was put; nobody but kubepass's user and root reads it.
            let may_hold: &[_] = if pid == server && what == "environ" { &["the client secret"] } else { &[] };
            places.push(Place { may_hold, ..Place::new(&format!("{what} of {pid}"), bytes) });
        }
    }
    places.extend(files(world));
    places
}

/// Every file in kubepass's folders but those that were put there for the secrets in them.
pub(super) fn files(world: &World) -> Vec<Place> {
    let folder = world.run.file("kubepass");
    let mut found = Vec::new();
    let mut folders = vec![folder.clone(), world.run.file("operator")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !is_held(&folder, &path) {
                found.push(Place { may_be_empty: true, ..Place::new(&path.display().to_string(), std::fs::read(&path).unwrap()) });
            }
        }
    }
    for wanted in ["kubepass.db", "audit.jsonl"] {
        assert!(found.iter().any(|place| place.name.ends_with(wanted) && place.bytes.len() > 1000), "{wanted} was looked at");
    }
    found
}

fn is_held(folder: &Path, path: &Path) -> bool {
    HELD.iter().any(|name| path == folder.join(name))
}

/// Login token and session tokens that the CLI keeps.
pub(super) fn cached_tokens(home: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![home.join("cache")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(Value::Object(cached)) = serde_json::from_slice(&std::fs::read(&path).unwrap()) {
                let tokens = cached.iter().filter(|(key, _)| key.ends_with("_token"));
                found.extend(tokens.filter_map(|(key, token)| Some((key.clone(), token.as_str()?.to_owned()))));
            }
        }
    }
    assert!(found.len() >= 3, "a login token and two session tokens: {}", found.len());
    found
}

fn envoy(world: &World, path: &str) -> Vec<u8> {
    let mut admin = UnixStream::connect(world.run.file("kubepass/run/envoy-admin.sock")).unwrap();
    admin.write_all(format!("GET /{path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    admin.read_to_end(&mut bytes).unwrap();
    bytes
}
