//! Requests to an upstream that is no API server, in the same words: method and path, and none of a resource.
//!
//! The path is read as strictly as an API server's where two readers could see different paths, for a rule about `/admin` must stand before what the
//! upstream serves as `/admin`. Queries belong to the upstream.

use super::query::Query;
use super::{Ambiguous, RequestInfo, is_method, lower_case, path};

impl<'a> RequestInfo<'a> {
    /// Reads a request of a plain HTTP route. `path_and_query` is the request target in origin form.
    ///
    /// # Errors
    /// [`Ambiguous`] for what could be read in two ways.
    pub fn plain(method: &'a str, path_and_query: &'a str) -> Result<RequestInfo<'a>, Ambiguous> {
        if !is_method(method) {
            return Err(Ambiguous::Method);
        }
        let (raw_path, raw_query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        Query::read(raw_query)?;
        let (path, _) = path::read(raw_path)?;
        if has_escape(&path) {
            return Err(Ambiguous::EncodedPercent);
        }
        // Servers that know parameters of segments (servlets) serve `/admin;x/users` as `/admin/users`, and `/..;x/` as a step up.
        if path.contains(';') {
            return Err(Ambiguous::PathParameter);
        }
        Ok(RequestInfo { path, verb: lower_case(method), ..RequestInfo::default() })
    }
}

/// Whether a second decoding would change a decoded path. A page named `100%` is none of this.
fn has_escape(decoded: &str) -> bool {
    decoded.as_bytes().windows(3).any(|window| matches!(window, [b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn method_and_path_are_all_there_is() {
        let check = |method: &str, target: &str, verb: &str, path: &str| {
            let info = RequestInfo::plain(method, target).unwrap();
            assert_eq!((&*info.verb, &*info.path, info.is_resource_request), (verb, path, false), "{method} {target}");
            assert!(info.resource.is_empty() && info.namespace.is_empty() && info.name.is_empty() && info.api_group.is_empty());
        };
        check("GET", "/", "get", "/");
        check("POST", "/wiki/page?a=b;c&watch=1&watch=2", "post", "/wiki/page");
        check("PROPFIND", "/dav/", "propfind", "/dav/");
        // What would be a resource to an API server is a path here.
        check("DELETE", "/api/v1/namespaces/a/pods/b", "delete", "/api/v1/namespaces/a/pods/b");
        check("GET", "/a%20b/%C3%BC/100%25/%25x?%zz", "get", "/a b/ü/100%/%x");
        check("GET", "/a/b/c/d/e/f/g/h/i/j/k/%6c", "get", "/a/b/c/d/e/f/g/h/i/j/k/l");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let check = |method: &str, target: &str, wanted: Ambiguous| assert_eq!(RequestInfo::plain(method, target), Err(wanted), "{target}");
        check("", "/", Ambiguous::Method);
        check("G T", "/", Ambiguous::Method);
        check("delete", "/", Ambiguous::Method);
        check("Delete", "/", Ambiguous::Method);
        check("OPTIONS", "*", Ambiguous::NotAPath);
        check("GET", "https://other.example/", Ambiguous::NotAPath);
        check("GET", "/a b", Ambiguous::RawCharacter);
        check("GET", "/a#b", Ambiguous::RawCharacter);
        check("GET", "/a?b\u{e9}", Ambiguous::RawCharacter);
        check("GET", "/a%2fb", Ambiguous::EncodedSlash);
        check("GET", "/a%5Cb", Ambiguous::EncodedSlash);
        check("GET", "/a\\b", Ambiguous::EncodedSlash);
        check("GET", "/%2561dmin", Ambiguous::EncodedPercent);
        check("GET", "/a/b/c/d/e/f/g/h/i/j/%252e", Ambiguous::EncodedPercent);
        check("GET", "/%00", Ambiguous::ControlCharacter);
        check("GET", "/%0a", Ambiguous::ControlCharacter);
        check("GET", "/%ff", Ambiguous::NotUtf8);
        check("GET", "/%zz", Ambiguous::InvalidEscape);
        check("GET", "/a/../b", Ambiguous::DotSegment);
        check("GET", "/a/%2e%2E/b", Ambiguous::DotSegment);
        check("GET", "/a//b", Ambiguous::EmptySegment);
        check("GET", "//", Ambiguous::EmptySegment);
        for path in
            ["/a/..;/b", "/a/..;x=y", "/.;/b", "/;/admin", "/a/;x", "/a/%2e%2e;x/b", "/a/..%3bx/b", "/admin;x/users", "/%61dmin%3Bv=1"]
        {
            check("GET", path, Ambiguous::PathParameter);
        }
    }
}
