//! `{file: PATH}` and `{env: NAME}`, in objects `{secret: {name, key}}` and `{config_map: {name, key}}`: the only ways to bring a secret, a key
//! or a certificate into the configuration.
//!
//! An object never names a file or a variable: who may write objects could otherwise send this machine's secrets to a server of their own.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroize;

use super::error::{At, Spot};
use super::names::quote;
use super::reader::{Item, Reading, Section};

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Reference {
    /// Relative paths are already resolved against the folder of the configuration file.
    File(PathBuf),
    Environment(String),
    /// One value of a Secret or ConfigMap of the API server; only objects name it.
    Object(KeyReference),
    /// The CA certificates that this machine trusts. No operator writes it: it stands for a CA that was left out.
    SystemRoots,
}

/// Files by their bytes: a big configuration has tens of thousands, and to compare two paths part by part takes ten times as long.
impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |reference: &Self| match reference {
            Self::File(_) => 0,
            Self::Environment(_) => 1,
            Self::Object(_) => 2,
            Self::SystemRoots => 3,
        };
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.as_os_str().cmp(other.as_os_str()),
            (Self::Environment(one), Self::Environment(other)) => one.cmp(other),
            (Self::Object(one), Self::Object(other)) => one.cmp(other),
            (one, other) => rank(one).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Reference {}

/// A key of a Secret or ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyReference {
    pub material: MaterialId,
    pub key: String,
}

/// A Secret or ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaterialId {
    pub kind: MaterialKind,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaterialKind {
    Secret,
    ConfigMap,
}

impl MaterialKind {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

impl fmt::Display for MaterialId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::File(path) => write!(formatter, "{}", path.display()),
            Reference::Environment(name) => write!(formatter, "environment variable {name}"),
            Reference::Object(reference) => write!(formatter, "{} of {}", quote(&reference.key), reference.material),
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

/// How a reference is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    pub sensitivity: Sensitivity,
    /// How many values are its content.
    pub uses: usize,
}

/// What every reference led to: its bytes, or why they could not be had (for the operator, as the system words it).
#[derive(Clone, Default)]
pub struct Contents(pub BTreeMap<Reference, Result<Vec<u8>, String>>);

/// What was read is made into values of its own; nothing of it is left behind.
impl Drop for Contents {
    fn drop(&mut self) {
        self.0.values_mut().flatten().for_each(|bytes| bytes.zeroize());
    }
}

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
        let hint = match reading.namespace() {
            Some(_) => format!("put {what} into a Secret and write {{secret: {{name: NAME, key: KEY}}}}"),
            None => format!("put {what} into a file and write {{file: PATH}}, or write {{env: NAME}}"),
        };
        reading.faults.add_with_hint(&item.spot(), message, hint);
        return None;
    }
    Some(())
}

fn source(item: &Item<'_>, section: &mut Section<'_>, sensitivity: Sensitivity, reading: &mut Reading) -> Option<At<Reference>> {
    let value = match reading.namespace().map(str::to_owned) {
        Some(namespace) => object_source(item, section, &namespace, sensitivity, reading)?,
        None => file_source(item, section, reading)?,
    };
    reading.note_reference(&value, sensitivity);
    Some(At { value, spot: item.spot() })
}

fn file_source(item: &Item<'_>, section: &mut Section<'_>, reading: &mut Reading) -> Option<Reference> {
    let file = section.optional("file").map(|item| item.text(reading));
    let environment = section.optional("env").map(|item| item.text(reading));
    match (file, environment) {
        (Some(path), None) => file_reference(&path?, reading),
        (None, Some(name)) => environment_reference(&name?, reading),
        (Some(_), Some(_)) => {
            reading.faults.add(&item.spot(), "names both a file and an environment variable; only one may be given");
            None
        }
        (None, None) => {
            reading.faults.add_with_hint(&item.spot(), "names no source", "write {file: PATH} or {env: NAME}");
            None
        }
    }
}

/// What must stay hidden stands in a Secret; a ConfigMap is for certificates.
fn object_source(
    item: &Item<'_>,
    section: &mut Section<'_>,
    namespace: &str,
    sensitivity: Sensitivity,
    reading: &mut Reading,
) -> Option<Reference> {
    let secret = section.optional("secret");
    let config_map = if sensitivity == Sensitivity::Public { section.optional("config_map") } else { None };
    match (secret, config_map) {
        (Some(item), None) => key_reference(&item, MaterialKind::Secret, namespace, reading),
        (None, Some(item)) => key_reference(&item, MaterialKind::ConfigMap, namespace, reading),
        (Some(_), Some(_)) => {
            reading.faults.add(&item.spot(), "names both a Secret and a ConfigMap; only one may be given");
            None
        }
        (None, None) => {
            let hint = match sensitivity {
                Sensitivity::Secret => "write {secret: {name: NAME, key: KEY}}",
                Sensitivity::Public => "write {config_map: {name: NAME, key: KEY}} or {secret: {name: NAME, key: KEY}}",
            };
            reading.faults.add_with_hint(&item.spot(), "names no source", hint);
            None
        }
    }
}

fn key_reference(item: &Item<'_>, kind: MaterialKind, namespace: &str, reading: &mut Reading) -> Option<Reference> {
    let mut section = item.section(reading)?;
    let name = section.required("name", reading).and_then(|item| item.text(reading));
    let key = section.required("key", reading).and_then(|item| item.text(reading));
    let elsewhere = section.optional("namespace").map(|item| item.text(reading));
    section.finish(reading);
    let namespace = match elsewhere {
        Some(written) => written?.value,
        None => namespace.to_owned(),
    };
    Some(Reference::Object(KeyReference { material: MaterialId { kind, namespace, name: name?.value }, key: key?.value }))
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
