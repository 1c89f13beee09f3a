#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3::{Metadata, RequestMethod};
use envoy_types::pb::envoy::data::accesslog::v3::response_flags::Unauthorized;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties, ResponseFlags,
};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{HttpAccessLogEntries, TcpAccessLogEntries};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Duration as WireDuration, Struct, UInt32Value, Value};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use prost::Message;
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Server};

use super::convert::{Converted, completion};
use super::*;
use crate::config::{self, AuditSettings, AuditSink, Contents, Durability, OnAuditFailure, Reference};
use crate::server::door::Door;
use crate::server::unix_socket::UnixSocket;

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

/// An entry as Envoy writes it at the end of a `get` that was let pass.
fn entry() -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            metadata: grant("kubernetes:prod"),
            route_name: "kubernetes:prod".into(),
            duration: Some(WireDuration { seconds: 1, nanos: 234_567_890 }),
            downstream_wire_bytes_received: 300,
            downstream_wire_bytes_sent: 5000,
            access_log_type: AccessLogType::DownstreamEnd.into(),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties {
            request_method: RequestMethod::Get.into(),
            path: "/api/v1/pods".into(),
            request_id: "from-envoy".into(),
            request_headers: [("audit-id".to_owned(), ID.to_owned())].into(),
            request_body_bytes: 7,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(UInt32Value { value: 200 }),
            response_body_bytes: 4000,
            response_code_details: "via_upstream".into(),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    }
}

fn grant(target: &str) -> Option<Metadata> {
    metadata(Kind::StringValue(target.into()))
}

fn metadata(kind: Kind) -> Option<Metadata> {
    let fields = [("grant".to_owned(), Value { kind: Some(kind) })].into();
    Some(Metadata { filter_metadata: [("envoy.filters.http.ext_authz".to_owned(), Struct { fields })].into(), ..Metadata::default() })
}

fn changed(
    common: impl FnOnce(&mut AccessLogCommon),
    request: impl FnOnce(&mut HttpRequestProperties),
    response: impl FnOnce(&mut HttpResponseProperties),
) -> HttpAccessLogEntry {
    let mut entry = entry();
    common(entry.common_properties.as_mut().unwrap());
    request(entry.request.as_mut().unwrap());
    response(entry.response.as_mut().unwrap());
    entry
}

fn event(entry: &HttpAccessLogEntry) -> CompletionEvent {
    match completion(entry) {
        Converted::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_end_of_a_request_is_told_whole() {
    let expected = CompletionEvent {
        node: None,
        request_id: ID.into(),
        phase: "end",
        route: "prod".into(),
        status: 200,
        bytes_received: 300,
        bytes_sent: 5000,
        duration_ms: 1234,
        ended_by: "via_upstream".into(),
        flags: vec![],
    };
    assert_eq!(event(&entry()), expected);
}

#[test]
fn phases_follow_the_type_and_what_was_asked() {
    let check = |kind: AccessLogType, method: RequestMethod, path: &str, expected: Option<&str>| {
        let entry = changed(
            |common| common.set_access_log_type(kind),
            |request| {
                request.request_method = method.into();
                request.path = path.into();
            },
            |_| (),
        );
        let phase = match completion(&entry) {
            Converted::Event(event) => Some(event.phase),
            Converted::Skipped => None,
            Converted::Malformed(why) => panic!("{why}"),
        };
        assert_eq!(phase, expected, "{kind:?} {method:?} {path}");
    };
    use AccessLogType::*;
    use RequestMethod::{Get, MethodUnspecified, Post};
    check(DownstreamEnd, Get, "/api/v1/pods", Some("end"));
    check(NotSet, Get, "/api/v1/pods", Some("end"));
    check(DownstreamStart, Get, "/api/v1/pods", None);
    check(DownstreamStart, Get, "/api/v1/pods?watch=true", Some("start"));
    check(DownstreamStart, Get, "/api/v1/watch/pods", Some("start"));
    check(DownstreamStart, Get, "/api/v1/namespaces/a/pods/b/log?follow=true", Some("start"));
    check(DownstreamStart, Get, "/api/v1/namespaces/a/pods/b/exec?command=sh", None);
    check(DownstreamStart, Post, "/api/v1/namespaces/a/pods/b/portforward", None);
    check(DownstreamTunnelSuccessfullyEstablished, Post, "/api/v1/namespaces/a/pods/b/exec?command=sh", Some("start"));
    check(DownstreamStart, MethodUnspecified, "", None);
    check(DownstreamStart, Get, "/api/v1/../pods?watch=true", None);
    check(DownstreamPeriodic, Get, "/api/v1/pods?watch=true", None);
    check(UpstreamEnd, Get, "/api/v1/pods", None);
    check(UdpSessionEnd, Get, "/api/v1/pods", None);
    let unknown = changed(|common| common.access_log_type = 999, |_| (), |_| ());
    assert_eq!(event(&unknown).phase, "end", "an unknown type reads as not set");
}

#[test]
fn a_start_says_nothing_of_an_end() {
    let entry = changed(
        |common| common.set_access_log_type(AccessLogType::DownstreamTunnelSuccessfullyEstablished),
        |_| (),
        |response| response.response_code = Some(UInt32Value { value: 101 }),
    );
    let event = event(&entry);
    assert_eq!((event.phase, event.status, event.ended_by.as_str()), ("start", 101, ""));
}

#[test]
fn the_route_is_what_was_granted_then_what_was_matched() {
    let check = |metadata: Option<Metadata>, matched: &str, expected: Option<&str>| {
        let entry = changed(
            |common| {
                common.metadata = metadata.clone();
                matched.clone_into(&mut common.route_name);
            },
            |_| (),
            |_| (),
        );
        let route = match completion(&entry) {
            Converted::Event(event) => Some(event.route),
            Converted::Skipped => None,
            Converted::Malformed(why) => panic!("{why}"),
        };
        assert_eq!(route.as_deref(), expected, "{metadata:?} {matched}");
    };
    check(grant("kubernetes:prod"), "", Some("prod"));
    check(grant("kubernetes:prod@10.0.0.1:6443/kubernetes"), "", Some("prod"));
    check(None, "kubernetes:prod@10.0.0.1:6443/kubernetes", Some("prod"));
    check(grant("kubernetes:prod"), "web", Some("prod"));
    check(None, "kubernetes:prod", Some("prod"));
    check(None, "", Some(""));
    check(None, "something", Some(""));
    check(grant("something"), "kubernetes:prod", Some("prod"));
    check(metadata(Kind::BoolValue(true)), "kubernetes:prod", Some("prod"));
    check(Some(Metadata::default()), "kubernetes:prod", Some("prod"));
    // Our own pages are not in the audit; that must hold by the matched route, never by a grant alone.
    check(grant("web"), "web", None);
    check(grant("web"), "web:prod", None);
    check(None, "web", None);
    check(grant("web"), "kubernetes:prod", Some("prod"));
    check(grant("kubernetes:a\nb"), "", Some("a b"));
    check(grant(&format!("kubernetes:{}", "x".repeat(9999))), "", Some(&"x".repeat(253)));
}

#[test]
fn the_request_id_is_the_audit_id_then_envoys() {
    let check = |audit_id: Option<&str>, request_id: &str, expected: Option<&str>| {
        let entry = changed(
            |_| (),
            |request| {
                request.request_headers = audit_id.map(|id| ("audit-id".to_owned(), id.to_owned())).into_iter().collect();
                request_id.clone_into(&mut request.request_id);
            },
            |_| (),
        );
        let got = match completion(&entry) {
            Converted::Event(event) => Some(event.request_id),
            Converted::Malformed(_) => None,
            Converted::Skipped => panic!("skipped"),
        };
        assert_eq!(got.as_deref(), expected, "{audit_id:?} {request_id:?}");
    };
    check(Some(ID), "other", Some(ID));
    check(None, ID, Some(ID));
    check(Some(""), ID, Some(ID));
    check(Some("a\",\"outcome\":\"allow"), ID, Some(ID));
    check(Some("a b"), ID, Some(ID));
    check(None, "", None);
    check(None, "a\nb", None);
    check(None, &"x".repeat(128), Some(&"x".repeat(128)));
    check(None, &"x".repeat(129), None);
}

#[test]
fn numbers_come_from_where_they_are() {
    let body_only = changed(
        |common| {
            common.downstream_wire_bytes_received = 0;
            common.downstream_wire_bytes_sent = 0;
            common.duration = None;
        },
        |_| (),
        |response| response.response_code = None,
    );
    let event_of = event(&body_only);
    assert_eq!((event_of.bytes_received, event_of.bytes_sent, event_of.duration_ms, event_of.status), (7, 4000, 0, 0));
    let odd = |seconds, nanos| changed(|common| common.duration = Some(WireDuration { seconds, nanos }), |_| (), |_| ());
    for (seconds, nanos, expected) in [(-1, -5, 0), (0, 999_999, 0), (0, 1_000_000, 1), (i64::MAX, i32::MAX, u64::MAX)] {
        assert_eq!(event(&odd(seconds, nanos)).duration_ms, expected, "{seconds} {nanos}");
    }
}

#[test]
fn why_it_ended_names_both_sides() {
    let check = |details: &str, connection: &str, expected: &str| {
        let entry = changed(
            |common| connection.clone_into(&mut common.connection_termination_details),
            |_| (),
            |response| details.clone_into(&mut response.response_code_details),
        );
        assert_eq!(event(&entry).ended_by, expected);
    };
    check("via_upstream", "", "via_upstream");
    check("", "closed", "closed");
    check("downstream_remote_disconnect", "closed", "downstream_remote_disconnect; closed");
    check("", "", "");
    check("a\r\nb", "", "a  b");
    check(&"x".repeat(1000), "", &"x".repeat(256));
}

#[test]
fn flags_are_envoys_short_words() {
    let flags = |flags: ResponseFlags| event(&changed(|common| common.response_flags = Some(flags), |_| (), |_| ())).flags;
    assert_eq!(flags(ResponseFlags::default()), Vec::<String>::new());
    let unauthorized_details = Some(Unauthorized { reason: 1 });
    assert_eq!(flags(ResponseFlags { unauthorized_details, ..ResponseFlags::default() }), ["UAEX"]);
    let two =
        ResponseFlags { downstream_connection_termination: true, upstream_max_stream_duration_reached: true, ..ResponseFlags::default() };
    assert_eq!(flags(two), ["DC", "UMSDR"]);
}

#[test]
fn entries_without_what_is_needed_are_malformed() {
    assert_eq!(completion(&HttpAccessLogEntry::default()), Converted::Malformed("it has no common properties"));
    let without_request = HttpAccessLogEntry { request: None, ..entry() };
    assert_eq!(completion(&without_request), Converted::Malformed("it has no usable request id"));
    let without_response = HttpAccessLogEntry { response: None, ..entry() };
    assert_eq!(event(&without_response).status, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_a_value(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, byte in any::<u8>()) {
        if let Ok(entry) = HttpAccessLogEntry::decode(bytes.as_slice()) {
            completion(&entry);
        }
        let mut damaged = entry().encode_to_vec();
        if let Some(place) = damaged.get_mut(at) {
            *place = byte;
        }
        if let Ok(entry) = HttpAccessLogEntry::decode(damaged.as_slice()) {
            completion(&entry);
        }
    }
}

fn settings(sinks: Vec<AuditSink>) -> AuditSettings {
    AuditSettings { sinks, on_failure: OnAuditFailure::Deny, durability: Durability::Written }
}

fn message(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries })) }
}

/// The routes `prod` and `staging`; `nodes` and further keys of each route are YAML.
fn snapshot(nodes: &str, prod: &str, staging: &str) -> Arc<ArcSwap<Snapshot>> {
    const NOW: u64 = 1_767_225_600;
    let route = |name: &str, more: &str| {
        format!(
            "- {{name: {name}, host: {name}.k8s.example.com, {more} kubernetes: {{server: 'https://10.0.0.1:6443', ca: {{file: ca.crt}}, \
             impersonate: {{token: {{file: {name}-token}}}}}}, policy: [{{allow: 'true'}}]}}\n"
        )
    };
    let text = format!(
        "public_url: https://pass.example.com\n\
         listeners: [{{address: '127.0.0.1:443', certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}]\n{nodes}\
         secrets: [{{file: secret}}]\n\
         identity_providers: [{{name: corp, issuer: 'https://idp.example.com', client_id: c, client_secret: {{file: client}}, \
         identity: {{username: claims.email}}}}]\n\
         sessions: {{store: {{embedded: {{path: kubepass.db}}}}}}\nroutes:\n{}{}audit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n",
        route("prod", prod),
        route("staging", staging)
    );
    let draft = config::parse(&text, "kubepass.yaml").unwrap();
    let content = |reference: &Reference| {
        let name = reference.to_string();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixture").join(&name);
        (reference.clone(), Ok(std::fs::read(path).unwrap_or_else(|_| format!("{name}-0123456789abcdefghijklmnopqrstuvwxyz").into_bytes())))
    };
    let contents = Contents(draft.references().keys().map(content).collect());
    let config = config::resolve(draft, &contents, NOW).unwrap_or_else(|errors| panic!("{errors}"));
    Arc::new(ArcSwap::from_pointee(Snapshot::new(Arc::new(config), "0123456789abcdef")))
}

async fn serve(
    trail: Trail,
    counts: &AccessLogCounts,
    folder: &Path,
    draining: &CancellationToken,
) -> AccessLogServiceClient<tonic::transport::Channel> {
    serve_snapshot(snapshot("", "", ""), trail, counts, folder, draining).await
}

async fn serve_snapshot(
    snapshot: Arc<ArcSwap<Snapshot>>,
    trail: Trail,
    counts: &AccessLogCounts,
    folder: &Path,
    draining: &CancellationToken,
) -> AccessLogServiceClient<tonic::transport::Channel> {
    let path: PathBuf = folder.join("run/access-log.sock");
    let links = Door::from(UnixSocket::bind(&path).unwrap()).into_links();
    let service = AccessLog::service(snapshot, trail, counts.clone(), Arc::default(), draining.clone());
    tokio::spawn(Server::builder().serve_with_incoming(service, links));
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    AccessLogServiceClient::new(Endpoint::from_static("http://access-log").connect_with_connector(connect).await.unwrap())
}

#[tokio::test]
async fn entries_become_lines_of_the_trail_and_bad_ones_do_not_end_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let settings = settings(vec![AuditSink::File { path: path.clone() }]);
    let (counts, draining) = (AccessLogCounts::default(), CancellationToken::new());
    let mut client = serve(Trail::open(&settings).unwrap(), &counts, folder.path(), &draining).await;
    let web = changed(|common| (common.metadata, common.route_name) = (grant("web"), "web".into()), |_| (), |_| ());
    let tcp = StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::TcpLogs(TcpAccessLogEntries::default())) };
    let messages =
        [message(vec![entry(), HttpAccessLogEntry::default(), web]), tcp, StreamAccessLogsMessage::default(), message(vec![entry(); 600])];
    client.stream_access_logs(tokio_stream::iter(messages)).await.unwrap();
    let lines: Vec<serde_json::Value> =
        std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 601);
    let line = lines.first().unwrap();
    assert_eq!((&line["event"], &line["request_id"], &line["phase"]), (&"completion".into(), &ID.into(), &"end".into()));
    let got = [EntryResult::Recorded, EntryResult::Skipped, EntryResult::Malformed, EntryResult::Lost].map(|result| counts.get(result));
    assert_eq!(got, [601, 1, 3, 0]);
}

#[tokio::test]
async fn a_node_tells_of_its_own_routes_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let settings = settings(vec![AuditSink::File { path: path.clone() }]);
    let (counts, draining) = (AccessLogCounts::default(), CancellationToken::new());
    let uid = UnixSocket::bind(&folder.path().join("own/socket")).unwrap().own_uid();
    let nodes =
        |own: u32| format!("nodes: [{{name: edge, identity: {{uid: {own}}}}}, {{name: other, identity: {{dns: other.example.com}}}}]\n");
    let routes = ("nodes: [edge],", "nodes: [other],");
    let current = snapshot(&nodes(uid), routes.0, routes.1);
    let trail = Trail::open(&settings).unwrap();
    let mut client = serve_snapshot(Arc::clone(&current), trail, &counts, folder.path(), &draining).await;
    let of = |route: &str| {
        let target = format!("kubernetes:{route}@10.0.0.1:6443/10.0.0.1");
        changed(|common| (common.metadata, common.route_name) = (grant(&target), target.clone()), |_| (), |_| ())
    };
    let messages = [message(vec![of("prod"), of("staging"), of("gone")])];
    client.stream_access_logs(tokio_stream::iter(messages)).await.unwrap();
    let lines: Vec<serde_json::Value> =
        std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["route"].as_str().unwrap(), line["node"].as_str().unwrap())).collect();
    assert_eq!(told, [("prod", "edge"), ("gone", "edge")]);
    assert_eq!([EntryResult::Recorded, EntryResult::OutOfScope].map(|result| counts.get(result)), [2, 1]);

    // Taken out of the configuration, it tells nothing any more, neither on an open stream nor on a new one.
    let (entries, open) = tokio::sync::mpsc::channel(1);
    let mut other = client.clone();
    let stream = tokio::spawn(async move { other.stream_access_logs(tokio_stream::wrappers::ReceiverStream::new(open)).await });
    entries.send(message(vec![of("prod")])).await.unwrap();
    while counts.get(EntryResult::Recorded) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    current.store(snapshot(&nodes(uid.wrapping_add(1)), routes.0, routes.1).load_full());
    entries.send(message(vec![of("prod")])).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(10), stream).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    let again = client.stream_access_logs(tokio_stream::iter([message(vec![of("prod")])])).await.unwrap_err();
    assert!(again.message().contains("add it to `nodes`"), "{again}");
    assert_eq!(counts.get(EntryResult::Recorded), 3);
}

#[tokio::test]
async fn a_stream_ends_when_the_process_drains() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(vec![]);
    let draining = CancellationToken::new();
    let mut client = serve(Trail::open(&settings).unwrap(), &AccessLogCounts::default(), folder.path(), &draining).await;
    draining.cancel();
    let ended = client.stream_access_logs(tokio_stream::pending::<StreamAccessLogsMessage>());
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
}
