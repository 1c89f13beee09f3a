//! Headers that no client may send, removed before anything reads them; of a trusted proxy `x-forwarded-for` alone stays. `impersonate-*`
//! stays: ext_authz must see every line of it to refuse it; the late mutation removes it. And the
//! one that Envoy chooses the routes by.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;

use super::message::{extension, remove_header, remove_headers_matching, remove_headers_with_prefix, write_header};
use super::names::{CLIENT_HEADER_PREFIXES, CLIENT_HEADERS, SCOPE};
use crate::defence::{Defence, off};

const FORWARDED: &str = "x-forwarded-";
/// What begins with that and is not `x-forwarded-for`: the regular expressions here cannot say "except".
const FORWARDED_BUT_FOR: &str = "x-forwarded-(.{0,2}|[^f]..|f[^o].|fo[^r]|.{4,})";

/// `keep_forwarded_for`: who sends it is trusted with it, and it is read next.
pub(super) fn early_header_mutation(keep_forwarded_for: bool) -> TypedExtensionConfig {
    let prefixes = CLIENT_HEADER_PREFIXES.iter().map(|prefix| match *prefix {
        FORWARDED if keep_forwarded_for => remove_headers_matching(FORWARDED_BUT_FOR),
        prefix => remove_headers_with_prefix(prefix),
    });
    let names = CLIENT_HEADERS.iter().map(|name| remove_header(name));
    let removed = prefixes.chain(names).filter(|_| !off(Defence::EarlyStrip));
    let mutation = HeaderMutation { mutations: removed.chain(scope()).collect() };
    extension("envoy.http.early_header_mutation.header_mutation", mutation)
}

/// The server name, in lower case here whatever the client wrote. Where there is none, the host: that leads to the refusal which says so. The
/// client's own line of that name is gone by its prefix.
fn scope() -> [Mutation; 2] {
    let server_name = if off(Defence::HostScope) { "%REQ(:authority)%" } else { "%REQUESTED_SERVER_NAME%" };
    [
        write_header(SCOPE, server_name, HeaderAppendAction::OverwriteIfExistsOrAdd),
        write_header(SCOPE, "%REQ(:authority)%", HeaderAppendAction::AddIfAbsent),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use regex::Regex;

    use super::*;

    #[test]
    fn of_what_is_forwarded_all_goes_but_for_whom() {
        // Envoy matches whole names.
        let removed = Regex::new(&format!("^(?:{FORWARDED_BUT_FOR})$")).unwrap();
        assert!(!removed.is_match("x-forwarded-for"));
        for name in
            ["", "f", "fo", "foo", "fob", "fir", "aor", "for-", "forx", "for2", "xfor", "host", "proto", "port", "client-cert", "fore"]
        {
            assert!(removed.is_match(&format!("{FORWARDED}{name}")), "{name}");
        }
        for name in ["x-forwarded", "x-forwardedfor", "host", "ax-forwarded-host"] {
            assert!(!removed.is_match(name), "{name}");
        }
    }
}
