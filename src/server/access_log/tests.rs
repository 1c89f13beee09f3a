#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Server};

use super::convert::{Converted, told};
use super::entry::Entry;
use super::*;
use crate::config::{self, AuditSettings, AuditSink, Contents, Durability, NodeIdentity, OnAuditFailure, Reference};
use crate::server::door::Door;
use crate::server::live_streams::{News, StreamId};
use crate::server::peer::Standing;
use crate::server::unix_socket::UnixSocket;
use crate::server::wire::{AsBytes, Message, WireError};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

/// An entry as Envoy writes it at the end of a `get` that was let pass.
const END: Entry<'static> = Entry {
    kind: "DownstreamEnd",
    id: ID,
    grant: "kubernetes:prod",
    route: "kubernetes:prod",
    reason: "",
    status: "200",
    details: "via_upstream",
    connection: "",
    flags: "",
    received: "300",
    sent: "5000",
    duration: "1234",
    method: "GET",
    path: "/api/v1/pods",
};

fn completion(entry: &Entry<'_>) -> Converted {
    told(entry).line
}

fn event(entry: &Entry<'_>) -> CompletionEvent {
    match completion(entry) {
        Converted::Event(event) | Converted::Undecided(event) => event,
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
    assert_eq!(event(&END), expected);
}

#[test]
fn phases_follow_the_kind_and_what_was_asked() {
    let check = |kind: &str, method: &str, path: &str, expected: &str| {
        let got = match completion(&Entry { kind, method, path, ..END }) {
            Converted::Event(event) => event.phase,
            Converted::Undecided(_) => "undecided",
            Converted::StillThere => "still there",
            Converted::Skipped => "skipped",
            Converted::Malformed(_) => "malformed",
        };
        assert_eq!(got, expected, "{kind} {method} {path}");
    };
    check("DownstreamEnd", "GET", "/api/v1/pods", "end");
    check("NotSet", "GET", "/api/v1/pods", "end");
    check("DownstreamStart", "GET", "/api/v1/pods", "skipped");
    check("DownstreamStart", "GET", "/api/v1/pods?watch=true", "start");
    check("DownstreamStart", "GET", "/api/v1/namespaces/a/pods/b/log?follow=true", "start");
    // The start of an exec is its tunnel.
    check("DownstreamStart", "POST", "/api/v1/namespaces/a/pods/b/exec?command=sh", "skipped");
    check("DownstreamTunnelSuccessfullyEstablished", "POST", "/api/v1/namespaces/a/pods/b/exec?command=sh", "start");
    check("DownstreamStart", "", "", "skipped");
    check("DownstreamStart", "GET", "/api/v1/../pods?watch=true", "skipped");
    check("DownstreamPeriodic", "GET", "/api/v1/pods?watch=true", "still there");
    check("UpstreamEnd", "GET", "/api/v1/pods", "skipped");
    check("UdpSessionEnd", "GET", "/api/v1/pods", "skipped");
    check("Something", "GET", "/api/v1/pods", "skipped");
    check("", "GET", "/api/v1/pods", "malformed");
}

#[test]
fn what_goes_on_and_what_ended_is_told_by_its_id() {
    let news = |entry: &Entry<'static>| told(entry).news;
    let check = |kind: &'static str, id: &'static str, expected: Option<News<'_>>| {
        assert_eq!(news(&Entry { kind, id, ..END }), expected, "{kind} {id}")
    };
    check("DownstreamPeriodic", ID, Some(News::StillThere(ID)));
    check("DownstreamEnd", ID, Some(News::Ended(ID)));
    check("NotSet", ID, Some(News::Ended(ID)));
    for kind in ["DownstreamStart", "DownstreamTunnelSuccessfullyEstablished", "UpstreamEnd", ""] {
        check(kind, ID, None);
    }
    check("DownstreamEnd", "", None);
    check("DownstreamPeriodic", "a b", None);
    for grant in ["", "web", "something"] {
        assert_eq!(news(&Entry { grant, ..END }), None, "what was not granted has no stream: {grant}");
        assert_eq!(news(&Entry { grant, status: "503", details: "overload", ..END }), None, "{grant}");
        let left = Entry { grant, status: "0", details: "downstream_remote_disconnect", ..END };
        assert_eq!(news(&left), Some(News::Left(ID)), "its client left while it was checked: {grant}");
        let late = Entry { grant, status: "503", details: "ext_authz_error", ..END };
        assert_eq!(news(&late), Some(News::Left(ID)), "its check took too long: {grant}");
    }
}

/// Envoy refuses some requests before it makes their ids, and then tells the client's.
#[test]
fn an_end_without_a_decision_completes_none() {
    let check = |entry: Entry<'_>, is_undecided: bool| {
        let got = match completion(&entry) {
            Converted::Undecided(event) => Some(event.request_id),
            Converted::Event(event) if event.request_id == ID => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(got.as_deref(), is_undecided.then_some(""), "{entry:?}");
    };
    let refused = Entry { grant: "", route: "", status: "400", details: "http1.unexpected_underscore", ..END };
    check(refused, true);
    check(Entry { route: "kubernetes:prod", ..refused }, true);
    check(Entry { grant: "something", ..refused }, true);
    check(Entry { kind: "NotSet", status: "431", ..refused }, true);
    check(Entry { status: "", ..refused }, true);
    for id in ["", "a b"] {
        check(Entry { id, ..refused }, true);
    }
    check(END, false);
    check(Entry { reason: "policy_denied", status: "403", ..refused }, false);
    check(Entry { grant: "web", route: "kubernetes:prod", ..refused }, false);
    // One whose client left amid its headers was no request, and nothing to warn of.
    assert_eq!(completion(&Entry { id: "", status: "0", ..refused }), Converted::Skipped);
    // It was asked, under Envoy's own id: kubepass may have decided.
    check(Entry { status: "0", ..refused }, false);
    check(Entry { status: "503", details: "ext_authz_error", ..refused }, false);
    // What began tells of itself before it is decided.
    check(Entry { kind: "DownstreamStart", path: "/api/v1/pods?watch=true", status: "0", ..refused }, false);
}

#[test]
fn a_start_says_nothing_of_an_end() {
    let event = event(&Entry { kind: "DownstreamTunnelSuccessfullyEstablished", status: "101", duration: "", ..END });
    assert_eq!((event.phase, event.status, event.duration_ms, event.ended_by.as_str()), ("start", 101, 0, ""));
}

#[test]
fn the_route_is_what_was_granted_then_what_was_matched() {
    let check = |grant: &str, matched: &str, reason: &str, expected: Option<&str>| {
        let route = match completion(&Entry { grant, route: matched, reason, ..END }) {
            Converted::Event(event) | Converted::Undecided(event) => Some(event.route),
            Converted::Skipped => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(route.as_deref(), expected, "{grant} {matched}");
    };
    check("kubernetes:prod", "", "", Some("prod"));
    check("kubernetes:prod@10.0.0.1:6443/kubernetes", "", "", Some("prod"));
    check("", "kubernetes:prod@10.0.0.1:6443/kubernetes", "", Some("prod"));
    check("kubernetes:prod", "web", "", Some("prod"));
    check("", "kubernetes:prod", "", Some("prod"));
    check("", "", "", Some(""));
    check("", "something", "", Some(""));
    check("something", "kubernetes:prod", "", Some("prod"));
    // Our own pages are not in the audit; that must hold by the matched route, never by a grant alone. What was refused there is.
    check("web", "web", "", None);
    check("web", "web:prod", "", None);
    check("", "web", "", None);
    check("", "web", "policy_denied", Some("web"));
    check("", "web:prod", "policy_denied", Some("web"));
    check("web", "kubernetes:prod", "", Some("prod"));
    check("kubernetes:a\nb", "", "", Some("a b"));
    check(&format!("kubernetes:{}", "x".repeat(9999)), "", "", Some(&"x".repeat(253)));
}

#[test]
fn no_other_id_is_taken() {
    let check = |id: &str, is_one: bool| {
        let got = match completion(&Entry { id, ..END }) {
            Converted::Event(event) => Some(event.request_id),
            Converted::Malformed(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(got.as_deref(), is_one.then_some(id));
    };
    check(ID, true);
    check(&"x".repeat(128), true);
    check(&"x".repeat(129), false);
    for id in ["", "a\",\"outcome\":\"allow", "a b", "a\nb", "\u{e9}"] {
        check(id, false);
    }
}

#[test]
fn what_is_no_number_counts_as_none() {
    for text in ["", "x", "-1", "1.5", "99999999999999999999999", "1 2"] {
        let event = event(&Entry { status: text, received: text, sent: text, duration: text, ..END });
        assert_eq!((event.status, event.bytes_received, event.bytes_sent, event.duration_ms), (0, 0, 0, 0), "{text:?}");
    }
    assert_eq!(event(&Entry { sent: "18446744073709551615", ..END }).bytes_sent, u64::MAX);
}

#[test]
fn why_it_ended_names_both_sides() {
    let check = |details: &str, connection: &str, expected: &str| {
        assert_eq!(event(&Entry { details, connection, ..END }).ended_by, expected);
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
    let check = |text: &str, expected: &[&str]| assert_eq!(event(&Entry { flags: text, ..END }).flags, expected, "{text}");
    check("", &[]);
    check("UAEX", &["UAEX"]);
    check("DC,UMSDR", &["DC", "UMSDR"]);
    check("DC,,a b,\",x", &["DC", "x"]);
    check(&"x".repeat(33), &[]);
    assert_eq!(event(&Entry { flags: &"A,".repeat(9999), ..END }).flags.len(), 64);
}

/// As Envoy writes them: `-` where there is nothing.
fn attributes<'a>(entry: &Entry<'a>) -> Vec<(&'a str, &'a [u8])> {
    let values = [
        (names::ENTRY_KIND, entry.kind),
        (names::ENTRY_ID, entry.id),
        (names::ENTRY_GRANT, entry.grant),
        (names::ENTRY_ROUTE, entry.route),
        (names::ENTRY_REASON, entry.reason),
        (names::ENTRY_STATUS, entry.status),
        (names::ENTRY_DETAILS, entry.details),
        (names::ENTRY_CONNECTION, entry.connection),
        (names::ENTRY_FLAGS, entry.flags),
        (names::ENTRY_RECEIVED, entry.received),
        (names::ENTRY_SENT, entry.sent),
        (names::ENTRY_DURATION, entry.duration),
        (names::ENTRY_METHOD, entry.method),
        (names::ENTRY_PATH, entry.path),
    ];
    values.into_iter().map(|(word, value)| (word, if value.is_empty() { &b"-"[..] } else { value.as_bytes() })).collect()
}

fn record(attributes: &[(&str, &[u8])]) -> Vec<u8> {
    let mut record = Message::default();
    for (word, value) in attributes {
        record.message(6, |pair| {
            pair.text(1, word);
            pair.message(2, |any| any.bytes(1, value));
        });
    }
    record.into_bytes()
}

/// One message of these records; what Envoy says of itself stands before them.
fn message_of(records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Message::default();
    message.message(1, |resource| {
        resource.message(1, |_| ());
        resource.message(2, |scope| records.iter().for_each(|record| scope.bytes(2, record)));
    });
    message.into_bytes()
}

fn message(entries: &[Entry<'_>]) -> Vec<u8> {
    message_of(&entries.iter().map(|entry| record(&attributes(entry))).collect::<Vec<_>>())
}

fn read(message: &[u8]) -> Vec<Result<Entry<'_>, WireError>> {
    Entries::of(message).collect()
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let words: Vec<&str> = attributes(&END).into_iter().map(|(word, _)| word).collect();
    assert_eq!(words, names::ENTRY.map(|(word, _)| word), "all that Envoy is told to write is read");
    let start = Entry { kind: "DownstreamStart", path: "/api/v1/pods?watch=true&a=%2D", status: "", ..END };
    assert_eq!(read(&message(&[END, start])), [Ok(END), Ok(start)]);
    assert_eq!(read(&[message(&[END]), message(&[]), message(&[start])].concat()), [Ok(END), Ok(start)], "a message in parts");
    // What is not asked for, what is of another type and what is no text tell nothing.
    let mut odd = record(&[("other", b"x"), ("id", b"a\xff"), ("status", b"-"), ("path", b""), ("route", b"--")]);
    odd.extend(record(&[("kind", b"DownstreamEnd")]));
    assert_eq!(read(&message_of(&[odd])), [Ok(Entry { kind: "DownstreamEnd", route: "--", ..Entry::default() })]);
    assert_eq!(read(&message_of(&[vec![]])), [Ok(Entry::default())]);
    assert_eq!(read(&[]), []);
}

#[test]
fn an_entry_that_cannot_be_read_does_not_hide_the_others() {
    let broken = vec![0x32, 0x7f, 1];
    let read_of = |records: &[Vec<u8>]| {
        read(&message_of(records)).into_iter().map(|entry| entry.ok().map(|entry| entry.id.to_owned())).collect::<Vec<_>>()
    };
    let good = record(&attributes(&END));
    assert_eq!(read_of(&[good.clone(), broken, good.clone()]), [Some(ID.to_owned()), None, Some(ID.to_owned())]);
    // Where the message itself breaks off, what came before it counts.
    let mut cut = message_of(&[good]);
    cut.extend([0x0a, 0x7f]);
    assert_eq!(read(&cut), [Ok(END), Err(WireError::Truncated)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_values(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..600, byte in any::<u8>()) {
        let mut damaged = message(&[END, END]);
        if let Some(place) = damaged.get_mut(at) {
            *place = byte;
        }
        for message in [bytes, damaged] {
            for entry in Entries::of(&message).flatten() {
                told(&entry);
            }
        }
    }
}

fn settings(sinks: Vec<AuditSink>) -> AuditSettings {
    AuditSettings { sinks, on_failure: OnAuditFailure::Deny, durability: Durability::Written }
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

struct Served {
    client: Channel,
    counts: AccessLogCounts,
    live: Arc<LiveStreams>,
    audit: PathBuf,
    draining: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Served {
    async fn start(snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("run/access_log.sock");
        let audit = folder.path().join("audit.jsonl");
        let trail = Trail::open(&settings(vec![AuditSink::File { path: audit.clone() }])).unwrap();
        let (counts, live, draining) = (AccessLogCounts::default(), Arc::new(LiveStreams::default()), CancellationToken::new());
        let links = Door::from(UnixSocket::bind(&path).unwrap()).into_links();
        let service = AccessLog::service(snapshot, trail, counts.clone(), Arc::clone(&live));
        let serving = Server::builder().serve_with_incoming_shutdown(service, links, lingered(draining.clone()));
        let server = tokio::spawn(async { serving.await.unwrap() });
        let connect = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let client = Endpoint::from_static("http://access-log").connect_with_connector(connect).await.unwrap();
        Self { client, counts, live, audit, draining, server, folder }
    }

    async fn export(&self, message: Vec<u8>) -> Result<Bytes, Status> {
        self.call("/opentelemetry.proto.collector.logs.v1.LogsService/Export", message).await
    }

    async fn call(&self, path: &'static str, message: Vec<u8>) -> Result<Bytes, Status> {
        let mut client = tonic::client::Grpc::new(self.client.clone());
        client.ready().await.unwrap();
        let codec = AsBytes { usual_bytes: 1024, max_bytes: 2 << 20 };
        let answer = client.unary(Request::new(message), PathAndQuery::from_static(path), codec).await;
        answer.map(tonic::Response::into_inner)
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        std::fs::read_to_string(&self.audit).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn counted<const N: usize>(&self, results: [EntryResult; N]) -> [u64; N] {
        results.map(|result| self.counts.get(result))
    }
}

#[tokio::test]
async fn entries_become_lines_of_the_trail_and_bad_ones_end_nothing() {
    use EntryResult::{Lost, Malformed, Recorded, Skipped, StillThere};
    let served = Served::start(snapshot("", "", "")).await;
    let web = Entry { grant: "web", route: "web", ..END };
    let periodic = Entry { kind: "DownstreamPeriodic", ..END };
    assert_eq!(served.export(message(&[END, Entry::default(), web, periodic])).await.unwrap(), Bytes::new(), "all of it was taken");
    served.export(b"\x0a\x7f".to_vec()).await.unwrap();
    served.export(Vec::new()).await.unwrap();
    served.export(message(&[END; 300])).await.unwrap();
    let lines = served.lines();
    assert_eq!(lines.len(), 301);
    let line = lines.first().unwrap();
    assert_eq!((&line["event"], &line["request_id"], &line["phase"]), (&"completion".into(), &ID.into(), &"end".into()));
    assert_eq!(served.counted([Recorded, StillThere, Skipped, Malformed, Lost]), [301, 1, 1, 2, 0]);
}

#[tokio::test]
async fn nothing_but_whole_messages_of_some_size_is_taken() {
    let served = Served::start(snapshot("", "", "")).await;
    let long = "x".repeat(MAX_MESSAGE_BYTES);
    let refused = served.export(message(&[Entry { path: &long, ..END }])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    let refused = served.call("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs", message(&[END])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented, "{refused}");
    served.export(message(&[Entry { path: &long[..MAX_MESSAGE_BYTES - 1024], ..END }])).await.unwrap();
    assert_eq!(served.counted([EntryResult::Recorded, EntryResult::Malformed]), [1, 0]);
}

#[tokio::test]
async fn streams_count_by_what_is_told_of_them() {
    let served = Served::start(snapshot("", "", "")).await;
    let owner = crate::identity::Principal { idp: "corp".into(), subject: "a".into() };
    served.live.begin(&owner, StreamId::new(None, ID), 1, 0).unwrap().granted();
    served.export(message(&[Entry { kind: "DownstreamPeriodic", ..END }])).await.unwrap();
    served.live.forget_some(clock::unix_now());
    assert_eq!(served.live.len(), 1, "it was heard of, long after it began");
    served.export(message(&[END])).await.unwrap();
    assert!(served.live.is_empty());
    // Two whose checks were given up, one of them after it had been counted.
    let late = |id| Entry { id, grant: "", status: "503", details: "ext_authz_error", ..END };
    served.live.begin(&owner, StreamId::new(None, "late"), 1, 0).unwrap().granted();
    served.export(message(&[late("late"), late("later")])).await.unwrap();
    served.live.begin(&owner, StreamId::new(None, "later"), 1, 0).unwrap().granted();
    assert!(served.live.is_empty());
}

/// An Envoy that means harm packs as many as it can.
#[tokio::test]
async fn no_more_entries_of_a_message_are_read_than_there_may_be() {
    let served = Served::start(snapshot("", "", "")).await;
    let count = |entries: usize| {
        let message = message_of(&vec![vec![]; entries]);
        assert!(message.len() <= MAX_MESSAGE_BYTES, "{}", message.len());
        let before = served.counts.get(EntryResult::Malformed);
        let served = &served;
        async move {
            served.export(message).await.unwrap();
            served.counts.get(EntryResult::Malformed) - before
        }
    };
    assert_eq!(count(MAX_ENTRIES).await, MAX_ENTRIES as u64);
    assert_eq!(count(MAX_ENTRIES + 1).await, MAX_ENTRIES as u64 + 1);
    assert_eq!(count(60_000).await, MAX_ENTRIES as u64 + 1, "those beyond are one");
}

#[tokio::test]
async fn a_node_tells_of_its_own_routes_only() {
    let folder = tempfile::tempdir().unwrap();
    let uid = UnixSocket::bind(&folder.path().join("own/socket")).unwrap().own_uid();
    let nodes =
        |own: u32| format!("nodes: [{{name: edge, identity: {{uid: {own}}}}}, {{name: other, identity: {{dns: other.example.com}}}}]\n");
    let routes = ("nodes: [edge],", "nodes: [other],");
    let current = snapshot(&nodes(uid), routes.0, routes.1);
    let served = Served::start(Arc::clone(&current)).await;
    let targets = ["prod", "staging", "gone"].map(|route| format!("kubernetes:{route}@10.0.0.1:6443/10.0.0.1"));
    let entries = targets.each_ref().map(|target| Entry { grant: target, route: target, ..END });
    served.export(message(&entries)).await.unwrap();
    let lines = served.lines();
    let told: Vec<_> = lines.iter().map(|line| (line["route"].as_str().unwrap(), line["node"].as_str().unwrap())).collect();
    assert_eq!(told, [("prod", "edge"), ("gone", "edge")]);
    assert_eq!(served.counted([EntryResult::Recorded, EntryResult::OutOfScope]), [2, 1]);

    // Taken out of the configuration, it tells nothing any more, also on the connection that it has.
    current.store(snapshot(&nodes(uid.wrapping_add(1)), routes.0, routes.1).load_full());
    let refused = served.export(message(&entries)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("add it to `nodes`"), "{refused}");
    assert_eq!(served.counted([EntryResult::Recorded, EntryResult::OutOfScope]), [2, 1]);
}

#[tokio::test]
async fn no_node_has_all_places() {
    let folder = tempfile::tempdir().unwrap();
    let trail = Trail::open(&settings(vec![AuditSink::File { path: folder.path().join("audit.jsonl") }])).unwrap();
    let (one, other) = (NodeIdentity::Uid(1), NodeIdentity::Uid(2));
    let nodes = "nodes: [{name: one, identity: {uid: 1}}, {name: other, identity: {uid: 2}}]\n";
    let log = AccessLog::service(snapshot(nodes, "nodes: [one],", "nodes: [other],"), trail, AccessLogCounts::default(), Arc::default()).0;
    let peer = |identity: &NodeIdentity| Peer::new(vec![identity.clone()], Standing::Local);
    let mut places: Vec<Place> = (0..MAX_EXPORTS_OF_ONE_NODE).map(|_| log.place(Some(&peer(&one))).unwrap()).collect();
    assert_eq!(log.place(Some(&peer(&one))).unwrap_err().code(), tonic::Code::ResourceExhausted);
    assert!(log.place(Some(&peer(&other))).is_ok());
    places.pop();
    assert!(log.place(Some(&peer(&one))).is_ok());
    let stranger = peer(&NodeIdentity::Uid(3));
    assert_eq!(log.place(Some(&stranger)).unwrap_err().code(), tonic::Code::PermissionDenied, "nothing of a stranger's is read");
}

#[tokio::test]
async fn the_last_entries_are_taken_when_the_process_drains() {
    let served = Served::start(snapshot("", "", "")).await;
    served.draining.cancel();
    served.export(message(&[END])).await.unwrap();
    assert_eq!(served.counted([EntryResult::Recorded]), [1]);
    tokio::time::timeout(Duration::from_secs(10), served.server).await.unwrap().unwrap();
    drop(served.folder);
}
