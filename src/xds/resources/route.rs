//! SRDS and RDS: one route configuration for each route's host and for `public_url`, each with its scope. It is chosen by the TLS server name; in
//! it the host itself leads on, and any other is told that it is on the wrong connection. A server name without a scope reaches nothing.
//!
//! A route's ext_authz target stands on the virtual host, so that no path there can be without it; the few paths that belong to
//! the web pages override it with `web`.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration, UpgradeConfig};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::Key;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::{Fragment, fragment};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, ScopedRouteConfiguration, VirtualHost, route,
};
use envoy_types::pb::google::protobuf::{Any, BoolValue};
use envoy_types::util::pack_any;

use super::connection_manager::{UPGRADES, WEBSOCKET};
use super::http_filters::{EXT_AUTHZ, ext_authz_target};
use super::identity_headers::{HEADER_MUTATION, for_route};
use super::input::{Input, MethodInput, RouteInput};
use super::message::{prefix, seconds};
use super::names::{WEB_CLUSTER, WEB_TARGET};

/// A page or token exchange may ask the identity provider, and must end.
const WEB_TIMEOUT_SECONDS: u64 = 30;

/// "Misdirected Request", after which a client may try again on a connection of its own (RFC 9110, 15.5.20).
const MISDIRECTED_REQUEST: u32 = 421;

/// How much later than ext_authz's own limit the route's ceiling ends a stream.
const CEILING_MARGIN_SECONDS: u64 = 5;

/// Paths that pomerium-cli probes with its own kind of bearer; with any other they are the API server's.
const PROBES: [&str; 2] = ["/healthz", "/livez"];

/// The route configuration of a host, which has the host's name.
pub(super) fn of_host(host: &str, virtual_host: VirtualHost) -> RouteConfiguration {
    RouteConfiguration { name: host.to_owned(), virtual_hosts: vec![virtual_host, misdirected()], ..Default::default() }
}

/// Lets connections for `host` have its route configuration.
pub(super) fn scope(host: &str) -> ScopedRouteConfiguration {
    let fragment = Fragment { r#type: Some(fragment::Type::StringKey(host.to_owned())) };
    ScopedRouteConfiguration {
        name: host.to_owned(),
        route_configuration_name: host.to_owned(),
        key: Some(Key { fragments: vec![fragment] }),
        ..Default::default()
    }
}

/// All hosts in one route configuration, chosen by the request's host: for a listener without TLS.
pub(super) fn of_all_hosts(input: &Input<'_>) -> RouteConfiguration {
    let routes = input.routes.iter().map(route_host);
    RouteConfiguration {
        name: "all-hosts".to_owned(),
        virtual_hosts: input.public_host.map(public_host).into_iter().chain(routes).collect(),
        ..Default::default()
    }
}

/// Any other host on a connection: it leads nowhere. ext_authz sees that the host is not the connection's and refuses it as it does elsewhere;
/// were it to let it pass, the answer is the same without its words.
fn misdirected() -> VirtualHost {
    let status = DirectResponseAction { status: MISDIRECTED_REQUEST, ..Default::default() };
    let route = Route {
        name: "misdirected".to_owned(),
        r#match: Some(path_prefix("/")),
        action: Some(route::Action::DirectResponse(status)),
        ..Default::default()
    };
    virtual_host("misdirected", "*", WEB_TARGET, vec![route])
}

pub(super) fn public_host(host: &str) -> VirtualHost {
    virtual_host("public", host, WEB_TARGET, vec![web_route("web", path_prefix("/"))])
}

pub(super) fn route_host(input: &RouteInput<'_>) -> VirtualHost {
    let name = format!("web:{}", input.id);
    let mut routes = vec![web_route(&name, path_prefix("/.kubepass/"))];
    if input.pomerium_cli {
        routes.push(web_route(&name, path_prefix("/.pomerium/")));
        routes.extend(PROBES.iter().map(|path| web_route(&name, pomerium_probe(path))));
    }
    routes.push(upstream_route(input));
    let target = input.target();
    virtual_host(&target, input.host, &target, routes)
}

fn virtual_host(name: &str, host: &str, target: &str, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.to_owned(),
        domains: vec![host.to_owned()],
        routes,
        typed_per_filter_config: filter_config(EXT_AUTHZ, pack_any(ext_authz_target(target))),
        ..Default::default()
    }
}

/// Everything that is not the web's is the upstream's, whatever the path.
fn upstream_route(input: &RouteInput<'_>) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(input.target())),
        timeout: seconds(0),
        idle_timeout: seconds(0),
        // A ceiling where ext_authz's own limit were missing; later than that one, so that a stream has one reason to end.
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: seconds(input.max_stream_seconds.saturating_add(CEILING_MARGIN_SECONDS)),
            ..Default::default()
        }),
        upgrade_configs: forbidden_upgrades(&input.method).map(no_upgrade).collect(),
        ..Default::default()
    };
    Route {
        name: input.target(),
        r#match: Some(path_prefix("/")),
        action: Some(route::Action::Route(action)),
        typed_per_filter_config: filter_config(HEADER_MUTATION, pack_any(for_route(&input.method))),
        ..Default::default()
    }
}

/// Of the upgrades that the connection manager knows, those that a route's upstream has no use for.
fn forbidden_upgrades(method: &MethodInput<'_>) -> impl Iterator<Item = &'static str> {
    let allows_websocket = !matches!(method, MethodInput::Http { websocket: false, .. });
    let allows_spdy = !matches!(method, MethodInput::Http { .. });
    UPGRADES.into_iter().filter(move |name| if *name == WEBSOCKET { !allows_websocket } else { !allows_spdy })
}

fn no_upgrade(name: &str) -> UpgradeConfig {
    UpgradeConfig { upgrade_type: name.to_owned(), enabled: Some(BoolValue { value: false }), ..Default::default() }
}

fn web_route(name: &str, matched: RouteMatch) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(WEB_CLUSTER.to_owned())),
        timeout: seconds(WEB_TIMEOUT_SECONDS),
        idle_timeout: seconds(WEB_TIMEOUT_SECONDS),
        upgrade_configs: UPGRADES.into_iter().map(no_upgrade).collect(),
        ..Default::default()
    };
    Route {
        name: name.to_owned(),
        r#match: Some(matched),
        action: Some(route::Action::Route(action)),
        typed_per_filter_config: filter_config(EXT_AUTHZ, pack_any(ext_authz_target(WEB_TARGET))),
        ..Default::default()
    }
}

fn path_prefix(path: &str) -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix(path.to_owned())), ..Default::default() }
}

fn pomerium_probe(path: &str) -> RouteMatch {
    let bearer = HeaderMatcher {
        name: "authorization".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(prefix("Bearer Pomerium-"))),
        ..Default::default()
    };
    RouteMatch { path_specifier: Some(PathSpecifier::Path(path.to_owned())), headers: vec![bearer], ..Default::default() }
}

/// Always exactly one entry: see the module `resources`.
fn filter_config(filter: &str, config: Any) -> HashMap<String, Any> {
    [(filter.to_owned(), config)].into()
}
