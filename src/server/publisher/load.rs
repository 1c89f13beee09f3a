//! One reading of the configuration: the text, everything that it names, the hash over both, and the snapshot or the mistakes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{self as sha, Context, SHA256};
use zeroize::Zeroize;

use crate::config::{self, Config, ConfigErrors, Contents, Noted, Reference, Sensitivity};
use crate::server::{clock, file_modes};
use crate::snapshot::Snapshot;

use super::known::Known;
use super::stamp::Stamp;
use super::system_roots;

/// No file that a configuration names is larger.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Nor is the configuration file itself larger than this.
const MAX_CONFIGURATION_BYTES: u64 = 16 * 1024 * 1024;

/// There is no valid configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The configuration file itself.
    #[error("cannot read {file}: {why}")]
    Unreadable { file: String, why: String },
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

impl LoadError {
    /// One text for each mistake.
    pub fn lines(&self) -> Vec<String> {
        match self {
            LoadError::Unreadable { .. } => vec![self.to_string()],
            LoadError::Invalid(errors) => errors.0.iter().map(ToString::to_string).collect(),
        }
    }
}

/// With what a reading is compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InForce<'a> {
    /// Hash of its contents.
    pub(super) hash: &'a str,
    pub(super) config: Option<&'a Config>,
}

/// A secret file that others may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exposed {
    pub(super) file: PathBuf,
    pub(super) why: String,
}

/// What one reading gave.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) outcome: Outcome,
    /// Hash over all that was read, mistakes of reading included.
    pub(super) hash: String,
    /// Every file that this configuration depends on.
    pub(super) files: HashSet<PathBuf>,
    /// Secret files that others may read, and why.
    pub(super) exposed: Vec<Exposed>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The hash is the one that was given.
    Unchanged,
    Valid(Arc<Snapshot>),
    Refused(LoadError),
}

impl Outcome {
    pub(super) fn into_snapshot(self) -> Result<Arc<Snapshot>, LoadError> {
        match self {
            Outcome::Valid(snapshot) => Ok(snapshot),
            Outcome::Refused(error) => Err(error),
            // No content has the empty hash with which the first reading is compared.
            Outcome::Unchanged => Err(LoadError::Invalid(ConfigErrors::default())),
        }
    }
}

/// The snapshot of a configuration file as it is now, for verbs that do not watch it.
///
/// # Errors
/// When the file cannot be read or has mistakes.
pub fn load_once(file: &Path) -> Result<Arc<Snapshot>, LoadError> {
    attempt(file, InForce::default(), &mut None, clock::unix_now()).outcome.into_snapshot()
}

/// As [`load_once`], but the service-account tokens of the routes may be missing still: what makes them can be printed from this snapshot,
/// one cluster after the other. Such a snapshot must never serve.
///
/// # Errors
/// When the file cannot be read or has mistakes besides missing tokens.
pub fn load_before_tokens(file: &Path) -> Result<Arc<Snapshot>, LoadError> {
    let unreadable = |why| LoadError::Unreadable { file: file.display().to_string(), why };
    let text = read_text(file).map_err(unreadable)?;
    let draft = config::parse(&text, &file.to_string_lossy())?;
    let now = clock::unix_now();
    let mut contents = read_references(&draft, &mut ContentHash::new(), now).contents;
    for token in draft.impersonation_tokens() {
        if let Some(content @ Err(_)) = contents.0.get_mut(token) {
            *content = Ok(b"not-made-yet".to_vec());
        }
    }
    let config = config::resolve(draft, &contents, now)?;
    Ok(Arc::new(Snapshot::new(Arc::new(config), "before-token")))
}

/// Where the kubepass that runs with this configuration file is asked for its state. Only that part of the file must be right: the state
/// page is where a mistake elsewhere is shown, and who asks need not be able to read the secrets.
///
/// # Errors
/// When the file cannot be read, is no YAML mapping, or has a mistake in `control_plane` or `admin`.
pub fn admin_socket(file: &Path) -> Result<PathBuf, LoadError> {
    let draft = read_draft(file)?;
    draft.admin_socket().ok_or_else(|| not_understood(file))
}

/// How a node reaches the kubepass of this configuration file; in the same way.
///
/// # Errors
/// As `admin_socket`, and a node that is none.
pub fn reach(file: &Path, node: &str) -> Result<config::Reach, LoadError> {
    let unreadable = |error: config::ReachError| LoadError::Unreadable { file: file.display().to_string(), why: error.to_string() };
    read_draft(file)?.reach(node).map_err(unreadable)
}

/// The API server whose objects are configuration too; in the same way.
///
/// # Errors
/// As `admin_socket`; when the file names none.
pub fn cluster_source(file: &Path) -> Result<config::ClusterSource, LoadError> {
    let why = "it has no `cluster_source`, or one that cannot be understood".to_owned();
    let draft = read_draft(file)?;
    draft.cluster_source().ok_or_else(|| LoadError::Unreadable { file: file.display().to_string(), why })
}

fn read_draft(file: &Path) -> Result<config::Draft, LoadError> {
    let text = read_text(file).map_err(|why| LoadError::Unreadable { file: file.display().to_string(), why })?;
    Ok(config::parse(&text, &file.to_string_lossy())?)
}

fn not_understood(file: &Path) -> LoadError {
    let why = "its `control_plane` and `admin` cannot be understood".to_owned();
    LoadError::Unreadable { file: file.display().to_string(), why }
}

/// Reads everything once, or what may have changed since `known`, which was made of what is in force; it is kept up to date. Blocks on the file
/// system.
pub(super) fn attempt(file: &Path, in_force: InForce<'_>, known: &mut Option<Known>, now: u64) -> Attempt {
    let unreadable = |why| LoadError::Unreadable { file: file.display().to_string(), why };
    let text = read_text(file).map(|text| (digest(text.as_bytes()), text)).map_err(unreadable);
    let again = text.as_ref().ok().zip(known.as_mut()).and_then(|((digest, _), known)| look_again(file, digest, in_force, known, now));
    again.unwrap_or_else(|| attempt_whole(file, text, in_force, known, now))
}

/// `None` where that does not do.
fn look_again(file: &Path, text: &Digest, in_force: InForce<'_>, known: &mut Known, now: u64) -> Option<Attempt> {
    let before = in_force.config.filter(|_| known.is_of(text))?;
    let look = known.look(before.strict_file_modes, now)?;
    let outcome = if look.hash == in_force.hash {
        Outcome::Unchanged
    } else {
        Outcome::Valid(Arc::new(Snapshot::new(Arc::new(known.rotate(before, &look, now)?), &look.hash)))
    };
    let (hash, exposed) = known.take(look);
    Some(Attempt { outcome, hash, files: known.files().chain([file.to_owned()]).collect(), exposed })
}

fn attempt_whole(
    file: &Path,
    text: Result<(Digest, String), LoadError>,
    in_force: InForce<'_>,
    known: &mut Option<Known>,
    now: u64,
) -> Attempt {
    let mut attempt =
        Attempt { outcome: Outcome::Unchanged, hash: String::new(), files: HashSet::from([file.to_owned()]), exposed: Vec::new() };
    let refused = |error: LoadError, hash: ContentHash, attempt: Attempt| Attempt {
        outcome: Outcome::Refused(error),
        hash: hash.finish(),
        ..attempt
    };
    let (text_digest, text) = match text {
        Ok(text) => text,
        Err(error) => {
            let mut hash = ContentHash::new();
            hash.add("unreadable", error.to_string().as_bytes());
            return refused(error, hash, attempt);
        }
    };
    let mut hash = ContentHash::of_text(&text_digest);
    let draft = match config::parse(&text, &file.to_string_lossy()) {
        Ok(draft) => draft,
        Err(errors) => return refused(errors.into(), hash, attempt),
    };
    drop(text);
    let References { contents, met, exposed } = read_references(&draft, &mut hash, now);
    attempt.files.extend(contents.0.keys().filter_map(file_of).map(Cow::into_owned));
    attempt.exposed = exposed;
    attempt.hash = hash.finish();
    let read = Known::of(text_digest, &draft, &met);
    if attempt.hash != in_force.hash {
        attempt.outcome = match config::resolve_after(in_force.config, draft, &contents, now) {
            Ok(config) => Outcome::Valid(Arc::new(Snapshot::new(Arc::new(config), &attempt.hash))),
            Err(errors) => return Attempt { outcome: Outcome::Refused(errors.into()), ..attempt },
        };
    }
    *known = read;
    attempt
}

/// What the references of a draft led to.
struct References {
    contents: Contents,
    /// Of each in their order, but for those that cannot be read: when it was written, and what it is.
    met: Vec<(Option<Stamp>, Digest)>,
    /// Secret files that others may read.
    exposed: Vec<Exposed>,
}

fn read_references(draft: &config::Draft, hash: &mut ContentHash, now: u64) -> References {
    let mut references = References { contents: Contents::default(), met: Vec::new(), exposed: Vec::new() };
    for (reference, &Noted { sensitivity, .. }) in draft.references() {
        let content = read_reference(reference, sensitivity, draft.strict_file_modes(), now).map(|content| {
            references.exposed.extend(content.exposed);
            (digest(&content.bytes), content.stamp, content.bytes)
        });
        hash.add_content(reference, content.as_ref().map(|(digest, ..)| *digest).map_err(String::as_str));
        references.met.extend(content.as_ref().map(|(digest, stamp, _)| (*stamp, *digest)));
        references.contents.0.insert(reference.clone(), content.map(|(.., bytes)| bytes));
    }
    references
}

/// What one reference leads to.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Of a file that cannot change and look as before.
    pub(super) stamp: Option<Stamp>,
    pub(super) exposed: Option<Exposed>,
}

/// The file that it is read from.
pub(super) fn file_of(reference: &Reference) -> Option<Cow<'_, Path>> {
    match reference {
        Reference::File(path) => Some(Cow::Borrowed(path)),
        Reference::SystemRoots => Some(Cow::Owned(system_roots::bundle())),
        Reference::Environment(_) | Reference::Object(_) => None,
    }
}

/// The content behind a reference. Under `strict_file_modes` a secret file that others may read has none, but what is wrong with it.
pub(super) fn read_reference(
    reference: &Reference,
    sensitivity: Sensitivity,
    strict_file_modes: bool,
    now: u64,
) -> Result<Content, String> {
    let of_file = |path: &Path| {
        let (mut bytes, metadata) = read_file(path, MAX_FILE_BYTES)?;
        let exposed = exposed(path, sensitivity, &metadata, strict_file_modes).inspect_err(|_| bytes.zeroize())?;
        Ok(Content { bytes, stamp: Some(Stamp::of(&metadata)).filter(|stamp| stamp.is_settled(now)), exposed })
    };
    match reference {
        Reference::File(path) => of_file(path),
        // No reader of a file makes one.
        Reference::Object(_) => Err("only an object of an API server may name it".to_owned()),
        Reference::SystemRoots => {
            let path = system_roots::bundle();
            of_file(&path).map_err(|why| format!("{}: {why}", path.display()))
        }
        Reference::Environment(name) => {
            let bytes = std::env::var_os(name).map(OsStringExt::into_vec).ok_or_else(|| "it is not set".to_owned())?;
            Ok(Content { bytes, stamp: None, exposed: None })
        }
    }
}

/// Whether others may read a secret file.
///
/// # Errors
/// Where that is a mistake.
pub(super) fn exposed(path: &Path, sensitivity: Sensitivity, metadata: &Metadata, strict: bool) -> Result<Option<Exposed>, String> {
    let why = file_modes::exposed(metadata).filter(|_| sensitivity == Sensitivity::Secret);
    match why {
        Some(why) if strict => Err(format!("{why}, which `strict_file_modes` forbids; it must be kubepass's own, with mode 0600")),
        why => Ok(why.map(|why| Exposed { file: path.to_owned(), why })),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let (bytes, _) = read_file(path, MAX_CONFIGURATION_BYTES)?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// The content, and what the system says of the file. Never waits for a writer (a FIFO is refused) and never reads more than the limit.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<(Vec<u8>, Metadata), String> {
    let describe = |error: std::io::Error| error.to_string();
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(describe)?;
    let metadata = file.metadata().map_err(describe)?;
    if metadata.is_dir() {
        return Err("it is a directory, not a file".to_owned());
    }
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    // At once as large as needed: what grows leaves parts of a secret behind.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(limit) + 1).unwrap_or_default());
    file.take(limit + 1).read_to_end(&mut bytes).map_err(describe)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok((bytes, metadata))
}

/// SHA-256 of a text or a content.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(sha::digest(&SHA256, bytes).as_ref());
    digest
}

/// SHA-256 over labelled, length-prefixed parts. Its first digits are shown as the version: the `secrets` in it have 256 bits, so nothing
/// can be guessed from it.
pub(super) struct ContentHash(Context);

impl ContentHash {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn add(&mut self, label: &str, bytes: &[u8]) {
        for part in [label.as_bytes(), bytes] {
            self.0.update(&part.len().to_be_bytes());
            self.0.update(part);
        }
    }

    /// One that begins with a configuration text.
    pub(super) fn of_text(text: &Digest) -> Self {
        let mut hash = Self::new();
        hash.add("configuration", text);
        hash
    }

    /// What a reference led to, or why to nothing.
    pub(super) fn add_content(&mut self, reference: &Reference, content: Result<Digest, &str>) {
        self.add("reference", reference.to_string().as_bytes());
        match content {
            Ok(digest) => self.add("content", &digest),
            Err(why) => self.add("unreadable", why.as_bytes()),
        }
    }

    pub(super) fn finish(self) -> String {
        self.0.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secret_files_that_others_may_read_are_named_and_refused_where_modes_are_strict() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubepass.yaml");
        let check = |mode: u32, want: Option<&str>| {
            for name in ["secret", "tls.crt"] {
                std::fs::write(folder.path().join(name), "x").unwrap();
                std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
            }
            let text = "secrets: [{file: secret}]\nlisteners: [{certificates: [{chain: {file: tls.crt}}]}]";
            let draft = config::parse(text, &file.to_string_lossy()).unwrap();
            let References { contents, exposed, .. } = read_references(&draft, &mut ContentHash::new(), 0);
            let want_exposed = want.map(|why| Exposed { file: folder.path().join("secret"), why: why.to_owned() });
            assert_eq!(exposed, want_exposed.into_iter().collect::<Vec<_>>(), "{mode:o}");
            assert!(contents.0.values().all(Result::is_ok), "a warning");

            std::fs::write(&file, format!("{text}\nstrict_file_modes: true")).unwrap();
            let Outcome::Refused(error) = attempt(&file, InForce::default(), &mut None, 0).outcome else {
                panic!("it is far from complete")
            };
            let refused: Vec<_> = error.lines().into_iter().filter(|line| line.contains("strict_file_modes")).collect();
            assert_eq!(refused.len(), usize::from(want.is_some()), "{mode:o}: {refused:?}");
            for (line, why) in refused.iter().zip(want) {
                assert!(line.contains("kubepass.yaml:1:11: secrets[0]: cannot read") && line.contains(why), "{line}");
            }
        };
        check(0o600, None);
        check(0o640, Some("mode 0640 lets others in"));
        check(0o604, Some("mode 0604 lets others in"));
    }

    #[test]
    fn the_admin_socket_is_found_among_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubepass.yaml");
        let check = |text: &str, want: Option<&str>| {
            std::fs::write(&file, text).unwrap();
            assert_eq!(admin_socket(&file).ok(), want.map(PathBuf::from), "{text}");
        };
        check("routes: [{nmae: x}]\nsecrets: [{file: missing}]\ncontrol_plane: {socket_dir: /s}", Some("/s/admin.sock"));
        check("public_url: 7\nadmin: {socket: /a.sock}", Some("/a.sock"));
        check("routes: []", Some("/run/kubepass/admin.sock"));
        check("admin: 7", None);
        check("- no mapping", None);
    }

    #[test]
    fn the_hash_knows_where_a_part_ends() {
        let hash = |parts: &[(&str, &str)]| {
            let mut hash = ContentHash::new();
            parts.iter().for_each(|(label, bytes)| hash.add(label, bytes.as_bytes()));
            hash.finish()
        };
        assert_eq!(hash(&[("a", "bc")]), hash(&[("a", "bc")]));
        assert_ne!(hash(&[("a", "bc")]), hash(&[("ab", "c")]));
        assert_ne!(hash(&[("a", "b"), ("c", "d")]), hash(&[("a", "bc"), ("", "d")]));
    }
}
