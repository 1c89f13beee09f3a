//! A reading that knows the one before must give what a reading from nothing gives, whatever was done to text and files in between.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Route;
use crate::server::clock;
use crate::server::publisher::load::{Attempt, InForce, Outcome, attempt};

const HOUR: u64 = 3600;

const TEXT: &str = r#"
public_url: https://pass.example.com
listeners: [{address: "127.0.0.1:443", certificates: [{chain: {file: tls.crt}, key: {file: tls.key}}]}]
secrets: [{file: secret}]
identity_providers:
- {name: corp, issuer: https://idp.example.com, client_id: CLIENT, client_secret: {file: client-secret}, identity: {username: claims.email}}
sessions: {store: {embedded: {path: kubepass.db}}}
strict_file_modes: STRICT
audit: {sinks: [{file: {path: audit.jsonl}}]}
routes:
- {name: a, host: a.example.com, kubernetes: {server: "https://SERVER", ca: {file: mount/ca}, impersonate: {token: {file: mount/token}}}, policy: [{allow: "true"}]}
- {name: b, host: b.example.com, kubernetes: {server: "https://10.0.0.2", ca: {file: ca}, impersonate: {token: {file: token}}}, policy: [{allow: "true"}]}
- {name: c, host: c.example.com, kubernetes: {server: "https://10.0.0.3", ca: {file: ca}, impersonate: {token: {file: token}}}, policy: [{allow: "true"}]}
- {name: d, host: d.example.com, kubernetes: {server: "https://10.0.0.4", ca: {file: ca}, jwt: {audience: d}}, policy: [{allow: "true"}]}
- {name: e, host: e.example.com, kubernetes: {server: "https://10.0.0.5", ca: {file: tls.crt}, impersonate: {token: {file: client-secret}}}, policy: [{allow: "true"}]}
- {name: w, host: w.example.com, http: {upstream: "https://wiki.internal", ca: {file: mount/ca}}, policy: [{allow: "true"}]}
"#;

/// Numbers without a pattern, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn certificate(end: u64) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["pass.example.com".to_owned(), "*.example.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A folder with a configuration, and what a publisher keeps of it.
struct Scene {
    folder: tempfile::TempDir,
    now: u64,
    /// Of what can be written as the text.
    client: u64,
    strict: bool,
    server: u64,
    mounts: u64,
    hash: String,
    config: Option<Arc<Config>>,
    known: Option<Known>,
}

impl Scene {
    fn new() -> Self {
        // Long enough after the files are written that none counts as just written.
        let now = clock::unix_now() + HOUR;
        let folder = tempfile::tempdir().unwrap();
        let mut scene =
            Self { folder, now, client: 0, strict: false, server: 0, mounts: 0, hash: String::new(), config: None, known: None };
        scene.serving(now + 90 * 24 * HOUR);
        scene.write("secret", "0123456789abcdefghijklmnopqrstuvwxyz");
        scene.write("client-secret", "client-secret");
        scene.write("token", "first-token");
        scene.write("ca", &certificate(now + 60 * 24 * HOUR).0);
        std::fs::create_dir(scene.path("mount")).unwrap();
        scene.mount("mounted-token", &certificate(now + 60 * 24 * HOUR).0);
        for name in ["ca", "token"] {
            symlink(format!("..data/{name}"), scene.path("mount").join(name)).unwrap();
        }
        scene.text();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) {
        let text = TEXT.replace("CLIENT", &format!("client-{}", self.client)).replace("STRICT", &self.strict.to_string());
        self.write("kubepass.yaml", &text.replace("SERVER", &format!("10.0.1.{}", self.server)));
    }

    /// In place. A clock of the file system that stands still meanwhile would hide the change of a settled file, which cannot be: it is waited for.
    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        let before = Stamp::at(&path);
        let _ = std::fs::remove_dir(&path);
        loop {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            if Stamp::at(&path) != before {
                break;
            }
        }
    }

    fn rename(&self, name: &str, content: &str) {
        self.write("part", content);
        let _ = std::fs::remove_dir(self.path(name));
        std::fs::rename(self.path("part"), self.path(name)).unwrap();
    }

    /// As Kubernetes changes what it mounts.
    fn mount(&mut self, token: &str, ca: &str) {
        self.mounts += 1;
        let folder = format!("mount/..{}", self.mounts);
        std::fs::create_dir(self.path(&folder)).unwrap();
        self.write(&format!("{folder}/token"), token);
        self.write(&format!("{folder}/ca"), ca);
        symlink(format!("..{}", self.mounts), self.path("mount/..part")).unwrap();
        std::fs::rename(self.path("mount/..part"), self.path("mount/..data")).unwrap();
    }

    fn serving(&self, end: u64) {
        let (chain, key) = certificate(end);
        self.write("tls.crt", &chain);
        self.write("tls.key", &key);
    }

    /// Reads in both ways and compares. Says what came out.
    fn compare(&mut self, what: &str) -> Came {
        let file = self.path("kubepass.yaml");
        let fresh = attempt(&file, InForce::default(), &mut None, self.now);
        let in_force = InForce { hash: &self.hash, config: self.config.as_deref() };
        let next = attempt(&file, in_force, &mut self.known, self.now);
        let told = |attempt: &Attempt| {
            let mut exposed: Vec<_> = attempt.exposed.iter().map(|exposed| (exposed.file.clone(), exposed.why.clone())).collect();
            exposed.sort();
            (attempt.hash.clone(), attempt.files.clone(), exposed)
        };
        assert_eq!(told(&next), told(&fresh), "{what}");
        let hash = fresh.hash.clone();
        match (next.outcome, fresh.outcome) {
            (Outcome::Unchanged, _) => {
                assert_eq!(self.hash, hash, "{what}");
                Came::Unchanged
            }
            (Outcome::Refused(next), Outcome::Refused(fresh)) => {
                assert_eq!(next, fresh, "{what}");
                Came::Refused
            }
            (Outcome::Valid(next), Outcome::Valid(fresh)) => {
                let shown = |config: &Config| format!("{:?}", Config { valid_at: 0..0, ..config.clone() });
                assert_eq!(shown(next.config()), shown(fresh.config()), "{what}");
                assert_eq!(next.config().routes, fresh.config().routes, "{what}");
                assert_eq!(next.version(), fresh.version(), "{what}");
                assert!(next.config().valid_at.end <= fresh.config().valid_at.end, "{what}");
                // Only a whole reading makes providers.
                let provider = |config: &Config| Arc::clone(&config.identity_providers[0]);
                let rotated = self.config.as_ref().is_some_and(|before| Arc::ptr_eq(&provider(before), &provider(next.config())));
                (self.hash, self.config) = (hash, Some(Arc::clone(next.config())));
                if rotated { Came::Rotated } else { Came::Whole }
            }
            (next, fresh) => panic!("{what}: {next:?} where a fresh reading gives {fresh:?}"),
        }
    }

    fn edit(&mut self, dice: &mut Dice) -> String {
        let day = 24 * HOUR;
        let now = self.now;
        let end = move |dice: &mut Dice| now + dice.one_of(&[0, HOUR, 2 * day, 400 * day, 400 * day, 400 * day]);
        let token = |dice: &mut Dice| format!("token-{}", dice.below(4));
        let file = dice.one_of(&["token", "ca", "client-secret", "tls.crt", "secret"]);
        let what = dice.below(22);
        match what {
            0 | 1 => self.write("token", &token(dice)),
            2 => self.rename("token", &token(dice)),
            3 => self.write("token", dice.one_of(&["two words", "", "token-1\n", "token-1", "\u{e4}"])),
            4 => self.write("ca", &certificate(end(dice)).0),
            5 => self.write("ca", &format!("{}{}", certificate(end(dice)).0, certificate(end(dice)).0)),
            6 | 7 => self.mount(&token(dice), &certificate(end(dice)).0),
            8 => {
                let _ = std::fs::remove_file(self.path(file));
                if dice.below(2) == 0 {
                    std::fs::create_dir(self.path(file)).unwrap_or_default();
                }
            }
            9 => {
                let _ = std::fs::set_permissions(self.path(file), PermissionsExt::from_mode(dice.one_of(&[0o600, 0o600, 0o644])));
            }
            10 => self.write("client-secret", &token(dice)),
            11 => self.serving(end(dice)),
            12 => self.now = (self.now + dice.one_of(&[1, HOUR, day])).saturating_sub(dice.one_of(&[0, 0, 10])),
            13 => {
                (self.client, self.server, self.strict) = (dice.below(2), dice.below(300), dice.below(4) == 0);
                self.text();
            }
            14 => self.write("kubepass.yaml", dice.one_of(&["routes: [", "a: b", ""])),
            // All is well again.
            _ => {
                self.strict = false;
                self.server = 1;
                self.text();
                self.write("token", "good-token");
                self.write("client-secret", "good-secret");
                self.write("secret", "0123456789abcdefghijklmnopqrstuvwxyz");
                self.write("ca", &certificate(self.now + 400 * day).0);
                self.mount("good-token", &certificate(self.now + 400 * day).0);
                self.serving(self.now + 400 * day);
            }
        }
        format!("{what} {file}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Unchanged,
    Refused,
    Whole,
    Rotated,
}

#[test]
fn any_edits_lead_where_a_fresh_reading_leads() {
    let mut came = BTreeMap::new();
    for seed in 0..6 {
        let (mut scene, mut dice) = (Scene::new(), Dice(seed));
        let mut done = vec![format!("seed {seed}")];
        for _ in 0..120 {
            *came.entry(scene.compare(&done.join(", "))).or_insert(0) += 1;
            for _ in 0..=dice.below(2) {
                done.push(scene.edit(&mut dice));
            }
        }
    }
    assert!(came.len() == 4 && came.values().all(|times| *times >= 10), "each way is gone: {came:?}");
}

/// What one edit of a good configuration leads to.
fn check(what: &str, edit: &dyn Fn(&mut Scene), want: Came) -> Scene {
    let mut scene = Scene::new();
    assert_eq!(scene.compare(what), Came::Whole, "{what}");
    assert_eq!(scene.compare(what), Came::Unchanged, "{what}");
    edit(&mut scene);
    assert_eq!(scene.compare(what), want, "{what}");
    scene
}

#[test]
fn what_is_of_routes_alone_is_rotated() {
    let day = 24 * HOUR;
    let token = check("token of two", &|scene| scene.write("token", "secondtoken"), Came::Rotated);
    let token_of = |route: &Arc<Route>| secrecy::ExposeSecret::expose_secret(route.service_account_token().unwrap()).to_owned();
    assert_eq!(token.config.unwrap().routes[1..3].iter().map(token_of).collect::<Vec<_>>(), ["secondtoken", "secondtoken"]);
    check("renamed", &|scene| scene.rename("token", "another-token"), Came::Rotated);
    check("mount", &|scene| scene.mount("another-token", &certificate(scene.now + day).0), Came::Rotated);
    check("ca of three", &|scene| scene.write("ca", &certificate(scene.now + day).0), Came::Rotated);
    check("written as it was", &|scene| scene.rename("token", "first-token"), Came::Unchanged);
    check("others use it", &|scene| scene.write("client-secret", "another-secret"), Came::Whole);
    check("no token", &|scene| scene.write("token", "two words"), Came::Refused);
    check("expired", &|scene| scene.write("ca", &certificate(scene.now - day).0), Came::Refused);
}

#[test]
fn time_is_judged_by_what_did_not_change() {
    let later = |hours: u64| {
        move |scene: &mut Scene| {
            scene.now += hours * HOUR;
            scene.write("token", "another-token");
        }
    };
    check("still valid", &later(24), Came::Rotated);
    // The CAs are valid for 60 days, the listener's certificate for 90.
    check("a CA is over", &later(61 * 24), Came::Refused);
    let back = |scene: &mut Scene| {
        scene.now -= HOUR / 2;
        scene.write("token", "another-token");
    };
    check("before it was judged", &back, Came::Whole);
}

#[test]
fn a_settled_file_is_not_read_again() {
    let scene = check("nothing", &|_| (), Came::Unchanged);
    let look = |scene: &Scene, now: u64| {
        scene
            .known
            .as_ref()
            .unwrap()
            .look(false, now)
            .unwrap()
            .read
            .into_iter()
            .map(|(reference, ..)| reference.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(look(&scene, scene.now), [""; 0]);
    scene.rename("token", "first-token");
    assert_eq!(look(&scene, scene.now), [scene.path("token").display().to_string()]);
    // One that was just written is read each time.
    let mut scene = Scene::new();
    scene.now = clock::unix_now();
    scene.compare("just written");
    assert_eq!(look(&scene, scene.now).len(), 8);
}

#[test]
fn a_secret_that_others_may_read_is_seen_without_reading_it() {
    let open = |scene: &mut Scene| std::fs::set_permissions(scene.path("token"), PermissionsExt::from_mode(0o644)).unwrap();
    check("open", &open, Came::Unchanged);
    let strict = |scene: &mut Scene| {
        scene.strict = true;
        scene.text();
        assert_eq!(scene.compare("strict"), Came::Whole);
        open(scene);
    };
    check("open and strict", &strict, Came::Refused);
}
