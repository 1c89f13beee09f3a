//! An HTTP connection manager through which people reach protected servers: what a client may say, what kubepass sees of it, and that both are the
//! same as what the server gets.

use super::document::Document;
use super::listener::ranges;
use super::part::Part;
use super::protected::{Protection, Survey};
use super::{access_log, http_filters, mutations, per_route, routes};
use crate::envoy_names::{CLIENT_HEADER_PREFIXES, CLIENT_HEADERS};
use crate::kubernetes::impersonation;

pub(super) const TYPE: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const XFF: &str = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
const EARLY: &str = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";

/// Of a trusted proxy `x-forwarded-for` counts; these do not, nor does any other, as the last one shows.
const FORWARDED: [&str; 9] = [
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-client-cert",
    "x-forwarded-prefix",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-any-other",
];

const FIELDS: &[&str] = &[
    "codec_type",
    "stat_prefix",
    "http_filters",
    "add_user_agent",
    "tracing",
    "common_http_protocol_options",
    "http_protocol_options",
    "http2_protocol_options",
    "server_name",
    "server_header_transformation",
    "max_request_headers_kb",
    "stream_idle_timeout",
    "stream_flush_timeout",
    "request_timeout",
    "request_headers_timeout",
    "drain_timeout",
    "delayed_close_timeout",
    "access_log",
    "access_log_flush_interval",
    "flush_access_log_on_new_request",
    "access_log_options",
    "use_remote_address",
    "xff_num_trusted_hops",
    "original_ip_detection_extensions",
    "early_header_mutation_extensions",
    "internal_address_config",
    "skip_xff_append",
    "via",
    "generate_request_id",
    "preserve_external_request_id",
    "always_set_request_id_in_response",
    "forward_client_cert_details",
    "set_current_client_cert_details",
    "upgrade_configs",
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "local_reply_config",
    "strip_matching_host_port",
    "strip_any_host_port",
    "strip_trailing_host_dot",
    "stream_error_on_invalid_http_message",
    "proxy_status_config",
    "append_x_forwarded_port",
    "append_local_overload",
    "add_proxy_protocol_connection_state",
    "route_config",
    "rds",
    "scoped_routes",
];

/// Judges the manager, where it leads to a protected server or asks kubepass, and says that it does; where it does neither, only that it leads
/// nowhere that must not be reached so.
pub(super) fn judge(manager: &Part<'_>, chain: &Part<'_>, document: &Document<'_>, survey: &Survey<'_>) -> bool {
    let filters = manager.field("http_filters").items();
    let configs = document.routes_of(manager);
    let mut destinations = configs.iter().flat_map(routes::clusters);
    let leads = destinations.any(|name| survey.named(name).any(|cluster| cluster.protection.is_some()));
    let targeted = || configs.iter().flat_map(routes::targets).any(|(target, _)| target.is_some());
    if !leads && !http_filters::has_check(&filters) && !targeted() {
        configs.iter().for_each(|config| routes::judge_foreign(config, survey));
        return false;
    }
    manager.only(FIELDS);
    let impersonates = survey.clusters().any(|cluster| cluster.protection == Some(Protection::Kubernetes) && cluster.has_credential);
    http_filters::judge(manager, &filters, survey, impersonates);
    let behind_proxies = trusts_its_proxies(manager, chain);
    early_headers(manager, behind_proxies);
    peer(manager, behind_proxies);
    path(manager);
    protocol(manager);
    timeouts(manager);
    access_log::judge(manager);
    access_log::answers(&manager.field("local_reply_config"));
    let late = http_filters::late_steps(&filters);
    let guards = survey.clusters().filter(|cluster| cluster.protection.is_some());
    let guards =
        guards.flat_map(|cluster| super::cluster::http_filters(&cluster.part)).filter_map(|filter| filter.field("name").text()).collect();
    for config in &configs {
        per_route::judge(config, &guards);
        routes::judge(config, manager, survey, &late, &guards);
    }
    true
}

/// Whether `x-forwarded-for` counts here, and only what proxies say whose connections alone come to this chain.
fn trusts_its_proxies(manager: &Part<'_>, chain: &Part<'_>) -> bool {
    let detection = manager.field("original_ip_detection_extensions").items();
    let [only] = detection.as_slice() else { return false };
    let Some(config) = only.typed(XFF) else { return false };
    config.only(&["xff_trusted_cidrs", "skip_xff_append"]);
    let trusted = ranges(&config.path("xff_trusted_cidrs.cidrs"));
    trusted.is_some() && trusted == ranges(&chain.path("filter_chain_match.source_prefix_ranges"))
}

fn early_headers(manager: &Part<'_>, behind_proxies: bool) {
    let extensions = manager.field("early_header_mutation_extensions");
    let mut lists = Vec::new();
    for extension in extensions.items() {
        match extension.typed(EARLY) {
            Some(config) => {
                config.only(&["mutations"]);
                lists.push(config.field("mutations"));
            }
            None => extension.unknown_extension("an early header mutation"),
        }
    }
    let steps = mutations::early(lists.into_iter());
    let all_but_for = FORWARDED.iter().all(|name| steps.iter().any(|step| step.removes(name)));
    let goes = |prefix: &str| {
        let kept_for = behind_proxies && prefix == "x-forwarded-" && all_but_for;
        kept_for || steps.iter().any(|step| step.removes_all_with(prefix))
    };
    let prefixes = CLIENT_HEADER_PREFIXES.iter().filter(|prefix| !goes(prefix));
    let names = CLIENT_HEADERS.iter().filter(|name| !steps.iter().any(|step| step.removes(name)));
    let missing: Vec<String> = prefixes.map(|prefix| format!("{prefix}*")).chain(names.map(|name| (*name).to_owned())).collect();
    if !missing.is_empty() {
        let why = format!(
            "what the client sends under these names is believed by kubepass, the API server or its audit log: {}.",
            missing.join(", ")
        );
        extensions.is_unsafe(
            "early-strip",
            &why,
            "envoy.http.early_header_mutation.header_mutation that removes all of them, as in envoy/own.yaml",
        );
    }
    if steps.iter().any(|step| step.removes(impersonation::USER) || step.removes(impersonation::GROUP)) {
        extensions.breaks(
            "early-impersonate",
            "kubepass does not see that somebody tried `--as`, and answers as if they had not.",
            "leave impersonate-* to the late mutation",
        );
    }
}

/// Who the peer is, and under which id the request goes.
fn peer(manager: &Part<'_>, behind_proxies: bool) {
    if !behind_proxies && !manager.field("use_remote_address").is_true() {
        manager.is_unsafe("remote-address", "the client itself says from which address it comes.", "use_remote_address: true");
    }
    let hops = manager.field("xff_num_trusted_hops");
    if hops.is_there() && hops.number() != Some(0) {
        hops.is_unsafe(
            "trusted-hops",
            "as many addresses in x-forwarded-for are believed, whoever wrote them.",
            "xff_num_trusted_hops: 0; behind a load balancer the PROXY protocol from its addresses alone",
        );
    }
    let detection = manager.field("original_ip_detection_extensions");
    if !behind_proxies && !detection.items().is_empty() {
        detection.is_unsafe(
            "trusted-hops",
            "a header tells from which address the client comes, whoever connected.",
            "xff_trusted_cidrs, on a filter chain whose source_prefix_ranges are the same addresses; or leave it out",
        );
    }
    if manager.field("generate_request_id").is_there() && !manager.field("generate_request_id").is_true() {
        manager.is_unsafe(
            "request-id",
            "without an id of Envoy's own the two audit trails cannot be joined.",
            "generate_request_id: true, or leave it out",
        );
    }
    if manager.field("preserve_external_request_id").may_be_true() {
        manager.is_unsafe(
            "request-id",
            "the client chooses the id under which its requests stand in the audit trails.",
            "preserve_external_request_id: false, or leave it out",
        );
    }
}

fn path(manager: &Part<'_>) {
    let action = manager.field("path_with_escaped_slashes_action");
    let normalises = manager.field("normalize_path").is_true() && manager.field("merge_slashes").is_true();
    if !normalises {
        manager.is_unsafe(
            "path-not-normalised",
            "kubepass and the API server could read one path in two ways.",
            "normalize_path: true, merge_slashes: true",
        );
    }
    if !action.is_one_of(&[("REJECT_REQUEST", 2)]) {
        manager.is_unsafe(
            "escaped-slashes",
            "`%2F` is a slash to one party and a letter to the other.",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
        );
    }
}

fn protocol(manager: &Part<'_>) {
    let underscores = manager.path("common_http_protocol_options.headers_with_underscores_action");
    if !underscores.is_one_of(&[("REJECT_REQUEST", 1), ("DROP_HEADER", 2)]) {
        manager.is_unsafe(
            "underscores",
            "`impersonate_user` passes every filter here and is Impersonate-User to some servers.",
            "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}",
        );
    }
    let codec = manager.field("codec_type");
    if codec.is_there() && !codec.is_one_of(&[("AUTO", 0), ("HTTP1", 1)]) {
        codec.breaks("no-http1", "exec, attach and port-forward need HTTP/1.1.", "codec_type: AUTO");
    }
    for name in ["http_protocol_options.allow_chunked_length", "http2_protocol_options.allow_connect"] {
        if manager.path(name).may_be_true() {
            manager.path(name).is_unsafe("smuggling", "one request could carry another past the check.", "leave it out");
        }
    }
    let upgrades = manager.field("upgrade_configs");
    let items = upgrades.items();
    for upgrade in &items {
        upgrade.only(&["upgrade_type", "filters", "enabled"]);
        if upgrade.field("filters").is_there() {
            upgrade.is_unsafe(
                "upgrade-filters",
                "these upgrades have a filter chain of their own, past the check.",
                "no `filters` on an upgrade",
            );
        }
        routes::connect(upgrade);
    }
    for wanted in ["websocket", "spdy/3.1"] {
        let has = |upgrade: &Part<'_>| {
            let on = !upgrade.field("enabled").is_there() || upgrade.field("enabled").is_true();
            on && upgrade.field("upgrade_type").text().is_some_and(|name| name.eq_ignore_ascii_case(wanted))
        };
        if !items.iter().any(has) {
            let why = format!("exec, attach and port-forward of some clients upgrade to {wanted}, which is refused.");
            upgrades.breaks("upgrades", &why, "upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: SPDY/3.1}]");
        }
    }
}

fn timeouts(manager: &Part<'_>) {
    let headers = manager.field("request_headers_timeout");
    if headers.seconds().is_none_or(|seconds| seconds <= 0.0) {
        manager.is_unsafe(
            "slow-headers",
            "a client that sends its headers for ever holds a connection for ever.",
            "request_headers_timeout: 10s",
        );
    }
    let request = manager.field("request_timeout");
    if request.is_there() && request.seconds() != Some(0.0) {
        request.breaks("stream-cut", "uploads and upgrades that take longer are cut.", "request_timeout: 0s, or leave it out");
    }
}
