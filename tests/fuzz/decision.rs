//! Envoy's question, encoded, to kubepass's answer, encoded: read, authenticated, decided, written down, rendered, as `server::ext_authz` does it.
//! Only the tokens for upstreams, which need a key of the running kubepass, are left out.

use std::sync::{Arc, OnceLock};

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::value::Kind;
use kubepass::access::{AccessRequest, Answer, Decision, Grant, Outcome, RequestTarget, SessionState, authenticate, decide};
use kubepass::audit::{AuditEvent, decision_event};
use kubepass::config::{self, Contents, Reference};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::server::ext_authz::convert::{self, Minted};
use kubepass::server::ext_authz::question;
use kubepass::session::{Session, SessionTable};
use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::token::SessionId;
use prost::Message as _;

pub const NOW: u64 = 1_767_225_600;

/// A Kubernetes route and web pages.
const CONFIGURATION: &str = include_str!("../../config/web-pages.yaml");

/// What an allowed request may get beside the metadata.
const HEADERS: [&str; 4] = ["audit-id", "x-envoy-upstream-stream-duration-ms", "x-kubepass-assertion", "x-kubepass-cookie"];

/// Who is logged in, and the configuration in force.
pub struct Scene {
    pub snapshot: Snapshot,
    sessions: SessionTable,
    session: Arc<Session>,
}

impl Scene {
    pub fn get() -> &'static Self {
        static SCENE: OnceLock<Scene> = OnceLock::new();
        SCENE.get_or_init(Self::new)
    }

    fn new() -> Self {
        let draft = config::parse(CONFIGURATION, "kubepass.yaml").expect("the example");
        let contents = draft.references().keys().map(|reference| (reference.clone(), Ok(content(reference)))).collect();
        let config = config::resolve(draft, &Contents(contents), NOW).unwrap_or_else(|errors| panic!("{errors}"));
        let session = Arc::new(Session {
            id: SessionId::from_random([7; 16]),
            identity: Identity {
                principal: Principal { idp: "corp".into(), subject: "subject".into() },
                username: "foo@example.com".into(),
                email: "foo@example.com".into(),
                groups: Groups::from(vec!["sre".to_owned(), "team-a".to_owned()]),
                claims: serde_json::Map::new(),
            },
            created_at: NOW - 3_600,
            expires_at: NOW + 3_600,
            client: "kubepass".into(),
            source_ip: "192.0.2.1".into(),
        });
        let sessions = SessionTable::new();
        let _ = sessions.insert(Arc::clone(&session));
        Self { snapshot: Snapshot::new(Arc::new(config), "0123456789abcdef"), sessions, session }
    }

    /// The token with which a corpus entry shows the session; always the same.
    pub fn token(&self, route: &str) -> String {
        let host = &self.snapshot.route(route).expect("a route of the example").host;
        let claims = self.session.session_token_claims(host, "jti".into(), NOW - 60);
        self.snapshot.token_keys().sign_session_token(&claims).expect("a token")
    }
}

impl Scene {
    /// What becomes of a question when the session of its credential lives.
    pub fn outcome(&self, data: &[u8]) -> &'static str {
        let request = question::read(data, NodeView::UNNAMED).expect("a question");
        let state = authenticate(&self.snapshot, &request, &self.sessions, NOW);
        match decide(&self.snapshot, &request, state, NOW).outcome {
            Outcome::Web => "web",
            Outcome::Allow(_) => "allow",
            Outcome::Challenge(_) => "challenge",
            Outcome::Deny(_) => "deny",
        }
    }
}

fn content(reference: &Reference) -> Vec<u8> {
    let Reference::File(path) = reference else { return b"a secret that stands in no file, long enough".to_vec() };
    match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
        name if name.ends_with("ca.crt") => include_bytes!("../it/fixture/ca.crt").to_vec(),
        name if name.ends_with(".crt") => include_bytes!("../it/fixture/tls.crt").to_vec(),
        name if name.ends_with(".key") => include_bytes!("../it/fixture/tls.key").to_vec(),
        name => format!("the-content-of-{name}-for-the-fuzzer-long-enough\n").into_bytes(),
    }
}

/// A question.
pub fn run(data: &[u8]) {
    let scene = Scene::get();
    let Ok(request) = question::read(data, NodeView::UNNAMED) else { return };
    // Nobody is logged in: whatever is asked, nothing goes to an upstream.
    let nobody = authenticate(&scene.snapshot, &request, &SessionTable::new(), NOW);
    let decision = decide(&scene.snapshot, &request, nobody, NOW);
    assert!(!matches!(decision.outcome, Outcome::Allow(_)), "granted without a session: {request:?}");
    check(scene, &request, &decision);

    let state = authenticate(&scene.snapshot, &request, &scene.sessions, NOW);
    let shown = matches!(state, SessionState::Live(_) | SessionState::LiveByCookie(_));
    let decision = decide(&scene.snapshot, &request, state, NOW);
    assert!(shown || !matches!(decision.outcome, Outcome::Allow(_)), "granted without a credential: {request:?}");
    check(scene, &request, &decision);
}

fn check(scene: &Scene, request: &AccessRequest<'_>, decision: &Decision<'_>) {
    let answer = Answer::to(decision);
    let event = decision_event(request, decision, answer.as_ref(), scene.snapshot.version());
    let line = serde_json::to_string(&AuditEvent::Decision(&event)).expect("a line");
    assert!(!line.contains(['\n', '\r']), "an audit line of several lines: {line:?}");
    match &decision.outcome {
        Outcome::Web => {
            assert_eq!(request.target, RequestTarget::Web);
            assert_eq!(granted(&convert::to_web()), [("grant".to_owned(), "web".to_owned())]);
        }
        Outcome::Allow(grant) => {
            assert!(request.headers.malformed.is_none() && request.headers.impersonates.is_none() && request.is_directed(), "{request:?}");
            check_grant(scene, request, grant);
        }
        Outcome::Challenge(_) | Outcome::Deny(_) => {
            let answer = answer.expect("an answer to a refusal");
            check_refusal(&convert::refuse(&answer, request, scene.snapshot.config().public_url.url.as_str()));
        }
    }
}

/// What reaches the upstream is the session's, and nothing of the client's.
fn check_grant(scene: &Scene, request: &AccessRequest<'_>, grant: &Grant) {
    let metadata = granted(&convert::grant(grant, &Minted::Nothing, request.request_id));
    let id = grant.route().id();
    let kubernetes = request.target == RequestTarget::Kubernetes(id);
    assert!(kubernetes || request.target == RequestTarget::Http(id), "{request:?}");
    let value = |key: &str| metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let scheme = if kubernetes { "kubernetes" } else { "http" };
    assert_eq!(value("grant"), Some(format!("{scheme}:{id}").as_str()));
    assert_eq!(value("user"), kubernetes.then_some(scene.session.identity.username.as_str()));
    let groups: Vec<&str> =
        metadata.iter().filter(|(name, _)| name.starts_with('g') && name != "grant").map(|(_, value)| &**value).collect();
    assert!(groups.iter().all(|group| scene.session.identity.groups.as_slice().iter().any(|own| own == group)), "{groups:?}");
}

/// The metadata of an answer that lets a request through.
fn granted(answer: &[u8]) -> Vec<(String, String)> {
    let answer = CheckResponse::decode(answer).expect("an answer that Envoy can read");
    assert_eq!(answer.status.expect("a status").code, 0);
    if let Some(HttpResponse::OkResponse(ok)) = answer.http_response {
        assert!(ok.headers_to_remove.is_empty() && ok.response_headers_to_add.is_empty() && ok.query_parameters_to_set.is_empty());
        for header in ok.headers.into_iter().filter_map(|option| option.header) {
            assert!(HEADERS.contains(&&*header.key), "{} is set", header.key);
            assert!(!header.value.contains(char::is_control) && header.raw_value.is_empty(), "{}: {:?}", header.key, header.value);
        }
    }
    let fields = answer.dynamic_metadata.map(|metadata| metadata.fields).unwrap_or_default();
    let text = |(key, value): (String, envoy_types::pb::google::protobuf::Value)| match value.kind {
        Some(Kind::StringValue(text)) => {
            assert!(!text.is_empty() && text.trim() == text && !text.contains(char::is_control), "{key}: {text:?}");
            (key, text)
        }
        other => panic!("{key} is {other:?}"),
    };
    fields.into_iter().map(text).collect()
}

fn check_refusal(answer: &[u8]) {
    let answer = CheckResponse::decode(answer).expect("an answer that Envoy can read");
    assert_ne!(answer.status.expect("a status").code, 0, "Envoy lets this through");
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!("a refusal without its response") };
    assert!(denied.status.is_some_and(|status| status.code >= 300), "a refusal that looks like an answer");
    for header in denied.headers.into_iter().filter_map(|option| option.header) {
        assert!(!header.value.contains(char::is_control), "{}: {:?}", header.key, header.value);
    }
}
