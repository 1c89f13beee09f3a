//! The decision matrix: actors x routes x requests, as a golden table that a reviewer reads (`UPDATE_GOLDEN=1` rewrites it), and what must
//! hold for every request whatsoever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kubepass::access::request::RequestHeaders;
use kubepass::access::{AccessRequest, Answer, Decision, Outcome, RequestTarget, SessionState, authenticate, decide};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::session::{Session, SessionTable};
use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::token::SessionId;
use proptest::prelude::*;

use super::fixture::{self, NOW};

const HOUR: u64 = 3_600;
const HOST: &str = "host.example.com";

/// Someone with a credential, or without.
struct Actor {
    name: &'static str,
    email: &'static str,
    groups: Vec<String>,
    session_age: u64,
    session_left: u64,
    /// Whose audience the token has; `None` for no token.
    token_for: Option<&'static str>,
    token_age: u64,
}

impl Actor {
    fn new(name: &'static str, email: &'static str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { name, email, groups, session_age: HOUR, session_left: 11 * HOUR, token_for: Some("route"), token_age: 60 }
    }
}

fn actors() -> Vec<Actor> {
    let many: Vec<String> = (0..33).map(|n| format!("team-{n}")).collect();
    vec![
        Actor { token_for: None, ..Actor::new("anonymous", "", &[]) },
        Actor::new("developer", "dev@example.com", &["team-a", "chess-club"]),
        Actor::new("sre", "sre@example.com", &["sre", "team-a"]),
        Actor::new("outsider", "eve@evil.example", &[]),
        Actor::new("no-groups", "new@example.com", &[]),
        Actor { groups: many, ..Actor::new("33-teams", "many@example.com", &[]) },
        Actor::new("masters", "m@example.com", &["sre", "system:masters"]),
        Actor::new("system-name", "system:admin", &["sre"]),
        Actor::new("comma-group", "c@example.com", &["sre", "team-a,system:masters"]),
        Actor::new("line-feed-group", "l@example.com", &["sre", "team-\nx"]),
        Actor { token_for: Some("other.k8s.example.com"), ..Actor::new("token-of-other-route", "sre@example.com", &["sre"]) },
        Actor { token_age: 2 * HOUR, ..Actor::new("token-expired", "sre@example.com", &["sre"]) },
        Actor { session_left: 0, ..Actor::new("session-ended", "sre@example.com", &["sre"]) },
        Actor { session_age: 5 * HOUR, session_left: 7 * HOUR, ..Actor::new("old-session", "sre@example.com", &["sre"]) },
    ]
}

const REQUESTS: &[(&str, &str)] = &[
    ("GET", "/version"),
    ("GET", "/api"),
    ("GET", "/api/v1/namespaces/web/pods"),
    ("GET", "/api/v1/namespaces/web/pods?watch=1"),
    ("DELETE", "/api/v1/namespaces/web/pods/a"),
    ("GET", "/api/v1/namespaces/web/pods/a/exec?command=sh"),
    ("POST", "/api/v1/namespaces/web/pods/a/exec?command=sh"),
    ("GET", "/api/v1/namespaces/web/services/a/proxy/"),
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/namespaces/web/pods/..%2fsecrets"),
];

#[test]
fn the_matrix_is_as_reviewed() {
    let snapshot = fixture::snapshot_of("config/two-clusters.yaml");
    let mut table = String::from("actor | route | request -> decision\n");
    for route in ["staging", "prod"] {
        for actor in actors() {
            for (method, path) in REQUESTS {
                let (sessions, token) = log_in(&snapshot, &actor, route);
                let value = token.map(|token| format!("Bearer {token}"));
                let mut headers: Vec<(&str, &[u8])> = vec![("user-agent", b"kubectl")];
                headers.extend(value.iter().map(|value| ("authorization", value.as_bytes())));
                let target = target(&snapshot, route);
                let request = request(&target, method, path, &headers);
                let state = authenticate(&snapshot, &request, &sessions, NOW);
                let decision = decide(&snapshot, &request, state, NOW);
                writeln!(table, "{} | {route} | {method} {path} -> {}", actor.name, shown(&decision)).unwrap();
            }
        }
    }
    misdirected(&snapshot, &mut table);
    fixture::compare_golden("tests/it/golden/decisions/two-clusters.txt", &table);
}

/// Someone who may do anything, on connections that were opened for other names than the host; the web pages in the same way.
fn misdirected(snapshot: &Snapshot, table: &mut String) {
    let sre = Actor::new("sre", "sre@example.com", &["sre"]);
    let (sessions, token) = log_in(snapshot, &sre, "prod");
    let value = format!("Bearer {}", token.unwrap());
    let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
    for target in [&*target(snapshot, "prod"), "web"] {
        for sni in [HOST, "HOST.example.com.", "other.example.com", ""] {
            let request = AccessRequest { sni, ..request(target, "GET", "/version", &headers) };
            let state = authenticate(snapshot, &request, &sessions, NOW);
            let decision = decide(snapshot, &request, state, NOW);
            writeln!(table, "sre | {target} on a connection for {sni:?} | GET /version -> {}", shown(&decision)).unwrap();
        }
    }
}

#[test]
fn what_envoy_does_not_know_is_refused_whoever_asks() {
    let snapshot = fixture::snapshot_of("config/two-clusters.yaml");
    let sre = Actor::new("sre", "sre@example.com", &["sre"]);
    let (sessions, token) = log_in(&snapshot, &sre, "prod");
    let value = format!("Bearer {}", token.unwrap());
    let id = snapshot.route("prod").unwrap().id();
    let web = format!("web:{id}");
    for target in ["", "kubernetes:", "kubernetes:nosuch", "kubernetes:prod", "http:prod", "prod", &web, id] {
        let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
        let request = request(target, "GET", "/version", &headers);
        let state = authenticate(&snapshot, &request, &sessions, NOW);
        let decision = decide(&snapshot, &request, state, NOW);
        assert_eq!(Answer::to(&decision).unwrap().status.code, 503, "{target}");
    }
}

/// Envoy still leads a route to its old API server, while the new policy, made for the new one, is in force already.
#[test]
fn a_policy_never_stands_before_another_server_than_its_own() {
    let path = "config/two-clusters.yaml";
    let text = std::fs::read_to_string(fixture::root().join(path)).unwrap();
    let old = fixture::snapshot_of(path);
    let config = fixture::load(&text.replace("https://10.0.0.1:6443", "https://10.9.0.10:6443"), path, &BTreeMap::new()).unwrap();
    let new = Snapshot::new(Arc::new(config), "00000000000000000000000000000000");
    let sre = Actor::new("sre", "sre@example.com", &["sre"]);
    let (sessions, token) = log_in(&new, &sre, "prod");
    let value = format!("Bearer {}", token.unwrap());
    let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
    let word = |snapshot: &Snapshot, target: &str| {
        let request = request(target, "GET", "/version", &headers);
        shown(&decide(snapshot, &request, authenticate(snapshot, &request, &sessions, NOW), NOW))
    };
    assert_ne!(target(&old, "prod"), target(&new, "prod"), "the servers must differ, or this tests nothing");
    assert!(word(&new, &target(&new, "prod")).starts_with("allow"));
    assert!(word(&old, &target(&old, "prod")).starts_with("allow"));
    assert!(word(&new, &target(&old, "prod")).starts_with("503 route_unknown"));
    assert!(word(&old, &target(&new, "prod")).starts_with("503 route_unknown"));
}

/// A session of the provider that had this name before is no session of the one that has it now.
#[test]
fn a_session_counts_for_the_issuer_that_made_it() {
    let snapshot = fixture::snapshot_of("config/two-clusters.yaml");
    let (sessions, token) = log_in(&snapshot, &Actor::new("sre", "sre@example.com", &["sre"]), "prod");
    let value = format!("Bearer {}", token.unwrap());
    let target = target(&snapshot, "prod");
    let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
    let request = request(&target, "GET", "/version", &headers);
    let check = |issuer: &str, expected: &str| {
        let SessionState::Live(mut live) = authenticate(&snapshot, &request, &sessions, NOW) else { panic!("no session") };
        let mut session = Session::clone(&live.session);
        session.identity.claims.insert("iss".into(), issuer.into());
        live.session = Arc::new(session);
        let decision = shown(&decide(&snapshot, &request, SessionState::Live(live), NOW));
        assert!(decision.starts_with(expected), "{issuer}: {decision}");
    };
    check("https://idp.example.com", "allow");
    check("https://idp.example.com/", "allow");
    check("https://idp.example.com.evil.example", "403 identity_provider");
    check("https://old-idp.example.com", "403 identity_provider");
}

/// Each of the rules is allowed what it takes, but not all of them together: a request must not wait for ever for what somebody wrote.
#[test]
fn the_rules_of_a_route_share_the_work_that_they_may_take() {
    let path = "config/two-clusters.yaml";
    let text = std::fs::read_to_string(fixture::root().join(path)).unwrap();
    let staff = "  - {name: staff, allow: 'user.email.endsWith(\"@example.com\")'}\n";
    assert!(text.contains(staff));
    let check = |rules: usize, expected: &str| {
        let work = "user.groups.exists(one, user.groups.exists(other, one + other == user.name))";
        let heavy: String = (0..rules).map(|number| format!("  - {{name: heavy-{number}, deny: '{work}'}}\n")).collect();
        let text = text.replace(staff, &(heavy + staff));
        let snapshot = Snapshot::new(Arc::new(fixture::load(&text, path, &BTreeMap::new()).unwrap()), "00000000000000000000000000000000");
        let actor =
            Actor { groups: (0..60).map(|number| format!("group-{number}")).collect(), ..Actor::new("sre", "sre@example.com", &[]) };
        let (sessions, token) = log_in(&snapshot, &actor, "staging");
        let value = format!("Bearer {}", token.unwrap());
        let target = target(&snapshot, "staging");
        let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
        let request = request(&target, "GET", "/version", &headers);
        let decision = shown(&decide(&snapshot, &request, authenticate(&snapshot, &request, &sessions, NOW), NOW));
        assert!(decision.starts_with(expected), "{rules}: {decision}");
    };
    check(2, "allow by staff");
    check(60, "403");
}

/// `Staging.K8s.Example.COM` is the same virtual host to Envoy.
#[test]
fn rules_read_the_route_s_host_and_not_the_client_s_spelling() {
    let path = "config/two-clusters.yaml";
    let text = std::fs::read_to_string(fixture::root().join(path)).unwrap();
    let rule = r#"user.email.endsWith("@example.com")"#;
    assert!(text.contains(rule));
    let text = text.replace(rule, r#"request.host == "staging.k8s.example.com""#);
    let snapshot = Snapshot::new(Arc::new(fixture::load(&text, path, &BTreeMap::new()).unwrap()), "00000000000000000000000000000000");
    let (sessions, token) = log_in(&snapshot, &Actor::new("sre", "sre@example.com", &["sre"]), "staging");
    let value = format!("Bearer {}", token.unwrap());
    let target = target(&snapshot, "staging");
    let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
    let request =
        AccessRequest { host: "Staging.K8s.Example.COM", sni: "staging.k8s.example.com", ..request(&target, "GET", "/version", &headers) };
    let decision = decide(&snapshot, &request, authenticate(&snapshot, &request, &sessions, NOW), NOW);
    assert!(shown(&decision).starts_with("allow by staff"), "{}", shown(&decision));
}

#[test]
fn an_ended_session_is_refused_at_the_next_request() {
    let snapshot = fixture::snapshot_of("config/two-clusters.yaml");
    let sre = Actor::new("sre", "sre@example.com", &["sre"]);
    let (sessions, token) = log_in(&snapshot, &sre, "prod");
    let value = format!("Bearer {}", token.unwrap());
    let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
    let target = target(&snapshot, "prod");
    let request = request(&target, "GET", "/version", &headers);
    let word = |sessions: &SessionTable| shown(&decide(&snapshot, &request, authenticate(&snapshot, &request, sessions, NOW), NOW));
    assert!(word(&sessions).starts_with("allow"), "{}", word(&sessions));
    let session = sessions.awake().remove(0);
    sessions.end(&session.id);
    assert!(word(&sessions).contains("session_ended"), "{}", word(&sessions));
}

fn log_in(snapshot: &Snapshot, actor: &Actor, route: &str) -> (SessionTable, Option<String>) {
    let sessions = SessionTable::new();
    let session = Session {
        id: SessionId::from_random([7; 16]),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: actor.name.into() },
            username: actor.email.into(),
            email: actor.email.into(),
            groups: Groups::from(actor.groups.clone()),
            claims: serde_json::Map::new(),
        },
        created_at: NOW - actor.session_age,
        expires_at: NOW + actor.session_left,
        client: "kubepass".into(),
        source_ip: "192.0.2.1".into(),
    };
    let token = actor.token_for.map(|audience| {
        let audience = if audience == "route" { &snapshot.route(route).unwrap().host } else { audience };
        let claims = session.session_token_claims(audience, "jti".into(), NOW - actor.token_age);
        snapshot.token_keys().sign_session_token(&claims).unwrap()
    });
    let _ = sessions.insert(Arc::new(session));
    (sessions, token)
}

/// As Envoy names a route.
fn target(snapshot: &Snapshot, route: &str) -> String {
    format!("kubernetes:{}", snapshot.route(route).unwrap().id())
}

fn request<'a>(target: &'a str, method: &'a str, path: &'a str, headers: &[(&'a str, &'a [u8])]) -> AccessRequest<'a> {
    AccessRequest {
        node: NodeView::UNNAMED,
        request_id: "id",
        target: RequestTarget::parse(target),
        method,
        path,
        host: HOST,
        sni: HOST,
        source_ip: "192.0.2.1",
        headers: RequestHeaders::read(headers.iter().copied()),
    }
}

fn shown(decision: &Decision<'_>) -> String {
    let rule = decision.evidence.rule.as_deref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    match &decision.outcome {
        Outcome::Web => "web".to_owned(),
        Outcome::Allow(grant) => {
            let groups: Vec<&str> = grant.identity().groups().iter().map(|group| group.as_str()).collect();
            let extra: Vec<&str> = grant.identity().extra().iter().map(|(key, _)| key.as_str()).collect();
            let dropped = &decision.evidence.dropped_groups;
            format!(
                "allow{rule} as {:?} in {groups:?} extra {extra:?} dropped {dropped:?} for {} s",
                grant.identity().user().as_str(),
                grant.stream_limit_ms() / 1_000
            )
        }
        Outcome::Challenge(_) | Outcome::Deny(_) => {
            let answer = Answer::to(decision).unwrap();
            format!("{} {}{rule}: {}", answer.status.code, answer.word, answer.status.message)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever arrives: it ends in a value, and without a live session in no grant.
    #[test]
    fn no_grant_without_identity(
        target in "(kubernetes:(prod@10.0.0.1:6443/kubernetes.default.svc|prod|x)|web|.{0,20})",
        method in "(GET|POST|[A-Z]{0,9}|.{0,5})",
        path in "(/api/v1/.{0,40}|/.{0,60}|.{0,20})",
        names in prop::collection::vec("(authorization|Authorization|connection|impersonate-user|accept|sec-websocket-protocol|[a-z-]{1,20})", 0..6),
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 6),
    ) {
        let snapshot = fixture::snapshot_of_cached("config/two-clusters.yaml");
        let headers: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(values.iter().map(Vec::as_slice)).collect();
        prop_assert!(snapshot.route_by_id("prod@10.0.0.1:6443/kubernetes.default.svc").is_some());
        let request = request(&target, &method, &path, &headers);
        let state = authenticate(&snapshot, &request, &SessionTable::new(), NOW);
        prop_assert!(!matches!(state, SessionState::Live(_) | SessionState::LiveByCookie(_)));
        let decision = decide(&snapshot, &request, state, NOW);
        match &decision.outcome {
            Outcome::Allow(grant) => prop_assert!(false, "granted {grant:?}"),
            Outcome::Web => prop_assert_eq!(target.as_str(), "web"),
            Outcome::Challenge(_) | Outcome::Deny(_) => prop_assert!(Answer::to(&decision).unwrap().status.code >= 400),
        }
    }
}
