//! What holds for the whole process: its admin interface, and what may change it while it runs.

use super::document::Document;
use super::part::Part;
use super::protected::{address, is_local};

const FIELDS: &[&str] = &[
    "node",
    "static_resources",
    "dynamic_resources",
    "cluster_manager",
    "stats_sinks",
    "stats_config",
    "stats_flush_interval",
    "stats_flush_on_admin",
    "watchdog",
    "watchdogs",
    "layered_runtime",
    "admin",
    "overload_manager",
    "enable_dispatcher_stats",
    "stats_server_version_override",
    "use_tcp_for_dns_lookups",
    "dns_resolution_config",
    "typed_dns_resolver_config",
    "default_regex_engine",
    "application_log_config",
    "memory_allocator_manager",
    "grpc_async_client_manager_config",
    // Judged by name.
    "header_prefix",
    "hds_config",
    "bootstrap_extensions",
];

pub(super) fn judge(document: &Document<'_>) {
    let bootstrap = &document.bootstrap;
    bootstrap.only(FIELDS);
    for name in ["hds_config", "bootstrap_extensions"] {
        if bootstrap.field(name).is_there() {
            bootstrap.field(name).not_understood("code or commands that are not in this document act in this Envoy.");
        }
    }
    let prefix = bootstrap.field("header_prefix");
    if prefix.text().is_none_or(|prefix| !prefix.is_empty() && prefix != "x-envoy") && prefix.is_there() {
        prefix.is_unsafe(
            "header-prefix",
            "Envoy's own headers have other names then: kubepass's limit for a stream means nothing, and nobody removes what clients send.",
            "leave it out",
        );
    }
    admin(&bootstrap.field("admin"));
    for layer in bootstrap.path("layered_runtime.layers").items() {
        runtime(&layer);
    }
}

fn admin(admin: &Part<'_>) {
    let place = admin.field("address");
    if place.is_there() && !address(&place).is_some_and(|address| is_local(&address)) {
        place.is_unsafe(
            "admin-exposed",
            "whoever reaches the admin interface can read the configuration, switch protections off and end Envoy.",
            "address: {pipe: {path: ..., mode: 384}}, a Unix socket of mode 0600",
        );
    }
}

fn runtime(layer: &Part<'_>) {
    layer.only(&["name", "static_layer", "admin_layer", "disk_layer", "rtds_layer"]);
    for name in ["rtds_layer", "disk_layer"] {
        if layer.field(name).is_there() {
            layer.field(name).not_understood("runtime values that come from elsewhere can switch protections off.");
        }
    }
    for (key, value) in layer.field("static_layer").entries() {
        // Limits, whatever they are, open nothing.
        if !["overload", "re2", "upstream", "health_check"].iter().any(|known| key == *known || key.starts_with(&format!("{known}."))) {
            value.not_understood("what this runtime value changes is not known to this check.");
        }
    }
}
