//! Routes: that each way to a protected server has a target, the whole header path, and the request as it was judged; and that no other way leads there.

use std::collections::BTreeSet;

use super::mutations::{self, RouteKind, Step};
use super::part::Part;
use super::protected::{self, ClusterView, Protection, Survey};
use super::{access_log, per_route};
use crate::envoy_names::{AUDIT_ID, STREAM_DURATION};

const ACTION: &[&str] = &[
    "cluster",
    "weighted_clusters",
    "cluster_not_found_response_code",
    "metadata_match",
    "append_x_forwarded_host",
    "timeout",
    "idle_timeout",
    "flush_timeout",
    "retry_policy",
    "priority",
    "rate_limits",
    "include_vh_rate_limits",
    "hash_policy",
    "cors",
    "max_grpc_timeout",
    "grpc_timeout_offset",
    "upgrade_configs",
    "internal_redirect_action",
    "max_stream_duration",
    "host_rewrite_literal",
    "auto_host_rewrite",
    // Judged by name.
    "cluster_header",
    "prefix_rewrite",
    "regex_rewrite",
    "path_rewrite",
    "path_rewrite_policy",
    "request_mirror_policies",
];

/// Reads a list of routes: what they lead to is judged whatever they are.
struct RouteAt<'p, 'a> {
    config: &'p Part<'a>,
    host: Part<'a>,
    route: Part<'a>,
}

impl<'a> RouteAt<'_, 'a> {
    fn action(&self) -> Part<'a> {
        self.route.field("route")
    }

    /// From the most specific level to the least.
    fn levels(&self) -> [Part<'a>; 3] {
        [self.route.clone(), self.host.clone(), self.config.clone()]
    }

    fn target(&self) -> Option<&'a str> {
        self.levels().iter().find_map(per_route::target)
    }

    /// Each with the place that names it.
    fn clusters(&self) -> Vec<(Part<'a>, &'a str)> {
        named(&self.route)
    }
}

fn named<'a>(route: &Part<'a>) -> Vec<(Part<'a>, &'a str)> {
    let plain = route.path("route.cluster");
    let weighted = route.path("route.weighted_clusters.clusters").items();
    let parts = std::iter::once(plain).chain(weighted.iter().map(|part| part.field("name")));
    parts.filter_map(|part| part.text().map(|name| (part, name))).collect()
}

fn all<'p, 'a>(config: &'p Part<'a>) -> Vec<RouteAt<'p, 'a>> {
    let hosts = config.field("virtual_hosts").items().into_iter();
    hosts
        .flat_map(|host| host.field("routes").items().into_iter().map(move |route| RouteAt { config, host: host.clone(), route }))
        .collect()
}

/// Names of the clusters that routes lead to.
pub(super) fn clusters<'a>(config: &Part<'a>) -> Vec<&'a str> {
    all(config).iter().flat_map(RouteAt::clusters).map(|(_, name)| name).collect()
}

/// Each route's target with the cluster that it leads to.
pub(super) fn targets<'a>(config: &Part<'a>) -> Vec<(Option<&'a str>, &'a str)> {
    let of = |route: &RouteAt<'_, 'a>| {
        let target = route.target();
        route.clusters().into_iter().map(move |(_, name)| (target, name)).collect::<Vec<_>>()
    };
    all(config).iter().flat_map(of).collect()
}

/// Routes without a check: none may lead to a protected server.
pub(super) fn judge_foreign(config: &Part<'_>, survey: &Survey<'_>) {
    whole(config);
    for route in all(config) {
        destinations(&route, survey);
    }
}

/// Routes behind the check.
pub(super) fn judge(config: &Part<'_>, manager: &Part<'_>, survey: &Survey<'_>, late: &[(Step<'_>, Part<'_>)], guards: &BTreeSet<&str>) {
    whole(config);
    config.only(&[
        "name",
        "virtual_hosts",
        "internal_only_headers",
        "response_headers_to_add",
        "response_headers_to_remove",
        "request_headers_to_add",
        "request_headers_to_remove",
        "validate_clusters",
        "max_direct_response_body_size_bytes",
        "ignore_port_in_host_matching",
        "typed_per_filter_config",
        "metadata",
        "vhds",
        "cluster_specifier_plugins",
        "request_mirror_policies",
    ]);
    headers(config);
    for host in config.field("virtual_hosts").items() {
        virtual_host(&host, survey, guards);
    }
    for route in all(config) {
        per_route::judge(&route.route, guards);
        route_fields(&route);
        for (_, cluster) in destinations(&route, survey) {
            if let Some(protection) = cluster.protection {
                to_protected(&route, cluster, protection, manager, late);
            }
        }
    }
}

/// Parts of a route configuration that lead elsewhere in ways that cannot be followed here.
fn whole(config: &Part<'_>) {
    for name in ["vhds", "cluster_specifier_plugins"] {
        if config.field(name).is_there() {
            config.field(name).not_understood("where requests go is not in this document.");
        }
    }
    for host in config.field("virtual_hosts").items().iter().filter(|host| host.field("matcher").is_there()) {
        host.field("matcher").not_understood("routes in a matching tree are not followed here.");
    }
    for place in std::iter::once(config.clone()).chain(config.field("virtual_hosts").items()) {
        mirrored(&place);
    }
}

fn mirrored(place: &Part<'_>) {
    let mirror = place.field("request_mirror_policies");
    if !mirror.items().is_empty() {
        mirror.is_unsafe(
            "mirrored",
            "a copy of each request goes elsewhere, with the identity and credentials that it carries there.",
            "leave it out",
        );
    }
}

fn virtual_host(host: &Part<'_>, survey: &Survey<'_>, guards: &BTreeSet<&str>) {
    host.only(&[
        "name",
        "domains",
        "routes",
        "matcher",
        "require_tls",
        "virtual_clusters",
        "rate_limits",
        "request_headers_to_add",
        "request_headers_to_remove",
        "response_headers_to_add",
        "response_headers_to_remove",
        "cors",
        "typed_per_filter_config",
        "include_request_attempt_count",
        "include_attempt_count_in_response",
        "per_request_buffer_limit_bytes",
        "request_body_buffer_limit",
        "request_mirror_policies",
        "metadata",
        "retry_policy",
    ]);
    headers(host);
    retries(host);
    per_route::judge(host, guards);
    let leads =
        host.field("routes").items().iter().flat_map(named).any(|(_, name)| survey.named(name).any(|cluster| cluster.protection.is_some()));
    for domain in host.field("domains").items() {
        if leads && domain.text().is_none_or(|name| name.contains('*')) {
            domain.is_unsafe(
                "wildcard-host",
                "requests for any host are taken for this one, also those of a connection that was opened for another.",
                "the exact host of the route in kubepass.yaml",
            );
        }
    }
}

fn route_fields(at: &RouteAt<'_, '_>) {
    at.route.only(&[
        "name",
        "match",
        "metadata",
        "decorator",
        "typed_per_filter_config",
        "request_headers_to_add",
        "request_headers_to_remove",
        "response_headers_to_add",
        "response_headers_to_remove",
        "tracing",
        "per_request_buffer_limit_bytes",
        "request_body_buffer_limit",
        "stat_prefix",
        "route",
        "redirect",
        "direct_response",
    ]);
    headers(&at.route);
    let action = at.action();
    action.only(ACTION);
    mirrored(&action);
    retries(&action);
    let redirects = action.field("internal_redirect_action");
    if redirects.is_there() && !redirects.is_one_of(&[("PASS_THROUGH_INTERNAL_REDIRECT", 0)]) {
        redirects.not_understood("Envoy follows redirects of the server by itself.");
    }
    for upgrade in action.field("upgrade_configs").items() {
        connect(&upgrade);
    }
    for weighted in action.path("weighted_clusters.clusters").items() {
        weighted.only(&["name", "weight"]);
    }
}

/// CONNECT makes of a request a tunnel to anywhere.
pub(super) fn connect(upgrade: &Part<'_>) {
    let kind = upgrade.field("upgrade_type").text().unwrap_or_default();
    if kind.eq_ignore_ascii_case("CONNECT") || kind.eq_ignore_ascii_case("CONNECT-UDP") || upgrade.field("connect_config").is_there() {
        upgrade.is_unsafe("connect", "a CONNECT request opens a tunnel that nothing looks into.", "websocket and SPDY/3.1 alone");
    }
}

/// Headers that routes add come behind the filters, so they must be no identity.
fn headers(place: &Part<'_>) {
    for added in place.field("request_headers_to_add").items() {
        let (name, value) = (added.path("header.key").text(), added.path("header.value").text());
        let harmless = name.zip(value).is_some_and(|(name, value)| {
            let name = name.to_ascii_lowercase();
            name != "authorization" && name != "cookie" && !name.starts_with("impersonate-") && mutations::may_be_written(&name, value)
        });
        if !harmless {
            added.is_unsafe(
                "identity-from-elsewhere",
                "a header by which the API server learns who asks, from where or under which id is written behind kubepass's back.",
                "leave it out: the late mutation writes identities, the credential injector credentials",
            );
        }
    }
    for removed in place.field("request_headers_to_remove").items() {
        let name = removed.text().unwrap_or_default().to_ascii_lowercase();
        let kept = ["", "authorization", "connection", AUDIT_ID, STREAM_DURATION];
        if kept.contains(&name.as_str()) || name.starts_with("impersonate-") {
            removed.is_unsafe("identity-removed", "what kubepass granted is removed behind it.", "leave it out");
        }
    }
    access_log::answers(&place.field("response_headers_to_add"));
}

/// Only what never reached the server may be sent again.
fn retries(place: &Part<'_>) {
    let policy = place.field("retry_policy");
    let safe = ["connect-failure", "refused-stream", "reset-before-request"];
    let conditions = policy.field("retry_on").text().unwrap_or_default();
    if policy.is_there() && !conditions.split(',').all(|condition| safe.contains(&condition.trim())) {
        policy.breaks(
            "retries",
            "a request that changed something is sent a second time.",
            "retry_on: connect-failure,refused-stream, or none",
        );
    }
}

/// The clusters that a route leads to; those to which none may lead are findings.
fn destinations<'s, 'a>(at: &RouteAt<'_, 'a>, survey: &'s Survey<'a>) -> Vec<(Part<'a>, &'s ClusterView<'a>)> {
    let action = at.action();
    for name in ["cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin"] {
        let part = action.field(name);
        if part.is_there() {
            part.is_unsafe("cluster-by-request", "the request itself says to which cluster it goes.", "cluster: NAME");
        }
    }
    let mut found = Vec::new();
    for (part, name) in at.clusters() {
        let clusters = to(&part, name, survey);
        if clusters.iter().any(|cluster| cluster.is_admin) && !asks_for_figures(at) {
            exposes_admin(&part);
        }
        found.extend(clusters.into_iter().map(|cluster| (part.clone(), cluster)));
    }
    found
}

/// Whether nothing but statistics and readiness can be asked for.
fn asks_for_figures(at: &RouteAt<'_, '_>) -> bool {
    let (action, matched) = (at.action(), at.route.field("match"));
    let is_rewritten = ["regex_rewrite", "path_rewrite", "path_rewrite_policy"].iter().any(|name| action.field(name).is_there());
    let begin = [action.field("prefix_rewrite"), matched.field("path"), matched.field("prefix")].iter().find_map(Part::text);
    !is_rewritten && begin.is_some_and(|path| path == "/ready" || path.starts_with("/stats"))
}

pub(super) fn exposes_admin(part: &Part<'_>) {
    part.is_unsafe(
        "admin-exposed",
        "clients reach Envoy's admin interface, which dumps the configuration, drains and ends Envoy.",
        "no route there, or one for `path: /stats/prometheus` alone",
    );
}

/// The clusters of a name that something leads to.
pub(super) fn to<'s, 'a>(part: &Part<'a>, name: &str, survey: &'s Survey<'a>) -> Vec<&'s ClusterView<'a>> {
    let clusters: Vec<_> = survey.named(name).collect();
    if clusters.is_empty() {
        part.not_understood("no cluster of this name is in the document, so where this leads cannot be told.");
    }
    for cluster in &clusters {
        if cluster.is_control_plane {
            part.is_unsafe(
                "control-plane-exposed",
                "clients reach the service that decides on their requests, or the one that gives out the secrets.",
                "no route to the clusters that ext_authz, xDS and access log use",
            );
        } else if cluster.addresses.is_none() && cluster.protection.is_none() {
            part.not_understood("where this cluster leads is not in the document: it may be the API server.");
        }
    }
    clusters
}

fn to_protected(
    at: &RouteAt<'_, '_>,
    cluster: &ClusterView<'_>,
    protection: Protection,
    manager: &Part<'_>,
    late: &[(Step<'_>, Part<'_>)],
) {
    target(at, cluster);
    if protection == Protection::Web {
        return;
    }
    let action = at.action();
    for name in ["prefix_rewrite", "regex_rewrite", "path_rewrite", "path_rewrite_policy"] {
        if action.field(name).is_there() {
            action.field(name).is_unsafe(
                "path-rewritten",
                "the API server gets another path than the one that the policy judged.",
                "leave it out",
            );
        }
    }
    let own = at.levels();
    let steps: Vec<_> = own.iter().flat_map(per_route::mutations).collect();
    let whole: Vec<&Step<'_>> = late.iter().chain(&steps).map(|(step, _)| step).collect();
    let kind = match protection {
        Protection::Http => RouteKind::Http,
        _ if super::cluster::injects(&cluster.part) => RouteKind::Impersonate,
        _ if cluster.has_credential => RouteKind::ImpersonateByCertificate,
        _ => RouteKind::Jwt,
    };
    mutations::for_route(&at.route, &whole, kind);
    streams(at, manager);
    if protection == Protection::Kubernetes {
        upgrades(&action);
    }
}

fn target(at: &RouteAt<'_, '_>, cluster: &ClusterView<'_>) {
    let place = at.route.field("typed_per_filter_config");
    let Some(target) = at.target() else {
        place.breaks(
            "no-target",
            "kubepass is not told which route this is, and refuses every request.",
            "check_settings: {context_extensions: {target: ...}} of ext_authz, on the virtual host",
        );
        return;
    };
    let grants = cluster.guard.iter().find_map(|guard| guard.demands.grants.as_ref());
    if !protected::is_redacted(target) && grants.is_some_and(|grants| !grants.contains(target)) {
        let why = format!("the target {target:?} is not the grant for which this cluster's guard asks, so nothing passes.");
        place.breaks("target-not-grant", &why, "the same name in both");
    }
}

fn streams(at: &RouteAt<'_, '_>, manager: &Part<'_>) {
    let action = at.action();
    if action.field("timeout").seconds() != Some(0.0) {
        action.breaks("stream-cut", "watches, logs and exec are cut after this time (15 s where it is left out).", "timeout: 0s");
    }
    let idle = action.field("idle_timeout");
    let quiet = if idle.is_there() { idle.seconds() } else { manager.field("stream_idle_timeout").seconds() };
    if quiet != Some(0.0) {
        action.breaks("stream-cut", "a quiet watch, exec or `logs -f` is cut (after 5 minutes where nothing is said).", "idle_timeout: 0s");
    }
    action.field("max_stream_duration").only(&["max_stream_duration"]);
    let ceiling = action.path("max_stream_duration.max_stream_duration");
    if ceiling.seconds().is_none_or(|seconds| seconds <= 0.0) {
        action.is_unsafe(
            "no-ceiling",
            "a stream for which kubepass's own limit were missing would outlive its session.",
            "max_stream_duration: {max_stream_duration: the sessions' lifetime}",
        );
    }
}

fn upgrades(action: &Part<'_>) {
    for upgrade in action.field("upgrade_configs").items() {
        if upgrade.field("enabled").is_there() && !upgrade.field("enabled").is_true() {
            upgrade.breaks("upgrades", "exec, attach and port-forward upgrade.", "leave it out on Kubernetes routes");
        }
    }
}
