//! What is kept of one reading for the next, so that a change costs what has changed: of the text and of each content a digest, and what the
//! system said of each file. Never a content: secrets are among them.
//!
//! It serves where it is sure, which is where the text is the same and what changed is of routes only. Anything else is for a whole reading.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use zeroize::Zeroize;

use crate::config::{self, Config, Contents, Reference, Sensitivity, Use};

use super::load::{self, ContentHash, Digest, Exposed};
use super::stamp::Stamp;

/// All that a good configuration was made of.
#[derive(Debug)]
pub(super) struct Known {
    text: Digest,
    references: BTreeMap<Reference, Met>,
}

/// What one reference led to.
#[derive(Debug)]
struct Met {
    sensitivity: Sensitivity,
    /// `None` where a file could change and look as before; and of what is no file.
    stamp: Option<Stamp>,
    digest: Digest,
    uses: Box<[Use]>,
    /// Whether others than routes use it.
    elsewhere: bool,
}

/// What another look at the same references showed.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Of those whose content is another.
    contents: Contents,
    /// Of those that were read.
    read: Vec<(Reference, Option<Stamp>, Digest)>,
    exposed: Vec<Exposed>,
    pub(super) hash: String,
}

impl Known {
    /// `None` where something could not be read: then it is no good configuration.
    pub(super) fn of(text: Digest, draft: &config::Draft, met: &[(Option<Stamp>, Digest)]) -> Option<Self> {
        let mut uses: BTreeMap<&Reference, Vec<Use>> = BTreeMap::new();
        for (reference, at) in draft.uses() {
            uses.entry(reference).or_default().push(at);
        }
        let all = draft.references();
        let met = all.iter().zip(met).map(|((reference, noted), &(stamp, digest))| {
            let uses = uses.remove(reference).unwrap_or_default();
            let elsewhere = uses.len() != noted.uses;
            (reference.clone(), Met { sensitivity: noted.sensitivity, stamp, digest, uses: uses.into(), elsewhere })
        });
        let references: BTreeMap<_, _> = met.collect();
        (references.len() == all.len()).then_some(Self { text, references })
    }

    pub(super) fn is_of(&self, text: &Digest) -> bool {
        self.text == *text
    }

    /// Every file that is read.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.references.keys().filter_map(load::file_of).map(Cow::into_owned)
    }

    /// Looks at everything again, and reads what may have changed. `None` where something is wrong with a reference.
    pub(super) fn look(&self, strict_file_modes: bool, now: u64) -> Option<Look> {
        let mut look = Look::default();
        let mut hash = ContentHash::of_text(&self.text);
        for (reference, met) in &self.references {
            hash.add_content(reference, Ok(look.at(reference, met, strict_file_modes, now)?));
        }
        look.hash = hash.finish();
        Some(look)
    }

    /// The configuration with what is new in `look`, in the place of `before`. `None` where that is not for sure a good one.
    pub(super) fn rotate(&self, before: &Config, look: &Look, now: u64) -> Option<Config> {
        let mut rotated = Vec::new();
        for reference in look.contents.0.keys() {
            let met = self.references.get(reference).filter(|met| !met.elsewhere)?;
            rotated.extend(met.uses.iter().map(|at| (reference, *at)));
        }
        config::rotate(before, rotated, &look.contents, now)
    }

    /// Keeps what `look` showed: it is in force. Returns the rest of it.
    pub(super) fn take(&mut self, look: Look) -> (String, Vec<Exposed>) {
        for (reference, stamp, digest) in &look.read {
            if let Some(met) = self.references.get_mut(reference) {
                (met.stamp, met.digest) = (*stamp, *digest);
            }
        }
        (look.hash, look.exposed)
    }
}

impl Look {
    fn at(&mut self, reference: &Reference, met: &Met, strict_file_modes: bool, now: u64) -> Option<Digest> {
        if let Some((stamp, path)) = met.stamp.zip(load::file_of(reference))
            && let Ok(metadata) = std::fs::metadata(&path)
            && Stamp::of(&metadata) == stamp
        {
            self.exposed.extend(load::exposed(&path, met.sensitivity, &metadata, strict_file_modes).ok()?);
            return Some(met.digest);
        }
        let mut read = load::read_reference(reference, met.sensitivity, strict_file_modes, now).ok()?;
        self.exposed.extend(read.exposed);
        let digest = load::digest(&read.bytes);
        if digest == met.digest {
            read.bytes.zeroize();
        } else {
            self.contents.0.insert(reference.clone(), Ok(read.bytes));
        }
        self.read.push((reference.clone(), read.stamp, digest));
        Some(digest)
    }
}

#[cfg(test)]
mod tests;
