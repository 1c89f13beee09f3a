//! `{file: PATH}` and `{env: NAME}`: the only ways to bring a secret, a key or a certificate into the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::error::{At, Spot};
use super::reader::{Item, Reading, Section};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// Relative paths are already resolved against the folder of the configuration file.
    File(PathBuf),
    Environment(String),
    /// The CA certificates that this machine trusts. No operator writes it: it stands for a CA that was left out.
    SystemRoots,
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::File(path) => write!(formatter, "{}", path.display()),
            Reference::Environment(name) => write!(formatter, "environment variable {name}"),
            Reference::SystemRoots => formatter.write_str("the system's root certificates"),
        }
    }
}

/// Whether what a reference leads to must stay hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sensitivity {
    /// Certificates and CA bundles.
    Public,
    /// Private keys, tokens, passwords.
    Secret,
}

/// What every reference led to: its bytes, or why they could not be had (for the operator, as the system words it).
#[derive(Clone, Default)]
pub struct Contents(pub BTreeMap<Reference, Result<Vec<u8>, String>>);

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.keys()).finish()
    }
}

pub(super) fn read_secret(item: &Item<'_>, reading: &mut Reading) -> Option<At<Reference>> {
    read(item, Sensitivity::Secret, reading)
}

pub(super) fn read_public(item: &Item<'_>, reading: &mut Reading) -> Option<At<Reference>> {
    read(item, Sensitivity::Public, reading)
}

/// A secret beside which other keys may stand: the caller takes them and finishes the section.
pub(super) fn read_secret_with<'t>(item: &Item<'t>, reading: &mut Reading) -> Option<(Option<At<Reference>>, Section<'t>)> {
    refuse_value(item, Sensitivity::Secret, reading)?;
    let mut section = item.section(reading)?;
    let reference = source(item, &mut section, Sensitivity::Secret, reading);
    Some((reference, section))
}

/// What stands in where a CA is left out, at the place of what needs it.
pub(super) fn system_roots(spot: &Spot, reading: &mut Reading) -> At<Reference> {
    reading.note_reference(&Reference::SystemRoots, Sensitivity::Public);
    At { value: Reference::SystemRoots, spot: spot.clone() }
}

/// Reads a reference and notes it, so that its content can be fetched.
fn read(item: &Item<'_>, sensitivity: Sensitivity, reading: &mut Reading) -> Option<At<Reference>> {
    refuse_value(item, sensitivity, reading)?;
    let mut section = item.section(reading)?;
    let reference = source(item, &mut section, sensitivity, reading);
    section.finish(reading);
    reference
}

/// `None` when the value itself stands where a reference should.
fn refuse_value(item: &Item<'_>, sensitivity: Sensitivity, reading: &mut Reading) -> Option<()> {
    if !item.is_map() {
        let (message, what) = match sensitivity {
            Sensitivity::Secret => ("a secret must not stand in the configuration itself", "the secret"),
            Sensitivity::Public => ("must be a reference, not a value", "the content"),
        };
        reading.faults.add_with_hint(
            &item.spot(),
            message,
            format!("put {what} into a file and write {{file: PATH}}, or write {{env: NAME}}"),
        );
        return None;
    }
    Some(())
}

fn source(item: &Item<'_>, section: &mut Section<'_>, sensitivity: Sensitivity, reading: &mut Reading) -> Option<At<Reference>> {
    let file = section.optional("file").map(|item| item.text(reading));
    let environment = section.optional("env").map(|item| item.text(reading));
    let value = match (file, environment) {
        (Some(path), None) => file_reference(&path?, reading)?,
        (None, Some(name)) => environment_reference(&name?, reading)?,
        (Some(_), Some(_)) => {
            reading.faults.add(&item.spot(), "names both a file and an environment variable; only one may be given");
            return None;
        }
        (None, None) => {
            reading.faults.add_with_hint(&item.spot(), "names no source", "write {file: PATH} or {env: NAME}");
            return None;
        }
    };
    reading.note_reference(&value, sensitivity);
    Some(At { value, spot: item.spot() })
}

fn file_reference(path: &At<String>, reading: &mut Reading) -> Option<Reference> {
    if path.value.is_empty() {
        reading.faults.add(&path.spot, "the path is empty");
        return None;
    }
    Some(Reference::File(reading.folder().join(&path.value)))
}

fn environment_reference(name: &At<String>, reading: &mut Reading) -> Option<Reference> {
    let valid = name.value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.value.starts_with(|c: char| c.is_ascii_digit());
    if !valid || name.value.is_empty() {
        // The name is not shown: it may be the secret itself, written in the wrong place.
        reading.faults.add_with_hint(
            &name.spot,
            "is not the name of an environment variable",
            "letters, digits and `_`, for example CLIENT_SECRET",
        );
        return None;
    }
    Some(Reference::Environment(name.value.clone()))
}
