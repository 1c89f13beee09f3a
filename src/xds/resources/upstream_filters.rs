//! The last filters before the upstream, on its cluster: whatever route or mistake brought a request here, it goes no further without
//! the grant for this very cluster and a user, and it leaves with the service account's token or the user's own for this cluster, never with the
//! client's.

use envoy_types::pb::envoy::config::core::v3::ConfigSource;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::rbac::v3::permission::{Rule, Set};
use envoy_types::pb::envoy::config::rbac::v3::{self as rules, MetadataSource, Permission, Policy, Principal, SourcedMetadata, principal};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::credential_injector::v3::CredentialInjector;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, Mutations};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::upstream_codec::v3::UpstreamCodec;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::http::injected_credentials::generic::v3::Generic;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern as StringPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{MetadataMatcher, StringMatcher, ValueMatcher};

use super::input::MethodInput;
use super::message::{exactly, extension, http_filter, regex, write_header};
use super::names::{self, EXT_AUTHZ_NAMESPACE, GRANT_KEY};
use crate::defence::{Defence, off};
use crate::kubernetes::impersonation;

/// Go trims blanks, and an empty user runs as the service account: the value must begin and end with something else.
const NOT_BLANK: &str = r"\S(.*\S)?";

/// Not the filter's usual name: Envoy would give this filter the route's configuration of the late header mutation too, and write its
/// headers twice.
const CONNECTION_ON_UPGRADES: &str = "kubepass.connection_on_upgrades";

/// What the value of `authorization` must be where the user's token goes upstream.
const BEARER: &str = r"Bearer \S+";

/// `secrets`: where a service account's token comes from; `None` takes it from the bootstrap.
pub(super) fn for_cluster(route: &str, method: &MethodInput<'_>, secrets: Option<ConfigSource>) -> Vec<HttpFilter> {
    let credential = match method {
        MethodInput::Impersonate { .. } => Some(http_filter("envoy.filters.http.credential_injector", credential(route, secrets))),
        MethodInput::Jwt | MethodInput::Http { .. } => None,
    };
    let guard = Some(http_filter("envoy.filters.http.rbac", guard(&method.target(route), method)));
    let connection = Some(http_filter(CONNECTION_ON_UPGRADES, connection()));
    let filters = [
        guard.filter(|_| !off(Defence::Guard)),
        credential,
        connection.filter(|_| !off(Defence::ConnectionRewrite)),
        Some(http_filter("envoy.filters.http.upstream_codec", UpstreamCodec {})),
    ];
    filters.into_iter().flatten().collect()
}

fn guard(grant: &str, method: &MethodInput<'_>) -> Rbac {
    let identified = match method {
        MethodInput::Impersonate { .. } => vec![permission(has_user())],
        // Whatever the API server makes of impersonation by a user who may: none goes there.
        MethodInput::Jwt => vec![permission(has_token()), permission(none(any_user()))],
        // A token in the header that the upstream reads, and none of the client's credentials.
        MethodInput::Http { identity_header, .. } => {
            vec![permission(has_assertion(identity_header)), permission(none(any("authorization"))), permission(none(any_user()))]
        }
    };
    let all = Set { rules: std::iter::once(permission(granted(grant))).chain(identified).collect() };
    let policy = Policy {
        permissions: vec![permission(Rule::AndRules(all))],
        principals: vec![Principal { identifier: Some(principal::Identifier::Any(true)) }],
        ..Default::default()
    };
    let rules =
        rules::Rbac { action: rules::rbac::Action::Allow.into(), policies: [("granted".to_owned(), policy)].into(), ..Default::default() };
    Rbac { rules: Some(rules), ..Default::default() }
}

fn permission(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn granted(grant: &str) -> Rule {
    let metadata_matcher = MetadataMatcher {
        filter: EXT_AUTHZ_NAMESPACE.to_owned(),
        path: vec![PathSegment { segment: Some(path_segment::Segment::Key(GRANT_KEY.to_owned())) }],
        value: Some(ValueMatcher { match_pattern: Some(MatchPattern::StringMatch(exactly(grant))) }),
        invert: false,
    };
    Rule::SourcedMetadata(SourcedMetadata { metadata_matcher: Some(metadata_matcher), metadata_source: MetadataSource::Dynamic.into() })
}

fn has_user() -> Rule {
    header(impersonation::USER, HeaderMatchSpecifier::StringMatch(matching(NOT_BLANK)))
}

fn has_token() -> Rule {
    header("authorization", HeaderMatchSpecifier::StringMatch(matching(BEARER)))
}

fn has_assertion(identity_header: &str) -> Rule {
    header(identity_header, HeaderMatchSpecifier::StringMatch(matching(r"\S+")))
}

fn any_user() -> Rule {
    any(impersonation::USER)
}

fn any(name: &str) -> Rule {
    header(name, HeaderMatchSpecifier::PresentMatch(true))
}

fn none(rule: Rule) -> Rule {
    Rule::NotRule(Box::new(permission(rule)))
}

fn header(name: &str, specifier: HeaderMatchSpecifier) -> Rule {
    Rule::Header(HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() })
}

fn matching(pattern: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(StringPattern::SafeRegex(regex(pattern))), ignore_case: false }
}

fn credential(route: &str, secrets: Option<ConfigSource>) -> CredentialInjector {
    let generic = Generic {
        credential: Some(SdsSecretConfig { name: names::token_secret(route), sds_config: secrets }),
        header: "authorization".to_owned(),
        header_value_prefix: "Bearer ".to_owned(),
    };
    CredentialInjector {
        overwrite: !off(Defence::CredentialOverwrite),
        allow_request_without_credential: false,
        credential: Some(extension("envoy.http.injected_credentials.generic", generic)),
    }
}

/// On upgrades Envoy forwards the client's `connection`, which may nominate our headers for removal by the next hop.
fn connection() -> HeaderMutation {
    let rewrite = write_header("connection", "Upgrade", HeaderAppendAction::OverwriteIfExists);
    HeaderMutation { mutations: Some(Mutations { request_mutations: vec![rewrite], ..Default::default() }), ..Default::default() }
}
