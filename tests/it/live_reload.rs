//! Changes of the configuration while it is in force: edits, renames, symlink swaps, files that go and come back; and what a mistake does.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kubepass::audit::ConfigChangedEvent;
use kubepass::operator::check_config;
use kubepass::server::publisher::{LoadError, Publisher, ReloadResult, ReloadState, load_before_tokens, load_once};
use kubepass::snapshot::Snapshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fixture;

/// A change is in force within this time.
const LIMIT: Duration = Duration::from_secs(2);

const TEXT: &str = r#"
public_url: https://pass.example.com
listeners: [{address: "127.0.0.1:443", certificates: [{chain: {file: tls.crt}, key: {file: tls.key}}]}]
secrets: [{file: secret}]
identity_providers:
- name: corp
  issuer: https://idp.example.com
  client_id: CLIENT
  client_secret: {file: client-secret}
  identity: {username: claims.email}
sessions: {store: {embedded: {path: kubepass.db}}}
routes:
- name: prod
  host: prod.k8s.example.com
  kubernetes: {server: "https://10.0.0.1", ca: {file: ca.crt}, impersonate: {token: {file: token}}}
  policy: [{allow: "true"}]
audit: {sinks: [{file: {path: audit.jsonl}}]}
"#;

fn text(client: &str) -> String {
    TEXT.replace("CLIENT", client)
}

/// Writes the configuration and everything that it names.
fn write_all(folder: &Path, client: &str) {
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::write(folder.join(name), fixture::fixed(name)).unwrap();
    }
    std::fs::write(folder.join("secret"), "0123456789abcdefghijklmnopqrstuvwxyz\n").unwrap();
    std::fs::write(folder.join("client-secret"), "client-secret\n").unwrap();
    std::fs::write(folder.join("token"), "first-token\n").unwrap();
    std::fs::write(folder.join("kubepass.yaml"), text(client)).unwrap();
}

struct Running {
    snapshot: Arc<arc_swap::ArcSwap<Snapshot>>,
    state: Arc<arc_swap::ArcSwap<ReloadState>>,
    changes: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    events: Arc<Mutex<Vec<ConfigChangedEvent>>>,
    _stop: DropGuard,
}

impl Running {
    fn start(file: &Path) -> Self {
        let publisher = Publisher::load(file).unwrap();
        let stop = CancellationToken::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let running = Self {
            snapshot: publisher.snapshot(),
            state: publisher.state(),
            changes: publisher.subscribe(),
            events: Arc::clone(&events),
            _stop: stop.clone().drop_guard(),
        };
        let hook = Box::new(move |event| events.lock().unwrap().push(event));
        tokio::spawn(async move { publisher.run(hook, stop).await.unwrap() });
        running
    }

    fn client(&self) -> String {
        self.snapshot.load().config().identity_providers[0].client_id.clone()
    }

    fn token(&self) -> String {
        use kubepass::config::{Method, Target};
        use secrecy::ExposeSecret;
        let snapshot = self.snapshot.load();
        let Target::Kubernetes(target) = &snapshot.config().routes[0].target else { panic!("a cluster") };
        let Method::Impersonate(impersonate) = &target.method else { panic!("another method") };
        impersonate.token.expose_secret().to_owned()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < LIMIT, "not within {LIMIT:?}: {what}; state {:?}", self.state.load());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_refused(&self, fragment: &str) {
        let refused = |running: &Self| {
            let state = running.state.load();
            state.last_result == ReloadResult::Rejected && state.errors.iter().any(|error| error.contains(fragment))
        };
        self.until(&format!("refused because of {fragment}"), refused).await;
    }

    async fn until_good(&self) {
        self.until("good again", |running| running.state.load().last_result == ReloadResult::Applied).await;
    }

    fn outcomes(&self) -> Vec<&'static str> {
        self.events.lock().unwrap().iter().map(|event| event.outcome).collect()
    }
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), "first");
    let file = folder.path().join("kubepass.yaml");
    (folder, file)
}

#[tokio::test]
async fn an_edit_in_place_is_in_force() {
    let (_folder, file) = in_folder();
    let mut running = Running::start(&file);
    assert_eq!(running.client(), "first");
    let version = running.snapshot.load().version().to_owned();
    std::fs::write(&file, text("second")).unwrap();
    running.until("second", |running| running.client() == "second").await;
    assert_ne!(running.snapshot.load().version(), version);
    assert_eq!(running.changes.borrow_and_update().version(), running.snapshot.load().version());
    assert_eq!(running.state.load().version, running.snapshot.load().version());
    std::fs::write(&file, text("first")).unwrap();
    running.until("first", |running| running.client() == "first").await;
    assert_eq!(running.snapshot.load().version(), version, "equal content has an equal version");
    running.until("three events", |running| running.outcomes() == ["applied", "applied", "applied"]).await;
}

#[tokio::test]
async fn a_file_renamed_over_the_old_one_is_in_force() {
    let (folder, file) = in_folder();
    let running = Running::start(&file);
    let replace = |name: &str, content: &str| {
        std::fs::write(folder.path().join("new"), content).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join(name)).unwrap();
    };
    replace("kubepass.yaml", &text("second"));
    running.until("second", |running| running.client() == "second").await;
    replace("token", "second-token");
    running.until("second token", |running| running.token() == "second-token").await;
    replace("token", "third-token");
    running.until("third token", |running| running.token() == "third-token").await;
}

/// The way kubelet changes a mounted ConfigMap or Secret: a new folder, a new link `..data_tmp`, renamed over `..data`.
#[tokio::test]
async fn a_symlink_swap_as_kubelet_does_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path();
    let generation = |name: &str, client: &str| {
        std::fs::create_dir(mount.join(name)).unwrap();
        write_all(&mount.join(name), client);
        symlink(name, mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    generation("..2026_1", "first");
    for name in ["kubepass.yaml", "tls.crt", "tls.key", "ca.crt", "secret", "client-secret", "token"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    let running = Running::start(&mount.join("kubepass.yaml"));
    for (number, client) in [(2, "second"), (3, "third"), (4, "fourth")] {
        generation(&format!("..2026_{number}"), client);
        running.until(client, |running| running.client() == client).await;
        std::fs::remove_dir_all(mount.join(format!("..2026_{}", number - 1))).unwrap();
    }
    running.until_good().await;
}

#[tokio::test]
async fn a_mistake_changes_nothing_and_is_shown_until_it_is_gone() {
    let (_folder, file) = in_folder();
    let running = Running::start(&file);
    let version = running.snapshot.load().version().to_owned();
    std::fs::write(&file, text("second").replace("10.0.0.1", "10.0.0.1/x").replace("policy", "polcy")).unwrap();
    running.until_refused("did you mean `policy`?").await;
    assert!(running.state.load().errors.iter().any(|error| error.contains("without path")), "all mistakes at once");
    assert_eq!((running.client().as_str(), running.snapshot.load().version()), ("first", version.as_str()));
    assert!(!running.changes.has_changed().unwrap());
    // What is in force is written again: nothing is published, and nothing is shown as wrong any more.
    std::fs::write(&file, text("first")).unwrap();
    running.until_good().await;
    assert!(running.state.load().errors.is_empty());
    assert_eq!((running.state.load().applied, running.state.load().rejected), (1, 1));
    std::fs::write(&file, "{").unwrap();
    running.until_refused("not readable as YAML").await;
    std::fs::write(&file, text("third")).unwrap();
    running.until("third", |running| running.client() == "third").await;
    running.until("four events", |running| running.outcomes() == ["applied", "rejected", "rejected", "applied"]).await;
}

#[tokio::test]
async fn a_referenced_file_may_go_and_come_back() {
    let (folder, file) = in_folder();
    let running = Running::start(&file);
    std::fs::remove_file(folder.path().join("token")).unwrap();
    running.until_refused("No such file").await;
    assert_eq!(running.token(), "first-token");
    std::fs::write(folder.path().join("token"), "second-token").unwrap();
    running.until("second token", |running| running.token() == "second-token").await;
    std::fs::write(folder.path().join("tls.key"), fixture::fixed("other.key")).unwrap();
    running.until_refused("does not belong to").await;
    std::fs::write(folder.path().join("tls.key"), fixture::fixed("tls.key")).unwrap();
    running.until_good().await;
}

/// The key in force signs on: what cannot be a key never takes its place, and a good one does within the usual time.
#[tokio::test]
async fn a_broken_signing_key_changes_nothing() {
    let (folder, file) = in_folder();
    let (key, other) = (fixture::fixed("keys/signing.pem"), fixture::fixed("keys/signing-2.pem"));
    let path = folder.path().join("signing.pem");
    std::fs::write(&path, &key).unwrap();
    std::fs::write(&file, text("first").replace("secrets:", "signing_keys: [{file: signing.pem}]\nsecrets:")).unwrap();
    let running = Running::start(&file);
    let kid = |running: &Running| running.snapshot.load().config().signing_keys[0].kid().to_owned();
    let first = kid(&running);
    let check = async |content: &[u8], why: &str| {
        std::fs::write(&path, content).unwrap();
        running.until_refused(why).await;
        assert_eq!(kid(&running), first, "{why}");
    };
    check(b"", "holds no private key").await;
    check(&key[..key.len() / 2], "is not valid PEM").await;
    check(&[key.clone(), other.clone()].concat(), "more than one private key").await;
    check(&fixture::fixed("keys/rsa-1024.pem"), "2048 to 8192 bits").await;
    check(&fixture::fixed("keys/ed25519.pem"), "Ed25519").await;
    std::fs::remove_file(&path).unwrap();
    running.until_refused("No such file").await;
    assert_eq!(kid(&running), first);
    std::fs::write(&path, &key).unwrap();
    running.until_good().await;
    assert_eq!((kid(&running), running.state.load().applied), (first.clone(), 1));
    std::fs::write(&path, &other).unwrap();
    running.until("another key", |running| kid(running) != first).await;
}

#[tokio::test]
async fn a_folder_made_anew_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("config");
    std::fs::create_dir(&inner).unwrap();
    write_all(&inner, "first");
    let running = Running::start(&inner.join("kubepass.yaml"));
    std::fs::rename(&inner, folder.path().join("old")).unwrap();
    running.until_refused("No such file").await;
    assert_eq!(running.client(), "first");
    std::fs::create_dir(&inner).unwrap();
    write_all(&inner, "second");
    running.until("second", |running| running.client() == "second").await;
    std::fs::write(inner.join("kubepass.yaml"), text("third")).unwrap();
    running.until("third", |running| running.client() == "third").await;
}

#[tokio::test]
async fn of_two_quick_changes_the_last_is_in_force() {
    let (folder, file) = in_folder();
    let running = Running::start(&file);
    for round in 0..20 {
        std::fs::write(&file, text(&format!("client-{round}"))).unwrap();
        std::fs::write(folder.path().join("token"), format!("token-{round}")).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.until("the last", |running| running.client() == "client-19" && running.token() == "token-19").await;
    running.until_good().await;
}

#[tokio::test]
async fn other_files_in_the_folder_wake_nobody() {
    let (folder, file) = in_folder();
    let running = Running::start(&file);
    for line in 0..50 {
        std::fs::write(folder.path().join("audit.jsonl"), format!("{line}")).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.outcomes(), ["applied"]);
    assert_eq!(running.state.load().applied, 1);
}

#[test]
fn what_is_no_small_file_is_refused_without_waiting() {
    let (folder, file) = in_folder();
    let token = folder.path().join("token");
    let check = |want: &str| {
        let error = load_once(&file).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains(":15:"), "{want}: {error}");
    };
    std::fs::write(&token, vec![b'x'; 2 * 1024 * 1024]).unwrap();
    check("larger than");
    std::fs::remove_file(&token).unwrap();
    std::fs::create_dir(&token).unwrap();
    check("is a directory");
    std::fs::remove_dir(&token).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&token).status().unwrap().success());
    check("not a regular file");
    std::fs::remove_file(&token).unwrap();
    symlink("token", &token).unwrap();
    check("symbolic links");
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(load_once(&file), Err(LoadError::Unreadable { .. })));
}

#[test]
fn what_makes_the_token_can_be_printed_before_there_is_one() {
    let (folder, file) = in_folder();
    std::fs::remove_file(folder.path().join("token")).unwrap();
    assert!(load_before_tokens(&file).unwrap().route("prod").is_some());
    std::fs::remove_file(folder.path().join("secret")).unwrap();
    assert!(load_before_tokens(&file).is_err(), "nothing but the token");
}

#[test]
fn check_config_tells_by_its_exit_code() {
    let (folder, file) = in_folder();
    let check = |file: &Path, code: u8, out_has: &str, err_has: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(check_config::check_config(file, &mut out, &mut err), code);
        let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
        assert!(out.contains(out_has) && out.is_empty() == out_has.is_empty(), "{out}");
        assert!(err.contains(err_has) && err.is_empty() == err_has.is_empty(), "{err}");
    };
    std::fs::set_permissions(folder.path().join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    check(&file, check_config::GOOD, "1 route(s)", "");
    std::fs::remove_file(folder.path().join("token")).unwrap();
    check(&file, check_config::BAD, "", "routes[0].kubernetes.impersonate.token: cannot read");
    check(&folder.path().join("absent"), check_config::UNREADABLE, "", "cannot read");
}
