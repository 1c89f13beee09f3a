//! A client that asks as Envoy 1.40 does: clusters, then their endpoints and secrets; listeners, then their routes and secrets; each response
//! acknowledged as it comes. Or one that does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use kubepass::xds::bootstrap::TESTED_ENVOYS;
use kubepass::xds::resource::TypeUrl;
use kubepass::xds::resources::names;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::xds_client::channel;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// Reads, and acknowledges nothing.
    NeverAnswers,
    /// Asks, and reads nothing.
    NeverReads,
}

/// What a client holds: of each type the version and the size of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings(BTreeMap<&'static str, BTreeMap<String, (String, usize)>>);

impl Holdings {
    pub(super) fn names(&self, kind: &str) -> Vec<String> {
        self.0.get(kind).into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// Versions by name.
    pub(super) fn of(&self, kind: &str) -> BTreeMap<String, String> {
        self.0.get(kind).into_iter().flatten().map(|(name, (version, _))| (name.clone(), version.clone())).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        let all = self.0.values().flat_map(|of_kind| of_kind.values());
        all.map(|(_, bytes)| u64::try_from(*bytes).unwrap()).sum()
    }

    fn take(&mut self, kind: TypeUrl, response: &DeltaDiscoveryResponse) {
        let held = self.0.entry(kind.short_name()).or_default();
        for resource in &response.resources {
            let bytes = resource.resource.as_ref().map_or(0, |any| any.value.len());
            held.insert(resource.name.clone(), (resource.version.clone(), bytes));
        }
        response.removed_resources.iter().for_each(|name| drop(held.remove(name)));
    }
}

/// A connected client; dropping it ends the connection.
pub(super) struct Simulated {
    holdings: Arc<Mutex<Holdings>>,
    task: JoinHandle<()>,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Simulated {
    pub(super) fn start(runtime: &Runtime, socket: &Path, node: &str, behaviour: Behaviour) -> Self {
        let holdings = Arc::<Mutex<Holdings>>::default();
        let task = Task { socket: socket.to_owned(), node: node.to_owned(), behaviour, holdings: Arc::clone(&holdings) };
        Self { holdings, task: runtime.spawn(task.run()) }
    }

    pub(super) fn holdings(&self) -> Holdings {
        self.holdings.lock().unwrap().clone()
    }
}

struct Task {
    socket: PathBuf,
    node: String,
    behaviour: Behaviour,
    holdings: Arc<Mutex<Holdings>>,
}

impl Task {
    async fn run(self) {
        let (requests, receiver) = mpsc::channel(64);
        let mut client = AggregatedDiscoveryServiceClient::new(channel(&self.socket).await).max_decoding_message_size(64 << 20);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.expect("an xDS stream");
        let mut responses = responses.into_inner();
        let first = DeltaDiscoveryRequest { node: Some(node(&self.node)), ..ask(TypeUrl::Cluster, Vec::new()) };
        for request in [first, ask(TypeUrl::Listener, Vec::new()), ask(TypeUrl::ScopedRouteConfiguration, Vec::new())] {
            requests.send(request).await.expect("the stream is open");
        }
        if self.behaviour == Behaviour::NeverReads {
            return std::future::pending().await;
        }
        loop {
            // A stream that ends is missed where streams are counted.
            let Ok(Some(response)) = responses.message().await else { return };
            let kind = TypeUrl::from_wire(&response.type_url).expect("a known type");
            let follow_up = follow_up(kind, &response);
            let nonce = response.nonce.clone();
            self.holdings.lock().unwrap().take(kind, &response);
            if self.behaviour == Behaviour::Good {
                let acknowledgement = DeltaDiscoveryRequest { response_nonce: nonce, ..ask(kind, Vec::new()) };
                for request in follow_up.into_iter().chain([acknowledgement]) {
                    let _ = requests.send(request).await;
                }
            }
        }
    }
}

/// What a response makes a client ask for, and no longer ask for.
fn follow_up(kind: TypeUrl, response: &DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
    let of_cluster = |name: &String| {
        let id = name.strip_prefix("kubernetes:").unwrap_or(name);
        [
            (TypeUrl::ClusterLoadAssignment, name.clone()),
            (TypeUrl::Secret, names::ca_secret(id)),
            (TypeUrl::Secret, names::token_secret(id)),
        ]
    };
    let of_listener = |name: &String| [(TypeUrl::Secret, names::serving_secret(name, 0))];
    let needed = |name: &String| -> Vec<(TypeUrl, String)> {
        match kind {
            TypeUrl::Cluster => of_cluster(name).to_vec(),
            TypeUrl::Listener => of_listener(name).to_vec(),
            // A scope and its route configuration have one name.
            TypeUrl::ScopedRouteConfiguration => vec![(TypeUrl::RouteConfiguration, name.clone())],
            _ => Vec::new(),
        }
    };
    let added: Vec<_> = response.resources.iter().flat_map(|resource| needed(&resource.name)).collect();
    let gone: Vec<_> = response.removed_resources.iter().flat_map(needed).collect();
    let of = |all: &[(TypeUrl, String)], kind| all.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect::<Vec<_>>();
    [TypeUrl::ClusterLoadAssignment, TypeUrl::RouteConfiguration, TypeUrl::Secret]
        .into_iter()
        .map(|kind| DeltaDiscoveryRequest { resource_names_unsubscribe: of(&gone, kind), ..ask(kind, of(&added, kind)) })
        .filter(|request| !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty())
        .collect()
}

fn ask(kind: TypeUrl, resource_names_subscribe: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.as_str().to_owned(), resource_names_subscribe, ..Default::default() }
}

fn node(id: &str) -> Node {
    let (major_number, minor_number) = TESTED_ENVOYS[0];
    let version = SemanticVersion { major_number, minor_number, patch: 0 };
    let build = BuildVersion { version: Some(version), ..Default::default() };
    let user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(build));
    Node { id: id.to_owned(), user_agent_version_type, ..Default::default() }
}
