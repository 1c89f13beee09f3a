//! The filter that asks kubepass: that it always asks, sees everything, waits for an answer, and takes a failure for a refusal.

use super::part::Part;
use super::protected::Survey;
use crate::envoy_names::{AUDIT_ID, SETTABLE, STREAM_DURATION};

pub(super) const TYPE: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

pub(super) fn judge(config: &Part<'_>, survey: &Survey<'_>) {
    config.only(&[
        "grpc_service",
        "http_service",
        "transport_api_version",
        "failure_mode_allow",
        "failure_mode_allow_header_add",
        "with_request_body",
        "clear_route_cache",
        "clear_route_cache_headers",
        "status_on_error",
        "validate_mutations",
        "metadata_context_namespaces",
        "typed_metadata_context_namespaces",
        "route_metadata_context_namespaces",
        "route_typed_metadata_context_namespaces",
        "filter_enabled",
        "filter_enabled_metadata",
        "deny_at_disable",
        "include_peer_certificate",
        "stat_prefix",
        "bootstrap_metadata_labels_key",
        "allowed_headers",
        "disallowed_headers",
        "include_tls_session",
        "charge_cluster_response_stats",
        "encode_raw_headers",
        "decoder_header_mutation_rules",
        "enable_dynamic_metadata_ingestion",
        "filter_metadata",
        "emit_filter_state_stats",
        "max_denied_response_body_bytes",
        "enforce_response_header_limits",
        "shadow_mode",
        "emit_client_span",
    ]);
    service(config, survey);
    always_asks(config);
    failures(config);
    sees_everything(config);
    answers(config);
}

fn service(config: &Part<'_>, survey: &Survey<'_>) {
    let service = config.field("grpc_service");
    let cluster = service.path("envoy_grpc.cluster_name");
    let Some(name) = cluster.text() else {
        config.not_understood("kubepass is asked by `grpc_service: {envoy_grpc: {cluster_name: ...}}`, and this asks otherwise.");
        return;
    };
    if survey.named(name).next().is_none() {
        cluster.not_understood("no cluster of this name is in the document, so who decides cannot be told.");
    }
    let timeout = service.field("timeout");
    if timeout.is_there() && timeout.seconds().is_none_or(|seconds| seconds <= 0.0) {
        timeout.is_unsafe(
            "ext-authz-timeout",
            "0 means no limit: a check that hangs holds its request, and what it has taken, for ever.",
            "timeout: 1s",
        );
    }
}

fn always_asks(config: &Part<'_>) {
    for name in ["filter_enabled", "filter_enabled_metadata"] {
        let part = config.field(name);
        if part.is_there() {
            part.is_unsafe(
                "ext-authz-sometimes",
                "only some requests are checked; a runtime value or metadata decides which.",
                "leave it out",
            );
        }
    }
    if config.field("shadow_mode").may_be_true() {
        config.is_unsafe("ext-authz-shadow", "refusals are written down and not carried out.", "shadow_mode: false, or leave it out");
    }
    if !config.path("deny_at_disable.default_value").is_true() {
        config.is_unsafe(
            "deny-at-disable",
            "should the filter ever be switched off at run time, requests would pass unchecked.",
            "deny_at_disable: {default_value: true, runtime_key: ext_authz.deny_at_disable}",
        );
    }
}

fn failures(config: &Part<'_>) {
    if config.field("failure_mode_allow").may_be_true() {
        config.is_unsafe(
            "failure-mode-allow",
            "while kubepass is away, slow or answers nonsense, everybody passes unchecked.",
            "failure_mode_allow: false, or leave it out",
        );
    }
    let status = config.path("status_on_error.code");
    let names = ["InternalServerError", "BadGateway", "ServiceUnavailable", "GatewayTimeout"];
    let fails = status.text().is_some_and(|name| names.contains(&name)) || status.number().is_some_and(|code| (500..600).contains(&code));
    if !fails {
        config.breaks(
            "status-on-error",
            "a failed check looks like a refusal by RBAC, and clients do not try again.",
            "status_on_error: {code: ServiceUnavailable}",
        );
    }
}

fn sees_everything(config: &Part<'_>) {
    if !config.field("encode_raw_headers").is_true() {
        config.is_unsafe(
            "encode-raw-headers",
            "lines of one name arrive joined by commas, so a client can hide a second `authorization` or `impersonate-group` behind the first.",
            "encode_raw_headers: true",
        );
    }
    for name in ["allowed_headers", "disallowed_headers"] {
        let part = config.field(name);
        if part.is_there() {
            part.is_unsafe("headers-withheld", "kubepass must see every header to refuse those that forge an identity.", "leave it out");
        }
    }
    if config.field("with_request_body").is_there() {
        config.breaks("request-body", "an exec over SPDY hangs for ever while its body is waited for.", "leave `with_request_body` out");
    }
    if !config.field("include_tls_session").is_true() {
        config.breaks(
            "tls-session",
            "kubepass compares the host with the name that the connection was opened for, and refuses without it.",
            "include_tls_session: true",
        );
    }
}

fn answers(config: &Part<'_>) {
    for name in ["clear_route_cache", "clear_route_cache_headers"] {
        if config.field(name).may_be_true() {
            config.field(name).is_unsafe(
                "route-moved",
                "after the check the request may take another route than the one that was judged.",
                "leave it out",
            );
        }
    }
    if !config.field("validate_mutations").is_true() {
        config.breaks(
            "validate-mutations",
            "an answer with a bad header would be told to the client with that header's name.",
            "validate_mutations: true",
        );
    }
    let ingests = config.field("enable_dynamic_metadata_ingestion");
    if ingests.is_there() && !ingests.is_true() {
        ingests.breaks(
            "metadata-ignored",
            "the grant and the identity arrive as metadata, and would be dropped.",
            "enable_dynamic_metadata_ingestion: true, or leave it out",
        );
    }
    rules(&config.field("decoder_header_mutation_rules"));
}

fn rules(rules: &Part<'_>) {
    let instead = format!(
        "{{disallow_all: true, disallow_system: true, disallow_is_error: true, allow_expression: {{regex: ({})}}}}",
        SETTABLE.join("|")
    );
    if !rules.is_there() {
        rules.is_unsafe(
            "mutation-rules",
            "an answer to a check could rewrite path, host or any header after the request was judged and routed.",
            &instead,
        );
        return;
    }
    rules.only(&[
        "allow_all_routing",
        "allow_envoy",
        "disallow_system",
        "disallow_all",
        "allow_expression",
        "disallow_expression",
        "disallow_is_error",
    ]);
    let loose = ["allow_all_routing", "allow_envoy"].iter().any(|name| rules.field(name).may_be_true());
    let strict = ["disallow_all", "disallow_system"].iter().all(|name| rules.field(name).is_true());
    let expression = rules.path("allow_expression.regex").text().unwrap_or_default();
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(expression);
    let names: Vec<&str> = inner.split('|').filter(|name| !name.is_empty()).collect();
    if loose || !strict || names.iter().any(|name| !SETTABLE.contains(name)) {
        rules.is_unsafe("mutation-rules", "more may be set by an answer than kubepass ever sets.", &instead);
    }
    if [AUDIT_ID, STREAM_DURATION].iter().any(|name| !names.contains(name)) {
        rules.breaks("mutation-rules-too-strict", "every answer of kubepass sets these headers, and would be refused.", &instead);
    }
}
