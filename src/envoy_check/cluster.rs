//! A cluster behind kubepass: first the guard, then the credential, then `connection` on upgrades; a protocol that `exec` can use; a server that is
//! verified. Also the cluster of the checks themselves, for whoever can answer them decides.

use std::collections::{BTreeMap, BTreeSet};

use super::Kind;
use super::document::Document;
use super::guard::{Demands, RBAC};
use super::mutations::HEADER_MUTATION;
use super::part::Part;
use super::protected::{ClusterView, Protection, Survey, WEB, is_local, server_of};
use super::{guard, http_filters, mutations, tls};
use crate::envoy_names::route_id;

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const INJECTOR: &str = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector";
const GENERIC: &str = "envoy.extensions.http.injected_credentials.generic.v3.Generic";
const CODEC: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// Fields of a cluster that are judged here, or that change neither who is asked nor what is sent.
const FIELDS: &[&str] = &[
    "name",
    "alt_stat_name",
    "type",
    "eds_cluster_config",
    "connect_timeout",
    "per_connection_buffer_limit_bytes",
    "lb_policy",
    "load_assignment",
    "health_checks",
    "circuit_breakers",
    "typed_extension_protocol_options",
    "dns_refresh_rate",
    "dns_jitter",
    "dns_failure_refresh_rate",
    "respect_dns_ttl",
    "dns_lookup_family",
    "wait_for_warm_on_init",
    "outlier_detection",
    "cleanup_interval",
    "upstream_bind_config",
    "common_lb_config",
    "round_robin_lb_config",
    "least_request_lb_config",
    "transport_socket",
    "metadata",
    "protocol_selection",
    "upstream_connection_options",
    "close_connections_on_host_health_failure",
    "ignore_health_on_host_removal",
    "track_timeout_budgets",
    "track_cluster_stats",
    "preconnect_policy",
    "connection_pool_per_downstream_connection",
];

/// The HTTP filters on the cluster's own side.
pub(super) fn http_filters<'a>(cluster: &Part<'a>) -> Vec<Part<'a>> {
    options(cluster).field("http_filters").items()
}

/// Whether requests leave with something that the server takes for a credential of this Envoy.
pub(super) fn has_credential(cluster: &Part<'_>) -> bool {
    injects(cluster) || tls::has_client_certificate(cluster)
}

/// Whether a token is written over the client's own.
pub(super) fn injects(cluster: &Part<'_>) -> bool {
    http_filters(cluster).iter().any(|filter| filter.typed(INJECTOR).is_some())
}

/// Judges a cluster, where it is protected or carries the checks.
pub(super) fn judge(cluster: &ClusterView<'_>, document: &Document<'_>) {
    let part = &cluster.part;
    if cluster.is_control_plane {
        if cluster.is_trusted {
            part.only(FIELDS);
            known_options(part);
            link(cluster, document);
        }
        return;
    }
    let Some(protection) = cluster.protection else { return };
    part.only(FIELDS);
    known_options(part);
    if cluster.addresses.is_none() {
        part.not_understood("where this cluster leads is not in the document, so others that lead there too cannot be found.");
    }
    filters(cluster, protection);
    match protection {
        Protection::Kubernetes => {
            protocol(part);
            tls::upstream(part, document, &server_names(cluster));
        }
        Protection::Http => {
            let by_tls = |grant: &String| grant.contains("/https:");
            let wanted = cluster.guard.iter().flat_map(|guard| guard.demands.grants.iter().flatten()).any(by_tls);
            if wanted || part.field("transport_socket").is_there() {
                tls::upstream(part, document, &server_names(cluster));
            }
        }
        Protection::Web => link(cluster, document),
    }
}

fn options<'a>(cluster: &Part<'a>) -> Part<'a> {
    cluster.field("typed_extension_protocol_options").entry(OPTIONS)
}

fn known_options(cluster: &Part<'_>) {
    for (name, entry) in cluster.field("typed_extension_protocol_options").entries() {
        if name != OPTIONS || entry.type_name() != Some(OPTIONS) {
            entry.not_understood("what this says of the protocol and its filters is not known to this check.");
        }
    }
    options(cluster).only(&[
        "common_http_protocol_options",
        "explicit_http_config",
        "use_downstream_protocol_config",
        "auto_config",
        "http_filters",
    ]);
}

fn filters(cluster: &ClusterView<'_>, protection: Protection) {
    let options = options(&cluster.part);
    let (mut guarded, mut rewrites) = (false, false);
    for filter in http_filters(&cluster.part) {
        http_filters::plain(&filter);
        if let Some(config) = filter.typed(RBAC) {
            guard::known(&config);
            guarded = true;
        } else if let Some(config) = filter.typed(INJECTOR) {
            credential(&filter, &config, guarded);
        } else if let Some(config) = filter.typed(HEADER_MUTATION) {
            rewrites |= rewrite(&filter, &config);
        } else if let Some(config) = filter.typed(CODEC) {
            config.only(&[]);
        } else {
            filter.unknown_extension("a filter on the cluster");
        }
    }
    has_guard(cluster, protection);
    if !rewrites && protection != Protection::Web {
        options.field("http_filters").is_unsafe(
            "connection-on-upgrades",
            "on an upgrade Envoy forwards the client's `connection` header, by which a client can have the next hop remove the identity headers.",
            "a header_mutation filter before the codec, under a name of its own: append {key: connection, value: Upgrade}, append_action: OVERWRITE_IF_EXISTS",
        );
    }
}

fn has_guard(cluster: &ClusterView<'_>, protection: Protection) {
    let Some(guard) = &cluster.guard else {
        let at = options(&cluster.part).field("http_filters");
        let (code, why) = if cluster.has_credential {
            (
                "credential-without-guard",
                "every request that gets to this cluster, by whatever route, leaves with this Envoy's own credential.",
            )
        } else {
            ("guard-missing", "nothing on this cluster stops a request that kubepass did not let through, whichever route brought it.")
        };
        at.is_unsafe(code, why, "an RBAC filter first, which allows only metadata `grant` of envoy.filters.http.ext_authz equal to the route's target, and the identity");
        return;
    };
    let part = &guard.part;
    let Demands { grants, .. } = &guard.demands;
    let right = grants
        .as_ref()
        .is_some_and(|grants| grants.iter().all(|grant| (protection == Protection::Web) == (grant == super::protected::WEB)));
    if !right {
        part.is_unsafe(
            "guard-grant",
            "the guard lets requests pass without kubepass's grant for this cluster, as far as its rules can be understood.",
            "action ALLOW, and in every permission: metadata `grant` of envoy.filters.http.ext_authz (source DYNAMIC) exactly the route's target",
        );
    }
    if let Some((why, instead)) = identity(cluster, protection, &guard.demands) {
        part.is_unsafe("guard-identity", why, instead);
    }
    one_server(cluster, part, grants.iter().flatten());
}

/// The policy of one server must not open another.
fn one_server<'g>(cluster: &ClusterView<'_>, guard: &Part<'_>, grants: impl Iterator<Item = &'g String> + Clone) {
    let named: BTreeSet<_> = grants.clone().filter_map(|grant| route_id(grant)?.rsplit_once('@')).map(|(_, server)| server).collect();
    if named.len() > 1 {
        guard.is_unsafe(
            "guard-other-server",
            "grants for several servers open this cluster, so the policy of one is applied before another.",
            "the grants of the routes to this server alone",
        );
    }
    let servers: BTreeSet<_> = grants.filter_map(|grant| server_of(grant)).collect();
    // A name and an address cannot be compared.
    let is_other = |address: &&String| servers.iter().all(|server| server != *address && is_ip(server) == is_ip(address));
    let other = cluster.addresses.iter().flatten().filter(|address| !address.starts_with("unix:")).find(is_other);
    if let Some(other) = other.filter(|_| !servers.is_empty()) {
        let why = format!("the grant names another server than {other}: whether its policy is meant for this one cannot be told.");
        guard.report(Kind::NotUnderstood, "upstream-other-server", &why, "one address in kubepass's `server` and in this cluster");
    }
}

fn is_ip(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _)| host.parse::<std::net::IpAddr>().is_ok())
}

/// Clusters with one grant lead to one server: copied, and the grant forgotten.
pub(super) fn shared_grants(survey: &Survey<'_>) {
    let mut seen: BTreeMap<&str, &ClusterView<'_>> = BTreeMap::new();
    for cluster in survey.clusters() {
        let Some(guard) = &cluster.guard else { continue };
        for grant in guard.demands.grants.iter().flatten().filter(|grant| grant.as_str() != WEB) {
            let first = *seen.entry(grant.as_str()).or_insert(cluster);
            let apart = first.addresses.as_ref().zip(cluster.addresses.as_ref()).is_some_and(|(one, other)| one.is_disjoint(other));
            if apart && first.name != cluster.name {
                let why = format!(
                    "the cluster {:?} asks for the same grant and leads elsewhere, so the policy of one server is applied before another.",
                    first.name
                );
                guard.part.is_unsafe("guard-other-server", &why, "for each server the target and grant of its own route");
            }
        }
    }
}

/// What the guard should ask for beside the grant, and does not.
fn identity(cluster: &ClusterView<'_>, protection: Protection, demands: &Demands) -> Option<(&'static str, &'static str)> {
    match protection {
        Protection::Web => None,
        Protection::Http => (!(demands.identity_header() && demands.no_user() && demands.no_authorization())).then_some((
            "the guard lets a request pass that does not say who the user is, or that carries a credential of the client.",
            "the identity header matching \\S+, and neither `authorization` nor `impersonate-user`",
        )),
        Protection::Kubernetes if cluster.has_credential => (!demands.user()).then_some((
            "a request without a user, or with a blank one, would run as the service account whose credential this cluster adds.",
            "a permission {header: {name: impersonate-user, string_match: {safe_regex: {regex: '\\S(.*\\S)?'}}}} beside the grant",
        )),
        Protection::Kubernetes => (!(demands.bearer() && demands.no_user())).then_some((
            "the cluster adds no credential, so the guard must ask for the user's own token, and for no impersonation beside it.",
            "{header: {name: authorization, string_match: {safe_regex: {regex: 'Bearer \\S+'}}}} and {not_rule: {header: {name: impersonate-user, present_match: true}}}",
        )),
    }
}

fn credential(filter: &Part<'_>, config: &Part<'_>, guarded: bool) {
    config.only(&["overwrite", "allow_request_without_credential", "credential"]);
    if !guarded {
        filter.is_unsafe(
            "credential-before-guard",
            "the credential is added before the guard has looked at the request.",
            "the RBAC filter first, then the credential injector",
        );
    }
    if !config.field("overwrite").is_true() {
        config.is_unsafe("credential-not-overwritten", "the client's own `authorization` would go to the API server.", "overwrite: true");
    }
    if config.field("allow_request_without_credential").may_be_true() {
        config.is_unsafe(
            "credential-optional",
            "without its credential the request would leave with the client's, or with none.",
            "allow_request_without_credential: false, or leave it out",
        );
    }
    let credential = config.field("credential");
    let Some(generic) = credential.typed(GENERIC) else {
        return credential.unknown_extension("the credential");
    };
    generic.only(&["credential", "header", "header_value_prefix"]);
    let header = generic.field("header");
    if header.is_there() && header.text().is_none_or(|name| !name.eq_ignore_ascii_case("authorization")) {
        generic.is_unsafe(
            "credential-header",
            "the credential goes into another header, and the client's `authorization` stays.",
            "header: authorization",
        );
    }
    if generic.field("header_value_prefix").text() != Some("Bearer ") {
        generic.breaks(
            "credential-prefix",
            "API servers take service-account tokens as bearer tokens only.",
            "header_value_prefix: \"Bearer \"",
        );
    }
}

/// Whether the filter rewrites `connection`; whatever else it does is a finding.
fn rewrite(filter: &Part<'_>, config: &Part<'_>) -> bool {
    if filter.field("name").text() == Some(http_filters::HEADER_MUTATION_NAME) {
        filter.is_unsafe(
            "filter-name-shared",
            "under this name the filter also gets the route's configuration of the late header mutation, and writes the identity a second time.",
            "a name of its own, as kubepass.connection_on_upgrades",
        );
    }
    mutations::only_rewrites_connection(config)
}

fn protocol(cluster: &Part<'_>) {
    let options = options(cluster);
    let instead = "use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}";
    let explicit = options.field("explicit_http_config");
    let downstream = options.field("use_downstream_protocol_config");
    if options.field("auto_config").is_there() {
        options.field("auto_config").breaks(
            "upstream-auto-http",
            "where ALPN gives HTTP/2, exec, attach and port-forward are reset.",
            instead,
        );
    } else if explicit.is_there() && !explicit.field("http_protocol_options").is_there() {
        explicit.breaks(
            "upstream-http2-only",
            "exec, attach and port-forward upgrade, which HTTP/2 to the API server does not carry.",
            instead,
        );
    } else if downstream.is_there() && !downstream.field("http_protocol_options").is_there() {
        downstream.breaks("upstream-http2-only", "exec, attach and port-forward need HTTP/1.1 to the API server.", instead);
    } else if !explicit.is_there() && !downstream.is_there() {
        options.breaks("upstream-http1-only", "without a protocol named here each watch has an HTTP/1.1 connection of its own.", instead);
    }
}

/// The names in the ids of the grants: what the server's certificate must say.
fn server_names(cluster: &ClusterView<'_>) -> Vec<String> {
    let grants = cluster.guard.iter().flat_map(|guard| guard.demands.grants.iter().flatten());
    // `NAME@HOST:PORT/NAME_IN_CERTIFICATE`, where NAME may hold a slash.
    let names = grants.filter_map(|grant| route_id(grant)?.rsplit_once('@')?.1.split_once('/').map(|(_, name)| name));
    names.map(|name| tls::plain_name(name.trim_start_matches("https:").trim_start_matches("http:"))).collect()
}

/// The way to kubepass itself.
fn link(cluster: &ClusterView<'_>, document: &Document<'_>) {
    let local = cluster.addresses.as_ref().is_some_and(|addresses| addresses.iter().all(|address| is_local(address)));
    if local {
        return;
    }
    let part = &cluster.part;
    if !part.field("transport_socket").is_there() {
        part.is_unsafe(
            "link-in-the-clear",
            "whoever is on the way to kubepass can read identities and answer the checks.",
            "a Unix socket (pipe), or TLS with a client certificate",
        );
        return;
    }
    tls::upstream(part, document, &[]);
    if !tls::has_client_certificate(part) {
        part.is_unsafe(
            "link-without-certificate",
            "kubepass cannot tell this Envoy from anybody else.",
            "tls_certificates, or the SDS secret of one, in common_tls_context",
        );
    }
}
