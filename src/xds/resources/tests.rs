//! What must hold of the resources, whatever they say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::fragment;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, ScopedRouteConfiguration, VirtualHost, route};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{ExtAuthzPerRoute, ext_authz_per_route::Override};
use prost::{Message, Name};
use secrecy::SecretString;

use super::input::{Input, ListenerInput, MethodInput, RouteInput};
use super::names::WEB_CLUSTER;
use super::*;
use crate::config::{Listener, ServerAddress, ServingCertificate, Sources};
use crate::xds::resource::Templates;

/// Owns what an `Input` borrows.
struct Fixture {
    listeners: Vec<Listener>,
    servers: Vec<ServerAddress>,
    token: SecretString,
    ca_pem: String,
    max_groups: usize,
}

impl Fixture {
    fn new() -> Self {
        let server = |host: &str, name: &str| ServerAddress { host: host.to_owned(), port: 6443, server_name: name.to_owned() };
        let certificate = |chain: &str| ServingCertificate {
            chain_pem: chain.to_owned(),
            key_pem: SecretString::from("key"),
            dns_names: vec!["*.example.com".to_owned()],
            ip_addresses: Vec::new(),
        };
        Self {
            listeners: vec![Listener {
                address: "[::1]:443".parse().unwrap(),
                certificates: vec![certificate("a"), certificate("b")],
                sources: Sources::default(),
            }],
            servers: vec![server("10.0.0.1", "10.0.0.1"), server("api.example.com", "api.example.com")],
            token: SecretString::from("token"),
            ca_pem: "ca".to_owned(),
            max_groups: 64,
        }
    }

    fn input(&self) -> Input<'_> {
        let route = |index: usize, name: &'static str, host: &'static str| RouteInput {
            id: name.to_owned(),
            host,
            pomerium_cli: index == 0,
            server: &self.servers[index],
            ca_pem: Some(&self.ca_pem),
            method: MethodInput::Impersonate { token: &self.token, max_groups: self.max_groups, extra_keys: vec!["reason", "ticket"] },
            max_stream_seconds: 3600,
        };
        Input {
            public_host: Some("pass.example.com"),
            listeners: self
                .listeners
                .iter()
                .enumerate()
                .map(|(index, configured)| ListenerInput { name: names::listener(None, index), configured })
                .collect(),
            routes: vec![route(0, "prod", "prod.example.com"), route(1, "staging", "staging.example.com")],
        }
    }

    fn build(&self) -> ResourceSet {
        build_input(&self.input()).unwrap()
    }
}

fn decoded<M: Message + Default>(set: &ResourceSet, kind: TypeUrl, name: &str) -> M {
    M::decode(set.get(kind, name).unwrap().body.bytes()).unwrap()
}

/// What takes the other hosts of a connection must not pass anything on.
fn assert_leads_nowhere(host: &VirtualHost) {
    assert_eq!((host.domains.as_slice(), target(&host.typed_per_filter_config).as_deref()), (["*".to_owned()].as_slice(), Some("web")));
    let [route] = host.routes.as_slice() else { panic!("{host:?}") };
    assert!(matches!(&route.action, Some(route::Action::DirectResponse(response)) if response.status == 421), "{route:?}");
    assert!(route.typed_per_filter_config.is_empty());
}

/// In the order of their names.
fn hosts(set: &ResourceSet) -> Vec<VirtualHost> {
    let of_host = |scope: &Arc<Resource>| {
        let scope: ScopedRouteConfiguration = decoded(set, TypeUrl::ScopedRouteConfiguration, &scope.name);
        let routes: RouteConfiguration = decoded(set, TypeUrl::RouteConfiguration, &scope.route_configuration_name);
        let [host, misdirected] = <[VirtualHost; 2]>::try_from(routes.virtual_hosts).unwrap();
        assert_leads_nowhere(&misdirected);
        assert_eq!(host.domains, [scope.name.as_str()]);
        let key = scope.key.unwrap().fragments.remove(0).r#type;
        assert_eq!(key, Some(fragment::Type::StringKey(scope.name)));
        host
    };
    set.resources(TypeUrl::ScopedRouteConfiguration).map(of_host).collect()
}

/// The `target` entry of an ext_authz configuration, which must hold nothing else.
fn target(config: &std::collections::HashMap<String, envoy_types::pb::google::protobuf::Any>) -> Option<String> {
    let any = config.get("envoy.filters.http.ext_authz")?;
    assert_eq!(any.type_url, ExtAuthzPerRoute::type_url());
    let Some(Override::CheckSettings(settings)) = ExtAuthzPerRoute::decode(&any.value[..]).unwrap().r#override else {
        panic!("ext_authz is switched off");
    };
    assert_eq!(settings.context_extensions.len(), 1);
    settings.context_extensions.get("target").cloned()
}

fn cluster_of(route: &Route) -> String {
    match &route.action {
        Some(route::Action::Route(action)) => match &action.cluster_specifier {
            Some(envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier::Cluster(name)) => name.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let fixture = Fixture::new();
    let first = fixture.build();
    for _ in 0..20 {
        assert_eq!(fixture.build().version(), first.version());
    }
}

#[test]
fn only_listeners_change_a_listener() {
    let mut fixture = Fixture::new();
    let before = fixture.build();
    fixture.listeners[0].certificates[0].chain_pem = "rotated".to_owned();
    fixture.token = SecretString::from("rotated");
    fixture.ca_pem = "rotated".to_owned();
    fixture.max_groups = 256;
    fixture.servers[0].host = "10.0.0.2".to_owned();
    let mut input = fixture.input();
    input.public_host = Some("other.example.com");
    let removed = input.routes.pop().unwrap();
    input.routes.insert(0, RouteInput { id: "new".to_owned(), host: "new.example.com", ..removed });
    let after = build_input(&input).unwrap();
    assert_eq!(after.type_version(TypeUrl::Listener), before.type_version(TypeUrl::Listener));
    for kind in [TypeUrl::RouteConfiguration, TypeUrl::Cluster, TypeUrl::ClusterLoadAssignment, TypeUrl::Secret] {
        assert_ne!(after.type_version(kind), before.type_version(kind), "{kind}");
    }
}

#[test]
fn a_rotated_secret_changes_nothing_but_its_secret() {
    let mut fixture = Fixture::new();
    let before = fixture.build();
    fixture.token = SecretString::from("rotated");
    let after = fixture.build();
    for kind in [TypeUrl::Listener, TypeUrl::RouteConfiguration, TypeUrl::Cluster, TypeUrl::ClusterLoadAssignment] {
        assert_eq!(after.type_version(kind), before.type_version(kind), "{kind}");
    }
    assert_ne!(after.get(TypeUrl::Secret, "token:prod"), before.get(TypeUrl::Secret, "token:prod"));
    assert_eq!(after.get(TypeUrl::Secret, "ca:prod"), before.get(TypeUrl::Secret, "ca:prod"));
}

#[test]
fn every_path_has_the_target_of_the_cluster_that_it_leads_to() {
    let set = Fixture::new().build();
    let hosts = hosts(&set);
    assert_eq!(hosts.len(), 3);
    for host in &hosts {
        let of_host = target(&host.typed_per_filter_config).unwrap();
        for route in &host.routes {
            let target = target(&route.typed_per_filter_config).unwrap_or_else(|| of_host.clone());
            let wanted = if cluster_of(route) == WEB_CLUSTER { "web".to_owned() } else { cluster_of(route) };
            assert_eq!(target, wanted, "{} {}", host.name, route.name);
            assert_eq!(route.typed_per_filter_config.len(), 1);
        }
    }
}

#[test]
fn no_virtual_host_that_leads_on_takes_any_host() {
    let hosts = hosts(&Fixture::new().build());
    let domains: Vec<_> = hosts.iter().flat_map(|host| &host.domains).collect();
    assert_eq!(domains, ["pass.example.com", "prod.example.com", "staging.example.com"]);
}

#[test]
fn only_hosts_that_allow_pomerium_cli_give_its_paths_to_the_web() {
    let names = |host: &VirtualHost| host.routes.iter().map(cluster_of).collect::<Vec<_>>();
    let hosts = hosts(&Fixture::new().build());
    assert_eq!(names(&hosts[1]), ["kubepass-web", "kubepass-web", "kubepass-web", "kubepass-web", "kubernetes:prod"]);
    assert_eq!(names(&hosts[2]), ["kubepass-web", "kubernetes:staging"]);
}

#[test]
fn a_server_by_address_has_an_assignment_and_one_by_name_resolves_in_envoy() {
    let set = Fixture::new().build();
    let kind = |name: &str| match decoded::<Cluster>(&set, TypeUrl::Cluster, name).cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((kind("kubernetes:prod"), kind("kubernetes:staging")), (DiscoveryType::Eds, DiscoveryType::StrictDns));
    assert!(set.get(TypeUrl::ClusterLoadAssignment, "kubernetes:prod").is_some());
    assert!(set.get(TypeUrl::ClusterLoadAssignment, "kubernetes:staging").is_none());
}

#[test]
fn secrets_have_the_names_that_listeners_and_clusters_use() {
    let set = Fixture::new().build();
    let names: Vec<_> = set.resources(TypeUrl::Secret).map(|secret| &*secret.name).collect();
    assert_eq!(names, ["ca:prod", "ca:staging", "serving:listener-0:0", "serving:listener-0:1", "token:prod", "token:staging"]);
}

#[test]
fn two_routes_of_one_name_are_an_error() {
    let fixture = Fixture::new();
    let mut input = fixture.input();
    input.routes[1].id = "prod".to_owned();
    assert!(build_input(&input).is_err());
}

#[test]
fn groups_above_the_filters_own_slots_are_the_routes() {
    let token = SecretString::from("token");
    let impersonate = |max_groups: usize| MethodInput::Impersonate { token: &token, max_groups, extra_keys: vec![] };
    let count = |max: usize| super::identity_headers::for_route(&impersonate(max)).mutations.unwrap().request_mutations.len();
    assert_eq!((count(10), count(64), count(256)), (3, 3, 3 + 192));
}

#[test]
fn a_route_with_tokens_needs_no_secret_of_its_cluster_and_injects_none() {
    let fixture = Fixture::new();
    let mut input = fixture.input();
    input.routes[1].method = MethodInput::Jwt;
    let set = build_input(&input).unwrap();
    let secrets: Vec<_> = set.resources(TypeUrl::Secret).map(|secret| &*secret.name).collect();
    assert_eq!(secrets, ["ca:prod", "ca:staging", "serving:listener-0:0", "serving:listener-0:1", "token:prod"]);
    let filters = |route: usize| {
        let filters = super::upstream_filters::for_cluster("x", &input.routes[route].method, None);
        filters.into_iter().map(|filter| filter.name).collect::<Vec<_>>()
    };
    assert!(filters(0).contains(&"envoy.filters.http.credential_injector".to_owned()));
    assert_eq!(filters(1), ["envoy.filters.http.rbac", "kubepass.connection_on_upgrades", "envoy.filters.http.upstream_codec"]);
    // Nor does the change from one method to the other touch a listener.
    assert_eq!(set.type_version(TypeUrl::Listener), fixture.build().type_version(TypeUrl::Listener));
}

const HTTP: MethodInput<'_> = MethodInput::Http { identity_header: "x-identity", websocket: false };

#[test]
fn a_plain_http_route_has_a_target_of_its_own_kind_and_touches_no_listener() {
    let fixture = Fixture::new();
    let mut input = fixture.input();
    input.routes[1].method = HTTP;
    input.routes[1].ca_pem = None;
    let set = build_input(&input).unwrap();
    let hosts = hosts(&set);
    assert_eq!(hosts[2].routes.iter().map(cluster_of).collect::<Vec<_>>(), ["kubepass-web", "http:staging"]);
    assert_eq!(target(&hosts[2].typed_per_filter_config).as_deref(), Some("http:staging"));
    let cluster: Cluster = decoded(&set, TypeUrl::Cluster, "http:staging");
    assert!(cluster.transport_socket.is_none() && set.get(TypeUrl::Secret, "ca:staging").is_none());
    assert!(set.get(TypeUrl::Cluster, "kubernetes:staging").is_none());
    assert_eq!(set.type_version(TypeUrl::Listener), fixture.build().type_version(TypeUrl::Listener));
    input.routes[1].ca_pem = Some("ca");
    let cluster: Cluster = decoded(&build_input(&input).unwrap(), TypeUrl::Cluster, "http:staging");
    assert!(cluster.transport_socket.is_some());
}

#[test]
fn upgrades_are_those_that_a_route_allows() {
    let fixture = Fixture::new();
    let refused = |method: MethodInput<'static>| {
        let mut input = fixture.input();
        input.routes[1].method = method;
        let hosts = hosts(&build_input(&input).unwrap());
        let Some(route::Action::Route(action)) = &hosts[2].routes.last().unwrap().action else { panic!("an upstream") };
        action.upgrade_configs.iter().map(|upgrade| (upgrade.upgrade_type.clone(), upgrade.enabled.unwrap().value)).collect::<Vec<_>>()
    };
    let no = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), false)).collect::<Vec<_>>();
    assert_eq!(refused(MethodInput::Jwt), no(&[]));
    assert_eq!(refused(HTTP), no(&["websocket", "SPDY/3.1"]));
    assert_eq!(refused(MethodInput::Http { identity_header: "x-identity", websocket: true }), no(&["SPDY/3.1"]));
}

/// Whatever the client sent under these names is gone before ours is written.
#[test]
fn the_header_path_of_a_plain_http_route_removes_before_it_writes() {
    use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    let mutations = super::identity_headers::for_route(&HTTP).mutations.unwrap().request_mutations;
    let steps: Vec<_> = mutations
        .iter()
        .map(|mutation| match mutation.action.as_ref().unwrap() {
            Action::Remove(name) => format!("-{name}"),
            Action::Append(option) => {
                let header = option.header.as_ref().unwrap();
                format!("{}={}", header.key, header.value)
            }
            Action::RemoveOnMatch(matched) => match &matched.key_matcher.as_ref().unwrap().match_pattern {
                Some(MatchPattern::SafeRegex(matcher)) => format!("-/{}/", matcher.regex),
                other => panic!("{other:?}"),
            },
        })
        .collect();
    let wanted = [
        "-cookie",
        "-x-pomerium-authorization",
        "-proxy-authorization",
        "-x-rewrite-url",
        "-x-http-method",
        "-x-http-method-override",
        "-x-method-override",
        "-authorization",
        "-x-identity",
        "-/x[^a-z0-9]identity/",
        "x-identity=%REQ(x-kubepass-assertion)%",
        "cookie=%REQ(x-kubepass-cookie)%",
        "-x-kubepass-assertion",
        "-x-kubepass-cookie",
    ];
    assert_eq!(steps, wanted);
}

/// What a configuration of many routes costs in memory: a route's own names and addresses, and not what it shares with the others.
#[test]
fn of_a_further_route_only_what_differs_is_held() {
    let fixture = Fixture::new();
    let [prod, _] = <[_; 2]>::try_from(fixture.input().routes).unwrap();
    let mut templates = Templates::default();
    let mut held = |route: &RouteInput<'_>| {
        let resources = of_route(route).into_iter().filter(|(kind, _)| [TypeUrl::Cluster, TypeUrl::RouteConfiguration].contains(kind));
        resources.map(|(kind, resource)| (kind, resource.body.len(), templates.hold(kind, resource).body.held())).collect::<Vec<_>>()
    };
    for (kind, length, held) in held(&prod) {
        assert_eq!(held, length, "{kind}: the first is the template");
    }
    for (kind, length, held) in held(&RouteInput { id: "another".to_owned(), host: "another.example.com", ..prod.clone() }) {
        assert!(held * 3 <= length, "{kind}: {held} of {length}");
    }
}
