//! The late header mutation: `x-forwarded-for` becomes the one address that is believed, every `impersonate-*` line and every trailer of the client goes, then
//! the identity of the ext_authz answer is written, one slot for each value that there can be; slots without a value vanish. What a route
//! adds stands in its own configuration, so that changing it touches no listener.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, HeaderMutationPerRoute, Mutations};

use super::input::MethodInput;
use super::message::{remove_header, remove_headers_matching, remove_headers_with_prefix, remove_spellings, write_header};
use super::names::{
    EXT_AUTHZ_NAMESPACE, GROUP_SLOTS, NOT_FOR_UPSTREAM, OTHER_REQUEST, SCOPE, SOURCE, UID_KEY, UPSTREAM_ASSERTION, UPSTREAM_AUTHORIZATION,
    UPSTREAM_COOKIE, USER_KEY, extra_key, group_key,
};
use crate::defence::{Defence, off};
use crate::kubernetes::impersonation;

/// Name of the filter, and key of its configuration on a route.
pub(super) const HEADER_MUTATION: &str = "envoy.filters.http.header_mutation";

/// Where the request came from, as the connection manager found out.
const FOUND_SOURCE: &str = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%";

/// The filter's own configuration: the same for every host, always.
pub(super) fn for_all_routes() -> HeaderMutation {
    // What the trail says of it, for the upstream's own: Envoy itself would append the address that connected, and its own for one of loopback.
    let source = write_header("x-forwarded-for", FOUND_SOURCE, HeaderAppendAction::OverwriteIfExistsOrAdd);
    let source = Some(source).filter(|_| !off(Defence::SourceOverwrite));
    let own = [remove_header(SOURCE), remove_header(SCOPE)];
    let forged = Some(remove_headers_with_prefix(impersonation::PREFIX)).filter(|_| !off(Defence::LatePrefixStrip));
    let identity = [
        from_metadata(impersonation::USER, USER_KEY, HeaderAppendAction::OverwriteIfExistsOrAdd),
        from_metadata(impersonation::UID, UID_KEY, HeaderAppendAction::OverwriteIfExistsOrAdd),
    ];
    let mutations = source.into_iter().chain(own).chain(forged).chain(identity).chain(groups(0..GROUP_SLOTS)).collect();
    // A server may read trailers as headers (RFC 9110, 6.5.1), and nothing has judged them: they come when the body is over.
    let trailers = Some(remove_headers_matching(".*")).filter(|_| !off(Defence::TrailerStrip));
    let request_trailers_mutations = trailers.into_iter().collect();
    let mutations = Mutations { request_mutations: mutations, request_trailers_mutations, ..Default::default() };
    HeaderMutation { mutations: Some(mutations), most_specific_header_mutations_wins: false }
}

/// For a filter before ext_authz.
pub(super) fn source_for_check() -> HeaderMutation {
    let source = write_header(SOURCE, FOUND_SOURCE, HeaderAppendAction::OverwriteIfExistsOrAdd);
    HeaderMutation { mutations: requests(vec![source]), most_specific_header_mutations_wins: false }
}

/// What one route adds after that.
pub(super) fn for_route(method: &MethodInput<'_>) -> HeaderMutationPerRoute {
    let removed = NOT_FOR_UPSTREAM.iter().filter(|_| !off(Defence::CookieStrip)).map(|name| remove_header(name));
    let mutations = match method {
        MethodInput::Impersonate { max_groups, extra_keys, .. } => {
            let extra = extra_keys.iter().flat_map(|key| extra(key));
            removed.chain(groups(GROUP_SLOTS..*max_groups)).chain(extra).collect()
        }
        MethodInput::Jwt => removed.chain(token_as_authorization()).collect(),
        MethodInput::Http { identity_header, .. } => removed.chain(assertion_and_cookies(identity_header)).collect(),
    };
    HeaderMutationPerRoute { mutations: requests(mutations) }
}

/// The client's own credential goes whether ext_authz brought a token or not: without one, nothing goes upstream under this name.
fn token_as_authorization() -> impl Iterator<Item = Mutation> {
    let written = [
        write_header("authorization", &format!("%REQ({UPSTREAM_AUTHORIZATION})%"), HeaderAppendAction::OverwriteIfExistsOrAdd),
        remove_header(UPSTREAM_AUTHORIZATION),
    ];
    client_authorization().into_iter().chain(written)
}

fn client_authorization() -> Option<Mutation> {
    Some(remove_header("authorization")).filter(|_| !off(Defence::CredentialOverwrite))
}

/// The identity header is ext_authz's whatever the client sent and however it was spelt, `cookie` (removed before) holds what is not ours, and no credential goes upstream.
fn assertion_and_cookies(identity_header: &str) -> Vec<Mutation> {
    let from = |name: &str, header: &str| write_header(name, &format!("%REQ({header})%"), HeaderAppendAction::OverwriteIfExistsOrAdd);
    let written = [
        remove_header(identity_header),
        remove_spellings(identity_header),
        from(identity_header, UPSTREAM_ASSERTION),
        from("cookie", UPSTREAM_COOKIE),
        remove_header(UPSTREAM_ASSERTION),
        remove_header(UPSTREAM_COOKIE),
    ];
    OTHER_REQUEST.iter().map(|name| remove_header(name)).chain(client_authorization()).chain(written).collect()
}

fn groups(slots: std::ops::Range<usize>) -> impl Iterator<Item = Mutation> {
    slots.map(|index| from_metadata(impersonation::GROUP, &group_key(index).to_string(), HeaderAppendAction::AppendIfExistsOrAdd))
}

fn extra(key: &str) -> impl Iterator<Item = Mutation> + use<> {
    let header = format!("{}{key}", impersonation::EXTRA_PREFIX);
    let key = key.to_owned();
    (0..impersonation::MAX_EXTRA_VALUES)
        .map(move |index| from_metadata(&header, &extra_key(&key, index).to_string(), HeaderAppendAction::AppendIfExistsOrAdd))
}

fn from_metadata(header: &str, key: &str, action: HeaderAppendAction) -> Mutation {
    write_header(header, &format!("%DYNAMIC_METADATA({EXT_AUTHZ_NAMESPACE}:{key})%"), action)
}

fn requests(request_mutations: Vec<Mutation>) -> Option<Mutations> {
    Some(Mutations { request_mutations, ..Default::default() })
}
