//! Clients of the discovery services that mean harm, or are broken: each gets a clear status, costs a bounded amount, and another client,
//! which behaves, notices nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut};
use kubepass::server::ads::{Ads, AdsLimits, AdsState};
use kubepass::server::unix_socket::UnixSocket;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::NodeResources;
use kubepass::xds::stream::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Server;
use tonic::{Code, Request, Status};

use super::xds_client::{Client, DEADLINE, Variant, channel, set};

const KINDS: [TypeUrl; 7] = TypeUrl::ALL;

struct Target {
    folder: tempfile::TempDir,
    resources: watch::Sender<Arc<NodeResources>>,
    state: AdsState,
    version: u64,
}

impl Target {
    fn start(limits: AdsLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let resources = watch::Sender::new(Arc::new(content(0).into()));
        let state = AdsState::default();
        let service = Ads::service(resources.subscribe(), state.clone(), limits, CancellationToken::new());
        let incoming = UnixSocket::bind(&folder.path().join("run/xds.sock")).unwrap().into_incoming();
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        Self { folder, resources, state, version: 0 }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("run/xds.sock")
    }

    async fn client(&self, variant: Variant, node: &str) -> Client {
        Client::connect(variant, &self.socket(), node).await
    }

    /// A client that behaves, and has everything.
    async fn good_client(&self) -> Client {
        let mut client = self.client(Variant { delta: true, aggregated: true }, "good").await;
        for kind in KINDS {
            client.subscribe(kind, &["a"]).await.unwrap();
            client.take(kind).await;
        }
        client
    }

    /// Publishes a change, which the good client gets at once.
    async fn assert_served(&mut self, good: &mut Client) {
        self.version += 1;
        self.resources.send_replace(Arc::new(content(self.version).into()));
        let began = Instant::now();
        for _ in KINDS {
            let got = good.take(TypeUrl::Cluster).await;
            assert_eq!(got.resources.get("a"), Some(&self.version.to_string()), "{got:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "the good client waited {:?}", began.elapsed());
    }

    async fn until(&self, what: &str, holds: impl Fn(&AdsState) -> bool) {
        let wait = async {
            while !holds(&self.state) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

fn content(version: u64) -> ResourceSet {
    let version = version.to_string();
    set(KINDS.into_iter().map(|kind| (kind, "a", version.as_str())))
}

/// The next status that ends the client's stream; responses before it are not answered.
async fn ended(client: &mut Client, kind: TypeUrl) -> Status {
    loop {
        if let Err(status) = client.next(kind).await {
            return status;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_names_end_the_stream() {
    let mut target = Target::start(AdsLimits::default());
    let mut good = target.good_client().await;
    for variant in Variant::ALL {
        let mut hostile = target.client(variant, "hostile").await;
        // It would go on to a million, but is ended on the way.
        let names: Vec<String> = (0..80_000).map(|i| format!("n{i}")).collect();
        for part in names.chunks(20_000) {
            hostile.subscribe(TypeUrl::Secret, &part.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
        }
        let status = ended(&mut hostile, TypeUrl::Secret).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{variant:?}: {status}");
        assert!(status.message().starts_with("more than 65536 names for type"), "{status}");
        target.assert_served(&mut good).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_with_everything_is_too_long() {
    let mut target = Target::start(AdsLimits { request_bytes: 1 << 20, ..AdsLimits::default() });
    let mut good = target.good_client().await;
    for variant in Variant::ALL {
        let mut hostile = target.client(variant, "hostile").await;
        let names: Vec<String> = (0..2000).map(|i| format!("{i:0>1000}")).collect();
        hostile.subscribe(TypeUrl::Secret, &names.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
        let status = ended(&mut hostile, TypeUrl::Secret).await;
        assert_eq!((status.code(), status.message().contains("too large")), (Code::OutOfRange, true), "{variant:?}: {status}");
        target.assert_served(&mut good).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_and_many_clients_have_one_limit_together() {
    let limits = AdsLimits { name_cost: 64 << 10, stream: Limits { name_cost: 40 << 10, ..Limits::default() }, ..AdsLimits::default() };
    let mut target = Target::start(limits);
    let mut good = target.good_client().await;
    let variant = Variant { delta: true, aggregated: true };
    let names: Vec<String> = (0..40).map(|i| format!("{i:0>900}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut alone = target.client(variant, "alone").await;
    alone.subscribe(TypeUrl::Secret, &names).await.unwrap();
    alone.take(TypeUrl::Secret).await;
    alone.subscribe(TypeUrl::ClusterLoadAssignment, &names).await.unwrap();
    let status = ended(&mut alone, TypeUrl::Secret).await;
    assert_eq!((status.code(), status.message().contains("more than 40960 bytes")), (Code::ResourceExhausted, true), "{status}");
    target.until("the place is free", |state| state.streams().len() == 1).await;

    let mut one = target.client(variant, "one").await;
    one.subscribe(TypeUrl::Secret, &names).await.unwrap();
    one.take(TypeUrl::Secret).await;
    let mut other = target.client(variant, "other").await;
    other.subscribe(TypeUrl::Secret, &names).await.unwrap();
    let status = ended(&mut other, TypeUrl::Secret).await;
    assert_eq!((status.code(), status.message().contains("all clients together")), (Code::ResourceExhausted, true), "{status}");
    target.assert_served(&mut good).await;
    drop(one);
    target.until("the place is free", |state| state.streams().len() == 1).await;
    let mut other = target.client(variant, "other").await;
    other.subscribe(TypeUrl::Secret, &names).await.unwrap();
    other.take(TypeUrl::Secret).await;
}

/// It is sent one response of each type and no more, whatever changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_holds_up_itself_alone() {
    let mut target = Target::start(AdsLimits::default());
    let mut good = target.good_client().await;
    for variant in Variant::ALL {
        let before: u64 = KINDS.into_iter().map(|kind| target.state.counts(kind).pushed).sum();
        let mut hostile = target.client(variant, "hostile").await;
        for kind in KINDS {
            hostile.subscribe(kind, &["a"]).await.unwrap();
        }
        for _ in 0..20 {
            target.assert_served(&mut good).await;
        }
        let pushed: u64 = KINDS.into_iter().map(|kind| target.state.counts(kind).pushed).sum();
        assert!(
            pushed - before <= (20 + 1) * KINDS.len() as u64,
            "{variant:?}: {} responses, of which 140 to the good client",
            pushed - before
        );
        drop(hostile);
        target.until("it is gone", |state| state.streams().len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused() {
    let mut target = Target::start(AdsLimits::default());
    let mut good = target.good_client().await;
    for method in ["DeltaAggregatedResources", "StreamAggregatedResources"] {
        for garbage in [&b"\xff\xff\xff\xff\xff"[..], b"\x0a\xff\x01x", &[0x22, 0x02, 0xc3, 0x28], &[8; 4096]] {
            let mut grpc = tonic::client::Grpc::new(channel(&target.socket()).await);
            grpc.ready().await.unwrap();
            let path = PathAndQuery::try_from(format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}")).unwrap();
            let messages = tokio_stream::once(garbage).chain(tokio_stream::pending());
            let status = match grpc.streaming(Request::new(messages), path, Raw).await {
                Ok(response) => response.into_inner().message().await.unwrap_err(),
                Err(status) => status,
            };
            assert_eq!(status.code(), Code::Internal, "{method} {garbage:?}: {status}");
            assert!(status.message().contains("decode"), "{status}");
        }
    }
    target.assert_served(&mut good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_is_refused() {
    let mut target = Target::start(AdsLimits::default());
    let mut good = target.good_client().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &[0; 64],
    ] {
        let mut connection = UnixStream::connect(target.socket()).await.unwrap();
        connection.write_all(bytes).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, connection.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection of {bytes:?} stays open");
    }
    target.assert_served(&mut good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_without_end_is_read_at_its_pace() {
    let limits = AdsLimits { burst: 20, requests_per_second: 50, ..AdsLimits::default() };
    let mut target = Target::start(limits);
    let mut good = target.good_client().await;
    let began = Instant::now();
    let mut hostile = target.client(Variant { delta: true, aggregated: true }, "hostile").await;
    let asking = tokio::spawn(async move {
        for _ in 0..100_000 {
            hostile.unsubscribe(TypeUrl::Secret, &["x"]).await;
        }
    });
    let requests =
        |state: &AdsState| state.streams().iter().filter(|stream| stream.node == "hostile").map(|stream| stream.requests).sum::<u64>();
    target.until("more than the burst is taken", |state| requests(state) > 60).await;
    // Two for each resource that there is, for an Envoy asks for some one by one.
    let resources: usize = TypeUrl::ALL.into_iter().map(|kind| content(0).len(kind)).sum();
    let allowed = 20 + 2 + 2 * resources as u64 + u64::try_from(began.elapsed().as_millis()).unwrap() * 50 / 1000;
    assert!(requests(&target.state) <= allowed, "{} requests were taken, {allowed} allowed", requests(&target.state));
    target.assert_served(&mut good).await;
    asking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_streams_are_refused_and_the_open_ones_stay() {
    let mut target = Target::start(AdsLimits { streams: 4, ..AdsLimits::default() });
    let mut good = target.good_client().await;
    let variant = Variant { delta: false, aggregated: true };
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = target.client(variant, "many").await;
        client.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
        open.push(client);
    }
    let refused = target.client(variant, "many").await.subscribe(TypeUrl::Cluster, &[]).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "4 xDS streams are open already"));
    target.assert_served(&mut good).await;
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = &'static [u8];
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = &'static [u8];
    type Error = Status;

    fn encode(&mut self, item: &'static [u8], buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
