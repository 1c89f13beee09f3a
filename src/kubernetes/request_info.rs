//! `RequestInfo`: verb, group, resource, namespace and name of a request, from method, path and query, exactly as
//! `k8s.io/apiserver/pkg/endpoints/request` reads them. What could be read in two ways is refused, never guessed.

use std::borrow::Cow;

/// What the API server understands by a request. Empty strings where a field does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo<'a> {
    /// False for discovery, health and other paths outside `/api/v1/...` and `/apis/GROUP/VERSION/...` resources.
    pub is_resource_request: bool,
    /// The path without the query, percent-decoded once, as the API server sees it.
    pub path: Cow<'a, str>,
    /// The API server's verb (`get`, `list`, `watch`, `create`, ...); for non-resource requests the lower-case method.
    pub verb: Cow<'a, str>,
    pub api_prefix: Cow<'a, str>,
    pub api_group: Cow<'a, str>,
    pub api_version: Cow<'a, str>,
    pub namespace: Cow<'a, str>,
    pub resource: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub field_selector: Cow<'a, str>,
    pub label_selector: Cow<'a, str>,
}
