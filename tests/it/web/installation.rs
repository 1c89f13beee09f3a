//! One kubepass without Envoy: the web part's router over real tables, and browsers that keep cookies as RFC 6265 says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use kubepass::config::{
    Admin, AuditSettings, AuditSink, Config, ControlPlane, Durability, EnvoyVersions, GroupSettings, HttpTarget, IdentityProvider,
    Impersonate, KubernetesTarget, Method, OnAuditFailure, PublicUrl, Route, ServerAddress, SessionSettings, StoreSettings, Target,
};
use kubepass::identity::IdentityMapping;
use kubepass::policy::Policy;
use kubepass::server::clock::unix_now;
use kubepass::server::ending::SessionEnder;
use kubepass::server::lifecycle::Errands;
use kubepass::server::oidc::{Providers, Timing};
use kubepass::server::sessions::Sessions;
use kubepass::server::signing::Signing;
use kubepass::server::store::Store;
use kubepass::server::telemetry::Metrics;
use kubepass::server::trail::Trail;
use kubepass::server::web::{Web, router};
use kubepass::session::SessionTable;
use kubepass::snapshot::Snapshot;
use kubepass::token::Secret;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;
use url::Url;

use crate::support::fake_idp::{CLIENT_ID, CLIENT_SECRET, FakeIdp};

pub(crate) const PUBLIC: &str = "https://pass.example.com";
pub(crate) const PROD: &str = "https://prod.k8s.example.com";
pub(crate) const PARTNER: &str = "https://partner.k8s.example.com";
/// Web pages, and web pages for one identity provider's users only.
pub(crate) const WIKI: &str = "https://wiki.example.com";
pub(crate) const PARTNER_WIKI: &str = "https://partner-wiki.example.com";

pub(crate) struct Installation {
    pub(crate) idp: FakeIdp,
    pub(crate) partner_idp: FakeIdp,
    pub(crate) sessions: Arc<SessionTable>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) store: Store,
    pub(crate) signing: Arc<Signing>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) router: Router,
    folder: TempDir,
}

/// What an installation has that tests vary.
pub(crate) struct Options {
    /// Two identity providers instead of one.
    pub(crate) partner: bool,
    pub(crate) audit_file: Option<PathBuf>,
    pub(crate) lifetime_seconds: u64,
    pub(crate) key_cool_down: Duration,
    pub(crate) idp_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partner: false,
            audit_file: None,
            lifetime_seconds: 12 * 3600,
            key_cool_down: Duration::ZERO,
            idp_timeout: Duration::from_secs(5),
        }
    }
}

impl Installation {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let folder = TempDir::new().unwrap();
        let (idp, partner_idp) = (FakeIdp::start().await, FakeIdp::start().await);
        let audit = options.audit_file.unwrap_or_else(|| folder.path().join("audit.jsonl"));
        let mut providers = vec![provider("corp", &idp)];
        if options.partner {
            providers.push(provider("partner", &partner_idp));
        }
        let config = Config {
            public_url: PublicUrl { url: Url::parse(PUBLIC).unwrap(), host: "pass.example.com".to_owned() },
            listeners: Vec::new(),
            control_plane: ControlPlane { socket_dir: folder.path().to_owned(), tcp: None, allow_envoy_versions: EnvoyVersions::default() },
            nodes: Vec::new(),
            gateways: Vec::new(),
            admin: Admin { address: "127.0.0.1:1".parse().unwrap(), socket: folder.path().join("admin.sock") },
            secrets: vec![Secret::new([7; 32]).unwrap()],
            signing_keys: Vec::new(),
            assertion_keys: Vec::new(),
            publish_before_use_seconds: 600,
            revoked_keys: Default::default(),
            identity_providers: providers,
            sessions: SessionSettings {
                max_streams: 1_000,
                lifetime_seconds: options.lifetime_seconds,
                store: StoreSettings::Embedded { path: folder.path().join("kubepass.db") },
            },
            routes: vec![
                Arc::new(route("prod", "prod.k8s.example.com", None, true)),
                Arc::new(route("partner", "partner.k8s.example.com", Some(vec!["partner".to_owned()]), false)),
                Arc::new(pages("wiki", "wiki.example.com", None)),
                Arc::new(pages("partner-wiki", "partner-wiki.example.com", Some(vec!["partner".to_owned()]))),
            ],
            cluster_source: None,
            strict_file_modes: false,
            valid_at: 0..u64::MAX,
            audit: AuditSettings {
                sinks: vec![AuditSink::File { path: audit }],
                on_failure: OnAuditFailure::Deny,
                durability: Durability::Written,
            },
        };
        let trail = Trail::open(&config.audit).unwrap();
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::new(Arc::new(config), "0123456789abcdef0123")));
        let store = Store::open(&folder.path().join("kubepass.db"), Arc::clone(snapshot.load().token_keys())).unwrap();
        let sessions = Arc::new(SessionTable::new());
        let timing = Timing {
            timeout: options.idp_timeout,
            refresh_period: Duration::from_secs(3600),
            key_cool_down: options.key_cool_down,
            failure_cool_down: Duration::ZERO,
        };
        let oidc = Arc::new(Providers::new(timing));
        let metrics = Arc::new(Metrics::default());
        let signing = Signing::open(snapshot.load().config(), &store, unix_now()).await.unwrap();
        let keys = Arc::clone(&signing);
        let ender = SessionEnder::new(Sessions::new(Arc::clone(&sessions), store.clone()), trail, Errands::default());
        let web = Web::new(Arc::clone(&snapshot), ender, oidc, keys, Arc::clone(&metrics));
        Self { idp, partner_idp, sessions, snapshot, store, signing, metrics, router: router(Arc::new(web)), folder }
    }

    /// The same installation with another audit trail.
    pub(crate) fn with_trail(&self, trail: Trail) -> Router {
        let (snapshot, signing) = (Arc::clone(&self.snapshot), Arc::clone(&self.signing));
        let sessions = Sessions::new(Arc::clone(&self.sessions), self.store.clone());
        let ender = SessionEnder::new(sessions, trail, Errands::default());
        router(Arc::new(Web::new(snapshot, ender, Arc::default(), signing, Arc::default())))
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser { router: self.router.clone(), cookies: BTreeMap::new(), elsewhere: BTreeMap::new() }
    }

    /// A browser that is logged in at the only identity provider.
    pub(crate) async fn logged_in(&self) -> Browser {
        let mut browser = self.browser();
        let answer = browser.log_in(&self.idp, "/login").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }

    /// The audit trail so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn audit_events(&self) -> Vec<String> {
        self.audit().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    }
}

fn provider(name: &str, idp: &FakeIdp) -> Arc<IdentityProvider> {
    Arc::new(IdentityProvider {
        name: name.to_owned(),
        issuer: Url::parse(idp.issuer()).unwrap(),
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.into(),
        scopes: vec!["openid".to_owned(), "email".to_owned()],
        mapping: IdentityMapping::compile("claims.email", Some("claims.groups"), None).unwrap(),
        ca_pem: None,
    })
}

fn route(name: &str, host: &str, identity_providers: Option<Vec<String>>, pomerium_cli: bool) -> Route {
    let method = Method::Impersonate(Impersonate { token: "service-account".into(), uid: None, extra: Vec::new(), users: None });
    let target = Target::Kubernetes(KubernetesTarget {
        server: ServerAddress { host: "10.0.0.1".to_owned(), port: 6443, server_name: "10.0.0.1".to_owned() },
        ca_pem: String::new(),
        method,
        username_prefix: String::new(),
        groups: GroupSettings { prefix: String::new(), allow: vec!["*".to_owned()], max: 64 },
        allow_system: Vec::new(),
    });
    Route {
        id: Route::id_of(name, &target),
        name: name.to_owned(),
        host: host.to_owned(),
        labels: BTreeMap::new(),
        nodes: None,
        gateways: None,
        identity_providers,
        pomerium_cli,
        target,
        policy: Policy::compile(&[]).unwrap(),
        max_stream_seconds: None,
    }
}

fn pages(name: &str, host: &str, identity_providers: Option<Vec<String>>) -> Route {
    let upstream = ServerAddress { host: "10.0.0.9".to_owned(), port: 8080, server_name: "10.0.0.9".to_owned() };
    let target = Target::Http(HttpTarget {
        upstream,
        tls: None,
        identity_header: "x-kubepass-jwt-assertion".to_owned(),
        audience: format!("https://{host}"),
        websocket: false,
    });
    Route { id: Route::id_of(name, &target), target, ..route(name, host, identity_providers, false) }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn location(&self) -> Url {
        let text = self.headers.get(header::LOCATION).unwrap_or_else(|| panic!("no redirect: {} {}", self.status, self.body));
        Url::parse(PUBLIC).unwrap().join(text.to_str().unwrap()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.body))
    }

    /// The value of a page's hidden field `form`.
    pub(crate) fn form(&self) -> String {
        let (_, rest) = self.body.split_once("name=form value=\"").unwrap_or_else(|| panic!("no form: {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }

    /// A refusal for people: a page, with what to do, a request id, no session.
    #[track_caller]
    pub(crate) fn is_error_page(&self, status: StatusCode, text: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"), "{self:?}");
        assert!(self.body.contains(text), "{text:?} is not in {}", self.body);
        assert!(self.body.contains("Request <code>"), "{}", self.body);
        assert!(!self.sets_session(), "{self:?}");
    }

    pub(crate) fn sets_session(&self) -> bool {
        self.headers.get_all(header::SET_COOKIE).iter().any(|cookie| {
            let text = cookie.to_str().unwrap();
            text.starts_with("__Host-kubepass-session=") && !text.contains("Max-Age=0")
        })
    }
}

/// Keeps cookies, follows nothing by itself.
#[derive(Clone)]
pub(crate) struct Browser {
    router: Router,
    /// Of the login pages, by name.
    pub(crate) cookies: BTreeMap<String, String>,
    /// Of all other hosts, by host and name.
    pub(crate) elsewhere: BTreeMap<(String, String), String>,
}

impl Browser {
    pub(crate) async fn get(&mut self, address: &str) -> Answer {
        self.send("GET", address, &[], String::new()).await
    }

    pub(crate) async fn post(&mut self, address: &str, pairs: &[(&str, &str)]) -> Answer {
        self.send("POST", address, &[("sec-fetch-site", "same-origin"), ("origin", "null")], form(pairs)).await
    }

    /// Follows to the identity provider, where the user says yes, and back to the callback.
    pub(crate) async fn log_in(&mut self, idp: &FakeIdp, address: &str) -> Answer {
        let start = self.get(address).await;
        assert_eq!(start.status, StatusCode::SEE_OTHER, "{}", start.body);
        let back = idp.authorize(&start.location());
        self.get(back.as_str()).await
    }

    pub(crate) async fn send(&mut self, method: &str, address: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let url = Url::parse(PUBLIC).unwrap().join(address).unwrap();
        let host = url.host_str().unwrap().to_owned();
        let is_public = host == "pass.example.com";
        let elsewhere = self.elsewhere.iter().filter(|((of, _), _)| *of == host).map(|((_, name), value)| (name, value));
        let pairs: Vec<_> = if is_public { self.cookies.iter().collect() } else { elsewhere.collect() };
        let cookies: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder()
            .method(method)
            .uri(&url[url::Position::BeforePath..])
            .header(header::HOST, &host)
            .header("x-forwarded-for", "203.0.113.7, 192.0.2.1")
            .header(header::USER_AGENT, "browser/1");
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies.join("; "));
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = send(&self.router, request.body(Body::from(body)).unwrap()).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let text = cookie.to_str().unwrap();
            for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(text.split("; ").any(|part| part == attribute), "{text}");
            }
            assert!(text.starts_with("__Host-") && !text.contains("Domain"), "{text}");
            assert!(text.len() < 4096, "browsers drop longer cookies: {}", text.len());
            let (name, rest) = text.split_once('=').unwrap();
            let (at, value) = ((host.clone(), name.to_owned()), rest.split(';').next().unwrap().to_owned());
            match (is_public, text.contains("Max-Age=0")) {
                (true, true) => drop(self.cookies.remove(name)),
                (true, false) => drop(self.cookies.insert(name.to_owned(), value)),
                (false, true) => drop(self.elsewhere.remove(&at)),
                (false, false) => drop(self.elsewhere.insert(at, value)),
            }
        }
        answer
    }
}

/// A program without cookies.
pub(crate) async fn program(router: &Router, method: &str, address: &str, bearer: Option<&str>, pairs: &[(&str, &str)]) -> Answer {
    let mut browser = Browser { router: router.clone(), cookies: BTreeMap::new(), elsewhere: BTreeMap::new() };
    let bearer = bearer.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
    let answer = browser.send(method, address, &headers, form(pairs)).await;
    assert!(browser.cookies.is_empty() && browser.elsewhere.is_empty(), "programs get no cookies: {answer:?}");
    answer
}

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let is_public = request.uri().path().starts_with("/.well-known/");
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    for (name, value) in [("referrer-policy", "no-referrer"), ("x-content-type-options", "nosniff")] {
        assert_eq!(parts.headers[name], value);
    }
    // What is for one person is kept nowhere; public keys are for everyone.
    assert!(parts.headers["cache-control"] == "no-store" || is_public, "{:?}", parts.headers);
    let policy = parts.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}
