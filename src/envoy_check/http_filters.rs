//! The order of a connection manager's filters: the check, the late mutation, the router, and nothing between that could undo what they do.

use super::mutations::{self, HEADER_MUTATION, Step};
use super::part::Part;
use super::protected::Survey;
use super::{access_log, ext_authz};

/// The names that the metadata's namespace and the routes' configuration go by.
pub(super) const EXT_AUTHZ_NAME: &str = "envoy.filters.http.ext_authz";
pub(super) const HEADER_MUTATION_NAME: &str = "envoy.filters.http.header_mutation";

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// They let a request go on as it is, or answer it themselves; none writes headers of requests or metadata that counts here.
const HARMLESS_BEFORE: [&str; 5] = [
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck",
];

/// The filter as such, whatever it does: there, and never skipped.
pub(super) fn plain(filter: &Part<'_>) {
    filter.only(&["name", "typed_config", "disabled", "is_optional", "config_discovery"]);
    if filter.field("disabled").may_be_true() {
        filter.is_unsafe("filter-disabled", "the filter is off unless a route switches it on.", "leave `disabled` out");
    }
    if filter.field("is_optional").may_be_true() {
        filter.is_unsafe(
            "filter-optional",
            "an Envoy that does not know the filter leaves it out and says nothing.",
            "leave `is_optional` out",
        );
    }
    if filter.field("config_discovery").is_there() {
        filter.not_understood("what the filter does comes from elsewhere (ECDS).");
    }
}

/// Whether a check is among the filters.
pub(super) fn has_check(filters: &[Part<'_>]) -> bool {
    filters.iter().any(|filter| filter.typed(ext_authz::TYPE).is_some())
}

/// What the late mutation does to every route's requests.
pub(super) fn late_steps<'a>(filters: &[Part<'a>]) -> Vec<(Step<'a>, Part<'a>)> {
    let late = |filter: &Part<'a>| filter.typed(HEADER_MUTATION).filter(|config| !mutations::tells_source(config));
    let list = |filter: &Part<'a>| Some(late(filter)?.path("mutations.request_mutations"));
    filters.iter().find_map(list).map(|list| mutations::steps(&list)).unwrap_or_default()
}

pub(super) fn judge(manager: &Part<'_>, filters: &[Part<'_>], survey: &Survey<'_>, impersonates: bool) {
    let list = manager.field("http_filters");
    let position = |kind: &str| filters.iter().position(|filter| filter.typed(kind).is_some());
    let is_late = |filter: &Part<'_>| filter.typed(HEADER_MUTATION).is_some_and(|config| !mutations::tells_source(&config));
    let (check, late, router) = (position(ext_authz::TYPE), filters.iter().position(is_late), position(ROUTER));
    if check.is_none() {
        list.is_unsafe(
            "ext-authz-missing",
            "requests of this filter chain are not checked at all.",
            "envoy.filters.http.ext_authz first, as in envoy/own.yaml",
        );
    }
    if late.is_none() {
        list.is_unsafe(
            "late-strip-missing",
            "impersonate-* headers of the client go to the API server as they are, and nothing that kubepass grants is written.",
            "envoy.filters.http.header_mutation between ext_authz and the router, as in envoy/own.yaml",
        );
    }
    if let (Some(check), Some(late)) = (check, late)
        && late < check
    {
        list.is_unsafe(
            "filters-order",
            "the header mutation runs before the check: it writes nothing that kubepass grants, and hides from it what the client forged.",
            "ext_authz, then header_mutation, then the router",
        );
    }
    for (index, filter) in filters.iter().enumerate() {
        plain(filter);
        let first = |found: Option<usize>| found == Some(index);
        if let Some(config) = filter.typed(ext_authz::TYPE).filter(|_| first(check)) {
            named(filter, EXT_AUTHZ_NAME);
            ext_authz::judge(&config, survey);
        } else if let Some(config) = filter.typed(HEADER_MUTATION).filter(|_| first(late)) {
            named(filter, HEADER_MUTATION_NAME);
            mutations::late(&config, impersonates);
        } else if let Some(config) = filter.typed(ROUTER).filter(|_| first(router)) {
            config.only(&[
                "dynamic_stats",
                "start_child_span",
                "upstream_log",
                "upstream_log_options",
                "suppress_envoy_headers",
                "strict_check_headers",
                "respect_expected_rq_timeout",
                "suppress_grpc_request_failure_code_stats",
                "reject_connect_request_early_data",
            ]);
            access_log::logs(&config.field("upstream_log"));
        } else {
            other(filter, check.is_some_and(|check| index < check));
        }
    }
}

fn named(filter: &Part<'_>, name: &str) {
    if filter.field("name").text() != Some(name) {
        let why = format!("routes speak to this filter, and its metadata is found, by the name {name}.");
        filter.is_unsafe("filter-name", &why, &format!("name: {name}"));
    }
}

fn other(filter: &Part<'_>, is_before: bool) {
    let kind = filter.field("typed_config").type_name();
    let tells = filter.typed(HEADER_MUTATION).is_some_and(|config| mutations::tells_source(&config));
    if is_before && tells && filter.field("name").text() != Some(HEADER_MUTATION_NAME) {
        return;
    }
    if is_before && kind.is_some_and(|kind| HARMLESS_BEFORE.contains(&kind)) {
        return;
    }
    if kind.is_some_and(|kind| HARMLESS_BEFORE.contains(&kind)) {
        filter.is_unsafe(
            "filters-order",
            "between the check and the router nothing may stand but the header mutation.",
            "this filter before ext_authz",
        );
        return;
    }
    filter.unknown_extension("an HTTP filter");
}
