//! Listeners: every chain of network filters, for each is a way in. What ends in something else than a connection manager must not lead to a
//! protected server.

use super::document::Document;
use super::part::Part;
use super::protected::{Survey, address, is_local};
use super::{connection_manager, routes, tls};

const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// They close connections or let them go on.
const HARMLESS: [&str; 3] = [
    "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
    "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
];
const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
const PROXY_PROTOCOL: &str = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";

/// Every connection manager of a listener.
pub(super) fn connection_managers<'a>(listener: &Part<'a>) -> Vec<Part<'a>> {
    let filters = chains(listener).into_iter().flat_map(|chain| chain.field("filters").items());
    filters.filter_map(|filter| filter.typed(connection_manager::TYPE)).collect()
}

fn chains<'a>(listener: &Part<'a>) -> Vec<Part<'a>> {
    let default = listener.field("default_filter_chain");
    listener.field("filter_chains").items().into_iter().chain(Some(default).filter(Part::is_there)).collect()
}

pub(super) fn judge(listener: &Part<'_>, document: &Document<'_>, survey: &Survey<'_>) {
    // Not `filter_chain_matcher`: with it, what the chains' own matches say counts for nothing.
    listener.only(&[
        "name",
        "address",
        "additional_addresses",
        "stat_prefix",
        "filter_chains",
        "default_filter_chain",
        "per_connection_buffer_limit_bytes",
        "metadata",
        "drain_type",
        "listener_filters",
        "listener_filters_timeout",
        "continue_on_listener_filters_timeout",
        "freebind",
        "socket_options",
        "tcp_fast_open_queue_length",
        "traffic_direction",
        "connection_balance_config",
        "enable_reuse_port",
        "access_log",
        "tcp_backlog_size",
        "max_connections_to_accept_per_socket_event",
        "bind_to_port",
        "enable_mptcp",
        "ignore_global_conn_limit",
        "tcp_keepalive",
    ]);
    // Who may speak for others is told by the address that really connected.
    let chosen = |chain: &Part<'_>| ranges(&chain.path("filter_chain_match.direct_source_prefix_ranges")).is_some();
    let by_address = chains(listener).iter().all(chosen);
    for filter in listener.field("listener_filters").items() {
        listener_filter(&filter, by_address);
    }
    let local = address(&listener.field("address")).is_some_and(|address| is_local(&address))
        && listener.field("additional_addresses").items().is_empty();
    for chain in chains(listener) {
        filter_chain(&chain, local, document, survey);
    }
}

/// Ranges of addresses; none when there are none, or when one of them is everybody's, as a range without a length is.
pub(super) fn ranges(part: &Part<'_>) -> Option<Vec<(String, u64)>> {
    let range = |range: &Part<'_>| {
        let length = range.field("prefix_len").number().filter(|length| *length > 0)?;
        Some((range.field("address_prefix").text()?.to_owned(), length))
    };
    part.items().iter().map(range).collect::<Option<Vec<_>>>().filter(|ranges| !ranges.is_empty())
}

fn listener_filter(filter: &Part<'_>, by_address: bool) {
    if let Some(config) = filter.typed(PROXY_PROTOCOL) {
        if !by_address || config.field("allow_requests_without_proxy_protocol").may_be_true() {
            filter.is_unsafe(
                "proxy-protocol",
                "whoever connects says from which address the client comes.",
                "filter_chain_match: {direct_source_prefix_ranges: the load balancer's addresses} on every filter chain, and no connection without the protocol",
            );
        }
    } else if filter.typed(TLS_INSPECTOR).is_none() {
        filter.unknown_extension("a listener filter");
    }
}

fn filter_chain(chain: &Part<'_>, local: bool, document: &Document<'_>, survey: &Survey<'_>) {
    chain.only(&["filter_chain_match", "filters", "metadata", "transport_socket", "transport_socket_connect_timeout", "name"]);
    for filter in chain.field("filters").items() {
        filter.only(&["name", "typed_config"]);
        let kind = filter.field("typed_config").type_name();
        if let Some(manager) = filter.typed(connection_manager::TYPE) {
            if connection_manager::judge(&manager, chain, document, survey) {
                tls::downstream(chain, local);
            }
        } else if let Some(proxy) = filter.typed(TCP_PROXY) {
            tcp_proxy(&proxy, survey);
        } else if !kind.is_some_and(|kind| HARMLESS.contains(&kind)) {
            filter.unknown_extension("a network filter");
        }
    }
}

fn tcp_proxy<'a>(proxy: &Part<'a>, survey: &Survey<'a>) {
    if proxy.field("on_demand").is_there() {
        proxy.field("on_demand").not_understood("to which cluster this leads is not in this document.");
    }
    let weighted = proxy.path("weighted_clusters.clusters").items();
    let names = std::iter::once(proxy.field("cluster")).chain(weighted.iter().map(|part| part.field("name")));
    for part in names.filter(Part::is_there) {
        let clusters = routes::to(&part, part.text().unwrap_or_default(), survey);
        if clusters.iter().any(|cluster| cluster.is_admin) {
            routes::exposes_admin(&part);
        }
        if clusters.iter().any(|cluster| cluster.protection.is_some()) {
            part.is_unsafe(
                "bypass",
                "connections go straight to a server that kubepass guards: no check, no guard, no identity.",
                "an HTTP connection manager with the whole header path, or another server",
            );
        }
    }
}
