//! The resources of a snapshot as one static bootstrap, so that `envoy --mode validate` loads all of them: what would come over the ADS
//! stream stands inline instead.

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::{Pipe, TransportSocket, address, transport_socket};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::http::credential_injector::v3::CredentialInjector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::ConfigSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, ScopedRouteConfigurationsList, http_filter,
};
use envoy_types::pb::envoy::extensions::http::injected_credentials::generic::v3::Generic;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, Secret, UpstreamTlsContext};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::names;
use prost::{Message, Name};

/// Encoded, for a file whose name ends in `.pb`.
pub(super) fn bootstrap(set: &ResourceSet) -> Vec<u8> {
    let local = [names::EXT_AUTHZ_CLUSTER, names::ACCESS_LOG_CLUSTER, names::WEB_CLUSTER, names::XDS_CLUSTER].map(local_cluster);
    let clusters = all::<Cluster>(set, TypeUrl::Cluster).into_iter().map(|cluster| static_cluster(cluster, set));
    let resources = StaticResources {
        listeners: all::<Listener>(set, TypeUrl::Listener).into_iter().map(|listener| static_listener(listener, set)).collect(),
        clusters: clusters.chain(local).collect(),
        secrets: all::<Secret>(set, TypeUrl::Secret),
    };
    Bootstrap { static_resources: Some(resources), ..Default::default() }.encode_to_vec()
}

pub(super) fn all<M: Message + Default>(set: &ResourceSet, kind: TypeUrl) -> Vec<M> {
    set.resources(kind).map(|resource| M::decode(resource.body.bytes()).unwrap()).collect()
}

fn static_listener(mut listener: Listener, set: &ResourceSet) -> Listener {
    for chain in &mut listener.filter_chains {
        change_socket(&mut chain.transport_socket, |tls: &mut DownstreamTlsContext| {
            let common = tls.common_tls_context.as_mut().unwrap();
            common.tls_certificate_sds_secret_configs.iter_mut().for_each(|secret| secret.sds_config = None);
        });
        let Some(filter::ConfigType::TypedConfig(any)) = &mut chain.filters[0].config_type else { panic!("no typed config") };
        change(any, |manager: &mut HttpConnectionManager| {
            let Some(RouteSpecifier::ScopedRoutes(scopes)) = &mut manager.route_specifier else { panic!("no scoped routes") };
            let inline = |scope: ScopedRouteConfiguration| {
                let routes = set.get(TypeUrl::RouteConfiguration, &scope.route_configuration_name).unwrap().body.bytes();
                let route_configuration = Some(RouteConfiguration::decode(routes).unwrap());
                ScopedRouteConfiguration { route_configuration_name: String::new(), route_configuration, ..scope }
            };
            let scoped_route_configurations = all(set, TypeUrl::ScopedRouteConfiguration).into_iter().map(inline).collect();
            scopes.rds_config_source = None;
            scopes.config_specifier =
                Some(ConfigSpecifier::ScopedRouteConfigurationsList(ScopedRouteConfigurationsList { scoped_route_configurations }));
        });
    }
    listener
}

fn static_cluster(mut cluster: Cluster, set: &ResourceSet) -> Cluster {
    // Only a web server may be without TLS; where it is there, it verifies.
    if cluster.transport_socket.is_some() || !cluster.name.starts_with("http:") {
        change_socket(&mut cluster.transport_socket, |tls: &mut UpstreamTlsContext| {
            let common = tls.common_tls_context.as_mut().unwrap();
            let Some(ValidationContextType::CombinedValidationContext(validation)) = &mut common.validation_context_type else {
                panic!("the server's certificate is not verified")
            };
            validation.validation_context_sds_secret_config.as_mut().unwrap().sds_config = None;
        });
    }
    for options in cluster.typed_extension_protocol_options.values_mut() {
        change(options, |options: &mut HttpProtocolOptions| {
            for filter in &mut options.http_filters {
                let Some(http_filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { panic!("no typed config") };
                if any.type_url == CredentialInjector::type_url() {
                    change(any, secret_from_bootstrap);
                }
            }
        });
    }
    if let Some(assignment) = set.get(TypeUrl::ClusterLoadAssignment, &cluster.name) {
        cluster.load_assignment = Some(ClusterLoadAssignment::decode(assignment.body.bytes()).unwrap());
        cluster.eds_cluster_config = None;
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    }
    cluster
}

fn secret_from_bootstrap(injector: &mut CredentialInjector) {
    let any = injector.credential.as_mut().unwrap().typed_config.as_mut().unwrap();
    change(any, |generic: &mut Generic| generic.credential.as_mut().unwrap().sds_config = None);
}

fn local_cluster(name: &str) -> Cluster {
    let pipe = address::Address::Pipe(Pipe { path: format!("/run/kubepass/{name}"), mode: 0 });
    let address = envoy_types::pb::envoy::config::core::v3::Address { address: Some(pipe) };
    let endpoint = lb_endpoint::HostIdentifier::Endpoint(Endpoint { address: Some(address), ..Default::default() });
    let endpoint = LbEndpoint { host_identifier: Some(endpoint), ..Default::default() };
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    };
    Cluster { name: name.to_owned(), load_assignment: Some(assignment), ..Default::default() }
}

fn change_socket<M: Message + Default + Name>(socket: &mut Option<TransportSocket>, by: impl FnOnce(&mut M)) {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &mut socket.as_mut().unwrap().config_type else { panic!("no typed config") };
    change(any, by);
}

fn change<M: Message + Default + Name>(any: &mut Any, by: impl FnOnce(&mut M)) {
    assert_eq!(any.type_url, M::type_url());
    let mut message = M::decode(&any.value[..]).unwrap();
    by(&mut message);
    *any = pack_any(message);
}
