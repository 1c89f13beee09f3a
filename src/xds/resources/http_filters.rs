//! The HTTP filters of every listener (behind proxies, first the one that tells ext_authz the source): ext_authz, the late header mutation, the router. Their configuration never changes, so that no
//! change of the product's configuration drains a filter chain.

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutationRules;
use envoy_types::pb::envoy::config::core::v3::{ApiVersion, RuntimeFeatureFlag};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    CheckSettings, ExtAuthz, ExtAuthzPerRoute, ext_authz, ext_authz_per_route,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode};

use super::identity_headers::{self, HEADER_MUTATION};
use super::message::{enabled, grpc_service, http_filter, milliseconds, regex};
use super::names::{EXT_AUTHZ_CLUSTER, SETTABLE, TARGET_KEY};
use crate::defence::{Defence, off};

/// Name of the filter, and key of its configuration on a route.
pub(super) const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";

/// Not the usual name of such a filter: a route's configuration of the late header mutation is not for this one.
const TELL_SOURCE: &str = "kubepass.source";

/// A check that takes longer is answered 503 by Envoy. Never 0: that would mean no limit.
const CHECK_TIMEOUT_MILLISECONDS: u32 = 1000;

/// `forwarded`: the source of a request is what a proxy said. ext_authz would name the proxy, so it is told besides.
pub(super) fn http_filters(forwarded: bool) -> Vec<HttpFilter> {
    let router = Router { suppress_envoy_headers: true, ..Default::default() };
    let filters = [
        http_filter(EXT_AUTHZ, ext_authz()),
        http_filter(HEADER_MUTATION, identity_headers::for_all_routes()),
        http_filter("envoy.filters.http.router", router),
    ];
    let source = forwarded.then(|| http_filter(TELL_SOURCE, identity_headers::source_for_check()));
    source.into_iter().chain(filters).collect()
}

/// What the check of a route's requests is told: the route's target, the only thing by which ext_authz chooses a policy.
pub(super) fn ext_authz_target(target: &str) -> ExtAuthzPerRoute {
    let settings = CheckSettings { context_extensions: [(TARGET_KEY.to_owned(), target.to_owned())].into(), ..Default::default() };
    ExtAuthzPerRoute { r#override: Some(ext_authz_per_route::Override::CheckSettings(settings)) }
}

fn ext_authz() -> ExtAuthz {
    ExtAuthz {
        transport_api_version: ApiVersion::V3.into(),
        services: grpc_service(EXT_AUTHZ_CLUSTER, milliseconds(CHECK_TIMEOUT_MILLISECONDS)).map(ext_authz::Services::GrpcService),
        failure_mode_allow: off(Defence::FailClosed),
        // 403 would look like a refusal by RBAC; clients try again on 503.
        status_on_error: Some(HttpStatus { code: StatusCode::ServiceUnavailable.into() }),
        validate_mutations: true,
        decoder_header_mutation_rules: (!off(Defence::MutationRules)).then(mutation_rules),
        // A filter that is switched off at run time denies.
        deny_at_disable: Some(RuntimeFeatureFlag { default_value: enabled(), runtime_key: "ext_authz.deny_at_disable".to_owned() }),
        include_tls_session: true,
        charge_cluster_response_stats: Some(Default::default()),
        // Otherwise lines of one name arrive joined, and a client could hide one behind another.
        encode_raw_headers: true,
        enable_dynamic_metadata_ingestion: enabled(),
        emit_filter_state_stats: true,
        max_denied_response_body_bytes: 8192,
        enforce_response_header_limits: true,
        ..Default::default()
    }
}

/// Anything else is answered 500.
fn mutation_rules() -> HeaderMutationRules {
    HeaderMutationRules {
        disallow_all: enabled(),
        disallow_system: enabled(),
        disallow_is_error: enabled(),
        allow_expression: Some(regex(&format!("({})", SETTABLE.join("|")))),
        ..Default::default()
    }
}
