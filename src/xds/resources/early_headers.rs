//! Headers that no client may send, removed before anything reads them. `impersonate-*` stays: ext_authz must see every line of it to refuse
//! it; the late mutation removes it.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;

use super::message::{extension, remove_header, remove_headers_with_prefix};
use super::names::{CLIENT_HEADER_PREFIXES, CLIENT_HEADERS};

pub(super) fn early_header_mutation() -> TypedExtensionConfig {
    let prefixes = CLIENT_HEADER_PREFIXES.iter().map(|prefix| remove_headers_with_prefix(prefix));
    let names = CLIENT_HEADERS.iter().map(|name| remove_header(name));
    let mutation = HeaderMutation { mutations: prefixes.chain(names).collect() };
    extension("envoy.http.early_header_mutation.header_mutation", mutation)
}
