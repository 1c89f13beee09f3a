//! What virtual hosts and routes say to filters by name (`typed_per_filter_config`). The same names reach the filters on a cluster's own side, so an
//! entry there could switch a guard off.

use std::collections::BTreeSet;

use super::http_filters::{EXT_AUTHZ_NAME, HEADER_MUTATION_NAME};
use super::mutations::{self, Step};
use super::part::Part;
use crate::envoy_names::TARGET_KEY;

const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
const HEADER_MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
/// Wraps the configuration of any filter.
const WRAPPER: &str = "envoy.config.route.v3.FilterConfig";
/// What these do touches neither identity nor path.
const HARMLESS: [&str; 3] = [
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
];

/// The target that this level names, as it is or redacted.
pub(super) fn target<'a>(level: &Part<'a>) -> Option<&'a str> {
    let entry = config(level).entry(EXT_AUTHZ_NAME);
    unwrapped(&entry).path("check_settings.context_extensions").entry(TARGET_KEY).text()
}

/// The header mutations that this level adds.
pub(super) fn mutations<'a>(level: &Part<'a>) -> Vec<(Step<'a>, Part<'a>)> {
    let entry = config(level).entry(HEADER_MUTATION_NAME);
    mutations::steps(&unwrapped(&entry).path("mutations.request_mutations"))
}

/// Judges one level. `guards`: names of the filters on protected clusters.
pub(super) fn judge(level: &Part<'_>, guards: &BTreeSet<&str>) {
    for (name, entry) in config(level).entries() {
        let settings = unwrapped(&entry);
        if wrapper_disables(&entry) {
            disabled(&entry, name, guards);
        }
        match name {
            EXT_AUTHZ_NAME => ext_authz(&settings),
            HEADER_MUTATION_NAME => header_mutation(&settings),
            _ if guards.contains(name) => entry.is_unsafe(
                "guard-overridden",
                "a filter on a protected cluster has this name, so this takes the place of its rules for these requests.",
                "nothing by this name on routes, virtual hosts and route configurations",
            ),
            _ if settings.type_name().is_some_and(|kind| HARMLESS.contains(&kind)) => {}
            _ => entry.not_understood("what this does to a filter is not known to this check."),
        }
    }
}

fn config<'a>(level: &Part<'a>) -> Part<'a> {
    level.field("typed_per_filter_config")
}

fn unwrapped<'a>(entry: &Part<'a>) -> Part<'a> {
    if entry.type_name() == Some(WRAPPER) { entry.field("config") } else { entry.clone() }
}

fn wrapper_disables(entry: &Part<'_>) -> bool {
    entry.type_name() == Some(WRAPPER) && entry.field("disabled").may_be_true()
}

fn disabled(entry: &Part<'_>, name: &str, guards: &BTreeSet<&str>) {
    match name {
        EXT_AUTHZ_NAME => without_check(entry),
        HEADER_MUTATION_NAME => entry.is_unsafe(
            "late-strip-disabled",
            "on these routes the client's impersonate-* headers stay, and nothing that kubepass grants is written.",
            "no `disabled` anywhere",
        ),
        _ if guards.contains(name) => {}
        _ => entry.not_understood("a filter is switched off here."),
    }
}

fn without_check(part: &Part<'_>) {
    part.is_unsafe(
        "ext-authz-disabled",
        "these requests are not checked at all.",
        "check_settings: {context_extensions: {target: ...}}; hosts that need no check belong on a filter chain of their own",
    );
}

fn ext_authz(settings: &Part<'_>) {
    if settings.type_name() != Some(EXT_AUTHZ) {
        return settings.not_understood("what this tells ext_authz is not known to this check.");
    }
    settings.only(&["disabled", "check_settings"]);
    if settings.field("disabled").may_be_true() {
        without_check(settings);
    }
    let check = settings.field("check_settings");
    for name in ["grpc_service", "http_service"] {
        let service = check.field(name);
        if service.is_there() {
            service.is_unsafe("ext-authz-elsewhere", "somebody else than kubepass decides on these requests.", "no service on a route");
        }
    }
    check.only(&["context_extensions", "disable_request_body_buffering", "grpc_service", "http_service"]);
}

fn header_mutation(settings: &Part<'_>) {
    if settings.type_name() != Some(HEADER_MUTATION) {
        return settings.not_understood("what this tells the header mutation is not known to this check.");
    }
    settings.only(&["mutations"]);
    let mutations = settings.field("mutations");
    mutations.only(&["request_mutations", "response_mutations", "response_trailers_mutations"]);
    mutations::shape(&mutations);
    mutations::written(&mutations::steps(&mutations.field("request_mutations")));
}
