//! `RequestInfo`: verb, group, resource, namespace and name of a request, from method, path and query, exactly as
//! `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` (v0.36) reads them. What could be read in two ways is refused, never guessed:
//! a policy that decides on another request than the one that the API server serves is no policy.
//!
//! Paths below a `proxy` subresource belong to the workload, not to the API server, so they may hold what a Kubernetes name cannot (`%25`)
//! and their query is not read. Encoded slashes and backslashes, dot segments, empty segments and control characters are refused there too:
//! a later hop that resolves them would leave the subresource.

mod path;
mod plain;
mod query;
mod selector;

use std::borrow::Cow;

use path::PercentRefused::{BeforeRest, Everywhere};
use path::Segments;
use query::Query;

/// What the API server understands by a request. Empty strings where a field does not apply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo<'a> {
    /// False for discovery, health and other paths outside `/api/v1/...` and `/apis/GROUP/VERSION/...` resources.
    pub is_resource_request: bool,
    /// The path without the query, percent-decoded once, as the API server sees it.
    pub path: Cow<'a, str>,
    /// The API server's verb (`get`, `list`, `watch`, `create`, ...); for non-resource requests the lower-case method.
    /// Empty for a resource request whose method has no verb (`OPTIONS`), as in the API server.
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
    /// Whether a `log` request asks to follow. Not a field of the API server's `RequestInfo`; see [`RequestInfo::is_long_running`].
    pub follow: bool,
}

/// Why a request was not read: two parties on its way could understand it differently. The text is safe to show to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    #[error("the method is not an HTTP token in capitals")]
    Method,
    #[error("the request target is not a path that starts with \"/\"")]
    NotAPath,
    #[error("the path or query holds a character that must be percent-encoded")]
    RawCharacter,
    #[error("the path or query holds \"%\" without two hexadecimal digits after it")]
    InvalidEscape,
    #[error("the path holds an encoded slash or a backslash")]
    EncodedSlash,
    #[error("the path holds an encoded \"%\", which a second decoding would read differently")]
    EncodedPercent,
    #[error("the path holds an encoded control character")]
    ControlCharacter,
    #[error("the path or a selector is not UTF-8 when decoded")]
    NotUtf8,
    #[error("the path holds a \".\" or \"..\" segment")]
    DotSegment,
    #[error("the path holds an empty segment (\"//\")")]
    EmptySegment,
    #[error("the path holds a semicolon, after which some servers read parameters and others read on")]
    PathParameter,
    #[error("the path ends after \"watch\" or \"proxy\", without a resource")]
    SpecialVerbAlone,
    #[error("a path that begins with \"watch\" was requested with another method than GET or HEAD")]
    WatchMethod,
    #[error("the query holds a semicolon that is not percent-encoded")]
    Semicolon,
    #[error("the query holds too many parameters")]
    TooManyParameters,
    #[error("the query parameter {0:?} is given twice with different values")]
    Duplicate(&'static str),
    #[error("the query parameter \"watch\" is not a plain boolean")]
    WatchValue,
    #[error("the {0} cannot be read")]
    Selector(&'static str),
}

/// Subresources that open a stream into a container; over WebSocket they are a GET, so their HTTP verb says nothing.
const STREAMING_SUBRESOURCES: [&str; 3] = ["exec", "attach", "portforward"];

/// Subresources whose GET returns stored or derived data and does nothing else. A list of what is known to be harmless, because an
/// aggregated API may serve anything (a console, a tunnel) under a GET.
const READABLE_SUBRESOURCES: [&str; 7] = ["", "status", "scale", "log", "approval", "ephemeralcontainers", "resize"];

impl<'a> RequestInfo<'a> {
    /// Reads one request. `path_and_query` is the request target in origin form, as it goes to the API server.
    ///
    /// # Errors
    /// [`Ambiguous`] for what could be read in two ways, and for the one form that the API server itself cannot read.
    pub fn parse(method: &'a str, path_and_query: &'a str) -> Result<RequestInfo<'a>, Ambiguous> {
        if !is_method(method) {
            return Err(Ambiguous::Method);
        }
        let (raw_path, raw_query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query = Query::read(raw_query)?;
        let (path, segments) = path::read(raw_path)?;
        let mut info = RequestInfo { path, verb: lower_case(method), ..RequestInfo::default() };
        let verb_from = info.read_path(method, segments)?;
        if info.is_resource_request && !info.is_proxy() {
            info.read_query(&query, verb_from)?;
        }
        Ok(info)
    }

    /// The verb as policy sees it: `exec`, `attach`, `portforward` and `proxy` are verbs of their own whatever the method, because the
    /// method does not say what they do (exec over WebSocket is a GET). Otherwise the API server's verb.
    pub fn policy_verb(&self) -> &str {
        if self.is_proxy() {
            return "proxy";
        }
        if self.is_streaming() { &self.subresource } else { &self.verb }
    }

    /// Whether the request can only read: `get`, `list` and `watch` of resources and of subresources known to be plain data, and `get`,
    /// `head` and `options` of other paths. Never true for exec-like subresources and `proxy`.
    pub fn read_only(&self) -> bool {
        if !self.is_resource_request {
            return matches!(&*self.verb, "get" | "head" | "options");
        }
        matches!(&*self.verb, "get" | "list" | "watch") && READABLE_SUBRESOURCES.contains(&&*self.subresource)
    }

    /// Whether the answer may last: watch, exec-like, proxy, a followed log, a profile, and a `get` of a subresource that only an
    /// aggregated API knows.
    pub fn is_long_running(&self) -> bool {
        if !self.is_resource_request {
            return self.path.starts_with("/debug/pprof/");
        }
        let unknown = self.verb == "get" && !READABLE_SUBRESOURCES.contains(&&*self.subresource);
        self.verb == "watch" || self.is_proxy() || self.is_streaming() || (self.subresource == "log" && self.follow) || unknown
    }

    fn is_proxy(&self) -> bool {
        self.is_resource_request && (self.verb == "proxy" || self.subresource == "proxy")
    }

    fn is_streaming(&self) -> bool {
        self.is_resource_request && STREAMING_SUBRESOURCES.contains(&&*self.subresource)
    }

    /// The path half of `NewRequestInfo`, in its order.
    fn read_path(&mut self, method: &str, mut rest: Segments<'a>) -> Result<VerbFrom, Ambiguous> {
        if rest.len() < 3 || !matches!(rest.peek(), "api" | "apis") {
            return rest.refuse_percent(Everywhere).map(|()| VerbFrom::Method);
        }
        self.api_prefix = rest.take();
        if self.api_prefix == "apis" {
            if rest.len() < 3 {
                return rest.refuse_percent(Everywhere).map(|()| VerbFrom::Method);
            }
            self.api_group = rest.take();
        }
        self.is_resource_request = true;
        self.api_version = rest.take();
        let verb_from = self.read_verb(method, &mut rest)?;
        self.read_resource(&mut rest);
        rest.refuse_percent(if self.is_proxy() { BeforeRest } else { Everywhere })?;
        Ok(verb_from)
    }

    fn read_verb(&mut self, method: &str, rest: &mut Segments<'a>) -> Result<VerbFrom, Ambiguous> {
        if matches!(rest.peek(), "watch" | "proxy") {
            self.verb = rest.take();
            if rest.len() == 0 {
                return Err(Ambiguous::SpecialVerbAlone);
            }
            if self.verb == "watch" && !matches!(method, "GET" | "HEAD") {
                return Err(Ambiguous::WatchMethod);
            }
            return Ok(VerbFrom::Path);
        }
        self.verb = Cow::Borrowed(match method {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        });
        Ok(VerbFrom::Method)
    }

    /// `resource[/name[/subresource[/...]]]`, after an optional `namespaces/NAMESPACE`, which is itself the resource when nothing or one of
    /// its own subresources follows.
    fn read_resource(&mut self, rest: &mut Segments<'a>) {
        if rest.peek() == "namespaces" && rest.len() > 1 {
            let mut inner = rest.clone();
            inner.take();
            self.namespace = inner.take();
            if inner.len() > 0 && !matches!(inner.peek(), "status" | "finalize") {
                *rest = inner;
            }
        }
        self.resource = rest.take();
        self.name = rest.take();
        if self.verb != "proxy" {
            self.subresource = rest.take();
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = Cow::Borrowed("deletecollection");
        }
    }

    /// The query half of `NewRequestInfo`: list or watch, the name in a field selector, the selectors.
    fn read_query(&mut self, query: &Query<'a>, verb_from: VerbFrom) -> Result<(), Ambiguous> {
        let parameters = query.parameters()?;
        if self.name.is_empty() && self.verb == "get" {
            self.verb = Cow::Borrowed(if parameters.watch { "watch" } else { "list" });
            self.name = parameters.exact_name()?;
        }
        self.follow = self.subresource == "log" && parameters.follow;
        if verb_from == VerbFrom::Method && matches!(&*self.verb, "list" | "watch" | "deletecollection") {
            self.field_selector = parameters.field_selector.unwrap_or_default();
            self.label_selector = parameters.label_selector.unwrap_or_default();
        }
        Ok(())
    }
}

/// The API server reads no selectors where the verb stands in the path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum VerbFrom {
    Method,
    Path,
}

/// A token (RFC 9110, 5.6.2) without small letters: `delete`, which HTTP/2 carries, is another method than `DELETE` to a rule, and the same to some
/// web frameworks.
fn is_method(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn lower_case(method: &str) -> Cow<'_, str> {
    match method {
        "GET" => Cow::Borrowed("get"),
        "HEAD" => Cow::Borrowed("head"),
        "POST" => Cow::Borrowed("post"),
        "PUT" => Cow::Borrowed("put"),
        "PATCH" => Cow::Borrowed("patch"),
        "DELETE" => Cow::Borrowed("delete"),
        "OPTIONS" => Cow::Borrowed("options"),
        other => Cow::Owned(other.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests;
