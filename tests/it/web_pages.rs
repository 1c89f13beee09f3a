//! Decisions about requests to plain HTTP routes: who is let in by what, as a table, and what must hold of every request.

use std::sync::Arc;

use kubepass::access::request::RequestHeaders;
use kubepass::access::{AccessRequest, Answer, Form, Outcome, RequestTarget, SessionState, authenticate, decide};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::session::{ROUTE_COOKIE, Session, SessionTable, seal_route_cookie};
use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::token::SessionId;
use proptest::prelude::*;

use super::fixture::{self, NOW};

const EXAMPLE: &str = "config/web-pages.yaml";
const WIKI: &str = "wiki.k8s.example.com";
const DOCS: &str = "docs.k8s.example.com";

/// A person who is logged in, with every credential that there is.
struct Person {
    snapshot: Arc<Snapshot>,
    sessions: SessionTable,
    session: Arc<Session>,
}

impl Person {
    fn new(email: &str, groups: &[&str]) -> Self {
        let session = Arc::new(Session {
            id: SessionId::from_random([7; 16]),
            identity: Identity {
                principal: Principal { idp: "corp".into(), subject: "s".into() },
                username: email.into(),
                email: email.into(),
                groups: groups.iter().map(|group| (*group).to_owned()).collect::<Groups>(),
                claims: serde_json::Map::new(),
            },
            created_at: NOW - 60,
            expires_at: NOW + 3_600,
            client: "browser".into(),
            source_ip: String::new(),
        });
        let sessions = SessionTable::new();
        sessions.insert(Arc::clone(&session)).unwrap();
        Self { snapshot: fixture::snapshot_of_cached(EXAMPLE), sessions, session }
    }

    fn cookie(&self, host: &str) -> String {
        format!("{ROUTE_COOKIE}={}", seal_route_cookie(self.snapshot.token_keys(), self.session.id, host, [0; 12]).unwrap())
    }

    fn bearer(&self, host: &str) -> String {
        let claims = self.session.session_token_claims(host, "jti".into(), NOW);
        format!("Bearer {}", self.snapshot.token_keys().sign_session_token(&claims).unwrap())
    }

    /// The word of the refusal, or `allow` with the cookies that go upstream.
    fn ask(&self, route: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> (String, Option<Form>) {
        let route = self.snapshot.route(route).unwrap();
        let target = format!("{}:{}", route.kind(), route.id());
        let request = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: "id",
            target: RequestTarget::parse(&target),
            method,
            path,
            host: &route.host,
            sni: &route.host,
            source_ip: "192.0.2.1",
            headers: RequestHeaders::read(headers.iter().map(|(name, value)| (*name, value.as_bytes()))),
        };
        let state = authenticate(&self.snapshot, &request, &self.sessions, NOW);
        let decision = decide(&self.snapshot, &request, state, NOW);
        match (&decision.outcome, Answer::to(&decision)) {
            (Outcome::Allow(grant), _) => {
                assert_eq!(grant.identity().user().as_str(), self.session.identity.username);
                (format!("allow {}", grant.cookies().map_or("", |cookies| cookies.as_str())).trim_end().to_owned(), None)
            }
            (_, Some(answer)) => (answer.word.to_owned(), Some(answer.form)),
            (outcome, None) => panic!("{outcome:?}"),
        }
    }

    #[track_caller]
    fn check(&self, route: &str, method: &str, path: &str, headers: &[(&str, &str)], wanted: &str) {
        assert_eq!(self.ask(route, method, path, headers).0, wanted, "{route} {method} {path} {headers:?}");
    }
}

const NAVIGATION: [(&str, &str); 3] = [("accept", "text/html,*/*;q=0.8"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

#[test]
fn a_cookie_counts_at_its_own_host_and_on_no_cluster() {
    let person = Person::new("sre@example.com", &["sre"]);
    let (wiki, docs, prod) = (person.cookie(WIKI), person.cookie(DOCS), person.cookie("prod.k8s.example.com"));
    person.check("wiki", "GET", "/", &[("cookie", &wiki)], "allow");
    person.check("docs", "GET", "/", &[("cookie", &docs)], "allow");
    person.check("docs", "GET", "/", &[("cookie", &wiki)], "token_invalid");
    person.check("wiki", "GET", "/", &[("cookie", &format!("{wiki}; {docs}"))], "no_credential");
    person.check("wiki", "GET", "/", &[("cookie", &wiki), ("cookie", &wiki)], "no_credential");
    for cookie in [&wiki, &prod] {
        person.check("prod", "GET", "/version", &[("cookie", cookie)], "no_credential");
        person.check("prod", "GET", "/version", &[("cookie", cookie), ("authorization", &person.bearer(WIKI))], "token_of_other_route");
    }
    let session = person.snapshot.token_keys().seal_cookie("__Host-kubepass-session", person.session.id.as_bytes(), [0; 12]).unwrap();
    person.check("wiki", "GET", "/", &[("cookie", &format!("__Host-kubepass-session={session}"))], "no_credential");
    person.check("wiki", "GET", "/", &[("cookie", &format!("{ROUTE_COOKIE}={session}"))], "token_invalid");
}

/// Other hosts of the domain can set cookies for all of it, under every name but one that begins with `__Host-`. A server that takes some other
/// blank than space and tab for none would take theirs for ours, and so a person for somebody else.
#[test]
fn no_other_host_can_plant_a_login() {
    let attacker = Person::new("sre@example.com", &["sre"]);
    let cookie = attacker.cookie(WIKI);
    for blank in ["\u{a0}", "\u{85}", "\u{2000}", "\u{2003}", "\u{2028}", "\u{3000}", "\u{feff}", "\u{b}", "\u{c}"] {
        let (name, value) = cookie.split_once('=').unwrap();
        for planted in [format!("{blank}{cookie}"), format!("{name}{blank}={value}"), format!("a=b; {blank}{cookie}")] {
            attacker.check("wiki", "GET", "/", &[("cookie", &planted)], "no_credential");
            attacker.check(
                "wiki",
                "GET",
                "/",
                &[("cookie", &format!("{planted}; {cookie}"))],
                if planted.starts_with('a') { "allow a=b" } else { "allow" },
            );
        }
    }
}

#[test]
fn a_bearer_counts_as_on_clusters() {
    let person = Person::new("sre@example.com", &["sre"]);
    let (bearer, cookie) = (person.bearer(WIKI), person.cookie(WIKI));
    for method in ["GET", "POST", "DELETE"] {
        person.check("wiki", method, "/x", &[("authorization", &bearer)], "allow");
        // No page of another origin can send it, whatever else the request says.
        person.check("wiki", method, "/x", &[("authorization", &bearer), ("origin", "https://evil.example")], "allow");
    }
    person.check("wiki", "GET", "/", &[("authorization", &bearer), ("upgrade", "websocket")], "allow");
    person.check("docs", "GET", "/", &[("authorization", &bearer)], "token_of_other_route");
    person.check("wiki", "GET", "/", &[("authorization", "Bearer junk"), ("cookie", &cookie)], "token_invalid");
    person.check("wiki", "GET", "/", &[("authorization", "Basic YTpi"), ("cookie", &cookie)], "malformed");
    let pomerium = bearer.replacen("Bearer ", "Bearer Pomerium-", 1);
    person.check("wiki", "GET", "/", &[("authorization", &pomerium)], "token_of_other_kind");
}

#[test]
fn other_sites_gain_nothing_by_a_persons_cookie() {
    let person = Person::new("sre@example.com", &["sre"]);
    let cookie = person.cookie(WIKI);
    let own = format!("https://{WIKI}");
    let with = |more: &[(&'static str, &str)], method: &str| {
        let headers: Vec<(&str, &str)> = more.iter().map(|(name, value)| (*name, *value)).chain([("cookie", cookie.as_str())]).collect();
        person.ask("wiki", method, "/x", &headers).0
    };
    assert_eq!(with(&[("origin", &own)], "POST"), "allow");
    assert_eq!(with(&[("sec-fetch-site", "same-origin"), ("origin", &own)], "DELETE"), "allow");
    assert_eq!(with(&[("upgrade", "websocket"), ("origin", &own)], "GET"), "allow");
    for headers in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "https://evil.example")],
        &[("origin", "https://docs.k8s.example.com"), ("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
    ] {
        assert_eq!(with(headers, "POST"), "cross_site", "{headers:?}");
        assert_eq!(with(&[headers, &[("upgrade", "websocket")]].concat(), "GET"), "cross_site", "{headers:?}");
    }
    assert_eq!(with(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], "GET"), "cross_site");
    assert_eq!(with(&[&NAVIGATION[..], &[("sec-fetch-site", "cross-site")]].concat(), "GET"), "allow");
}

#[test]
fn a_web_socket_opens_where_the_route_says_so() {
    let person = Person::new("sre@example.com", &["sre"]);
    let (cookie, own) = (person.cookie(DOCS), format!("https://{DOCS}"));
    person.check("docs", "GET", "/", &[("cookie", &cookie), ("origin", &own), ("upgrade", "websocket")], "upgrade_not_allowed");
    person.check("docs", "GET", "/", &[("authorization", &person.bearer(DOCS)), ("upgrade", "websocket")], "upgrade_not_allowed");
}

#[test]
fn rules_see_the_path_as_the_upstream_does() {
    let developer = Person::new("dev@example.com", &["team-a"]);
    let cookie = developer.cookie(WIKI);
    let headers = [("cookie", cookie.as_str())];
    developer.check("wiki", "GET", "/pages", &headers, "allow");
    for path in ["/admin", "/%61dmin", "/adm%69n/users?x=/pages", "/administration"] {
        developer.check("wiki", "GET", path, &headers, "policy_denied");
    }
    for path in ["/x/../admin", "/%2561dmin", "/x%2f..%2fadmin", "/x/..;/admin", "//admin"] {
        developer.check("wiki", "GET", path, &headers, "ambiguous_path");
    }
    Person::new("sre@example.com", &["sre"]).check("wiki", "GET", "/admin", &headers, "allow");
    Person::new("eve@evil.example", &["sre"]).check("wiki", "GET", "/", &headers, "policy_no_match");
    developer.check("wiki", "GET", "/", &[headers[0], ("impersonate-user", "root")], "impersonation");
}

#[test]
fn a_refusal_has_the_form_that_its_reader_understands() {
    let person = Person::new("eve@evil.example", &[]);
    let cookie = person.cookie(WIKI);
    let check = |method: &str, headers: &[(&str, &str)], word: &str, form: Form| {
        assert_eq!(person.ask("wiki", method, "/x", headers), (word.to_owned(), Some(form)), "{method} {headers:?}");
    };
    check("GET", &[], "no_credential", Form::Json);
    check("GET", &[("accept", "*/*")], "no_credential", Form::Json);
    check("GET", &NAVIGATION, "no_credential", Form::LogIn);
    check("GET", &[("accept", "text/html")], "no_credential", Form::LogIn);
    check("POST", &NAVIGATION, "no_credential", Form::Page);
    check("GET", &[("accept", "text/html"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], "no_credential", Form::Page);
    let with_cookie = [&NAVIGATION[..], &[("cookie", cookie.as_str())]].concat();
    check("GET", &with_cookie, "policy_no_match", Form::Page);
    person.sessions.end(&person.session.id);
    check("GET", &with_cookie, "session_ended", Form::LogIn);
    check("GET", &[("cookie", &cookie)], "session_ended", Form::Json);
    // On a cluster nothing of this: a page for whoever opens it, a `Status` for everybody else.
    assert_eq!(person.ask("prod", "GET", "/", &NAVIGATION).1, Some(Form::ApiServerPage));
    assert_eq!(person.ask("prod", "POST", "/", &[]).1, Some(Form::Status));
}

#[test]
fn an_upstream_gets_its_own_cookies() {
    let person = Person::new("sre@example.com", &["sre"]);
    let cookie = person.cookie(WIKI);
    person.check("wiki", "GET", "/", &[("cookie", &format!("app=1; {cookie};b=2"))], "allow app=1; b=2");
    person.check("wiki", "GET", "/", &[("cookie", "app=1"), ("authorization", &person.bearer(WIKI))], "allow app=1");
    person.check("wiki", "GET", "/", &[("cookie", &cookie), ("cookie", "x=y")], "allow x=y");
}

/// The same id under the other kind of target: Envoy's configuration is not ours.
#[test]
fn a_route_is_reached_as_what_it_is_only() {
    let person = Person::new("sre@example.com", &["sre"]);
    for (name, kind) in [("wiki", "kubernetes"), ("prod", "http")] {
        let route = person.snapshot.route(name).unwrap();
        let target = format!("{kind}:{}", route.id());
        let bearer = person.bearer(&route.host);
        let request = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: "id",
            target: RequestTarget::parse(&target),
            method: "GET",
            path: "/",
            host: &route.host,
            sni: &route.host,
            source_ip: "",
            headers: RequestHeaders::read([("authorization", bearer.as_bytes())].into_iter()),
        };
        let state = authenticate(&person.snapshot, &request, &person.sessions, NOW);
        assert_eq!(Answer::to(&decide(&person.snapshot, &request, state, NOW)).unwrap().word, "route_unknown", "{target}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever arrives with a person's cookie: no change and no connection but for pages of the very host, and never our cookie upstream.
    #[test]
    fn no_grant_for_other_origins_and_no_cookie_of_ours_upstream(
        method in "(GET|HEAD|POST|PUT|DELETE|[A-Z]{1,6})",
        path in "(/|/[a-z]{0,6}|/.{0,20})",
        names in prop::collection::vec("(origin|Origin|sec-fetch-site|sec-fetch-mode|sec-fetch-dest|upgrade|cookie|accept|connection|[a-z-]{1,14})", 0..6),
        values in prop::collection::vec("(https://wiki.k8s.example.com|https://evil.example|null|same-origin|same-site|cross-site|none|navigate|document|websocket|app=1|.{0,12})", 6),
    ) {
        thread_local! {
            static PERSON: Person = Person::new("sre@example.com", &["sre"]);
        }
        PERSON.with(|person| {
            let cookie = person.cookie(WIKI);
            let route = person.snapshot.route("wiki").unwrap();
            let target = format!("http:{}", route.id());
            let mut headers: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(values.iter().map(String::as_bytes)).collect();
            headers.push(("cookie", cookie.as_bytes()));
            let request = AccessRequest {
                node: NodeView::UNNAMED,
                request_id: "id",
                target: RequestTarget::parse(&target),
                method: &method,
                path: &path,
                host: WIKI,
                sni: WIKI,
                source_ip: "",
                headers: RequestHeaders::read(headers.iter().copied()),
            };
            let state = authenticate(&person.snapshot, &request, &person.sessions, NOW);
            let by_cookie = matches!(state, SessionState::LiveByCookie(_));
            if let Outcome::Allow(grant) = decide(&person.snapshot, &request, state, NOW).outcome {
                assert!(by_cookie);
                assert!(!grant.cookies().is_some_and(|cookies| cookies.as_str().to_ascii_lowercase().contains("kubepass")));
                let says = |wanted: &str, value: &str| {
                    headers.iter().any(|(name, found)| name.eq_ignore_ascii_case(wanted) && *found == value.as_bytes())
                };
                let reads = matches!(method.as_str(), "GET" | "HEAD") && !headers.iter().any(|(name, _)| *name == "upgrade");
                assert!(reads || says("origin", "https://wiki.k8s.example.com") || says("sec-fetch-site", "same-origin"), "{headers:?}");
                assert!(!says("origin", "https://evil.example"));
            }
        });
    }
}
