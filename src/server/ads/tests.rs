//! A real gRPC client over a Unix socket.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server};

use super::*;
use crate::server::unix_socket::UnixSocket;
use crate::xds::resource::{Resource, ResourceSet, TypeUrl};
use crate::xds::stream::Dialect;

const DEADLINE: Duration = Duration::from_secs(10);

struct Fixture {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    resources: Option<watch::Sender<Arc<NodeResources>>>,
    state: AdsState,
    draining: CancellationToken,
}

impl Fixture {
    async fn start(limits: AdsLimits, first: ResourceSet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/xds.sock");
        let (resources, receiver) = watch::channel(Arc::new(first.into()));
        let (state, draining) = (AdsState::default(), CancellationToken::new());
        let service = Ads::service(receiver, state.clone(), limits, draining.clone());
        let incoming = UnixSocket::bind(&socket).unwrap().into_incoming();
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        Self { _folder: folder, socket, resources: Some(resources), state, draining }
    }

    fn publish(&self, set: ResourceSet) {
        self.resources.as_ref().unwrap().send(Arc::new(set.into())).unwrap();
    }

    async fn client(&self) -> AggregatedDiscoveryServiceClient<Channel> {
        let path = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // Small, so that what is not read waits in kubepass.
        let endpoint = Endpoint::from_static("http://xds").initial_stream_window_size(65_535);
        AggregatedDiscoveryServiceClient::new(endpoint.connect_with_connector(connect).await.unwrap())
    }

    async fn stream(&self) -> Result<Envoy, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let responses = self.client().await.delta_aggregated_resources(ReceiverStream::new(receiver)).await?;
        Ok(Envoy { requests, responses: responses.into_inner(), named: false })
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&AdsState) -> bool) {
        let wait = async {
            while !holds(&self.state) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

struct Envoy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    named: bool,
}

impl Envoy {
    async fn ask(&mut self, kind: TypeUrl, names: &[&str], nonce: &str, refusal: Option<&str>) {
        let node = (!std::mem::replace(&mut self.named, true)).then(|| Node { id: "envoy-1".into(), ..Node::default() });
        let request = DeltaDiscoveryRequest {
            node,
            type_url: kind.as_str().into(),
            resource_names_subscribe: names.iter().map(|&name| name.into()).collect(),
            response_nonce: nonce.into(),
            error_detail: refusal.map(|message| RpcStatus { message: message.into(), ..RpcStatus::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(DEADLINE, self.responses.message()).await.unwrap();
        next.transpose().unwrap_or_else(|| Err(Status::cancelled("ended without a reason")))
    }

    /// The next response, as `TYPE NAME... -REMOVED...`, acknowledged.
    async fn take(&mut self) -> String {
        let response = self.next().await.unwrap();
        let kind = TypeUrl::from_wire(&response.type_url).unwrap();
        self.ask(kind, &[], &response.nonce, None).await;
        shown(&response)
    }
}

fn shown(response: &DeltaDiscoveryResponse) -> String {
    let mut words = vec![TypeUrl::from_wire(&response.type_url).unwrap().short_name().to_owned()];
    words.extend(response.resources.iter().map(|resource| resource.name.clone()));
    words.extend(response.removed_resources.iter().map(|name| format!("-{name}")));
    words.join(" ")
}

fn set(resources: &[(TypeUrl, &str, &str)]) -> ResourceSet {
    let mut builder = ResourceSet::builder();
    for &(kind, name, version) in resources {
        builder.insert(kind, Resource { name: name.into(), version: version.into(), body: Bytes::from_static(b"x").into() }).unwrap();
    }
    builder.build()
}

fn all(version: &str) -> ResourceSet {
    set(&[
        (TypeUrl::Cluster, "a", version),
        (TypeUrl::ClusterLoadAssignment, "a", version),
        (TypeUrl::Listener, "l", version),
        (TypeUrl::RouteConfiguration, "r", version),
        (TypeUrl::Secret, "s", version),
    ])
}

#[tokio::test]
async fn an_envoy_gets_everything_and_each_change_until_it_leaves() {
    let fixture = Fixture::start(AdsLimits::default(), all("1")).await;
    let mut ready = fixture.state.listener_acknowledged();
    assert!(!*ready.borrow_and_update());
    let mut envoy = fixture.stream().await.unwrap();
    let asked: [(TypeUrl, &[&str]); 5] = [
        (TypeUrl::Cluster, &[]),
        (TypeUrl::ClusterLoadAssignment, &["a"]),
        (TypeUrl::Listener, &[]),
        (TypeUrl::RouteConfiguration, &["r"]),
        (TypeUrl::Secret, &["s"]),
    ];
    for (kind, names) in asked {
        envoy.ask(kind, names, "", None).await;
    }
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(envoy.take().await);
    }
    assert_eq!(taken, ["cds a", "eds a", "lds l", "rds r", "sds s"]);
    tokio::time::timeout(DEADLINE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();

    fixture.publish(all("2"));
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(envoy.take().await);
    }
    assert_eq!(taken, ["cds a", "eds a", "sds s", "lds l", "rds r"]);
    fixture.until("all acknowledged", |state| state.is_taken(&all("2"))).await;
    assert!(!fixture.state.is_taken(&all("1")));
    let requested = |view: &&TypeView| view.state.requested;
    let stream = fixture.state.streams().remove(0);
    assert!(stream.types.values().filter(requested).all(|view| view.state.acknowledged.as_ref() == Some(&view.wanted)));
    assert!(stream.types.values().filter(requested).all(|view| view.converged_in.is_some() && view.waiting().is_none()));
    assert_eq!((stream.node.as_str(), stream.protocol), ("envoy-1", Dialect::Delta));
    assert_eq!(fixture.state.counts(TypeUrl::Listener), TypeCounts { pushed: 2, acked: 2, ..TypeCounts::default() });

    drop(envoy);
    tokio::time::timeout(DEADLINE, ready.wait_for(|ready| !*ready)).await.unwrap().unwrap();
    assert_eq!(fixture.state.streams(), []);
    assert!(!fixture.state.is_taken(&all("2")), "nobody has it");
}

/// However a client goes, its task, its place and what it made kubepass keep go with it.
#[tokio::test]
async fn gcp_570_913_916_1036_579_streams_that_close_leave_something() {
    let fixture = Fixture::start(AdsLimits { streams: 1, name_cost: 200, ..AdsLimits::default() }, all("1")).await;
    for round in 0..20 {
        let mut envoy = loop {
            match fixture.stream().await {
                Ok(envoy) => break envoy,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "the last one is not gone yet"),
            }
            tokio::task::yield_now().await;
        };
        envoy.ask(TypeUrl::Secret, &["s", "t"], "", None).await;
        if round % 2 == 0 {
            assert_eq!(envoy.next().await.unwrap().resources.len(), 1);
        }
        drop(envoy);
        fixture.until("the stream is gone", |state| state.streams().is_empty()).await;
    }
}

/// It would otherwise have as many streams as it likes, each with all that it asked for.
#[tokio::test]
async fn a_client_that_asks_no_more_and_reads_nothing_keeps_its_place() {
    let mut builder = ResourceSet::builder();
    builder.insert(TypeUrl::Secret, Resource { name: "s".into(), version: "1".into(), body: vec![b'x'; 1 << 20].into() }).unwrap();
    let fixture = Fixture::start(AdsLimits { streams: 1, ..AdsLimits::default() }, builder.build()).await;
    let mut envoy = fixture.stream().await.unwrap();
    envoy.ask(TypeUrl::Secret, &["s"], "", None).await;
    fixture.until("it is pushed", |state| state.counts(TypeUrl::Secret).pushed == 1).await;
    let Envoy { requests, responses, .. } = envoy;
    drop(requests);
    fixture.until("nothing is read from it any more", |state| state.streams().is_empty()).await;
    assert_eq!(fixture.stream().await.err().unwrap().code(), Code::ResourceExhausted);
    drop(responses);
    let freed = async {
        while fixture.stream().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, freed).await.unwrap();
}

/// An Envoy at its start: it asks for each secret in a request of its own, and whatever else it has to say comes after them.
#[tokio::test]
async fn who_asks_for_each_resource_by_itself_is_not_held_up() {
    let limits = AdsLimits { burst: 5, requests_per_second: 1, ..AdsLimits::default() };
    let names: Vec<String> = (0..200).map(|number| format!("secret-{number}")).collect();
    let secrets: Vec<_> = names.iter().map(|name| (TypeUrl::Secret, name.as_str(), "1")).collect();
    let fixture = Fixture::start(limits, set(&secrets)).await;
    let mut envoy = fixture.stream().await.unwrap();
    let mut got = 0;
    for name in &names {
        envoy.ask(TypeUrl::Secret, &[name], "", None).await;
    }
    while got < names.len() {
        let response = envoy.next().await.unwrap();
        envoy.ask(TypeUrl::Secret, &[], &response.nonce, None).await;
        got += response.resources.len();
    }
}

#[tokio::test]
async fn a_listener_set_without_listeners_is_not_readiness() {
    let fixture = Fixture::start(AdsLimits::default(), set(&[])).await;
    let mut envoy = fixture.stream().await.unwrap();
    envoy.ask(TypeUrl::Listener, &[], "", None).await;
    assert_eq!(envoy.take().await, "lds");
    fixture.until("acknowledged", |state| state.counts(TypeUrl::Listener).acked == 1).await;
    assert!(!*fixture.state.listener_acknowledged().borrow());
}

#[tokio::test]
async fn a_refusal_is_shown_until_it_is_settled_and_survives_a_reconnect_as_a_doubt() {
    let fixture = Fixture::start(AdsLimits::default(), set(&[(TypeUrl::Cluster, "bad", "1")])).await;
    let mut envoy = fixture.stream().await.unwrap();
    envoy.ask(TypeUrl::Cluster, &[], "", None).await;
    let response = envoy.next().await.unwrap();
    envoy.ask(TypeUrl::Cluster, &[], &response.nonce, Some("no such thing")).await;
    fixture.until("refusal seen", |state| state.counts(TypeUrl::Cluster).nacked == 1).await;
    let waiting = fixture.state.streams()[0].types[&TypeUrl::Cluster].waiting();
    assert!(waiting.is_some(), "it does not have what it should");
    let refusal = |state: &AdsState| state.streams().first().and_then(|s| s.types.get(&TypeUrl::Cluster)?.refusal.clone());
    assert_eq!(refusal(&fixture.state).as_deref(), Some("no such thing"));
    drop(envoy);
    fixture.until("stream gone", |state| state.streams().is_empty()).await;

    fixture.publish(set(&[]));
    let mut envoy = fixture.stream().await.unwrap();
    envoy.ask(TypeUrl::Cluster, &[], "", None).await;
    assert_eq!(envoy.take().await, "cds -bad");
    fixture.until("settled", |state| state.counts(TypeUrl::Cluster).acked == 1).await;
    assert_eq!(refusal(&fixture.state), None);
    assert_eq!(fixture.state.counts(TypeUrl::Cluster).last_refusal.as_deref(), Some("no such thing"));
}

#[tokio::test]
async fn limits_end_a_stream_with_their_reason() {
    let limits =
        AdsLimits { streams: 1, stream: Limits { names_per_type: 2, ..Limits::default() }, request_bytes: 1000, ..AdsLimits::default() };
    let fixture = Fixture::start(limits, set(&[])).await;
    let mut envoy = fixture.stream().await.unwrap();
    let refused = fixture.stream().await.err().unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "1 xDS streams are open already"));
    envoy.ask(TypeUrl::Secret, &["a", "b", "c"], "", None).await;
    assert_eq!(envoy.next().await.unwrap_err().code(), Code::ResourceExhausted);
    fixture.until("place free", |state| state.streams().is_empty()).await;

    let mut envoy = fixture.stream().await.unwrap();
    envoy.ask(TypeUrl::Secret, &[&"x".repeat(2000)], "", None).await;
    assert!(envoy.next().await.is_err(), "a request over its size ends the stream");
    fixture.until("place free", |state| state.streams().is_empty()).await;
}

#[tokio::test]
async fn streams_end_when_the_process_drains_or_its_configuration_goes() {
    let mut fixture = Fixture::start(AdsLimits::default(), set(&[])).await;
    let mut one = fixture.stream().await.unwrap();
    fixture.resources.take();
    assert_eq!(one.next().await.unwrap_err().code(), Code::Unavailable);
    let fixture = Fixture::start(AdsLimits::default(), set(&[])).await;
    let mut one = fixture.stream().await.unwrap();
    fixture.draining.cancel();
    assert_eq!(one.next().await.unwrap_err().code(), Code::Unavailable);
}
