//! `signing_keys`, `assertion_keys`, `publish_before_use` and `revoked_keys`: the key pairs whose public halves others read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::At;
use super::names::{quote, suggestion};
use super::reader::{Item, Reading, Section};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use crate::token::{SigningAlgorithm, SigningKey, SigningKeyError};

/// More keys than any rotation needs: verifiers hold all of them.
const MAX_KEYS: usize = 16;
/// More than anybody loses: a key id may leave the list when the key has left every verifier.
const MAX_REVOKED_KEYS: usize = 256;
/// A SHA-256 thumbprint (RFC 7638) in base64url.
const KEY_ID_CHARS: usize = 43;
const DEFAULT_PUBLISH_BEFORE_USE_SECONDS: u64 = 600;
const MAX_PUBLISH_BEFORE_USE_SECONDS: u64 = 86400;
const NO_KEY: &str = "leave the key out, and kubepass makes a key and keeps it in the session store";
const NO_REVOKED_KEY: &str = "leave the key out";
const MAKE_ONE: &str = "make one with: kubepass-server keys generate FILE";

#[derive(Debug)]
pub(super) struct SigningKeysDraft {
    upstream: Vec<KeyDraft>,
    assertion: Vec<KeyDraft>,
    /// `None` after a mistake.
    publish_before_use_seconds: Option<u64>,
    /// `None` after a mistake.
    revoked: Option<BTreeSet<String>>,
}

#[derive(Debug)]
struct KeyDraft {
    reference: At<Reference>,
    algorithm: Option<At<SigningAlgorithm>>,
}

/// What these keys mean.
#[derive(Debug)]
pub(super) struct SigningKeys {
    pub(super) signing_keys: Vec<Arc<SigningKey>>,
    pub(super) assertion_keys: Vec<Arc<SigningKey>>,
    pub(super) publish_before_use_seconds: u64,
    pub(super) revoked_keys: BTreeSet<String>,
}

impl SigningKeysDraft {
    /// All may be left out. What has a mistake is noted and not there, so that the others are checked none the less.
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading) -> Self {
        let upstream = section.optional("signing_keys").and_then(|item| read_keys(&item, reading));
        let assertion = section.optional("assertion_keys").and_then(|item| read_keys(&item, reading));
        let wait = section.optional("publish_before_use").map(|item| item.duration(0, MAX_PUBLISH_BEFORE_USE_SECONDS, reading));
        let revoked = section.optional("revoked_keys").map(|item| read_revoked(&item, reading));
        Self {
            revoked: revoked.unwrap_or_else(|| Some(BTreeSet::new())),
            upstream: upstream.unwrap_or_default(),
            assertion: assertion.unwrap_or_default(),
            publish_before_use_seconds: wait.unwrap_or(Some(DEFAULT_PUBLISH_BEFORE_USE_SECONDS)),
        }
    }

    /// `None` only after a mistake was noted.
    pub(super) fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<SigningKeys> {
        let mut seen = Vec::new();
        let revoked_keys = self.revoked.clone().unwrap_or_default();
        let signing_keys = resolve_keys(&self.upstream, &revoked_keys, &mut seen, resolving);
        let assertion_keys = resolve_keys(&self.assertion, &revoked_keys, &mut seen, resolving);
        self.revoked.as_ref()?;
        Some(SigningKeys { signing_keys, assertion_keys, publish_before_use_seconds: self.publish_before_use_seconds?, revoked_keys })
    }
}

fn read_keys(item: &Item<'_>, reading: &mut Reading) -> Option<Vec<KeyDraft>> {
    let keys = item.filled_list(NO_KEY, reading, read_key)?;
    if keys.len() > MAX_KEYS {
        reading.faults.add(&item.spot(), format!("has {} keys; at most {MAX_KEYS} are taken", keys.len()));
        return None;
    }
    Some(keys)
}

fn read_revoked(item: &Item<'_>, reading: &mut Reading) -> Option<BTreeSet<String>> {
    let ids = item.filled_list(NO_REVOKED_KEY, reading, read_key_id)?;
    if ids.len() > MAX_REVOKED_KEYS {
        let message = format!("has {} key ids; at most {MAX_REVOKED_KEYS} are taken", ids.len());
        reading.faults.add_with_hint(&item.spot(), message, "take out those that no verifier knows any more");
        return None;
    }
    Some(ids.into_iter().collect())
}

/// A key id that is not one would revoke nothing and say nothing.
fn read_key_id(item: &Item<'_>, reading: &mut Reading) -> Option<String> {
    let text = item.text(reading)?;
    let is_key_id =
        text.value.len() == KEY_ID_CHARS && text.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_key_id {
        let message = format!("{} is no key id: {KEY_ID_CHARS} characters of A-Z, a-z, 0-9, `-` and `_`", quote(&text.value));
        reading.faults.add_with_hint(&text.spot, message, "`kubepass-server keys list` shows the ids");
        return None;
    }
    Some(text.value)
}

fn read_key(item: &Item<'_>, reading: &mut Reading) -> Option<KeyDraft> {
    let (reference, mut section) = reference::read_secret_with(item, reading)?;
    let written = section.optional("algorithm");
    let algorithm = written.as_ref().and_then(|item| read_algorithm(item, reading));
    section.finish(reading);
    // An algorithm that was written and not understood is not the default.
    (algorithm.is_some() || written.is_none()).then_some(())?;
    Some(KeyDraft { reference: reference?, algorithm })
}

fn read_algorithm(item: &Item<'_>, reading: &mut Reading) -> Option<At<SigningAlgorithm>> {
    let text = item.text(reading)?;
    match text.value.parse() {
        Ok(value) => Some(At { value, spot: text.spot }),
        Err(error) => {
            let near = suggestion(&text.value, SigningAlgorithm::ALL.map(SigningAlgorithm::name));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            reading.faults.add(&text.spot, format!("{} {error}{near}", quote(&text.value)));
            None
        }
    }
}

/// `seen` holds the keys of both lists with their places: one key never signs two kinds of token, or one kind would verify as the other
/// wherever only the signature is looked at.
fn resolve_keys<'d>(
    drafts: &'d [KeyDraft],
    revoked: &BTreeSet<String>,
    seen: &mut Vec<(String, &'d At<Reference>)>,
    resolving: &mut Resolving<'_>,
) -> Vec<Arc<SigningKey>> {
    let mut keys = Vec::new();
    for draft in drafts {
        let Some(pem) = resolving.text(&draft.reference) else { continue };
        let Some(key) = resolve_key(draft, pem, resolving) else { continue };
        if revoked.contains(key.kid()) {
            let message = format!("{} holds the key {}, which `revoked_keys` names", draft.reference.value, quote(key.kid()));
            resolving.faults.add_with_hint(&draft.reference.spot, message, MAKE_ONE);
            continue;
        }
        if let Some((_, first)) = seen.iter().find(|(kid, _)| kid == key.kid()) {
            let message = format!("{} holds the same key as `{}`; each entry is a key of its own", draft.reference.value, first.spot.path);
            resolving.faults.add_with_hint(&draft.reference.spot, message, MAKE_ONE);
            continue;
        }
        seen.push((key.kid().to_owned(), &draft.reference));
        keys.push(Arc::new(key));
    }
    keys
}

fn resolve_key(draft: &KeyDraft, pem: &str, resolving: &mut Resolving<'_>) -> Option<SigningKey> {
    let algorithm = draft.algorithm.as_ref();
    match SigningKey::from_pem(pem, algorithm.map(|algorithm| algorithm.value)) {
        Ok(key) => Some(key),
        Err(error @ SigningKeyError::Algorithm { .. }) => {
            let spot = algorithm.map_or(&draft.reference.spot, |algorithm| &algorithm.spot);
            resolving.faults.add(spot, format!("{}: {error}", draft.reference.value));
            None
        }
        Err(error) => {
            resolving.faults.add_with_hint(&draft.reference.spot, format!("{} {error}", draft.reference.value), MAKE_ONE);
            None
        }
    }
}
