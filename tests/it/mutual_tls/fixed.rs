//! `config/gateways.yaml` with services behind its doors, on loopback, and clients that can make every mistake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use kubepass::config::{AuditSettings, AuditSink, Durability, EnvoyVersions, OnAuditFailure};
use kubepass::server::ads::{Admission, Ads, AdsLimits, AdsState};
use kubepass::server::clock;
use kubepass::server::door::{self, Door, DoorCounts, Speech};
use kubepass::server::ext_authz::{self, ExtAuthz};
use kubepass::server::peer::Standing;
use kubepass::server::sessions::Sessions;
use kubepass::server::signing::Signing;
use kubepass::server::store::Store;
use kubepass::server::telemetry::Metrics;
use kubepass::server::trail::Trail;
use kubepass::session::SessionTable;
use kubepass::snapshot::Snapshot;
use kubepass::xds::resources::{NodeResources, build_all};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use crate::fixture;
use crate::support::pki::{Authority, Pair};
use crate::support::ports::free_port;

pub(super) const EDGE: &str = "spiffe://example.com/kubepass/edge-1";
pub(super) const SIDECAR: &str = "sidecar.staging.example.com";
const HOST: &str = "control.k8s.example.com";

pub(super) static TLS_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub(super) static TLS_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
pub(super) static BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// How a client begins.
#[derive(Clone)]
pub(super) struct Hello {
    pub(super) identity: Option<Pair>,
    pub(super) ca: String,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) alpn: Option<&'static str>,
}

pub(super) struct Fixture {
    pub(super) authority: Authority,
    /// Of xds, ext_authz, access_log and web.
    pub(super) ports: [u16; 4],
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<Arc<Snapshot>>,
    resources: watch::Sender<Arc<NodeResources>>,
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::start_with(AdsLimits::default()).await
    }

    pub(super) async fn start_with(limits: AdsLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("the nodes' authority");
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let first = Arc::new(snapshot(&folder, ports, &authority, |text| text));
        let fixture = Self {
            snapshot: Arc::new(ArcSwap::new(Arc::clone(&first))),
            resources: watch::Sender::new(Arc::new(build_all(&first).unwrap())),
            changes: watch::Sender::new(first),
            stop: CancellationToken::new(),
            authority,
            ports,
            folder,
        };
        fixture.serve(limits).await;
        fixture
    }

    async fn serve(&self, limits: AdsLimits) {
        let door = |service| Door::bind(service, Speech::Grpc, &self.snapshot, Standing::Local, DoorCounts::default()).unwrap();
        let (xds, checks) = (door("xds"), door("ext_authz"));
        tokio::spawn(door::follow(vec![xds.gate(), checks.gate()], self.changes.subscribe(), self.stop.clone()));
        let admission = Admission::Tested { allowed: EnvoyVersions::default() };
        let ads = Ads::service_for(admission, self.resources.subscribe(), AdsState::default(), limits, self.stop.clone());
        tokio::spawn(Server::builder().serve_with_incoming_shutdown(ads, Box::pin(xds.into_links()), self.stop.clone().cancelled_owned()));
        let settings = AuditSettings {
            sinks: vec![AuditSink::File { path: self.folder.path().join("audit.jsonl") }],
            on_failure: OnAuditFailure::Deny,
            durability: Durability::Written,
        };
        let snapshot = self.snapshot.load_full();
        let store = Store::open(&self.folder.path().join("kubepass.db"), Arc::clone(snapshot.token_keys())).unwrap();
        let signing = Signing::open(snapshot.config(), &store, clock::unix_now()).await.unwrap();
        let sessions = Sessions::new(Arc::new(SessionTable::new()), store);
        let trail = Trail::open(&settings).unwrap();
        let service = ExtAuthz::new(Arc::clone(&self.snapshot), sessions, signing, trail, Arc::new(Metrics::default()));
        tokio::spawn(ext_authz::serve(service, checks, self.stop.clone()));
    }

    /// Puts the changed configuration in force, with certificates of another authority where one is given.
    pub(super) fn publish(&self, change: impl Fn(String) -> String, authority: Option<&Authority>) {
        let next = Arc::new(snapshot(&self.folder, self.ports, authority.unwrap_or(&self.authority), change));
        self.snapshot.store(Arc::clone(&next));
        self.changes.send_replace(Arc::clone(&next));
        self.resources.send_replace(Arc::new(build_all(&next).unwrap()));
    }

    pub(super) fn hello(&self, names: &[&str]) -> Hello {
        let (identity, ca) = (Some(self.authority.node(names)), self.authority.pem().to_owned());
        Hello { identity, ca, versions: TLS_1_3, alpn: Some("h2") }
    }

    /// To the xDS service. Over TLS 1.3 a client learns that it was refused from what comes first.
    pub(super) async fn handshake(&self, hello: &Hello) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake_over(TcpStream::connect(("127.0.0.1", self.ports[0])).await?, hello).await
    }

    pub(super) async fn handshake_over(&self, stream: TcpStream, hello: &Hello) -> std::io::Result<TlsStream<TcpStream>> {
        let mut stream = connect(stream, hello).await?;
        // A server of HTTP/2 speaks first.
        let mut first = [0; 9];
        stream.read_exact(&mut first).await?;
        Ok(stream)
    }

    pub(super) async fn channel(&self, hello: &Hello) -> Result<Channel, tonic::transport::Error> {
        self.channel_to(self.ports[0], hello).await
    }

    pub(super) async fn channel_to(&self, port: u16, hello: &Hello) -> Result<Channel, tonic::transport::Error> {
        let hello = hello.clone();
        let connector = tower::service_fn(move |_| {
            let hello = hello.clone();
            async move { connect(TcpStream::connect(("127.0.0.1", port)).await?, &hello).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://kubepass").connect_with_connector(connector).await
    }

    pub(super) async fn until(&self, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it never comes true");
    }

    pub(super) fn name_of_token(&self, route: &str) -> String {
        format!("token:{}", self.snapshot.load().route(route).unwrap().id())
    }

    /// The target and the host of a route.
    pub(super) fn target_of(&self, route: &str) -> (String, String) {
        let snapshot = self.snapshot.load();
        let route = snapshot.route(route).unwrap();
        (format!("kubernetes:{}", route.id()), route.host.clone())
    }

    pub(super) fn audit_lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn snapshot(folder: &tempfile::TempDir, ports: [u16; 4], authority: &Authority, change: impl Fn(String) -> String) -> Snapshot {
    let mut text = std::fs::read_to_string(fixture::root().join("config/gateways.yaml")).unwrap();
    for (before, port) in (18000..).zip(ports) {
        text = text.replace(&format!("0.0.0.0:{before}"), &format!("127.0.0.1:{port}"));
    }
    let sockets = folder.path().join("run");
    text = change(text.replace("/run/kubepass", sockets.to_str().unwrap()));
    let server = authority.server(&[HOST]);
    let overrides = BTreeMap::from([
        ("control-plane.crt", Some(server.cert.into_bytes())),
        ("control-plane.key", Some(server.key.into_bytes())),
        ("nodes-ca.crt", Some(authority.pem().as_bytes().to_vec())),
    ]);
    let config = fixture::load(&text, "kubepass.yaml", &overrides).unwrap_or_else(|errors| panic!("{errors}"));
    Snapshot::new(Arc::new(config), "0123456789abcdef")
}

async fn connect(stream: TcpStream, hello: &Hello) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(hello.ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(hello.versions).unwrap().with_root_certificates(roots);
    let mut config = match &hello.identity {
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = hello.alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream).await
}
