//! What of a message nobody may be shown: every field that Envoy's API calls sensitive, of a `Secret` all but what is public, credentials in headers
//! that are written, and what is packed in a type that nobody here knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::google::protobuf::{self as well_known, value};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};

/// The option of a field.
pub(super) const SENSITIVE: &str = "udpa.annotations.sensitive";

/// As in Envoy's own dumps.
const REDACTED: &str = "[redacted]";

const ANY: &str = "google.protobuf.Any";
const HEADER: &str = "envoy.config.core.v3.HeaderValue";
const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

/// All else in a `Secret` is hidden, also what a later Envoy adds to it.
const PUBLIC: [&str; 3] = [
    "envoy.extensions.transport_sockets.tls.v3.Secret.name",
    "envoy.extensions.transport_sockets.tls.v3.TlsCertificate.certificate_chain",
    "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.trusted_ca",
];

/// Headers whose value is a credential, unless it is made of the request (`%...%`).
const CREDENTIALS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-kubepass-authorization", "x-pomerium-authorization"];

/// What holds for a part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Open,
    /// Within a `Secret`: what is not known to be public is hidden.
    Secret,
    /// A header that is written: its name may be seen.
    Header,
    /// Names in maps may be seen, values not.
    Hidden,
    Erased,
}

#[derive(Debug, Clone)]
pub(super) struct Redaction {
    pool: DescriptorPool,
    /// Fields, by their full names.
    sensitive: Arc<BTreeSet<String>>,
}

impl Redaction {
    /// `None`: the descriptors do not say what is sensitive.
    pub(super) fn new(pool: &DescriptorPool) -> Option<Self> {
        let option = pool.get_extension_by_name(SENSITIVE)?;
        let is_sensitive = |field: &FieldDescriptor| field.options().get_extension(&option).as_bool() == Some(true);
        let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
        let sensitive: BTreeSet<String> = fields.filter(is_sensitive).map(|field| field.full_name().to_owned()).collect();
        (!sensitive.is_empty()).then(|| Self { pool: pool.clone(), sensitive: Arc::new(sensitive) })
    }

    pub(super) fn redact(&self, message: &mut DynamicMessage) {
        self.message(message, Part::Open);
    }

    fn message(&self, message: &mut DynamicMessage, part: Part) {
        let descriptor = message.descriptor();
        if descriptor.full_name() == ANY {
            return self.packed(message, part);
        }
        let part = match part {
            Part::Open if descriptor.full_name() == SECRET => Part::Secret,
            Part::Open if descriptor.full_name() == HEADER && is_credential(message) => Part::Header,
            part => part,
        };
        // What an encoded message carries along unknown is not printed, but nobody has to rely on that.
        message.take_unknown_fields().for_each(drop);
        for (field, value) in message.fields_mut() {
            self.value(value, self.part_of(&field, part));
        }
    }

    fn part_of(&self, field: &FieldDescriptor, around: Part) -> Part {
        let is_sensitive = self.sensitive.contains(field.full_name());
        match around {
            Part::Erased => Part::Erased,
            Part::Secret if PUBLIC.contains(&field.full_name()) => Part::Open,
            Part::Secret if !is_sensitive && !field.is_map() && matches!(field.kind(), Kind::Message(_)) => Part::Secret,
            Part::Secret => Part::Erased,
            Part::Hidden => Part::Hidden,
            _ if is_sensitive => Part::Hidden,
            Part::Header if field.name() == "key" => Part::Open,
            Part::Header => Part::Hidden,
            Part::Open => Part::Open,
        }
    }

    fn value(&self, value: &mut Value, part: Part) {
        match value {
            Value::Message(message) => self.message(message, part),
            Value::List(values) => values.iter_mut().for_each(|value| self.value(value, part)),
            Value::Map(values) if part == Part::Erased => values.clear(),
            Value::Map(values) => values.values_mut().for_each(|value| self.value(value, part)),
            _ if part == Part::Open => {}
            Value::String(text) => REDACTED.clone_into(text),
            Value::Bytes(bytes) => *bytes = Bytes::from_static(REDACTED.as_bytes()),
            Value::Bool(value) => *value = false,
            Value::I32(value) | Value::EnumNumber(value) => *value = 0,
            Value::I64(value) => *value = 0,
            Value::U32(value) => *value = 0,
            Value::U64(value) => *value = 0,
            Value::F32(value) => *value = 0.0,
            Value::F64(value) => *value = 0.0,
        }
    }

    fn packed(&self, any: &mut DynamicMessage, part: Part) {
        let type_url = any.get_field_by_name("type_url").and_then(|url| url.as_str().map(str::to_owned)).unwrap_or_default();
        let body = any.get_field_by_name("value").and_then(|value| value.as_bytes().cloned()).unwrap_or_default();
        let (type_url, body) = match self.known(&type_url).and_then(|known| DynamicMessage::decode(known, body.clone()).ok()) {
            Some(mut message) => {
                self.message(&mut message, part);
                (type_url, message.encode_to_vec())
            }
            None => type_and_size(&type_url, body.len()),
        };
        any.set_field_by_name("type_url", Value::String(type_url));
        any.set_field_by_name("value", Value::Bytes(body.into()));
    }

    fn known(&self, type_url: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(type_url.rsplit_once('/')?.1)
    }
}

/// All that is told of a message whose fields are not known.
fn type_and_size(type_url: &str, size: usize) -> (String, Vec<u8>) {
    let string = |text| well_known::Value { kind: Some(value::Kind::StringValue(text)) };
    let fields = [("type_url", type_url.to_owned()), ("bytes", size.to_string())];
    let told = well_known::Struct { fields: fields.into_iter().map(|(name, text)| (name.to_owned(), string(text))).collect() };
    ("type.googleapis.com/google.protobuf.Struct".to_owned(), told.encode_to_vec())
}

fn is_credential(header: &DynamicMessage) -> bool {
    let text = |name: &str| header.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let raw = header.get_field_by_name("raw_value").is_some_and(|value| value.as_bytes().is_some_and(|bytes| !bytes.is_empty()));
    CREDENTIALS.contains(&text("key").to_ascii_lowercase().as_str()) && (raw || !is_one_command(&text("value")))
}

/// `%REQ(x)%` and nothing beside it.
fn is_one_command(format: &str) -> bool {
    let inner = format.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
    inner.is_some_and(|inner| !inner.is_empty() && !inner.contains('%'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value as Json, json};

    use super::super::Dumper;
    use super::*;
    use crate::xds::resource::{Resource, TypeUrl};

    /// What stands in every place that must not be shown.
    const PLANTED: &str = "planted-secret";

    fn encoded(type_name: &str, message: &Json) -> Vec<u8> {
        let descriptor = super::super::descriptors().unwrap().get_message_by_name(type_name).unwrap();
        DynamicMessage::deserialize(descriptor, message).unwrap().encode_to_vec()
    }

    fn shown(kind: TypeUrl, body: Vec<u8>) -> Json {
        let resource = Resource { name: "a".into(), version: "1".into(), body: body.into() };
        let mut shown = Dumper::new().unwrap().show(kind, &resource).unwrap().message;
        shown.as_object_mut().unwrap().remove("@type");
        shown
    }

    fn check(kind: TypeUrl, message: &Json, expected: &Json) {
        let type_name = kind.as_str().rsplit('/').next().unwrap();
        let shown = shown(kind, encoded(type_name, message));
        assert_eq!(&shown, expected);
        assert!(!shown.to_string().contains(PLANTED));
    }

    #[test]
    fn of_a_secret_only_what_is_public_is_shown() {
        let text = |text: &str| json!({"inline_string": text});
        let (hidden, bytes) = (text(REDACTED), json!({"inline_bytes": "W3JlZGFjdGVkXQ=="}));
        check(
            TypeUrl::Secret,
            &json!({"name": "serving", "tls_certificate": {"certificate_chain": text("chain"), "private_key": text(PLANTED), "password": text(PLANTED),
                "ocsp_staple": {"inline_bytes": "cGxhbnRlZC1zZWNyZXQ="}, "pkcs12": {"filename": PLANTED}}}),
            &json!({"name": "serving", "tls_certificate": {"certificate_chain": text("chain"), "private_key": hidden, "password": hidden,
                "ocsp_staple": bytes, "pkcs12": {"filename": REDACTED}}}),
        );
        check(
            TypeUrl::Secret,
            &json!({"name": "ca", "validation_context": {"trusted_ca": text("ca"), "crl": text(PLANTED), "verify_certificate_hash": [PLANTED]}}),
            &json!({"name": "ca", "validation_context": {"trusted_ca": text("ca"), "crl": hidden, "verify_certificate_hash": [REDACTED]}}),
        );
        check(
            TypeUrl::Secret,
            &json!({"name": "token", "generic_secret": {"secret": text(PLANTED), "secrets": {PLANTED: text(PLANTED)}}}),
            &json!({"name": "token", "generic_secret": {"secret": hidden}}),
        );
        check(
            TypeUrl::Secret,
            &json!({"name": "tickets", "session_ticket_keys": {"keys": [{"environment_variable": PLANTED}]}}),
            &json!({"name": "tickets", "session_ticket_keys": {"keys": [{"environment_variable": REDACTED}]}}),
        );
    }

    /// A key that stands in a listener or a cluster instead of a secret of its own.
    #[test]
    fn what_envoy_calls_sensitive_is_hidden_wherever_it_stands() {
        let socket = |key: &str| {
            let common =
                json!({"tls_certificates": [{"certificate_chain": {"inline_string": "chain"}, "private_key": {"inline_string": key}}]});
            let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
            let config = json!({"@type": tls, "common_tls_context": common, "session_ticket_keys": {"keys": [{"inline_string": key}]}});
            json!({"name": "a", "filter_chains": [{"transport_socket": {"name": "tls", "typed_config": config}}]})
        };
        check(TypeUrl::Listener, &socket(PLANTED), &socket(REDACTED));
        let routes = |value: &str| {
            let per_route = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
            let config = json!({"@type": per_route, "check_settings": {"context_extensions": {"target": value}}});
            json!({"name": "a", "virtual_hosts": [{"name": "a", "typed_per_filter_config": {"envoy.filters.http.ext_authz": config}}]})
        };
        check(TypeUrl::RouteConfiguration, &routes(PLANTED), &routes(REDACTED));
    }

    #[test]
    fn a_credential_in_a_header_that_is_written_is_hidden() {
        let routes = |headers: &[(&str, &str)]| {
            let header = |(key, value): &(&str, &str)| json!({"header": {"key": key, "value": value}});
            json!({"name": "a", "request_headers_to_add": headers.iter().map(header).collect::<Vec<_>>()})
        };
        let own = ("authorization", "%REQ(x-kubepass-authorization)%");
        check(
            TypeUrl::RouteConfiguration,
            &routes(&[own, ("x-color", "blue"), ("Authorization", "Bearer planted-secret"), ("cookie", "%A% planted-secret %B%")]),
            &json!({"name": "a", "request_headers_to_add": [
                {"header": {"key": own.0, "value": own.1}}, {"header": {"key": "x-color", "value": "blue"}},
                {"header": {"key": "Authorization", "value": REDACTED}}, {"header": {"key": "cookie", "value": REDACTED}}]}),
        );
    }

    #[test]
    fn of_what_is_not_known_type_and_size_are_told() {
        let extension = |type_url: &str, body: Vec<u8>| {
            let any = well_known::Any { type_url: type_url.to_owned(), value: body };
            let config = envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig { name: "a".into(), typed_config: Some(any) };
            shown(TypeUrl::ExtensionConfig, config.encode_to_vec())
        };
        let told = |type_url: &str| {
            json!({"name": "a", "typed_config":
            {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"type_url": type_url, "bytes": "14"}}})
        };
        for type_url in ["type.googleapis.com/example.Later", "", "no slash", "type.googleapis.com/envoy.config.core.v3.Node"] {
            assert_eq!(extension(type_url, PLANTED.into()), told(type_url));
        }
        // A field that a later Envoy adds to a known message.
        let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
        let mut later = vec![0xfa, 0xff, 0x01, 14];
        later.extend(PLANTED.as_bytes());
        assert_eq!(extension(router, later), json!({"name": "a", "typed_config": {"@type": router}}));
    }
}
