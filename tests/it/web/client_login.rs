//! The command line: a code through the browser, a login token for the code, session tokens for the login token.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kubepass::server::trail::Trail;
use kubepass::session::Shown;
use tower::ServiceExt;
use url::Url;

use super::installation::{Answer, Browser, Installation, Options, PROD, PUBLIC, WIKI, program};

const REDIRECT: &str = "http://127.0.0.1:45123/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

fn address(redirect_uri: &str, route: Option<&str>) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("redirect_uri", redirect_uri).append_pair("code_challenge", &challenge);
    query.append_pair("code_challenge_method", "S256").append_pair("state", "state of the client");
    if let Some(route) = route {
        query.append_pair("route", route);
    }
    format!("/cli/login?{}", query.finish())
}

fn value(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

async fn code(browser: &mut Browser) -> String {
    let page = browser.get(&address(REDIRECT, None)).await;
    let answer = browser.post("/confirm", &[("form", &page.form()), ("decision", "allow")]).await;
    value(&answer.location(), "code").unwrap()
}

async fn redeem(installation: &Installation, code: &str, verifier: &str, redirect_uri: &str) -> Answer {
    let pairs = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier), ("redirect_uri", redirect_uri)];
    program(&installation.router, "POST", "/cli/token", None, &pairs).await
}

async fn login_token(installation: &Installation, browser: &mut Browser) -> String {
    let code = code(browser).await;
    let answer = redeem(installation, &code, VERIFIER, REDIRECT).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()["login_token"].as_str().unwrap().to_owned()
}

async fn session_token(installation: &Installation, login_token: &str, host: &str) -> Answer {
    program(&installation.router, "POST", "/cli/session-token", Some(login_token), &[("host", host)]).await
}

#[tokio::test]
async fn from_nothing_to_a_session_token() {
    let installation = Installation::new().await;
    let config = program(&installation.router, "GET", &format!("{PROD}/.kubepass/config"), None, &[]).await.json();
    assert_eq!(config, serde_json::json!({"public_url": PUBLIC, "route": "prod", "host": "prod.k8s.example.com", "kind": "kubernetes"}));

    let mut browser = installation.browser();
    let to_login = browser.get(&address(REDIRECT, Some("prod.k8s.example.com"))).await.location();
    assert_eq!(to_login.path(), "/login");
    let back = browser.log_in(&installation.idp, to_login.as_str()).await.location();
    assert_eq!(back.path(), "/cli/login", "the login leads back to where it came from");
    let page = browser.get(back.as_str()).await;
    for part in ["ada@example.com", "port <strong>45123", "prod.k8s.example.com"] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://127.0.0.1:45123;"), "{policy}");

    let answer = browser.post("/confirm", &[("form", &page.form()), ("decision", "allow")]).await;
    let to_client = answer.location();
    assert!(to_client.as_str().starts_with("http://127.0.0.1:45123/callback?code="), "{to_client}");
    assert_eq!(value(&to_client, "state").as_deref(), Some("state of the client"));

    let granted = redeem(&installation, &value(&to_client, "code").unwrap(), VERIFIER, REDIRECT).await.json();
    assert_eq!(granted["user"], "ada@example.com");
    assert!((12 * 3600 - 60..=12 * 3600).contains(&granted["expires_in"].as_u64().unwrap()), "{granted}");

    let login_token = granted["login_token"].as_str().unwrap();
    let session = session_token(&installation, login_token, "Prod.K8s.Example.com:443").await.json();
    assert_eq!(session["route"], "prod");
    let snapshot = installation.snapshot.load();
    let token = session["session_token"].as_str().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let shown = installation.sessions.authenticate(snapshot.token_keys(), token, "prod.k8s.example.com", now).unwrap();
    let Shown::Live(authenticated) = shown else { panic!("it is at rest") };
    assert_eq!(authenticated.session.client, "kubepass");
    assert_eq!(session["expires_at"], authenticated.token_expires_at);
    assert!((now + 3590..=now + 3601).contains(&authenticated.token_expires_at));
    assert!(installation.sessions.authenticate(snapshot.token_keys(), token, "partner.k8s.example.com", now).is_err(), "one route only");

    let routes = program(&installation.router, "GET", "/cli/routes", Some(login_token), &[]).await.json();
    let wiki = serde_json::json!({"name": "wiki", "host": "wiki.example.com", "url": WIKI, "kind": "http"});
    let prod = serde_json::json!({"name": "prod", "host": "prod.k8s.example.com", "url": PROD, "kind": "kubernetes"});
    assert_eq!(routes, serde_json::json!({"routes": [prod, wiki]}));
    assert_eq!(installation.audit_events(), ["login", "token_issued", "token_issued"]);
    let audit = format!("{:?}", installation.audit());
    assert!(!audit.contains(token) && !audit.contains(login_token), "no token in the trail");
}

#[tokio::test]
async fn a_short_session_makes_short_tokens() {
    let installation = Installation::with(Options { lifetime_seconds: 600, ..Options::default() }).await;
    let mut browser = installation.logged_in().await;
    let login_token = login_token(&installation, &mut browser).await;
    let session = session_token(&installation, &login_token, "prod.k8s.example.com").await.json();
    assert_eq!(session["expires_at"], installation.sessions.awake()[0].expires_at);
}

#[tokio::test]
async fn redirect_uris_lead_to_this_computer_alone() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    for uri in [
        "https://evil.example/",
        "http://evil.example:45123/",
        "http://127.0.0.1.evil.example:45123/",
        "http://127.0.0.1:45123@evil.example/",
        "http://user@127.0.0.1:45123/",
        "http://127.0.0.1:45123/#x",
        "http://127.0.0.1:45123/?x=y",
        "http://127.0.0.1:45123\\@evil.example/",
        "http://127.0.0.1:80/",
        "http://localhost/",
        "http://localhost:45123/",
        "https://127.0.0.1:45123/",
        "javascript:alert(1)",
        "",
    ] {
        browser.get(&address(uri, None)).await.is_error_page(StatusCode::BAD_REQUEST, "must not be sent to");
        // Not even before the login.
        installation.browser().get(&address(uri, None)).await.is_error_page(StatusCode::BAD_REQUEST, "must not be sent to");
    }
    for uri in ["http://127.0.0.1:45123", "http://[::1]:45123/callback", "http://127.0.0.1:45123/"] {
        assert_eq!(browser.get(&address(uri, None)).await.status, StatusCode::OK, "{uri}");
    }
}

#[tokio::test]
async fn only_pkce_with_s256_is_taken() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let good = address(REDIRECT, None);
    for (from, to) in [
        ("code_challenge_method=S256", "code_challenge_method=plain"),
        ("code_challenge_method=S256", "x=y"),
        ("code_challenge=", "code_challenge=A"),
        ("code_challenge=", "x="),
        ("state=state+of+the+client", "state="),
        ("state=", "x="),
        ("redirect_uri=", "redirect_uri=http://127.0.0.1:45123/&redirect_uri="),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        browser.get(&bad).await.is_error_page(StatusCode::BAD_REQUEST, "is not usable");
    }
    let long = good.replace("state=state", &format!("state={}", "a".repeat(300)));
    browser.get(&long).await.is_error_page(StatusCode::BAD_REQUEST, "empty or too long");
}

#[tokio::test]
async fn nothing_is_given_without_the_users_click() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let page = browser.get(&address(REDIRECT, None)).await;
    let form = page.form();
    let body = format!("form={form}&decision=allow");
    for headers in [
        &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")][..],
        &[("origin", "https://evil.example")],
        &[("origin", PROD)],
    ] {
        browser.send("POST", "/confirm", headers, body.clone()).await.is_error_page(StatusCode::FORBIDDEN, "another web site");
    }
    assert_eq!(browser.get(&format!("/confirm?{body}")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    // A form is the session's that saw it: an attacker's own confirmation does not work in the victim's browser, nor the log-out's form here.
    let mut victim = installation.logged_in().await;
    victim.post("/confirm", &[("form", &form), ("decision", "allow")]).await.is_error_page(StatusCode::BAD_REQUEST, "another session");
    let logout = victim.get("/").await.form();
    victim.post("/confirm", &[("form", &logout), ("decision", "allow")]).await.is_error_page(StatusCode::BAD_REQUEST, "another session");
    victim.post("/confirm", &[("form", ""), ("decision", "allow")]).await.is_error_page(StatusCode::BAD_REQUEST, "another session");
    victim.post("/confirm", &[("decision", "allow")]).await.is_error_page(StatusCode::BAD_REQUEST, "another session");
    let stranger = installation.browser().post("/confirm", &[("form", &form), ("decision", "allow")]).await;
    stranger.is_error_page(StatusCode::UNAUTHORIZED, "not logged in");

    let refused = browser.post("/confirm", &[("form", &form), ("decision", "deny")]).await.location();
    assert_eq!(value(&refused, "error").as_deref(), Some("access_denied"));
    assert_eq!(value(&refused, "state").as_deref(), Some("state of the client"));
    assert_eq!(value(&refused, "code"), None);
}

#[tokio::test]
async fn a_code_is_for_the_client_that_asked_and_counts_once() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let other_verifier = VERIFIER.replace('d', "e");
    for (verifier, redirect_uri) in
        [(other_verifier.as_str(), REDIRECT), ("", REDIRECT), (VERIFIER, "http://127.0.0.1:45124/callback"), (VERIFIER, "")]
    {
        let code = code(&mut browser).await;
        for (verifier, redirect_uri) in [(verifier, redirect_uri), (VERIFIER, REDIRECT)] {
            let answer = redeem(&installation, &code, verifier, redirect_uri).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "after a wrong attempt the code is gone: {}", answer.body);
            assert_eq!(answer.json()["error"], "invalid_grant");
        }
    }
    let code = code(&mut browser).await;
    assert_eq!(redeem(&installation, &code, VERIFIER, REDIRECT).await.status, StatusCode::OK);
    assert_eq!(redeem(&installation, &code, VERIFIER, REDIRECT).await.json()["error"], "invalid_grant");
    let pairs = [("grant_type", "refresh_token"), ("code", "x"), ("code_verifier", VERIFIER), ("redirect_uri", REDIRECT)];
    let answer = program(&installation.router, "POST", "/cli/token", None, &pairs).await;
    assert_eq!(answer.json()["error"], "unsupported_grant_type");
    let answer = program(&installation.router, "POST", "/cli/token", None, &[("grant_type", "authorization_code")]).await;
    assert_eq!(answer.json()["error"], "invalid_request");
}

#[tokio::test]
async fn a_code_dies_with_its_session() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let code = code(&mut browser).await;
    installation.sessions.end(&installation.sessions.awake()[0].id);
    assert_eq!(redeem(&installation, &code, VERIFIER, REDIRECT).await.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn tokens_of_another_kind_are_not_login_tokens() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let login = login_token(&installation, &mut browser).await;
    let session = session_token(&installation, &login, "prod.k8s.example.com").await.json()["session_token"].as_str().unwrap().to_owned();
    let cookie = browser.cookies["__Host-kubepass-session"].clone();
    for token in [session.as_str(), &cookie, "", "junk", &format!("{login}x"), &format!("Pomerium-{login}")] {
        for (method, path) in [("POST", "/cli/session-token"), ("GET", "/cli/routes"), ("POST", "/cli/logout")] {
            let pairs: &[_] = if method == "POST" { &[("host", "prod.k8s.example.com")] } else { &[] };
            let answer = program(&installation.router, method, path, Some(token), pairs).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {token}: {}", answer.body);
            assert_eq!(answer.json()["error"], "invalid_token");
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
    let answer = browser.send("POST", "/cli/session-token", &[], "host=prod.k8s.example.com".to_owned()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a browser's cookie is not enough");
    assert_eq!(installation.sessions.len(), 1);
}

#[tokio::test]
async fn a_route_takes_sessions_of_its_own_providers() {
    let installation = Installation::with(Options { partner: true, ..Options::default() }).await;
    let mut browser = installation.browser();
    browser.log_in(&installation.idp, "/login?idp=corp").await;
    let login = login_token(&installation, &mut browser).await;
    let answer = session_token(&installation, &login, "partner.k8s.example.com").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(
        answer.json()["error_description"].as_str().unwrap().contains("takes no log-ins of the identity provider corp"),
        "{}",
        answer.body
    );
    assert_eq!(session_token(&installation, &login, "other.example.com").await.status, StatusCode::NOT_FOUND);
    assert_eq!(session_token(&installation, &login, "").await.status, StatusCode::NOT_FOUND);

    // In the browser the other provider is asked instead, and then it goes on.
    let to_login = browser.get(&address(REDIRECT, Some("partner.k8s.example.com"))).await.location();
    assert_eq!(to_login.path(), "/login");
    let back = browser.log_in(&installation.partner_idp, to_login.as_str()).await.location();
    let page = browser.get(back.as_str()).await;
    let answer = browser.post("/confirm", &[("form", &page.form()), ("decision", "allow")]).await;
    let granted = redeem(&installation, &value(&answer.location(), "code").unwrap(), VERIFIER, REDIRECT).await.json();
    let login = granted["login_token"].as_str().unwrap();
    assert_eq!(session_token(&installation, login, "partner.k8s.example.com").await.status, StatusCode::OK);
}

#[tokio::test]
async fn logging_out_ends_all_tokens_of_the_session() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let login = login_token(&installation, &mut browser).await;
    let answer = program(&installation.router, "POST", "/cli/logout", Some(&login), &[]).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(session_token(&installation, &login, "prod.k8s.example.com").await.status, StatusCode::UNAUTHORIZED);
    assert!(browser.get("/").await.body.contains("You are not logged in"));
    assert!(installation.store.load(0).await.unwrap().sessions.is_empty());
    assert_eq!(installation.audit_events().last().unwrap(), "logout");
}

#[tokio::test]
async fn without_the_audit_trail_no_token_is_given() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let login = login_token(&installation, &mut browser).await;
    let full = kubepass::config::AuditSettings {
        sinks: vec![kubepass::config::AuditSink::File { path: "/dev/full".into() }],
        on_failure: kubepass::config::OnAuditFailure::Deny,
        durability: kubepass::config::Durability::Written,
    };
    let router = installation.with_trail(Trail::open(&full).unwrap());
    let answer = program(&router, "POST", "/cli/session-token", Some(&login), &[("host", "prod.k8s.example.com")]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.body.contains("session_token"), "{}", answer.body);
}

#[tokio::test]
async fn one_address_cannot_ask_without_end() {
    let installation = Installation::new().await;
    let mut last = StatusCode::OK;
    for _ in 0..1300 {
        last = program(&installation.router, "GET", "/cli/routes", Some("junk"), &[]).await.status;
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

/// Bodies that never come hold requests, and there is room for so many; those of one address leave room for the others.
#[tokio::test]
async fn who_sends_slowly_does_not_hold_everybody_s_place() {
    let installation = Installation::new().await;
    let request = |source: &str, body: Body| {
        let request = Request::post("/cli/token").header("host", "pass.example.com").header("x-forwarded-for", source);
        request.header("content-type", "application/x-www-form-urlencoded").body(body).unwrap()
    };
    let never = || Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let send = |request| installation.router.clone().oneshot(request);
    let slow: Vec<_> = (0..128).map(|_| tokio::spawn(send(request("192.0.2.1", never())))).collect();
    // Each task needs a turn to begin.
    for _ in 0..256 {
        tokio::task::yield_now().await;
    }
    let status = async |source: &str| send(request(source, Body::empty())).await.unwrap().status();
    assert_eq!(status("192.0.2.1").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(status("192.0.2.2").await, StatusCode::BAD_REQUEST, "another address is read and judged");
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    for one in slow {
        assert!(one.await.unwrap_err().is_cancelled());
    }
    assert_eq!(status("192.0.2.1").await, StatusCode::BAD_REQUEST, "those that left count no more");
}
