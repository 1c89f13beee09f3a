//! The ADS service and the access log against the pinned Envoy: what it does on the wire is the reason for most of the stream's rules.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog as AccessLogConfig, access_log};
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, SocketAddress, address,
    api_config_source::ApiType, config_source, grpc_service, socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::set_metadata::v3 as set_metadata;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
};
use envoy_types::pb::google::protobuf::{Duration as WireDuration, Struct, Value, value};
use envoy_types::pb::opentelemetry::proto::common::v1::KeyValueList;
use envoy_types::util::pack_any;
use kubepass::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use kubepass::envoy_names;
use kubepass::identity::Principal;
use kubepass::server::access_log::{AccessLog, AccessLogCounts, EntryResult};
use kubepass::server::ads::{Ads, AdsLimits, AdsState};
use kubepass::server::live_streams::{LiveStreams, StreamId};
use kubepass::server::managed_envoy::AdminInterface;
use kubepass::server::trail::Trail;
use kubepass::server::unix_socket::UnixSocket;
use kubepass::snapshot::NodeView;
use kubepass::xds::bootstrap::{ADMIN_SOCKET, BootstrapInput, managed};
use kubepass::xds::resource::{Resource, ResourceSet, TypeUrl};
use kubepass::xds::resources::NodeResources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::support::leash::{self, Process};
use crate::support::logs;
use crate::support::ports::free_port;
use crate::support::raw_http2;
use crate::support::run::Run;
use crate::support::tools::Tools;

/// How the Envoy under test is told to fetch its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    delta: bool,
    aggregated: bool,
}

const MANAGED: Mode = Mode { delta: true, aggregated: true };
const ALL_MODES: [Mode; 4] =
    [MANAGED, Mode { delta: false, aggregated: true }, Mode { delta: true, aggregated: false }, Mode { delta: false, aggregated: false }];

impl Mode {
    /// The managed Envoy's bootstrap with other words about discovery.
    fn bootstrap(self, socket_dir: &str) -> String {
        let text = managed(&BootstrapInput { socket_dir });
        let api = if self.delta { "DELTA_GRPC" } else { "GRPC" };
        if self.aggregated {
            return replaced(&text, "api_type: DELTA_GRPC", &format!("api_type: {api}"));
        }
        let source = format!(
            "{{resource_api_version: V3, api_config_source: {{api_type: {api}, transport_api_version: V3, \
             set_node_on_first_message_only: true, grpc_services: [{{envoy_grpc: {{cluster_name: kubepass-xds}}}}]}}}}"
        );
        let text = replaced(&text, "lds_config: {ads: {}, resource_api_version: V3}", &format!("lds_config: {source}"));
        let text = replaced(&text, "cds_config: {ads: {}, resource_api_version: V3}", &format!("cds_config: {source}"));
        let (before, rest) = text.split_once("  ads_config:\n").unwrap();
        format!("{before}{}", &rest[rest.find("  lds_config").unwrap()..])
    }

    /// Where a resource says that what it names is to be had.
    fn source(self) -> ConfigSource {
        let specifier = if self.aggregated {
            config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})
        } else {
            let to = grpc_service::EnvoyGrpc { cluster_name: "kubepass-xds".into(), ..Default::default() };
            let service = GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(to)), ..GrpcService::default() };
            config_source::ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
                api_type: if self.delta { ApiType::DeltaGrpc } else { ApiType::Grpc }.into(),
                transport_api_version: ApiVersion::V3.into(),
                grpc_services: vec![service],
                set_node_on_first_message_only: true,
                ..ApiConfigSource::default()
            })
        };
        ConfigSource { config_source_specifier: Some(specifier), resource_api_version: ApiVersion::V3.into(), ..ConfigSource::default() }
    }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// Below the 15 seconds after which Envoy gives up waiting for endpoints: a rule that is broken shows as that wait.
const PATIENCE: Duration = Duration::from_secs(12);
/// Clusters that the bootstrap holds.
const STATIC_CLUSTERS: u64 = 4;

struct Fixture {
    sockets: PathBuf,
    resources: watch::Sender<Arc<NodeResources>>,
    state: AdsState,
    admin: AdminInterface,
    server: Option<(JoinHandle<()>, CancellationToken)>,
    envoy: Option<Process>,
    run: Run,
}

impl Fixture {
    fn start(mode: Mode, first: ResourceSet) -> Self {
        let run = Run::new("ads");
        let sockets = run.file("s");
        let mut fixture = Self {
            admin: AdminInterface::new(sockets.join(ADMIN_SOCKET)),
            resources: watch::Sender::new(Arc::new(first.into())),
            state: AdsState::default(),
            server: None,
            envoy: None,
            sockets,
            run,
        };
        fixture.serve();
        let bootstrap = fixture.run.write("bootstrap.yaml", mode.bootstrap(fixture.sockets.to_str().unwrap()));
        let mut command = leash::command(Tools::ensure().envoy());
        command.arg("-c").arg(bootstrap).args(["--disable-hot-restart", "--concurrency", "1", "-l", "info"]);
        fixture.envoy = Some(fixture.run.start("envoy", command));
        fixture
    }

    fn serve(&mut self) {
        let socket = UnixSocket::bind(&self.sockets.join("xds.sock")).unwrap();
        let drain = CancellationToken::new();
        let service = Ads::service(self.resources.subscribe(), self.state.clone(), AdsLimits::default(), drain.clone());
        let until = drain.clone().cancelled_owned();
        let serving = async move {
            Server::builder().serve_with_incoming_shutdown(service, socket.into_incoming(), until).await.unwrap();
        };
        self.server = Some((tokio::spawn(serving), drain));
    }

    async fn stop_serving(&mut self) {
        let (serving, drain) = self.server.take().unwrap();
        drain.cancel();
        serving.await.unwrap();
    }

    fn publish(&self, set: ResourceSet) {
        self.resources.send_replace(Arc::new(set.into()));
    }

    async fn until_taken(&mut self, what: &str) {
        let set = self.resources.borrow().of(NodeView::UNNAMED);
        self.until(what, |state| state.is_taken(&set)).await;
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&AdsState) -> bool) {
        let began = Instant::now();
        while !holds(&self.state) {
            let envoy = self.envoy.as_mut().unwrap();
            assert!(envoy.ended().is_none() && began.elapsed() < PATIENCE, "{what}: {:#?}\n{}", self.state.streams(), envoy.tail(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stat(&self, name: &str) -> u64 {
        self.admin.stats(name).await.unwrap().get(name).copied().unwrap_or_default()
    }

    async fn clusters(&self) -> u64 {
        self.stat("cluster_manager.active_clusters").await - STATIC_CLUSTERS
    }
}

fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

fn address(port: u16) -> Option<Address> {
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(port.into()));
    let socket = SocketAddress { address: "127.0.0.1".into(), port_specifier, ..SocketAddress::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

/// `connect_timeout` is what tells two versions apart.
fn cluster(mode: Mode, name: &str, connect_timeout: i64) -> (TypeUrl, Resource) {
    let cluster = Cluster {
        name: name.into(),
        connect_timeout: seconds(connect_timeout),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into())),
        eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(mode.source()), ..Default::default() }),
        ..Cluster::default()
    };
    (TypeUrl::Cluster, Resource::new(name, &cluster))
}

/// Envoy refuses it, and takes what stands beside it.
fn bad_cluster() -> (TypeUrl, Resource) {
    let discovery = Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into()));
    (TypeUrl::Cluster, Resource::new("bad", &Cluster { name: "bad".into(), cluster_discovery_type: discovery, ..Cluster::default() }))
}

/// Nobody listens at the endpoint.
fn endpoints(name: &str) -> (TypeUrl, Resource) {
    endpoints_at(name, 1)
}

fn endpoints_at(name: &str, port: u16) -> (TypeUrl, Resource) {
    let endpoint = lb_endpoint::HostIdentifier::Endpoint(Endpoint { address: address(port), ..Endpoint::default() });
    let endpoint = LbEndpoint { host_identifier: Some(endpoint), ..LbEndpoint::default() };
    let endpoints = vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() }];
    let assignment = ClusterLoadAssignment { cluster_name: name.into(), endpoints, ..ClusterLoadAssignment::default() };
    (TypeUrl::ClusterLoadAssignment, Resource::new(name, &assignment))
}

fn routes(cluster: &str) -> (TypeUrl, Resource) {
    let to = RouteAction { cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.into())), ..RouteAction::default() };
    let route = Route {
        name: format!("kubernetes:{cluster}"),
        r#match: Some(RouteMatch { path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }),
        action: Some(route::Action::Route(to)),
        ..Route::default()
    };
    let host = VirtualHost { name: "all".into(), domains: vec!["*".into()], routes: vec![route], ..VirtualHost::default() };
    let routes = RouteConfiguration { name: "routes".into(), virtual_hosts: vec![host], ..RouteConfiguration::default() };
    (TypeUrl::RouteConfiguration, Resource::new("routes", &routes))
}

fn listener(mode: Mode, port: u16) -> (TypeUrl, Resource) {
    // As an answer of ext_authz has it.
    let fields = [("grant".to_owned(), Value { kind: Some(value::Kind::StringValue("kubernetes:a".into())) })].into();
    let metadata = set_metadata::Metadata {
        metadata_namespace: "envoy.filters.http.ext_authz".into(),
        value: Some(Struct { fields }),
        ..set_metadata::Metadata::default()
    };
    let metadata = set_metadata::Config { metadata: vec![metadata], ..set_metadata::Config::default() };
    let grant = HttpFilter {
        name: "grant".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(metadata))),
        ..HttpFilter::default()
    };
    let router = HttpFilter {
        name: "router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
        ..HttpFilter::default()
    };
    let options = http_connection_manager::HcmAccessLogOptions {
        flush_access_log_on_new_request: true,
        flush_log_on_tunnel_successfully_established: true,
        access_log_flush_interval: seconds(1),
    };
    let upgrade = http_connection_manager::UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() };
    let rds = Rds { config_source: Some(mode.source()), route_config_name: "routes".into() };
    let manager = HttpConnectionManager {
        stat_prefix: "test".into(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: vec![grant, router],
        access_log: vec![logger()],
        access_log_options: Some(options),
        upgrade_configs: vec![upgrade],
        ..HttpConnectionManager::default()
    };
    let filter = Filter { name: "http".into(), config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))) };
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    let listener = Listener { name: "l".into(), address: address(port), filter_chains: vec![chain], ..Listener::default() };
    (TypeUrl::Listener, Resource::new("l", &listener))
}

/// As kubepass configures it, without a filter.
fn logger() -> AccessLogConfig {
    let to = grpc_service::EnvoyGrpc { cluster_name: "kubepass-access-log".into(), ..Default::default() };
    let log = OpenTelemetryAccessLogConfig {
        grpc_service: Some(GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(to)), ..GrpcService::default() }),
        buffer_flush_interval: Some(WireDuration { seconds: 0, nanos: 50_000_000 }),
        disable_builtin_labels: true,
        attributes: Some(KeyValueList { values: envoy_names::ENTRY.map(logs::attribute).to_vec() }),
        ..OpenTelemetryAccessLogConfig::default()
    };
    AccessLogConfig { config_type: Some(access_log::ConfigType::TypedConfig(pack_any(log))), ..AccessLogConfig::default() }
}

fn set(resources: impl IntoIterator<Item = (TypeUrl, Resource)>) -> ResourceSet {
    let mut builder = ResourceSet::builder();
    for (kind, resource) in resources {
        builder.insert(kind, resource).unwrap();
    }
    builder.build()
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_follows_every_change_without_waiting() {
    for mode in ALL_MODES {
        follow_every_change(mode).await;
    }
}

async fn follow_every_change(mode: Mode) {
    let port = free_port();
    let to = |name: &str, version| [cluster(mode, name, version), endpoints(name), routes(name), listener(mode, port)];
    let mut fixture = Fixture::start(mode, set(to("a", 1)));
    fixture.until_taken(&format!("{mode:?}: start-up")).await;
    assert!(*fixture.state.listener_acknowledged().borrow());

    fixture.publish(set(to("a", 2)));
    fixture.until_taken(&format!("{mode:?}: a changed cluster, whose endpoints did not change")).await;

    fixture.publish(set(to("b", 1)));
    fixture.until_taken(&format!("{mode:?}: another cluster, and the routes to it")).await;
    assert_eq!(fixture.clusters().await, 1, "{mode:?}: the old one is gone");

    fixture.stop_serving().await;
    fixture.publish(set(to("b", 2)));
    fixture.serve();
    fixture.until_taken(&format!("{mode:?}: a cluster that changed while the control plane was away")).await;

    let many = |version| {
        let all =
            (0..500).flat_map(move |i| [cluster(mode, &format!("c{i}"), if i == 7 { version } else { 1 }), endpoints(&format!("c{i}"))]);
        set(all.chain([routes("c0"), listener(mode, port)]))
    };
    fixture.publish(many(1));
    fixture.until_taken(&format!("{mode:?}: five hundred clusters")).await;
    let pushed = fixture.state.counts(TypeUrl::Cluster).pushed;
    fixture.publish(many(2));
    fixture.until_taken(&format!("{mode:?}: one of five hundred")).await;
    assert_eq!(fixture.state.counts(TypeUrl::Cluster).pushed, pushed + 1, "{mode:?}");

    assert_eq!(fixture.stat("cluster_manager.cds.update_rejected").await, 0, "{mode:?}");
    assert_eq!(fixture.stat("listener_manager.listener_modified").await, 0, "{mode:?}");
    assert_eq!(fixture.clusters().await, 500, "{mode:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_took_of_a_refused_response_goes_again() {
    for mode in [MANAGED, Mode { delta: false, aggregated: true }] {
        go_again(mode).await;
    }
}

async fn go_again(mode: Mode) {
    let port = free_port();
    let good = || [cluster(mode, "a", 1), endpoints("a"), routes("a"), listener(mode, port)];
    let mut fixture = Fixture::start(mode, set(good()));
    fixture.until_taken("start-up").await;

    // The delta protocol tells Envoy that there are no endpoints; without that it would wait for them, and with its answer.
    let warm = (!mode.delta).then(|| endpoints("orphan"));
    fixture.publish(set(good().into_iter().chain([bad_cluster(), cluster(mode, "orphan", 1)]).chain(warm)));
    fixture.until("the refusal", |state| state.counts(TypeUrl::Cluster).nacked == 1).await;
    let refusal = fixture.state.counts(TypeUrl::Cluster).last_refusal.unwrap();
    assert!(refusal.contains("bad: cannot create an EDS cluster without an EDS config"), "{refusal}");
    let seen = fixture.state.streams().remove(0).types.remove(&TypeUrl::Cluster).unwrap();
    assert_eq!((seen.refusal, seen.state.doubtful), (Some(refusal), 2));
    fixture.until("nothing is sent in circles", |state| !state.streams().remove(0).types.values().any(|view| view.state.in_flight)).await;
    assert_eq!(fixture.state.counts(TypeUrl::Cluster).nacked, 1);
    assert_eq!(fixture.clusters().await, 2, "the good part was taken");

    // Envoy does not list the orphan when it connects again; the other protocol lists nothing.
    fixture.stop_serving().await;
    fixture.publish(set(good()));
    fixture.serve();
    fixture.until_taken("the set before, on the next stream").await;
    assert_eq!(fixture.clusters().await, 1);
}

/// The access log, and what it was told.
struct Told {
    counts: AccessLogCounts,
    live: Arc<LiveStreams>,
    audit: PathBuf,
}

impl Told {
    fn serve(fixture: &Fixture) -> Self {
        let audit = fixture.run.file("audit.jsonl");
        let sinks = vec![AuditSink::File { path: audit.clone() }];
        let trail = Trail::open(&AuditSettings { sinks, on_failure: OnAuditFailure::Deny, durability: Durability::Written }).unwrap();
        let (counts, live) = (AccessLogCounts::default(), Arc::new(LiveStreams::default()));
        let snapshot = Arc::new(ArcSwap::new(crate::fixture::snapshot_of("config/kubepass.yaml")));
        let service = AccessLog::service(snapshot, trail, counts.clone(), Arc::clone(&live));
        let incoming = UnixSocket::bind(&fixture.sockets.join("access_log.sock")).unwrap().into_incoming();
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        Self { counts, live, audit }
    }

    fn of(&self, result: EntryResult) -> u64 {
        self.counts.get(result)
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        std::fs::read_to_string(&self.audit).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_completed_in_the_audit_trail() {
    let port = free_port();
    let mut fixture = Fixture::start(MANAGED, set([cluster(MANAGED, "a", 1), endpoints("a"), routes("a"), listener(MANAGED, port)]));
    let told = Told::serve(&fixture);
    fixture.until_taken("start-up").await;

    let cut_off = format!("/api/v1/pods?a={}&watch=true", "x".repeat(8192));
    for path in ["/api/v1/pods", "/api/v1/pods?watch=true", &cut_off] {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "nobody listens there: {answer}");
    }
    fixture.until("the completions", |_| told.of(EntryResult::Recorded) == 4).await;
    let lines = told.lines();
    let phases: Vec<&str> = lines.iter().map(|line| line["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["end", "start", "end", "end"]);
    assert_eq!(lines[1]["request_id"], lines[2]["request_id"]);
    for line in [&lines[0], &lines[2], &lines[3]] {
        assert_eq!((&line["route"], &line["status"], &line["flags"]), (&"a".into(), &503.into(), &serde_json::json!(["UF"])), "{line}");
        assert!(line["bytes_sent"].as_u64() > Some(0) && line["ended_by"].as_str().unwrap().starts_with("upstream_reset"), "{line}");
    }
    let others = [EntryResult::Skipped, EntryResult::Malformed, EntryResult::Lost].map(|result| told.of(result));
    assert_eq!(others, [2, 0, 0], "the start of a plain read is not told, nor that of what looks like one as far as it is told");
}

/// An upstream that answers and then goes on: the end of a watch or of an exec is the client's.
fn lasting_upstream() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if std::io::Read::read(&mut stream, &mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.extend(byte);
            }
            let answer = match String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: websocket") {
                true => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
                false => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
            };
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            open.push(stream);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_is_told_of_again_and_again() {
    let (port, upstream) = (free_port(), lasting_upstream());
    let resources = [cluster(MANAGED, "a", 1), endpoints_at("a", upstream), routes("a"), listener(MANAGED, port)];
    let mut fixture = Fixture::start(MANAGED, set(resources));
    let told = Told::serve(&fixture);
    fixture.until_taken("start-up").await;

    let mut open = Vec::new();
    for (request, status) in [
        ("GET /api/v1/pods?watch=true HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200"),
        (
            "GET /api/v1/namespaces/a/pods/b/exec?command=sh HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            "HTTP/1.1 101",
        ),
    ] {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), status);
        open.push(client);
    }
    fixture.until("their starts", |_| told.of(EntryResult::Recorded) == 2).await;
    let ids: Vec<String> = told.lines().iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect();
    // They began long ago: without news they would count no more in a moment.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let owner = Principal { idp: "corp".into(), subject: "a".into() };
    for id in &ids {
        told.live.begin(&owner, StreamId::new(None, id), 2, now - 800).unwrap().granted();
    }
    let heard = told.of(EntryResult::StillThere);
    fixture.until("news of both, twice", |_| told.of(EntryResult::StillThere) >= heard + 4).await;
    told.live.forget_some(now + 600);
    assert_eq!(told.live.len(), 2, "each of them was heard of");

    drop(open);
    fixture.until("their ends", |_| told.of(EntryResult::Recorded) == 4).await;
    assert!(told.live.is_empty());
    let mut ended: Vec<String> = told.lines()[2..].iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect();
    ended.sort_by_key(|id| *id != ids[0]);
    assert_eq!(ended, ids);
    assert_eq!([EntryResult::Malformed, EntryResult::Lost].map(|result| told.of(result)), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_one_client_do_not_hide_the_requests_of_others() {
    let port = free_port();
    let mut fixture = Fixture::start(MANAGED, set([cluster(MANAGED, "a", 1), endpoints("a"), routes("a"), listener(MANAGED, port)]));
    let told = Told::serve(&fixture);
    fixture.until_taken("start-up").await;
    // HTTP/2 carries bytes in a query that are no text; Envoy writes them into its entry.
    let fields: Vec<raw_http2::Field> =
        [(":method", &b"GET"[..]), (":scheme", b"http"), (":authority", b"a"), (":path", b"/api/v1/pods?watch=true&a=\x80\xff")]
            .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
            .to_vec();
    let block = raw_http2::block(&fields);
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let begin = raw_http2::END_STREAM | raw_http2::END_HEADERS;
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        &length[1..],
        &[raw_http2::HEADERS, begin, 0, 0, 0, 1],
        &block,
    ]
    .concat();
    let mut hostile = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    hostile.write_all(&bytes).await.unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"GET /api/v1/pods HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    fixture.until("their ends", |_| told.of(EntryResult::Recorded) == 2).await;
    let others = [EntryResult::Skipped, EntryResult::Malformed, EntryResult::Lost].map(|result| told.of(result));
    assert_eq!(others, [2, 0, 0], "their starts: what is no text is refused, and so is no watch");
}
