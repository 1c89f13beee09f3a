//! Resources as proto-JSON for people, in the form of Envoy's own config dump. What is secret in them never gets into it, nor does what cannot be
//! understood: of that, type and size are told.

mod document;
mod redaction;

use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

pub use self::document::{Shown, document};
use self::redaction::Redaction;
use super::resource::{Resource, TypeUrl};

/// Of the messages that kubepass sends: made by `tests/tools/descriptors`. A test holds that none is missing.
const DESCRIPTORS: &[u8] = include_bytes!("dump/descriptors.binpb");

/// Names as Envoy's documentation and dumps write them.
const OPTIONS: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// Why a resource cannot be shown. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("the descriptors of Envoy's messages are not valid: {0}")]
    Descriptors(#[from] DescriptorError),
    #[error("there is no descriptor of {0}")]
    Missing(String),
    #[error("{kind} {name:?} does not have the form of its type")]
    Form { kind: TypeUrl, name: String },
}

/// The descriptors.
///
/// # Errors
/// They are not valid.
pub fn descriptors() -> Result<DescriptorPool, DescriptorError> {
    DescriptorPool::decode(DESCRIPTORS)
}

/// Shows resources.
#[derive(Debug, Clone)]
pub struct Dumper {
    pool: DescriptorPool,
    redaction: Redaction,
}

impl Dumper {
    /// # Errors
    /// The descriptors are not valid.
    pub fn new() -> Result<Self, DumpError> {
        let pool = descriptors()?;
        let redaction = Redaction::new(&pool).ok_or_else(|| DumpError::Missing(redaction::SENSITIVE.to_owned()))?;
        Ok(Self { pool, redaction })
    }

    /// A resource, with the type of its message.
    ///
    /// # Errors
    /// It is not what its type says.
    pub fn show(&self, kind: TypeUrl, resource: &Resource) -> Result<Shown, DumpError> {
        let form = || DumpError::Form { kind, name: resource.name.to_string() };
        let type_name = kind.as_str().rsplit('/').next().unwrap_or_default();
        let descriptor = self.pool.get_message_by_name(type_name).ok_or_else(|| DumpError::Missing(type_name.to_owned()))?;
        let mut message = DynamicMessage::decode(descriptor, resource.body.bytes()).map_err(|_| form())?;
        self.redaction.redact(&mut message);
        let mut json = message.serialize_with_options(serde_json::value::Serializer, &OPTIONS).map_err(|_| form())?;
        let fields = json.as_object_mut().ok_or_else(form)?;
        fields.insert("@type".to_owned(), Value::from(kind.as_str()));
        Ok(Shown { kind, name: resource.name.to_string(), version: resource.version.to_string(), message: json })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_is_shown_with_its_type() {
        let cluster = Cluster { name: "a".into(), dns_lookup_family: 2, ..Cluster::default() };
        let shown = Dumper::new().unwrap().show(TypeUrl::Cluster, &Resource::new("a", &cluster)).unwrap();
        assert_eq!(shown.message, json!({"@type": TypeUrl::Cluster.as_str(), "name": "a", "dns_lookup_family": "V6_ONLY"}));
    }

    #[test]
    fn what_is_not_of_its_type_is_an_error_that_shows_nothing_of_it() {
        let secret = Resource { name: "a".into(), version: "1".into(), body: b"\x0a\xffa planted secret".to_vec().into() };
        for kind in TypeUrl::ALL {
            let error = Dumper::new().unwrap().show(kind, &secret).unwrap_err();
            assert_eq!(error.to_string(), format!("{kind} \"a\" does not have the form of its type"));
        }
    }
}
