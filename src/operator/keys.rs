//! `keys generate`, `keys list`, `keys publish`: the key pairs with which tokens for others are signed. Shows public parts only; a private key
//! is written to one new file and nowhere else.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret;
use url::Url;

use super::session::{self, Running};
use crate::config::StoreSettings;
use crate::server::signing::{KeyView, PublishedKeys, generate_pem, published_keys};
use crate::server::store::Store;
use crate::server::{clock, publisher};
use crate::token::{DiscoveryDocument, JwkSet, SigningAlgorithm, SigningKey};

/// Below this folder, as a web server's root; API servers ask for the first by `discoveryURL`, and for the second by what the first says.
const FOLDER: &str = ".well-known";
const DISCOVERY: &str = "openid-configuration";
const JWKS: &str = "jwks.json";

/// Writes a new private key, readable by its owner only.
///
/// # Errors
/// A text for the operator; a file that exists is never touched.
pub fn generate(file: &Path, algorithm: SigningAlgorithm) -> Result<String, String> {
    let pem = generate_pem(algorithm).map_err(|error| error.to_string())?;
    let key = SigningKey::from_pem(pem.expose_secret(), Some(algorithm)).map_err(|error| format!("the key that was made {error}"))?;
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{} exists, and a key is never overwritten", file.display()),
        _ => format!("cannot write {}: {error}", file.display()),
    };
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    open.write_all(pem.expose_secret().as_bytes()).and_then(|()| open.sync_all()).map_err(failed)?;
    // RS256 is what an RSA key signs with when nothing is said.
    let entry = match algorithm {
        SigningAlgorithm::Ps256 => format!("{{file: {}, algorithm: PS256}}", file.display()),
        _ => format!("{{file: {}}}", file.display()),
    };
    Ok(format!(
        "{algorithm} key {} in {}\nput `{entry}` first under `signing_keys` (or `assertion_keys`): it signs when it has been published for `publish_before_use`",
        key.kid(),
        file.display()
    ))
}

/// A table of the published keys of both kinds, in the order of their JWKS.
///
/// # Errors
/// A text for the operator.
pub fn list(running: &Running) -> Result<String, String> {
    let keys = keys(running)?;
    let now = clock::unix_now();
    let mut rows = vec![["TOKENS", "KEY", "ALGORITHM", "STATE", "PUBLISHED", "UNTIL"].map(str::to_owned)];
    for (tokens, keys) in [("upstream", &keys.upstream), ("assertion", &keys.assertion)] {
        rows.extend(keys.iter().map(|key| row(tokens, key, now)));
    }
    Ok(session::table(&rows))
}

/// Writes what API servers read as two static files below `folder`, the root of a web server that is reached as `base_url` (otherwise as
/// `public_url`).
///
/// # Errors
/// A text for the operator.
pub fn publish(running: &Running, folder: &Path, base_url: Option<&str>) -> Result<String, String> {
    let base = base_url.map(checked_base).transpose()?;
    write_files(&keys(running)?, folder, base)
}

fn write_files(keys: &PublishedKeys, folder: &Path, base: Option<String>) -> Result<String, String> {
    // API servers that read an empty list refuse everybody; what they can read now is better, whoever asked the wrong kubepass.
    if keys.upstream.is_empty() {
        return Err("there is no key to publish, so nothing was changed: is this the configuration of the kubepass that runs?".to_owned());
    }
    let base = base.unwrap_or_else(|| keys.issuer.clone());
    let jwks = JwkSet { keys: keys.upstream.iter().map(|key| key.jwk.clone()).collect() };
    let discovery = DiscoveryDocument::new(&keys.issuer, &format!("{base}/{FOLDER}/{JWKS}"), &jwks);
    let folder = folder.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    // The keys first: the other file leads to them.
    write_json(&folder.join(JWKS), &serde_json::to_string_pretty(&jwks).map_err(|error| error.to_string())?)?;
    write_json(&folder.join(DISCOVERY), &serde_json::to_string_pretty(&discovery).map_err(|error| error.to_string())?)?;
    Ok(format!(
        "{} key(s) in {}\nserve them as {base}/{FOLDER}/{DISCOVERY} (the `--discovery-url` of `cluster authentication-config`), by HTTPS, with no `Cache-Control` or `max-age=30`\n\
         publish again whenever the keys change: a new key must be served before it signs, which is `publish_before_use` after it was configured",
        jwks.keys.len(),
        folder.display()
    ))
}

/// From the kubepass that runs; when none does, from the configuration and the store.
fn keys(running: &Running) -> Result<PublishedKeys, String> {
    let asked = session::state(running).and_then(|state| {
        let state: serde_json::Value = serde_json::from_str(&state).map_err(|error| error.to_string())?;
        let keys = state.get("keys").cloned().unwrap_or_default();
        serde_json::from_value(keys).map_err(|error| format!("the kubepass that runs tells no keys: {error}"))
    });
    // A socket that was named must answer: the file may belong to another kubepass.
    asked.or_else(|first| match running.socket {
        Some(_) => Err(first),
        None => keys_at_rest(&running.config).map_err(|second| format!("{first}\nand nothing can be read without it: {second}")),
    })
}

fn keys_at_rest(config: &Path) -> Result<PublishedKeys, String> {
    let snapshot = publisher::load_before_tokens(config).map_err(|error| error.to_string())?;
    let StoreSettings::Embedded { path } = &snapshot.config().sessions.store;
    // Opening would make one.
    let store = match path.exists() {
        true => Some(Store::open(path, Arc::clone(snapshot.token_keys())).map_err(|error| error.to_string())?),
        false => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(published_keys(snapshot.config(), store.as_ref(), clock::unix_now())).map_err(|error| error.to_string())
}

fn checked_base(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no base URL: write https://HOST[:PORT][/PATH]");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
    if plain && url.query().is_none() && url.fragment().is_none() { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

/// Whole or not at all: a web server may read at any time. Never through a link: others may write to a web server's folder.
fn write_json(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished).map_err(failed)?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

fn row(tokens: &str, key: &KeyView, now: u64) -> [String; 6] {
    [
        tokens.to_owned(),
        key.kid.clone(),
        key.algorithm.name().to_owned(),
        key.state.clone(),
        format!("{} ago", session::duration(now.saturating_sub(key.published_at))),
        key.until.map(|until| format!("in {}", session::duration(until.saturating_sub(now)))).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signing.pem");
        let said = generate(&file, SigningAlgorithm::Es384).unwrap();
        let pem = fs::read_to_string(&file).unwrap();
        let key = SigningKey::from_pem(&pem, None).unwrap();
        assert!(said.contains(key.kid()) && said.contains("ES384") && !said.contains("PRIVATE"), "{said}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(generate(&file, SigningAlgorithm::Es256).unwrap_err().contains("never overwritten"));
        assert_eq!(fs::read_to_string(&file).unwrap(), pem);
        assert!(generate(&folder.path().join("no/folder"), SigningAlgorithm::Es256).unwrap_err().contains("cannot write"));
    }

    fn published(upstream: &[&SigningKey]) -> PublishedKeys {
        let view = |key: &&SigningKey| KeyView {
            kid: key.kid().to_owned(),
            algorithm: key.algorithm(),
            state: "signs".to_owned(),
            published_at: 0,
            until: None,
            jwk: key.public_jwk().clone(),
        };
        PublishedKeys {
            issuer: "https://pass.example.com".to_owned(),
            upstream: upstream.iter().map(view).collect(),
            assertion: Vec::new(),
        }
    }

    #[test]
    fn nothing_takes_the_place_of_published_keys_but_keys() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_pem(generate_pem(SigningAlgorithm::Es256).unwrap().expose_secret(), None).unwrap();
        write_files(&published(&[&key]), folder.path(), None).unwrap();
        let jwks = folder.path().join(".well-known/jwks.json");
        let good = fs::read_to_string(&jwks).unwrap();
        assert!(good.contains(key.kid()), "{good}");
        assert!(write_files(&published(&[]), folder.path(), None).unwrap_err().contains("no key to publish"));
        assert_eq!(fs::read_to_string(&jwks).unwrap(), good);
    }

    #[test]
    fn a_link_in_a_web_servers_folder_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "precious").unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(FOLDER).join("jwks.json.new")).unwrap();
        let key = SigningKey::from_pem(generate_pem(SigningAlgorithm::Es256).unwrap().expose_secret(), None).unwrap();
        write_files(&published(&[&key]), folder.path(), None).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        let jwks = folder.path().join(FOLDER).join(JWKS);
        assert!(!fs::symlink_metadata(&jwks).unwrap().is_symlink() && fs::read_to_string(&jwks).unwrap().contains(key.kid()));
    }

    #[test]
    fn a_base_is_an_https_url_only() {
        let good = |text: &str, want: &str| assert_eq!(checked_base(text).as_deref(), Ok(want));
        good("https://keys.example.com", "https://keys.example.com");
        good("https://keys.example.com:8443/kubepass/", "https://keys.example.com:8443/kubepass");
        for bad in ["", "keys.example.com", "http://keys.example.com", "https://u:p@h", "https://h/?q", "https://h/#f"] {
            assert!(checked_base(bad).is_err(), "{bad}");
        }
    }
}
