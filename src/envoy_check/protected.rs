//! Which clusters are behind kubepass, and which lead to the same servers without being so. A cluster counts by its guard, by the targets of the
//! routes to it, by a credential that it adds, and by its addresses: whoever reaches one of those must have been let through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::document::Document;
use super::guard::{self, Guard};
use super::part::Part;
use super::{cluster, ext_authz, listener, routes};
use crate::envoy_names::{WEB_TARGET, http_id, kubernetes_id, route_id};

/// The grant of the web pages.
pub(super) const WEB: &str = WEB_TARGET;
/// What a config dump shows of a target.
const REDACTED: &str = "[redacted]";

/// What stands behind it, the most guarded last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protection {
    Web,
    Http,
    Kubernetes,
}

/// A cluster with what the others are judged by.
#[derive(Debug)]
pub(super) struct ClusterView<'a> {
    pub(super) name: &'a str,
    pub(super) part: Part<'a>,
    pub(super) guard: Option<Guard<'a>>,
    /// Whether requests leave with a credential of this Envoy: a token or a client certificate.
    pub(super) has_credential: bool,
    /// None: they are not in the document, or it may reach any.
    pub(super) addresses: Option<BTreeSet<String>>,
    pub(super) protection: Option<Protection>,
    /// xDS, checks and access log of a control plane go there: nothing of a client may.
    pub(super) is_control_plane: bool,
    /// Who answers there decides on requests, or configures this Envoy.
    pub(super) is_trusted: bool,
    /// Envoy's own admin interface is there.
    pub(super) is_admin: bool,
}

#[derive(Debug)]
pub(super) struct Survey<'a> {
    clusters: Vec<ClusterView<'a>>,
}

impl<'a> Survey<'a> {
    pub(super) fn of(document: &Document<'a>) -> Self {
        let grpc = GrpcClusters::of(document);
        let targets = targets(document);
        let mut clusters: Vec<_> = document.clusters.iter().map(|part| view(part, document, &grpc)).collect();
        by_address(&mut clusters, document);
        for cluster in &mut clusters {
            cluster.protection = by_itself(cluster, &targets);
        }
        let known = known_addresses(&clusters, &targets);
        for cluster in clusters.iter_mut().filter(|cluster| cluster.protection.is_none() && !cluster.is_control_plane) {
            let shared = cluster.addresses.iter().flatten().find_map(|address| known.get(address));
            cluster.protection = shared.copied();
        }
        Self { clusters }
    }

    pub(super) fn clusters(&self) -> impl Iterator<Item = &ClusterView<'a>> {
        self.clusters.iter()
    }

    /// All of that name: a dump may hold the old and the new one.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &ClusterView<'a>> {
        self.clusters.iter().filter(move |cluster| cluster.name == name)
    }
}

fn view<'a>(part: &Part<'a>, document: &Document<'a>, grpc: &GrpcClusters<'a>) -> ClusterView<'a> {
    let name = part.field("name").text().unwrap_or_default();
    ClusterView {
        name,
        part: part.clone(),
        guard: guard::of_cluster(part),
        has_credential: cluster::has_credential(part),
        addresses: addresses(part, name, document),
        protection: None,
        is_control_plane: grpc.all.contains(name),
        is_trusted: grpc.trusted.contains(name),
        is_admin: false,
    }
}

/// The same places under names of other clusters.
fn by_address(clusters: &mut [ClusterView<'_>], document: &Document<'_>) {
    let control_plane = clusters.iter().filter(|cluster| cluster.is_control_plane);
    let control_plane: BTreeSet<String> = control_plane.flat_map(|cluster| cluster.addresses.iter().flatten().cloned()).collect();
    let admin = address(&document.bootstrap.path("admin.address"));
    for cluster in clusters {
        let mut addresses = cluster.addresses.iter().flatten();
        cluster.is_control_plane |= addresses.clone().any(|address| control_plane.contains(address));
        cluster.is_admin = addresses.any(|address| Some(address) == admin.as_ref());
    }
}

fn by_itself(cluster: &ClusterView<'_>, targets: &[(Option<&str>, &str)]) -> Option<Protection> {
    if cluster.is_control_plane {
        return None;
    }
    let granted = cluster.guard.iter().flat_map(|guard| guard.demands.grants.iter().flatten()).map(String::as_str);
    let routed: Vec<&str> = targets.iter().filter(|(_, name)| *name == cluster.name).filter_map(|(target, _)| *target).collect();
    match granted.chain(routed.iter().copied()).filter_map(of_target).max() {
        Some(Protection::Http) => Some(Protection::Http),
        _ if cluster.has_credential => Some(Protection::Kubernetes),
        None if routed.iter().any(|target| is_redacted(target)) => Some(Protection::Kubernetes),
        known => known,
    }
}

fn of_target(target: &str) -> Option<Protection> {
    match target {
        WEB => Some(Protection::Web),
        _ if kubernetes_id(target).is_some() => Some(Protection::Kubernetes),
        _ if http_id(target).is_some() => Some(Protection::Http),
        _ => None,
    }
}

/// Whether this is how a dump shows a target that it does not show.
pub(super) fn is_redacted(target: &str) -> bool {
    target == REDACTED
}

/// Where protected servers are: by the clusters that lead there, and by the ids of routes, which name them.
fn known_addresses(clusters: &[ClusterView<'_>], targets: &[(Option<&str>, &str)]) -> BTreeMap<String, Protection> {
    let of_clusters = clusters.iter().flat_map(|cluster| {
        let addresses = cluster.addresses.iter().flatten().cloned();
        addresses.filter_map(|address| Some((address, cluster.protection?))).collect::<Vec<_>>()
    });
    let grants = clusters.iter().filter_map(|cluster| cluster.guard.as_ref()?.demands.grants.as_ref()).flatten().map(String::as_str);
    let of_ids =
        targets.iter().filter_map(|(target, _)| *target).chain(grants).filter_map(|target| Some((server_of(target)?, of_target(target)?)));
    of_clusters.chain(of_ids).collect()
}

/// Every target with the cluster that it leads to, over all connection managers.
fn targets<'a>(document: &Document<'a>) -> Vec<(Option<&'a str>, &'a str)> {
    let managers = document.listeners.iter().flat_map(listener::connection_managers);
    managers.flat_map(|manager| quiet_routes(document, &manager)).flat_map(|config| routes::targets(&config)).collect()
}

/// What is missing is said when the chain is judged.
fn quiet_routes<'a>(document: &Document<'a>, manager: &Part<'a>) -> Vec<Part<'a>> {
    let there = ["route_config", "rds", "scoped_routes"].iter().any(|name| manager.field(name).is_there());
    if there { document.routes_of(manager) } else { Vec::new() }
}

/// Clusters to which gRPC clients of this Envoy speak.
#[derive(Debug, Default)]
struct GrpcClusters<'a> {
    all: BTreeSet<&'a str>,
    /// Those that decide or configure.
    trusted: BTreeSet<&'a str>,
}

impl<'a> GrpcClusters<'a> {
    fn of(document: &Document<'a>) -> Self {
        let mut found = Self::default();
        let parts = std::iter::once(&document.bootstrap).chain(&document.listeners);
        parts.filter_map(Part::value).for_each(|value| found.collect(value, false));
        found
    }

    fn collect(&mut self, value: &'a Value, trusted: bool) {
        match value {
            Value::Object(map) => {
                let is_check = map.get("@type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with(ext_authz::TYPE));
                for (key, value) in map {
                    let trusted = trusted || is_check || key == "ads_config" || key == "adsConfig";
                    if key == "envoy_grpc" || key == "envoyGrpc" {
                        let names = ["cluster_name", "clusterName"].iter().filter_map(|name| value.get(*name)?.as_str());
                        self.all.extend(names.clone());
                        self.trusted.extend(names.filter(|_| trusted));
                    }
                    self.collect(value, trusted);
                }
            }
            Value::Array(items) => items.iter().for_each(|value| self.collect(value, trusted)),
            _ => {}
        }
    }
}

fn addresses(cluster: &Part<'_>, name: &str, document: &Document<'_>) -> Option<BTreeSet<String>> {
    if cluster.field("cluster_type").is_there() || cluster.field("type").is_one_of(&[("ORIGINAL_DST", 4)]) {
        return None;
    }
    let eds = cluster.field("type").is_one_of(&[("EDS", 3)]) || cluster.field("eds_cluster_config").is_there();
    let service = cluster.path("eds_cluster_config.service_name").text().filter(|name| !name.is_empty()).unwrap_or(name);
    let assignments = if eds { document.endpoints_of(service)?.to_vec() } else { vec![cluster.field("load_assignment")] };
    assignments.iter().map(of_assignment).collect::<Option<Vec<_>>>().map(|lists| lists.into_iter().flatten().collect())
}

fn of_assignment(assignment: &Part<'_>) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for locality in assignment.field("endpoints").items() {
        if ["load_balancer_endpoints", "leds_cluster_locality_config"].iter().any(|name| locality.field(name).is_there()) {
            return None;
        }
        for endpoint in locality.field("lb_endpoints").items() {
            let endpoint = endpoint.field("endpoint");
            found.push(address(&endpoint.field("address"))?);
            for more in endpoint.field("additional_addresses").items() {
                found.push(address(&more.field("address"))?);
            }
        }
    }
    if assignment.field("named_endpoints").is_there() { None } else { Some(found) }
}

/// `10.0.0.1:6443`, `unix:/path` or `internal:NAME`.
pub(super) fn address(part: &Part<'_>) -> Option<String> {
    let socket = part.field("socket_address");
    if let Some(host) = socket.field("address").text() {
        return Some(format!("{}:{}", one_spelling(host), socket.field("port_value").number()?));
    }
    if let Some(path) = part.path("pipe.path").text() {
        return Some(format!("unix:{path}"));
    }
    part.path("envoy_internal_address.server_listener_name").text().map(|name| format!("internal:{name}"))
}

/// The server that a target or grant names, as addresses are written here.
pub(super) fn server_of(target: &str) -> Option<String> {
    let (_, server) = route_id(target)?.rsplit_once('@')?;
    let (host, port) = server.split('/').next()?.rsplit_once(':')?;
    Some(format!("{}:{port}", one_spelling(host)))
}

/// Of one host: IPv6 addresses have several, a name may end with a dot.
fn one_spelling(host: &str) -> String {
    let name = || match host.trim_end_matches('.').to_ascii_lowercase() {
        name if name == "localhost" => "127.0.0.1".to_owned(),
        name => name,
    };
    host.parse::<IpAddr>().map_or_else(|_| name(), |address| address.to_canonical().to_string())
}

/// Whether only processes of this machine are behind the address.
pub(super) fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    address.starts_with("unix:") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
