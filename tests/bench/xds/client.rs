//! The reference client: an aggregated delta stream that asks for what an Envoy asks for and acknowledges at once. It counts the bytes that
//! come over its connection.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use hyper_util::rt::TokioIo;
use kubepass::xds::resource::TypeUrl;
use kubepass::xds::resources::names;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The listener whose certificate it asks for.
const LISTENER: &str = "listener-0";
/// The types that begin an Envoy's start, without names.
const WILDCARDS: [TypeUrl; 3] = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::ScopedRouteConfiguration];

/// Clients that run. Dropping them ends all.
pub(super) struct Clients {
    runtime: tokio::runtime::Runtime,
    received: Vec<Arc<AtomicU64>>,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self { runtime: tokio::runtime::Runtime::new().expect("a runtime"), received: Vec::new() }
    }

    /// Starts one with the name `node` on `xds.sock` in `folder`.
    pub(super) fn start(&mut self, node: &str, folder: &Path) {
        let received = Arc::new(AtomicU64::new(0));
        self.received.push(Arc::clone(&received));
        let (node, socket) = (node.to_owned(), folder.join("xds.sock"));
        self.runtime.spawn(async move {
            if let Err(error) = run(&node, socket, received).await {
                // The server's log then lacks its answers, which ends the measurement.
                eprintln!("the client {node} has ended: {error}");
            }
        });
    }

    /// Bytes that the first one has received.
    pub(super) fn received(&self) -> u64 {
        self.received.first().map_or(0, |received| received.load(Ordering::Relaxed))
    }
}

async fn run(node: &str, socket: PathBuf, received: Arc<AtomicU64>) -> Result<(), tonic::Status> {
    let unavailable = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    let connect = tower::service_fn(move |_| {
        let (socket, received) = (socket.clone(), Arc::clone(&received));
        async move { UnixStream::connect(socket).await.map(|stream| TokioIo::new(Counting { stream, received })) }
    });
    let window = 16 << 20;
    let endpoint = Endpoint::from_static("http://xds").initial_stream_window_size(window).initial_connection_window_size(window);
    let channel = endpoint.connect_with_connector(connect).await.map_err(unavailable)?;
    let (requests, receiver) = mpsc::channel(64);
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(512 << 20);
    grpc.ready().await.map_err(unavailable)?;
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    let version = UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version: Some(version), ..BuildVersion::default() });
    let node = Node { id: node.to_owned(), user_agent_version_type: Some(version), ..Node::default() };
    let mut node = Some(node);
    for kind in WILDCARDS {
        let request = DeltaDiscoveryRequest { node: node.take(), type_url: kind.as_str().to_owned(), ..DeltaDiscoveryRequest::default() };
        let _ = requests.send(request).await;
    }
    let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = ProstCodec::default();
    let responses = grpc.streaming(Request::new(ReceiverStream::new(receiver)), PathAndQuery::from_static(METHOD), codec).await?;
    serve(responses.into_inner(), &requests).await
}

async fn serve(
    mut responses: Streaming<DeltaDiscoveryResponse>,
    requests: &mpsc::Sender<DeltaDiscoveryRequest>,
) -> Result<(), tonic::Status> {
    while let Some(response) = responses.message().await? {
        let acknowledged =
            DeltaDiscoveryRequest { type_url: response.type_url.clone(), response_nonce: response.nonce.clone(), ..Default::default() };
        let _ = requests.send(acknowledged).await;
        for (kind, subscribe, unsubscribe) in follow_ups(&response) {
            let request = DeltaDiscoveryRequest {
                type_url: kind.as_str().to_owned(),
                resource_names_subscribe: subscribe,
                resource_names_unsubscribe: unsubscribe,
                ..Default::default()
            };
            let _ = requests.send(request).await;
        }
    }
    Err(tonic::Status::unavailable("the stream is over"))
}

/// What an Envoy would ask for after a response, and no longer.
fn follow_ups(response: &DeltaDiscoveryResponse) -> Vec<(TypeUrl, Vec<String>, Vec<String>)> {
    let came = response.resources.iter().map(|resource| resource.name.as_str());
    let gone = response.removed_resources.iter().map(String::as_str);
    let asked = match TypeUrl::from_wire(&response.type_url) {
        Some(TypeUrl::Cluster) => vec![
            (TypeUrl::ClusterLoadAssignment, came.clone().map(str::to_owned).collect(), gone.clone().map(str::to_owned).collect()),
            (TypeUrl::Secret, came.flat_map(secrets).collect(), gone.flat_map(secrets).collect()),
        ],
        Some(TypeUrl::Listener) => vec![(TypeUrl::Secret, vec![names::serving_secret(LISTENER, 0)], vec![])],
        // A scope and its route configuration have one name.
        Some(TypeUrl::ScopedRouteConfiguration) => {
            vec![(TypeUrl::RouteConfiguration, came.map(str::to_owned).collect(), gone.map(str::to_owned).collect())]
        }
        _ => vec![],
    };
    asked.into_iter().filter(|(_, subscribe, unsubscribe): &(_, Vec<_>, Vec<_>)| !subscribe.is_empty() || !unsubscribe.is_empty()).collect()
}

/// Of a cluster. One of a route with tokens has the first alone; the answer says so.
fn secrets(cluster: &str) -> [String; 2] {
    let id = cluster.split_once(':').map_or(cluster, |(_, id)| id);
    [names::ca_secret(id), names::token_secret(id)]
}

struct Counting {
    stream: UnixStream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
