//! A person's browser at the host of web pages is led to the login pages and back; an attacker tries to lead it elsewhere, or to lend it a login.

use axum::http::{StatusCode, header};
use kubepass::session::{ROUTE_COOKIE, SessionId, open_route_cookie};
use serde_json::json;
use url::Url;

use super::installation::{Answer, Browser, Installation, Options, PARTNER_WIKI, PROD, PUBLIC, WIKI, program};

const WIKI_HOST: &str = "wiki.example.com";
const START: &str = "https://wiki.example.com/.kubepass/start?return=%2FStart%3Fa%3Db";

/// The session that the browser's cookie names at the wiki.
fn cookie_session(installation: &Installation, browser: &Browser) -> Option<SessionId> {
    let value = browser.elsewhere.get(&(WIKI_HOST.to_owned(), ROUTE_COOKIE.to_owned()))?;
    open_route_cookie(installation.snapshot.load().token_keys(), WIKI_HOST, value)
}

/// From the start page to the address of the callback, for a browser that is logged in at `public_url`.
async fn to_callback(browser: &mut Browser, start: &str) -> Url {
    let start = browser.get(start).await;
    assert_eq!(start.status, StatusCode::SEE_OTHER, "{}", start.body);
    let code = browser.get(start.location().as_str()).await;
    assert_eq!(code.status, StatusCode::SEE_OTHER, "{}", code.body);
    code.location()
}

fn refused(installation: &Installation, browser: &Browser, answer: &Answer, text: &str) {
    answer.is_error_page(StatusCode::BAD_REQUEST, text);
    assert_eq!(cookie_session(installation, browser), None);
}

#[tokio::test]
async fn a_browser_without_a_session_logs_in_and_comes_back() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let start = browser.get(START).await;
    assert!(start.location().as_str().starts_with("https://pass.example.com/route/login?route=wiki.example.com&state="), "{start:?}");
    let login = browser.get(start.location().as_str()).await;
    assert_eq!(login.location().path(), "/login");
    let back = browser.log_in(&installation.idp, login.location().as_str()).await;
    let code = browser.get(back.location().as_str()).await;
    let callback = code.location();
    assert_eq!((callback.host_str(), callback.path()), (Some(WIKI_HOST), "/.kubepass/callback"));
    let home = browser.get(callback.as_str()).await;
    assert_eq!(home.location().as_str(), "https://wiki.example.com/Start?a=b");
    let [session] = &installation.sessions.awake()[..] else { panic!("one session") };
    assert_eq!(cookie_session(&installation, &browser), Some(session.id));
    assert_eq!(browser.elsewhere.len(), 1, "the login's own cookie is gone: {:?}", browser.elsewhere.keys());
    let line = installation.audit().pop().unwrap();
    assert_eq!((&line["event"], &line["route"], &line["client"]), (&json!("token_issued"), &json!("wiki"), &json!("browser")));
    assert_eq!((&line["session"], &line["user"]), (&json!(session.id.to_string()), &json!("ada@example.com")));
}

#[tokio::test]
async fn a_browser_with_a_session_is_asked_nothing() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let callback = to_callback(&mut browser, &format!("{WIKI}/.kubepass/start")).await;
    assert_eq!(browser.get(callback.as_str()).await.location().as_str(), "https://wiki.example.com/");
    assert_eq!(cookie_session(&installation, &browser), Some(installation.sessions.awake()[0].id));
    let cookie = &browser.elsewhere[&(WIKI_HOST.to_owned(), ROUTE_COOKIE.to_owned())];
    assert!(open_route_cookie(installation.snapshot.load().token_keys(), "partner-wiki.example.com", cookie).is_none());
}

#[tokio::test]
async fn a_stolen_code_gives_nothing_and_is_gone() {
    let installation = Installation::new().await;
    let mut victim = installation.logged_in().await;
    let callback = to_callback(&mut victim, START).await;
    // Without any login under way, and with the thief's own.
    let mut thief = installation.browser();
    let answer = thief.get(callback.as_str()).await;
    refused(&installation, &thief, &answer, "belongs to no login of this browser");
    let answer = victim.get(callback.as_str()).await;
    refused(&installation, &victim, &answer, "finished already");
    let callback = to_callback(&mut victim, START).await;
    let own = thief.get(START).await.location();
    let state = own.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let code = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let answer = thief.get(&format!("{WIKI}/.kubepass/callback?code={code}&state={state}")).await;
    refused(&installation, &thief, &answer, "belongs to no login of this browser");
}

#[tokio::test]
async fn a_login_cannot_be_planted() {
    let installation = Installation::new().await;
    let mut attacker = installation.logged_in().await;
    let planted = to_callback(&mut attacker, START).await;
    let code = planted.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    // The victim follows the attacker's link, without and then with a login of their own under way.
    let mut victim = installation.logged_in().await;
    let answer = victim.get(planted.as_str()).await;
    refused(&installation, &victim, &answer, "belongs to no login of this browser");
    let planted = to_callback(&mut attacker, START).await;
    let other = planted.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let own = victim.get(START).await.location();
    let state = own.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    for code in [code, other] {
        let answer = victim.get(&format!("{WIKI}/.kubepass/callback?code={code}&state={state}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
        assert_eq!(cookie_session(&installation, &victim), None);
    }
    // Their own login is not disturbed.
    let code = victim.get(own.as_str()).await;
    let answer = victim.get(code.location().as_str()).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    assert_ne!(cookie_session(&installation, &victim), None);
}

/// A host's own web server sees what browsers open there (with a service worker, before it arrives here), so it may know a code; and it chose the
/// verifier itself when it sent the browser to `/route/login`. Nobody was asked, so a login must not come of it.
#[tokio::test]
async fn a_code_for_a_host_is_worth_no_login_token() {
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let installation = Installation::new().await;
    let mut victim = installation.logged_in().await;
    let asked = format!("/route/login?route={WIKI_HOST}&state=0123456789abcdef&code_challenge={CHALLENGE}");
    let callback = victim.get(&asked).await.location();
    let code = callback.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let redirect_uri = format!("{WIKI}/.kubepass/callback");
    let pairs = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER), ("redirect_uri", &redirect_uri)];
    let answer = program(&installation.router, "POST", "/cli/token", None, &pairs).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_grant")), "{}", answer.body);
    assert_eq!(installation.audit_events(), ["login"]);
}

/// What another host of the domain, or a page of the route's own, makes a person's browser open unseen.
#[tokio::test]
async fn a_code_is_made_for_a_window_only() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let asked = browser.get(START).await.location();
    for destination in ["iframe", "empty", "image", "object", "serviceworker"] {
        let headers = [("sec-fetch-site", "same-site"), ("sec-fetch-dest", destination)];
        let answer = browser.send("GET", asked.as_str(), &headers, String::new()).await;
        answer.is_error_page(StatusCode::FORBIDDEN, "another web site");
    }
    let headers = [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let answer = browser.send("GET", asked.as_str(), &headers, String::new()).await;
    assert_eq!(answer.location().path(), "/.kubepass/callback");
}

#[tokio::test]
async fn a_cookie_that_was_there_before_is_replaced() {
    let installation = Installation::new().await;
    let (mut attacker, mut victim) = (installation.logged_in().await, installation.logged_in().await);
    let callback = to_callback(&mut attacker, START).await;
    attacker.get(callback.as_str()).await;
    let fixed = cookie_session(&installation, &attacker).unwrap();
    victim.elsewhere.clone_from(&attacker.elsewhere);
    let callback = to_callback(&mut victim, START).await;
    victim.get(callback.as_str()).await;
    assert!(cookie_session(&installation, &victim).is_some_and(|session| session != fixed));
}

#[tokio::test]
async fn a_code_is_for_one_host_and_one_use() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let callback = to_callback(&mut browser, START).await;
    // The same login, answered at another host: its cookie is not there, and even a copy of it was made for the wiki.
    let elsewhere: Vec<_> = browser.elsewhere.iter().map(|((_, name), value)| (name.clone(), value.clone())).collect();
    for (name, value) in elsewhere {
        browser.elsewhere.insert(("partner-wiki.example.com".to_owned(), name), value);
    }
    let mut moved = callback.clone();
    moved.set_host(Some("partner-wiki.example.com")).unwrap();
    browser.get(moved.as_str()).await.is_error_page(StatusCode::BAD_REQUEST, "belongs to no login of this browser");
    browser.get(callback.as_str()).await.is_error_page(StatusCode::BAD_REQUEST, "finished already");
    let mut again = browser.clone();
    let callback = to_callback(&mut again, START).await;
    let mut replay = again.clone();
    assert_eq!(again.get(callback.as_str()).await.status, StatusCode::SEE_OTHER);
    let answer = replay.get(callback.as_str()).await;
    refused(&installation, &replay, &answer, "finished already");
}

#[tokio::test]
async fn no_address_leads_to_another_site() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    for target in [
        "//evil.example/",
        "/\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "evil",
        "",
        "/.kubepass/start",
        "/a\r\nLocation: https://evil.example",
        "/<script>",
    ] {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("return", target).finish();
        let answer = browser.get(&format!("{WIKI}/.kubepass/start?{query}")).await;
        answer.is_error_page(StatusCode::BAD_REQUEST, "no path of this host");
    }
    let start = browser.get(START).await.location();
    for (name, value, status, text) in [
        ("route", "evil.example", StatusCode::NOT_FOUND, "evil.example"),
        ("route", "prod.k8s.example.com", StatusCode::NOT_FOUND, "prod.k8s.example.com"),
        ("route", "pass.example.com", StatusCode::NOT_FOUND, "pass.example.com"),
        ("route", "", StatusCode::NOT_FOUND, "Nothing here"),
        ("state", "../evil", StatusCode::BAD_REQUEST, "state"),
        ("state", "", StatusCode::BAD_REQUEST, "state"),
        ("code_challenge", "short", StatusCode::BAD_REQUEST, "code_challenge"),
    ] {
        let pairs: Vec<_> = start.query_pairs().map(|(key, old)| (key.clone(), if key == name { value.into() } else { old })).collect();
        let mut changed = start.clone();
        changed.query_pairs_mut().clear().extend_pairs(pairs);
        let answer = browser.get(changed.as_str()).await;
        answer.is_error_page(status, text);
        assert!(answer.headers.get(header::LOCATION).is_none());
    }
}

#[tokio::test]
async fn a_route_takes_the_identity_providers_that_it_lists() {
    let installation = Installation::with(Options { partner: true, ..Options::default() }).await;
    let mut browser = installation.browser();
    browser.log_in(&installation.idp, "/login?idp=corp").await;
    let start = browser.get(&format!("{PARTNER_WIKI}/.kubepass/start")).await;
    let login = browser.get(start.location().as_str()).await;
    assert_eq!(login.location().path(), "/login", "the session at hand is not one for this route");
    let back = browser.log_in(&installation.partner_idp, login.location().as_str()).await;
    let code = browser.get(back.location().as_str()).await;
    assert_eq!(browser.get(code.location().as_str()).await.location().as_str(), "https://partner-wiki.example.com/");
}

#[tokio::test]
async fn an_ended_session_is_not_handed_on() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let session = installation.sessions.awake().remove(0);
    installation.sessions.end(&session.id);
    let start = browser.get(START).await;
    assert_eq!(browser.get(start.location().as_str()).await.location().path(), "/login");
    // Between the code and its redemption, too.
    let mut browser = installation.logged_in().await;
    let callback = to_callback(&mut browser, START).await;
    assert!(installation.sessions.awake().iter().all(|session| installation.sessions.end(&session.id)));
    browser.get(callback.as_str()).await.is_error_page(StatusCode::UNAUTHORIZED, "You are not logged in");
    assert_eq!(cookie_session(&installation, &browser), None);
}

#[tokio::test]
async fn a_log_out_begins_at_the_host_and_ends_at_the_portal() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let callback = to_callback(&mut browser, START).await;
    browser.get(callback.as_str()).await;
    let answer = browser.get(&format!("{WIKI}/.kubepass/logout")).await;
    assert_eq!(answer.location().as_str(), format!("{PUBLIC}/"));
    assert!(browser.elsewhere.is_empty());
    assert_eq!(installation.sessions.len(), 1, "a script of the wiki must not end the session for kubectl");
    let portal = browser.get("/").await;
    assert!(portal.body.contains("Log out") && portal.body.contains("href=\"https://wiki.example.com/\""), "{}", portal.body);
    browser.post("/logout", &[("form", &portal.form())]).await;
    assert!(installation.sessions.is_empty());
}

#[tokio::test]
async fn clusters_have_no_such_pages() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    for path in ["start", "start?return=/", "callback?code=a&state=b", "logout"] {
        let answer = browser.get(&format!("{PROD}/.kubepass/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert!(browser.elsewhere.is_empty());
    for (host, kind) in [(WIKI, "http"), (PROD, "kubernetes")] {
        let config = program(&installation.router, "GET", &format!("{host}/.kubepass/config"), None, &[]).await.json();
        assert_eq!(config["kind"], kind);
    }
}

/// Other hosts of the domain can set cookies for all of it. What they hold is theirs; it must not hide ours.
#[tokio::test]
async fn cookies_of_other_hosts_hide_none_of_ours() {
    let installation = Installation::new().await;
    for (name, value) in
        [("theme", "dunkelgrün"), ("größe", "1"), ("\u{a0}__Host-kubepass-session", "x"), ("__Host-kubepass-session\u{2003}", "x")]
    {
        let mut browser = installation.browser();
        browser.cookies.insert(name.to_owned(), value.to_owned());
        browser.elsewhere.insert((WIKI_HOST.to_owned(), name.to_owned()), value.to_owned());
        let answer = browser.log_in(&installation.idp, "/login").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        let callback = to_callback(&mut browser, START).await;
        assert_eq!(browser.get(callback.as_str()).await.location().as_str(), "https://wiki.example.com/Start?a=b");
        assert!(cookie_session(&installation, &browser).is_some());
    }
}

#[tokio::test]
async fn log_ins_that_are_left_open_do_not_pile_up() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    for _ in 0..12 {
        browser.get(START).await;
        assert!(browser.elsewhere.len() <= 5, "{:?}", browser.elsewhere.keys());
    }
}
