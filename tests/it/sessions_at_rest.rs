//! Sessions that rest in the store: checked by the real service over a real file, with kubepass started again as often as it takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request as AttributeRequest, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use futures::FutureExt as _;
use futures::future::join_all;
use kubepass::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::server::clock;
use kubepass::server::ending::SessionEnder;
use kubepass::server::ext_authz::ExtAuthz;
use kubepass::server::lifecycle::Errands;
use kubepass::server::sessions::Sessions;
use kubepass::server::signing::Signing;
use kubepass::server::store::{Store, StoreError};
use kubepass::server::telemetry::Metrics;
use kubepass::server::trail::Trail;
use kubepass::session::{HOT_SESSIONS, Look, Session};
use kubepass::snapshot::Snapshot;
use kubepass::token::SessionId;
use prost::Message as _;

use super::fixture;

/// More than are in memory of those whose ids begin alike.
const MANY: u8 = 40;

/// kubepass as far as a check needs it, over the files of a folder.
struct Service {
    service: ExtAuthz,
    sessions: Sessions,
    ender: SessionEnder,
    trail: PathBuf,
}

impl Service {
    async fn start(folder: &Path) -> Self {
        let snapshot = snapshot();
        let trail = folder.join("audit.jsonl");
        let settings = AuditSettings {
            sinks: vec![AuditSink::File { path: trail.clone() }],
            on_failure: OnAuditFailure::Deny,
            durability: Durability::Written,
        };
        let store = open(&folder.join("kubepass.db"), &snapshot);
        let signing = Signing::open(snapshot.config(), &store, clock::unix_now()).await.unwrap();
        let (sessions, _) = Sessions::at_rest(store, clock::unix_now()).await.unwrap();
        let log = Trail::open(&settings).unwrap();
        let ender = SessionEnder::new(sessions.clone(), log.clone(), Errands::default());
        let (swap, metrics) = (Arc::new(ArcSwap::new(snapshot)), Arc::new(Metrics::default()));
        Self { service: ExtAuthz::new(swap, sessions.clone(), signing, log, metrics), sessions, ender, trail }
    }

    /// What a client of `prod` with a token of this session gets.
    async fn status(&self, session: &Session) -> u32 {
        let snapshot = snapshot();
        let route = snapshot.route("prod").unwrap();
        let claims = session.session_token_claims(&route.host, "jti".into(), clock::unix_now());
        let token = snapshot.token_keys().sign_session_token(&claims).unwrap();
        let header = |key: &str, value: String| HeaderValue { key: key.into(), raw_value: value.into_bytes(), ..HeaderValue::default() };
        let headers =
            vec![header("x-request-id", "7373a616-45b1-4144-adf1-bd54fdb28e23".into()), header("authorization", format!("Bearer {token}"))];
        let http = HttpRequest {
            method: "GET".into(),
            path: "/version".into(),
            host: route.host.clone(),
            header_map: Some(HeaderMap { headers }),
            ..HttpRequest::default()
        };
        let attributes = AttributeContext {
            request: Some(AttributeRequest { http: Some(http), ..AttributeRequest::default() }),
            context_extensions: [("target".to_owned(), format!("kubernetes:{}", route.id()))].into(),
            tls_session: Some(TlsSession { sni: route.host.clone() }),
            ..AttributeContext::default()
        };
        let check = CheckRequest { attributes: Some(attributes) };
        let answer = self.service.check(&check.encode_to_vec(), None).await.unwrap();
        match CheckResponse::decode(answer.as_slice()).unwrap().http_response.unwrap() {
            HttpResponse::OkResponse(_) => 200,
            HttpResponse::DeniedResponse(denied) => u32::try_from(denied.status.unwrap().code).unwrap(),
            HttpResponse::ErrorResponse(_) => 0,
        }
    }

    fn last_reason(&self) -> String {
        let text = std::fs::read_to_string(&self.trail).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        line["reason"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}

fn snapshot() -> Arc<Snapshot> {
    fixture::snapshot_of_cached("config/two-clusters.yaml")
}

/// Waits for the lock of a handle that was just dropped.
fn open(path: &Path, snapshot: &Snapshot) -> Store {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(path, Arc::clone(snapshot.token_keys())) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

fn session(number: u8) -> Arc<Session> {
    let mut id = [0; 16];
    id[15] = number;
    let now = clock::unix_now();
    Arc::new(Session {
        id: SessionId::from_random(id),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: "s".into() },
            username: "sre@example.com".into(),
            email: "sre@example.com".into(),
            groups: ["sre"].into_iter().map(str::to_owned).collect::<Groups>(),
            claims: serde_json::json!({"iss": "https://idp.example.com"}).as_object().unwrap().clone(),
        },
        created_at: now + u64::from(number),
        expires_at: now + 3_600,
        client: "kubepass".into(),
        source_ip: String::new(),
    })
}

async fn kept(service: &Service, count: u8) -> Vec<Arc<Session>> {
    let sessions: Vec<_> = (0..count).map(session).collect();
    for session in &sessions {
        service.sessions.keep(session).await.unwrap();
    }
    sessions
}

#[tokio::test]
async fn a_session_that_left_memory_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    let sessions = kept(&service, MANY).await;
    let awake = service.sessions.table().awake_len();
    assert!(awake < usize::from(MANY) && awake <= HOT_SESSIONS, "{awake}: some rest");
    for round in 0..2 {
        for session in &sessions {
            assert_eq!(service.status(session).await, 200, "round {round}: {}", session.id);
            assert!(matches!(service.sessions.table().look(&session.id, clock::unix_now()), Look::Live(_)));
        }
    }
    drop(service);
    let service = Service::start(folder.path()).await;
    assert_eq!((service.sessions.table().len(), service.sessions.table().awake_len()), (usize::from(MANY), 0));
    for session in &sessions {
        assert_eq!(service.status(session).await, 200, "after a restart");
    }
}

/// More than may wait for the store.
#[tokio::test]
async fn a_burst_for_one_session_at_rest_waits_for_one_reading() {
    const BURST: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    let sessions = kept(&service, 1).await;
    drop(service);
    let service = Service::start(folder.path()).await;
    let read = join_all((0..BURST).map(|_| service.sessions.read(&sessions[0].id))).await;
    let refused = read.iter().filter(|read| !matches!(read, Ok(Some(session)) if *session == sessions[0])).count();
    assert_eq!(refused, 0, "of {BURST}");
}

#[tokio::test]
async fn a_session_that_ends_at_rest_is_refused_now_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    let sessions = kept(&service, MANY).await;
    drop(service);
    let service = Service::start(folder.path()).await;
    service.ender.end(&sessions[3].id, None, "operator").await.unwrap();
    let ended = std::fs::read_to_string(&service.trail).unwrap();
    assert!(ended.lines().last().unwrap().contains("sre@example.com"), "the line says whose it was: {ended}");
    assert_eq!(service.status(&sessions[3]).await, 401);
    assert_eq!(service.last_reason(), "session_ended");
    assert_eq!(service.status(&sessions[4]).await, 200);
    // A reading that began before the end and comes back after it.
    let read = service.sessions.store().get(&sessions[5].id).await.unwrap().unwrap();
    service.ender.end(&sessions[5].id, None, "user").await.unwrap();
    assert!(service.sessions.table().wake(Arc::new(read), clock::unix_now()).is_none());
    assert_eq!(service.status(&sessions[5]).await, 401);
    drop(service);
    let service = Service::start(folder.path()).await;
    assert_eq!(service.sessions.table().len(), usize::from(MANY) - 2);
    for (number, session) in sessions.iter().enumerate() {
        assert_eq!(service.status(session).await, if [3, 5].contains(&number) { 401 } else { 200 }, "{number}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_refuses_those_at_rest_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    let sessions = kept(&service, 3).await;
    drop(service);
    let service = Service::start(folder.path()).await;
    assert_eq!(service.status(&sessions[0]).await, 200);
    let (path, away) = (folder.path().join("kubepass.db"), folder.path().join("away"));
    std::fs::rename(&path, &away).unwrap();
    assert!(service.sessions.keep(&session(100)).await.is_err(), "what would be gone at the next start");
    assert_eq!(service.status(&sessions[0]).await, 200, "it is in memory");
    assert_eq!(service.status(&sessions[1]).await, 503);
    assert_eq!(service.last_reason(), "session_unavailable");
    // It ends all the same.
    assert!(service.ender.end(&sessions[2].id, None, "user").await.is_err());
    assert_eq!(service.status(&sessions[2]).await, 401);

    std::fs::rename(&away, &path).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while service.status(&sessions[1]).await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it comes back by itself");
    assert_eq!(service.status(&sessions[2]).await, 401);
}

#[tokio::test]
async fn who_logs_in_waits_until_it_is_known_whose_the_sessions_are() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    let sessions = kept(&service, MANY).await;
    drop(service);
    let service = Service::start(folder.path()).await;
    let principal = &sessions[0].identity.principal;
    assert!(service.sessions.of(principal).now_or_never().is_none());
    assert_eq!(service.sessions.learn_owners().await.unwrap(), 0);
    let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    assert_eq!(service.sessions.of(principal).await, ids, "the oldest first");
    assert_eq!(service.sessions.table().of_user("sre@example.com").len(), ids.len());

    // Rows that no accepted key opens: they count no more, and stay in the file.
    drop(service);
    let service = Service::start(folder.path()).await;
    service.sessions.store().set_keys(Arc::new(kubepass::token::TokenKeys::derive(&[])));
    assert_eq!(service.status(&sessions[0]).await, 401);
    assert_eq!(service.sessions.learn_owners().await.unwrap(), usize::from(MANY));
    assert!(service.sessions.table().is_empty());
    drop(service);
    assert_eq!(Service::start(folder.path()).await.sessions.table().len(), usize::from(MANY));
}
