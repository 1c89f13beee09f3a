//! What ext_authz answers, whatever it is asked, through real message encoding: never a mixture that Envoy would read as leave to pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request as AttributeRequest, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use kubepass::config::{AuditSettings, AuditSink, Config, Durability, OnAuditFailure};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::server::clock;
use kubepass::server::ext_authz::ExtAuthz;
use kubepass::server::live_streams::{LiveStreams, News};
use kubepass::server::sessions::Sessions;
use kubepass::server::signing::Signing;
use kubepass::server::store::Store;
use kubepass::server::telemetry::Metrics;
use kubepass::server::trail::Trail;
use kubepass::session::{Session, SessionTable};
use kubepass::snapshot::Snapshot;
use kubepass::token::SessionId;
use proptest::prelude::*;
use prost::Message as _;

use super::fixture;

struct Bench {
    service: ExtAuthz,
    signing: Arc<Signing>,
    runtime: tokio::runtime::Runtime,
    token: String,
    /// Of somebody else.
    other_token: String,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// A session whose groups are `groups`, with a token for the route `prod`, which impersonates.
    fn new(groups: &[&str]) -> Self {
        Self::at(fixture::snapshot_of("config/two-clusters.yaml"), groups)
    }

    /// The same, and `prod` takes tokens.
    fn with_tokens(groups: &[&str]) -> Self {
        Self::at(Arc::new(Snapshot::new(Arc::new(config_with_tokens()), "0123456789abcdef")), groups)
    }

    fn at(snapshot: Arc<Snapshot>, groups: &[&str]) -> Self {
        Self::at_route(snapshot, groups, "prod")
    }

    fn at_route(snapshot: Arc<Snapshot>, groups: &[&str], route: &str) -> Self {
        Self::with_durability(snapshot, groups, route, Durability::Written)
    }

    fn with_durability(snapshot: Arc<Snapshot>, groups: &[&str], route: &str, durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            sinks: vec![AuditSink::File { path: folder.path().join("audit.jsonl") }],
            on_failure: OnAuditFailure::Deny,
            durability,
        };
        let now = clock::unix_now();
        let session = |subject: &str, id: u8| Session {
            id: SessionId::from_random([id; 16]),
            identity: Identity {
                principal: Principal { idp: "corp".into(), subject: subject.into() },
                username: "sre@example.com".into(),
                email: "sre@example.com".into(),
                groups: groups.iter().map(|group| (*group).to_owned()).collect::<Groups>(),
                claims: serde_json::Map::new(),
            },
            created_at: now,
            expires_at: now + 3_600,
            client: "kubepass".into(),
            source_ip: String::new(),
        };
        let sessions = Arc::new(SessionTable::new());
        let [token, other_token] = [("s", 9), ("other", 8)].map(|(subject, id)| {
            let session = session(subject, id);
            let claims = session.session_token_claims(&snapshot.route(route).unwrap().host, "jti".into(), now);
            sessions.insert(Arc::new(session)).unwrap();
            snapshot.token_keys().sign_session_token(&claims).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = Store::open(&folder.path().join("kubepass.db"), Arc::clone(snapshot.token_keys())).unwrap();
        let signing = runtime.block_on(Signing::open(snapshot.config(), &store, now)).unwrap();
        let trail = Trail::open(&settings).unwrap();
        let sessions = Sessions::new(sessions, store);
        let service = ExtAuthz::new(Arc::new(ArcSwap::new(snapshot)), sessions, Arc::clone(&signing), trail, Arc::new(Metrics::default()));
        Self { service, signing, runtime, token, other_token, _folder: folder }
    }

    /// Asks all at once, and gives the answers in the order of the questions.
    fn ask_at_once(&self, checks: &[CheckRequest]) -> Vec<CheckResponse> {
        let ask = |check: &CheckRequest| {
            let (arrived, message) = (self.service.arrive(), check.encode_to_vec());
            async move {
                let _arrived = arrived;
                CheckResponse::decode(self.service.check(&message, None).await.unwrap().as_slice()).unwrap()
            }
        };
        self.runtime.block_on(futures::future::join_all(checks.iter().map(ask)))
    }

    /// Asks through the encoding of both messages.
    fn ask(&self, check: &CheckRequest) -> CheckResponse {
        let answer = self.runtime.block_on(self.service.check(&check.encode_to_vec(), None)).unwrap();
        CheckResponse::decode(answer.as_slice()).unwrap()
    }
}

/// `config/two-clusters.yaml`, but the API server of `prod` verifies tokens.
fn config_with_tokens() -> Config {
    let text = std::fs::read_to_string(fixture::root().join("config/two-clusters.yaml")).unwrap();
    let (before, rest) = text.split_once("    impersonate:\n").unwrap();
    let (_, after) = rest.split_once("    username_prefix").unwrap();
    let jwt = "    jwt: {audience: prod, uid: user.name, extra: {example.com/idp: user.idp}}\n";
    fixture::load(&format!("{before}{jwt}    username_prefix{after}"), "kubepass.yaml", &BTreeMap::new()).unwrap()
}

/// The target of a route; what names no route stays as it is.
fn target_of(name: &str) -> String {
    let snapshot = fixture::snapshot_of_cached("config/two-clusters.yaml");
    let route = name.strip_prefix("kubernetes:").and_then(|name| snapshot.route(name));
    route.map_or_else(|| name.to_owned(), |route| format!("kubernetes:{}", route.id()))
}

fn check(target: &str, method: &str, path: &str, headers: &[(String, Vec<u8>)]) -> CheckRequest {
    let id = ("x-request-id".to_owned(), b"7373a616-45b1-4144-adf1-bd54fdb28e23".to_vec());
    let headers = std::iter::once(&id).chain(headers).map(|(key, value)| HeaderValue {
        key: key.clone(),
        raw_value: value.clone(),
        ..HeaderValue::default()
    });
    let http = HttpRequest {
        method: method.into(),
        path: path.into(),
        host: "prod.k8s.example.com".into(),
        header_map: Some(HeaderMap { headers: headers.collect() }),
        ..HttpRequest::default()
    };
    let attributes = AttributeContext {
        request: Some(AttributeRequest { http: Some(http), ..AttributeRequest::default() }),
        context_extensions: [("target".to_owned(), target_of(target))].into(),
        tls_session: Some(TlsSession { sni: "prod.k8s.example.com".into() }),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }
}

fn text<'a>(response: &'a CheckResponse, key: &str) -> Option<&'a str> {
    match &response.dynamic_metadata.as_ref()?.fields.get(key)?.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

/// The token that goes upstream.
fn bearer_of(response: &CheckResponse) -> Option<&str> {
    let HttpResponse::OkResponse(ok) = response.http_response.as_ref()? else { return None };
    let header = ok.headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == "x-kubepass-authorization")?;
    header.value.strip_prefix("Bearer ")
}

#[allow(deprecated, reason = "what Envoy 1.40 reads")]
fn append(option: &HeaderValueOption) -> Option<bool> {
    option.append.map(|append| append.value)
}

/// `Some(true)` for leave to reach an API server, `Some(false)` for the web part, `None` for a refusal; panics on anything in between.
fn verdict(response: &CheckResponse, target: &str) -> Option<bool> {
    let code = response.status.as_ref().expect("a status: without one Envoy allows").code;
    match response.http_response.as_ref().expect("an answer of one kind") {
        HttpResponse::OkResponse(ok) => {
            assert_eq!(code, 0);
            assert!(ok.headers_to_remove.is_empty() && ok.query_parameters_to_set.is_empty() && ok.query_parameters_to_remove.is_empty());
            for option in &ok.headers {
                let header = option.header.as_ref().unwrap();
                assert!(
                    ["audit-id", "x-envoy-upstream-stream-duration-ms", "x-kubepass-authorization"].contains(&header.key.as_str()),
                    "{}",
                    header.key
                );
                assert!(header.raw_value.is_empty() && !header.value.is_empty(), "{}", header.key);
                assert_eq!((option.append_action, append(option)), (2, Some(false)), "overwrite");
            }
            assert_eq!(text(response, "grant"), Some(target_of(target).as_str()));
            if target == "web" {
                assert_eq!(text(response, "user"), None);
                return Some(false);
            }
            let by_name = text(response, "user").is_some_and(|user| !user.trim().is_empty());
            let by_token = bearer_of(response).is_some();
            assert!(by_name != by_token, "leave without a user, or with one too many");
            let limit = ok.headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key.starts_with("x-envoy"));
            assert!(limit.is_some_and(|limit| limit.value.parse::<u64>().unwrap() >= 1_000), "a stream without a limit");
            Some(true)
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_ne!(code, 0, "a denied body with status OK lets Envoy pass the request");
            assert!(denied.status.as_ref().is_some_and(|status| status.code >= 400), "Envoy passes this status on to the client");
            assert_eq!((text(response, "grant"), text(response, "user")), (None, None));
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_is_granted_its_names_one_slot_each() {
    let bench = Bench::new(&["sre", "chess-club", "team-b"]);
    let bearer = vec![("authorization".to_owned(), format!("Bearer {}", bench.token).into_bytes())];
    let answer = bench.ask(&check("kubernetes:prod", "GET", "/api/v1/pods", &bearer));
    assert_eq!(verdict(&answer, "kubernetes:prod"), Some(true));
    let names = ["user", "g0", "g1", "g2"].map(|key| text(&answer, key));
    assert_eq!(names, [Some("corp:sre@example.com"), Some("corp:sre"), Some("corp:team-b"), None]);
    // The same token elsewhere, or with an impersonation beside it.
    assert_eq!(verdict(&bench.ask(&check("kubernetes:staging", "GET", "/api/v1/pods", &bearer)), ""), None);
    let forged = [bearer, vec![("Impersonate-User".to_owned(), b"admin".to_vec())]].concat();
    assert_eq!(verdict(&bench.ask(&check("kubernetes:prod", "GET", "/api/v1/pods", &forged)), ""), None);
}

#[test]
fn a_token_says_who_it_is_and_metadata_says_nothing() {
    let bench = Bench::with_tokens(&["sre", "chess-club", "team-b"]);
    let bearer = vec![("authorization".to_owned(), format!("Bearer {}", bench.token).into_bytes())];
    let question = check("kubernetes:prod", "GET", "/api/v1/pods", &bearer);
    let answer = bench.ask(&question);
    assert_eq!(verdict(&answer, "kubernetes:prod"), Some(true));
    let metadata: Vec<_> = answer.dynamic_metadata.as_ref().unwrap().fields.keys().collect();
    assert_eq!(metadata, ["grant"], "what stands here stands in access logs, and names become impersonation headers");
    let now = clock::unix_now();
    let token = bearer_of(&answer).unwrap();
    let claims = bench.signing.upstream_ring().jwks(now).verify_upstream_token(token, "https://pass.example.com", "prod", now).unwrap();
    assert_eq!((claims.username.as_str(), claims.groups), ("corp:sre@example.com", vec!["corp:sre".to_owned(), "corp:team-b".to_owned()]));
    assert_eq!((claims.uid.as_deref(), claims.extra["example.com/idp"].as_slice()), (Some("sre@example.com"), &["corp".to_owned()][..]));
    assert_eq!((claims.session, claims.policy_version.as_str()), (SessionId::from_random([9; 16]), "0123456789abcdef"));
    assert!(claims.expires_at <= now + 300);
    // Made once and used again; nothing without it, nothing at the other route.
    assert_eq!(bearer_of(&bench.ask(&question)), Some(token));
    assert_eq!(verdict(&bench.ask(&check("kubernetes:prod", "GET", "/api/v1/pods", &[])), ""), None);
    assert_eq!(verdict(&bench.ask(&check("kubernetes:staging", "GET", "/api/v1/pods", &bearer)), ""), None);
    let forged = [bearer, vec![("Impersonate-User".to_owned(), b"admin".to_vec())]].concat();
    assert_eq!(verdict(&bench.ask(&check("kubernetes:prod", "GET", "/api/v1/pods", &forged)), ""), None);
}

#[test]
fn groups_that_do_not_fit_into_a_token_are_a_refusal_that_says_so() {
    let groups: Vec<String> = (0..32).map(|number| format!("team-{number}-{}", "x".repeat(600))).collect();
    let bench = Bench::with_tokens(&groups.iter().map(String::as_str).collect::<Vec<_>>());
    let bearer = vec![("authorization".to_owned(), format!("Bearer {}", bench.token).into_bytes())];
    let answer = bench.ask(&check("kubernetes:prod", "GET", "/api/v1/pods", &bearer));
    assert_eq!((verdict(&answer, ""), text(&answer, "reason")), (None, Some("token_too_large")));
    let Some(HttpResponse::DeniedResponse(denied)) = &answer.http_response else { panic!("{answer:?}") };
    assert!(denied.body.contains("with your 32 groups the token that this route needs would be too large"), "{}", denied.body);
}

/// A question with a good credential, under an id of its own.
fn asked_by(token: &str, path: &str, id: usize) -> CheckRequest {
    let bearer = vec![("authorization".to_owned(), format!("Bearer {token}").into_bytes())];
    let mut question = check("kubernetes:prod", "GET", path, &bearer);
    let http = question.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.header_map.as_mut().unwrap().headers[0].raw_value = format!("id-{id}").into_bytes();
    question
}

fn reasons(answers: &[CheckResponse]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let word = if verdict(answer, "kubernetes:prod").is_some() { "allow" } else { text(answer, "reason").unwrap() };
        *counts.entry(word).or_default() += 1;
    }
    counts
}

#[test]
fn one_person_leaves_the_others_their_checks() {
    let bench = Bench::new(&["sre"]);
    let flood = (0..2_000).map(|id| asked_by(&bench.token, "/version", id));
    let others = (0..20).map(|id| asked_by(&bench.other_token, "/version", 5_000 + id));
    let strangers = (0..600).map(|id| asked_by("no-token", "/version", 6_000 + id));
    let questions: Vec<_> = flood.chain(others).chain(strangers).collect();
    let answers = bench.ask_at_once(&questions);
    assert_eq!(reasons(&answers[..2_000]), [("allow", 512), ("too_many_checks", 1_488)].into());
    assert_eq!(reasons(&answers[2_000..2_020]), [("allow", 20)].into());
    assert_eq!(reasons(&answers[2_020..]), [("token_invalid", 512), ("too_many_checks", 88)].into());
    let Some(HttpResponse::DeniedResponse(denied)) = &answers[1_999].http_response else { panic!("{:?}", answers[1_999]) };
    assert_eq!(denied.status.as_ref().unwrap().code, 429);
    // What was answered takes no place.
    assert_eq!(reasons(&bench.ask_at_once(&questions[..512])), [("allow", 512)].into());
}

#[test]
fn one_person_has_so_many_streams_and_no_more() {
    let text = std::fs::read_to_string(fixture::root().join("config/two-clusters.yaml")).unwrap();
    let text = text.replacen("sessions: {", "sessions: {max_streams: 3, ", 1);
    let config = fixture::load(&text, "kubepass.yaml", &BTreeMap::new()).unwrap();
    let bench = Bench::at(Arc::new(Snapshot::new(Arc::new(config), "0123456789abcdef")), &["sre"]);
    let streams = Arc::new(LiveStreams::default());
    let bench = Bench { service: bench.service.clone().with_streams(Arc::clone(&streams)), ..bench };
    let ask = |token: &str, path: &str, id: usize| {
        let answer = bench.ask(&asked_by(token, path, id));
        if verdict(&answer, "kubernetes:prod").is_some() { "allow".to_owned() } else { text_of(&answer) }
    };
    let (watch, exec) = ("/api/v1/pods?watch=true", "/api/v1/namespaces/a/pods/b/exec?command=c");
    for (id, path) in [watch, exec, "/api/v1/namespaces/a/pods/b/log?follow=true"].into_iter().enumerate() {
        assert_eq!(ask(&bench.token, path, id), "allow", "{path}");
    }
    for path in [watch, exec] {
        assert_eq!(ask(&bench.token, path, 3), "too_many_streams", "{path}");
    }
    assert_eq!(ask(&bench.token, "/api/v1/pods", 4), "allow", "what ends by itself is no stream");
    assert_eq!(ask(&bench.other_token, watch, 5), "allow");
    assert_eq!(streams.len(), 4);
    streams.hear(None, &[News::Ended("id-1")], 0);
    assert_eq!((ask(&bench.token, watch, 6), ask(&bench.token, watch, 7)), ("allow".into(), "too_many_streams".into()));
}

/// Envoy gives up a check whose client has gone. Its word of the request's end may have come before: nobody would end the stream again.
#[test]
fn a_check_that_is_given_up_leaves_no_stream_behind() {
    // Its audit line is waited for.
    let bench = Bench::with_durability(fixture::snapshot_of("config/two-clusters.yaml"), &["sre"], "prod", Durability::Synced);
    let streams = Arc::new(LiveStreams::default());
    let service = bench.service.clone().with_streams(Arc::clone(&streams));
    bench.runtime.block_on(async {
        for id in 0..100 {
            let message = asked_by(&bench.token, "/api/v1/pods?watch=true", id).encode_to_vec();
            let before = streams.len();
            let mut check = Box::pin(service.check(&message, None));
            if futures::poll!(&mut check).is_ready() {
                // The disk was faster than this thread, which others held up.
                continue;
            }
            assert_eq!(streams.len(), before + 1);
            drop(check);
            assert_eq!(streams.len(), before);
            assert!(service.check(&message, None).await.is_ok());
            assert_eq!(streams.len(), before + 1);
            return;
        }
        panic!("no check waited for its audit line");
    });
}

fn text_of(answer: &CheckResponse) -> String {
    text(answer, "reason").unwrap().to_owned()
}

#[test]
fn headers_that_leave_no_room_are_a_refusal_that_says_so() {
    for bench in [Bench::new(&["sre"]), Bench::with_tokens(&["sre"])] {
        let ask = |lines: usize, bytes: usize| {
            let filler = (0..lines).map(|_| ("x".to_owned(), b"y".to_vec())).chain([("x-filler".to_owned(), vec![b'x'; bytes])]);
            let bearer = ("authorization".to_owned(), format!("Bearer {}", bench.token).into_bytes());
            let headers: Vec<_> = std::iter::once(bearer).chain(filler).collect();
            bench.ask(&check("kubernetes:prod", "GET", "/version", &headers))
        };
        let tokens = usize::from(bearer_of(&ask(0, 0)).is_some());
        let token_bytes = bearer_of(&ask(0, 0)).map_or(0, str::len);
        // The id, the credential and the filler are lines too, and two are added.
        let most = 300 - 3 - 2 - tokens;
        assert_eq!(verdict(&ask(most, 0), "kubernetes:prod"), Some(true));
        let refused = ask(most + 1, 0);
        assert_eq!((verdict(&refused, ""), text(&refused, "reason")), (None, Some("headers_too_large")));
        let Some(HttpResponse::DeniedResponse(denied)) = &refused.http_response else { panic!("{refused:?}") };
        assert_eq!(denied.status.as_ref().unwrap().code, 431);
        let room = 60 * 1024 - token_bytes - bench.token.len();
        assert_eq!(verdict(&ask(0, room - 300), "kubernetes:prod"), Some(true));
        assert_eq!(text(&ask(0, room), "reason"), Some("headers_too_large"));
    }
}

/// The value of a header that an answer sets.
fn set_header<'a>(response: &'a CheckResponse, name: &str) -> Option<&'a str> {
    let HttpResponse::OkResponse(ok) = response.http_response.as_ref()? else { return None };
    ok.headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == name).map(|header| header.value.as_str())
}

#[test]
fn a_web_pages_upstream_gets_a_token_and_its_own_cookies_and_metadata_says_nothing() {
    let snapshot = fixture::snapshot_of("config/web-pages.yaml");
    let bench = Bench::at_route(Arc::clone(&snapshot), &["sre", "team-b"], "wiki");
    let route = snapshot.route("wiki").unwrap();
    let ask = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let mut question = check(&format!("http:{}", route.id()), "GET", "/x?y", &headers);
        let attributes = question.attributes.as_mut().unwrap();
        attributes.request.as_mut().unwrap().http.as_mut().unwrap().host.clone_from(&route.host);
        attributes.tls_session.as_mut().unwrap().sni.clone_from(&route.host);
        bench.ask(&question)
    };
    let bearer = format!("Bearer {}", bench.token);
    let answer = ask(&[("authorization", &bearer), ("cookie", "app=1; __Host-kubepass-route=x")]);
    assert_eq!(answer.status.as_ref().unwrap().code, 0);
    let metadata: Vec<_> = answer.dynamic_metadata.as_ref().unwrap().fields.keys().collect();
    assert_eq!(metadata, ["grant"]);
    assert_eq!(text(&answer, "grant"), Some(format!("http:{}", route.id()).as_str()));
    assert_eq!(set_header(&answer, "x-kubepass-cookie"), Some("app=1"));
    assert_eq!((set_header(&answer, "x-kubepass-authorization"), set_header(&answer, "authorization")), (None, None));
    let (now, token) = (clock::unix_now(), set_header(&answer, "x-kubepass-assertion").unwrap());
    let (issuer, audience) = ("https://pass.example.com", "https://wiki.k8s.example.com");
    let claims = bench.signing.assertion_ring().jwks(now).verify_assertion_token(token, issuer, audience, now).unwrap();
    assert_eq!((claims.username.as_str(), claims.email.as_str()), ("sre@example.com", "sre@example.com"));
    assert_eq!((claims.groups, claims.session), (vec!["sre".to_owned(), "team-b".to_owned()], SessionId::from_random([9; 16])));
    assert!(bench.signing.upstream_ring().jwks(now).verify_upstream_token(token, issuer, audience, now).is_err(), "no token for a cluster");
    assert_eq!(set_header(&ask(&[("authorization", &bearer)]), "x-kubepass-cookie"), None);
    // A browser is led to the login, and a refusal has nothing of a grant.
    let led = ask(&[("accept", "text/html")]);
    assert_ne!(led.status.as_ref().unwrap().code, 0);
    let Some(HttpResponse::DeniedResponse(denied)) = &led.http_response else { panic!("{led:?}") };
    assert_eq!(denied.status.as_ref().unwrap().code, 302);
    let location = denied.headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == "location");
    assert_eq!(location.map(|header| header.value.as_str()), Some("/.kubepass/start?return=%2Fx%3Fy"));
    assert_eq!((text(&led, "grant"), text(&led, "reason")), (None, Some("no_credential")));
}

#[test]
fn a_question_without_a_request_id_is_refused() {
    let bench = Bench::new(&["sre"]);
    let bearer = vec![("authorization".to_owned(), format!("Bearer {}", bench.token).into_bytes())];
    for id in ["", " ", "a b", "id\r\nimpersonate-user: admin", &"a".repeat(65)] {
        let mut question = check("kubernetes:prod", "GET", "/api/v1/pods", &bearer);
        let http = question.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
        http.header_map.as_mut().unwrap().headers[0].raw_value = id.as_bytes().to_vec();
        assert_eq!(verdict(&bench.ask(&question), ""), None, "{id:?}");
    }
}

#[test]
fn an_empty_question_is_refused() {
    let bench = Bench::new(&[]);
    assert_eq!(verdict(&bench.ask(&CheckRequest::default()), ""), None);
    let mut joined = check("kubernetes:prod", "GET", "/version", &[]);
    // An Envoy without `encode_raw_headers` joins the lines of one name.
    let http = joined.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.header_map = None;
    http.headers = [("authorization".to_owned(), format!("Bearer {}", bench.token))].into();
    assert_eq!(verdict(&bench.ask(&joined), ""), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_question_gets_an_answer_that_could_be_read_as_leave(
        target in "(kubernetes:(prod|staging|x)|web|.{0,12})",
        method in "(GET|POST|[A-Z]{0,9})",
        path in "(/api/v1/[a-z/%?=.]{0,40}|/.{0,40}|.{0,10})",
        headers in prop::collection::vec(("(authorization|connection|impersonate-user|Impersonate-Group|accept|x-request-id|[a-z-]{1,12})", prop::collection::vec(any::<u8>(), 0..30)), 0..6),
        with_token in any::<bool>(),
    ) {
        thread_local! {
            static BENCHES: [Bench; 2] = [Bench::new(&["sre"]), Bench::with_tokens(&["sre"])];
        }
        BENCHES.with(|benches| benches.iter().for_each(|bench| {
            let mut headers = headers.clone();
            if with_token {
                headers.push(("authorization".to_owned(), format!("Bearer {}", bench.token).into_bytes()));
            }
            let answer = bench.ask(&check(&target, &method, &path, &headers));
            let forged = headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("impersonate-"));
            match verdict(&answer, &target) {
                Some(true) => assert!(with_token && target == "kubernetes:prod" && !forged),
                Some(false) => assert_eq!(target, "web"),
                None => {}
            }
        }));
    }
}
