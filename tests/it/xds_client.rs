//! An xDS client for tests: both protocols, aggregated or with a stream for each type. It acknowledges what it gets, unless told otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use hyper_util::rt::TokioIo;
use kubepass::xds::bootstrap::TESTED_ENVOYS;
use kubepass::xds::resource::{Resource, ResourceSet, TypeUrl};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) delta: bool,
    pub(crate) aggregated: bool,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [
        Self { delta: false, aggregated: true },
        Self { delta: false, aggregated: false },
        Self { delta: true, aggregated: true },
        Self { delta: true, aggregated: false },
    ];

    fn path(self, kind: TypeUrl) -> String {
        let (service, method) = match kind {
            _ if self.aggregated => ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources"),
            TypeUrl::Cluster => ("cluster.v3.ClusterDiscoveryService", "Clusters"),
            TypeUrl::ClusterLoadAssignment => ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
            TypeUrl::Listener => ("listener.v3.ListenerDiscoveryService", "Listeners"),
            TypeUrl::ScopedRouteConfiguration => ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
            TypeUrl::RouteConfiguration => ("route.v3.RouteDiscoveryService", "Routes"),
            TypeUrl::Secret => ("secret.v3.SecretDiscoveryService", "Secrets"),
            TypeUrl::ExtensionConfig => ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
        };
        format!("/envoy.service.{service}/{}{method}", if self.delta { "Delta" } else { "Stream" })
    }
}

/// What a response holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) kind: TypeUrl,
    /// Versions by name.
    pub(crate) resources: BTreeMap<String, String>,
    pub(crate) removed: BTreeSet<String>,
    pub(crate) nonce: String,
}

enum Stream {
    Whole(mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>),
    Delta(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>),
}

pub(crate) struct Client {
    variant: Variant,
    channel: Channel,
    node: String,
    /// By type; an aggregated client has one, under the first type.
    streams: BTreeMap<TypeUrl, Stream>,
    names: BTreeMap<TypeUrl, BTreeSet<String>>,
    /// How many requests it has sent.
    pub(crate) requests: u64,
}

/// A channel to a Unix socket.
pub(crate) async fn channel(socket: &Path) -> Channel {
    let path: PathBuf = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://xds").connect_with_connector(connect).await.unwrap()
}

impl Client {
    pub(crate) async fn connect(variant: Variant, socket: &Path, node: &str) -> Self {
        Self::over(variant, channel(socket).await, node)
    }

    pub(crate) fn over(variant: Variant, channel: Channel, node: &str) -> Self {
        Self { variant, channel, node: node.to_owned(), streams: BTreeMap::new(), names: BTreeMap::new(), requests: 0 }
    }

    /// Asks for these names as well, or, by no names at all, for everything.
    pub(crate) async fn subscribe(&mut self, kind: TypeUrl, names: &[&str]) -> Result<(), Status> {
        self.names.entry(kind).or_default().extend(names.iter().map(|&name| name.to_owned()));
        self.request(kind, names, &[], "", None).await
    }

    pub(crate) async fn unsubscribe(&mut self, kind: TypeUrl, names: &[&str]) {
        self.names.entry(kind).or_default().retain(|name| !names.contains(&name.as_str()));
        self.request(kind, &[], names, "", None).await.unwrap();
    }

    /// The next response about `kind`, acknowledged.
    pub(crate) async fn take(&mut self, kind: TypeUrl) -> Got {
        let got = self.next(kind).await.unwrap();
        self.request(got.kind, &[], &[], &got.nonce, None).await.unwrap();
        got
    }

    /// The next response, not answered. An aggregated client may get one of another type.
    pub(crate) async fn next(&mut self, kind: TypeUrl) -> Result<Got, Status> {
        let ended = || Status::cancelled("the stream ended without a reason");
        let next = async {
            match self.streams.get_mut(&self.variant.stream_of(kind)).unwrap() {
                Stream::Whole(_, responses) => responses.message().await?.map(of_whole).ok_or_else(ended),
                Stream::Delta(_, responses) => responses.message().await?.map(of_delta).ok_or_else(ended),
            }
        };
        tokio::time::timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("no response about {kind}"))
    }

    /// Asks on the stream of `at` for another type.
    pub(crate) async fn misdirect(&mut self, at: TypeUrl, kind: TypeUrl) {
        let type_url = kind.as_str().to_owned();
        match self.streams.get(&self.variant.stream_of(at)).unwrap() {
            Stream::Whole(requests, _) => requests.send(DiscoveryRequest { type_url, ..Default::default() }).await.unwrap(),
            Stream::Delta(requests, _) => requests.send(DeltaDiscoveryRequest { type_url, ..Default::default() }).await.unwrap(),
        }
    }

    pub(crate) async fn request(
        &mut self,
        kind: TypeUrl,
        subscribe: &[&str],
        unsubscribe: &[&str],
        nonce: &str,
        refusal: Option<&str>,
    ) -> Result<(), Status> {
        self.requests += 1;
        let at = self.variant.stream_of(kind);
        let first = !self.streams.contains_key(&at);
        if first {
            let stream = open(self.variant, kind, self.channel.clone()).await?;
            self.streams.insert(at, stream);
        }
        let node = first.then(|| Node { user_agent_version_type: Some(tested_version()), id: self.node.clone(), ..Node::default() });
        let words = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let error_detail = refusal.map(|message| RpcStatus { message: message.into(), ..RpcStatus::default() });
        let (type_url, response_nonce) = (kind.as_str().to_owned(), nonce.to_owned());
        // A stream that the server ended tells why in its next response.
        match self.streams.get(&at).unwrap() {
            Stream::Whole(requests, _) => {
                let resource_names = self.names.get(&kind).into_iter().flatten().cloned().collect();
                let request = DiscoveryRequest { node, type_url, resource_names, response_nonce, error_detail, ..Default::default() };
                drop(requests.send(request).await);
            }
            Stream::Delta(requests, _) => {
                let (resource_names_subscribe, resource_names_unsubscribe) = (words(subscribe), words(unsubscribe));
                let request = DeltaDiscoveryRequest {
                    node,
                    type_url,
                    resource_names_subscribe,
                    resource_names_unsubscribe,
                    response_nonce,
                    error_detail,
                    ..Default::default()
                };
                drop(requests.send(request).await);
            }
        }
        Ok(())
    }
}

/// As an Envoy says of itself which version it is.
fn tested_version() -> UserAgentVersionType {
    let (major_number, minor_number) = TESTED_ENVOYS[0];
    let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
    UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version, ..BuildVersion::default() })
}

impl Variant {
    fn stream_of(self, kind: TypeUrl) -> TypeUrl {
        if self.aggregated { TypeUrl::Cluster } else { kind }
    }
}

async fn open(variant: Variant, kind: TypeUrl, channel: Channel) -> Result<Stream, Status> {
    let path = variant.path(kind);
    if variant.delta {
        let (requests, responses) = call(channel, path).await?;
        return Ok(Stream::Delta(requests, responses));
    }
    let (requests, responses) = call(channel, path).await?;
    Ok(Stream::Whole(requests, responses))
}

async fn call<Q, R>(channel: Channel, path: String) -> Result<(mpsc::Sender<Q>, Streaming<R>), Status>
where
    Q: Message + Send + Sync + 'static,
    R: Message + Default + Send + Sync + 'static,
{
    let (requests, receiver) = mpsc::channel(16);
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(256 << 20);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(path).unwrap();
    let responses = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, ProstCodec::default()).await?;
    Ok((requests, responses.into_inner()))
}

fn of_whole(response: DiscoveryResponse) -> Got {
    Got {
        kind: TypeUrl::from_wire(&response.type_url).unwrap(),
        resources: response.resources.iter().map(|any| parsed(&any.value)).collect(),
        removed: BTreeSet::new(),
        nonce: response.nonce,
    }
}

fn of_delta(response: DeltaDiscoveryResponse) -> Got {
    let resource = |resource: envoy_types::pb::envoy::service::discovery::v3::Resource| (resource.name, resource.version);
    Got {
        kind: TypeUrl::from_wire(&response.type_url).unwrap(),
        resources: response.resources.into_iter().map(resource).collect(),
        removed: response.removed_resources.into_iter().collect(),
        nonce: response.nonce,
    }
}

/// `NAME=VERSION`, which `set` makes the body of a resource; of others only the size is kept.
fn parsed(body: &[u8]) -> (String, String) {
    let text = std::str::from_utf8(body).ok().and_then(|text| text.split_once('='));
    text.map_or_else(|| (String::new(), String::new()), |(name, version)| (name.to_owned(), version.to_owned()))
}

/// A set whose bodies say what they are.
pub(crate) fn set<'a>(resources: impl IntoIterator<Item = (TypeUrl, &'a str, &'a str)>) -> ResourceSet {
    let mut builder = ResourceSet::builder();
    for (kind, name, version) in resources {
        let body = Bytes::from(format!("{name}={version}")).into();
        builder.insert(kind, Resource { name: name.into(), version: version.into(), body }).unwrap();
    }
    builder.build()
}
