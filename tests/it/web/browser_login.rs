//! A person logs in and out with a browser; an attacker tries to get in between.

use std::sync::Arc;

use axum::http::{StatusCode, header};
use kubepass::identity::{Identity, Principal};
use kubepass::session::{Session, SessionId};
use serde_json::json;

use super::installation::{Installation, Options, PARTNER, PROD, program};
use crate::support::fake_idp::Signing;

const SESSION: &str = "__Host-kubepass-session";

#[tokio::test]
async fn a_login_gives_a_session_that_the_portal_shows() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let welcome = browser.get("/").await;
    assert!(welcome.body.contains("You are not logged in"), "{}", welcome.body);
    let answer = browser.log_in(&installation.idp, "/login").await;
    assert_eq!((answer.status, answer.location().path()), (StatusCode::SEE_OTHER, "/"));
    assert_eq!(browser.cookies.keys().collect::<Vec<_>>(), [SESSION], "the login's own cookie is gone");
    let portal = browser.get("/").await;
    for part in ["ada@example.com", "staff", "sre", "kubepass kubeconfig https://prod.k8s.example.com", "Log out"] {
        assert!(portal.body.contains(part), "{part}: {}", portal.body);
    }
    assert!(!portal.body.contains("partner.k8s"), "a route of another identity provider is not offered");
    let [session] = &installation.sessions.awake()[..] else { panic!("one session") };
    assert_eq!((session.client.as_str(), session.source_ip.as_str()), ("browser", "192.0.2.1"));
    assert_eq!(session.expires_at - session.created_at, 12 * 3600);
    let stored = installation.store.load(session.created_at).await.unwrap().sessions;
    assert_eq!(stored, [(**session).clone()]);
    let audit = installation.audit();
    let line = &audit[0];
    assert_eq!(line["event"], "login");
    assert_eq!(line["session"], session.id.to_string());
    assert_eq!((&line["user"], &line["groups"], &line["subject"]), (&json!("ada@example.com"), &json!(["staff", "sre"]), &json!("ada-1")));
    assert_eq!((&line["source_ip"], &line["user_agent"], &line["client"]), (&json!("192.0.2.1"), &json!("browser/1"), &json!("browser")));
}

#[tokio::test]
async fn every_asymmetric_algorithm_is_taken() {
    let installation = Installation::new().await;
    for signing in [Signing::Es256, Signing::Rs256, Signing::Ps256] {
        installation.idp.set(|behaviour| behaviour.signing = signing);
        assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session(), "{signing:?}");
    }
}

#[tokio::test]
async fn user_info_fills_what_the_id_token_lacks() {
    let installation = Installation::new().await;
    installation.idp.set(|behaviour| {
        behaviour.id_token.insert("groups".to_owned(), serde_json::Value::Null);
        behaviour.user_info_claims = json!({"sub": "ada-1", "email": "other@example.com", "groups": ["from-user-info"]});
    });
    installation.logged_in().await;
    let audit = installation.audit();
    assert_eq!((&audit[0]["user"], &audit[0]["groups"]), (&json!("ada@example.com"), &json!(["from-user-info"])), "the ID token wins");
}

#[tokio::test]
async fn an_address_is_verified_by_its_own_flag_alone() {
    let installation = Installation::new().await;
    let remove = |name: &'static str| {
        move |behaviour: &mut crate::support::fake_idp::Behaviour| drop(behaviour.id_token.insert(name.to_owned(), json!(null)))
    };
    // The ID token says who, userinfo that another address is verified.
    installation.idp.set(remove("email_verified"));
    installation
        .idp
        .set(|behaviour| behaviour.user_info_claims = json!({"sub": "ada-1", "email": "other@example.com", "email_verified": true}));
    installation.browser().log_in(&installation.idp, "/login").await.is_error_page(StatusCode::FORBIDDEN, "Your account cannot be used");
    // The same address: its flag counts, as a text too.
    installation
        .idp
        .set(|behaviour| behaviour.user_info_claims = json!({"sub": "ada-1", "email": "ada@example.com", "email_verified": "true"}));
    installation.logged_in().await;
    // The ID token has a flag without an address, userinfo an address without a flag.
    installation.idp.set(remove("email"));
    installation.idp.set(|behaviour| drop(behaviour.id_token.insert("email_verified".to_owned(), json!(true))));
    installation.idp.set(|behaviour| behaviour.user_info_claims = json!({"sub": "ada-1", "email": "other@example.com"}));
    installation.browser().log_in(&installation.idp, "/login").await.is_error_page(StatusCode::FORBIDDEN, "Your account cannot be used");
}

#[tokio::test]
async fn a_session_is_new_at_every_login() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let first = browser.cookies[SESSION].clone();
    assert!(browser.log_in(&installation.idp, "/login").await.sets_session());
    assert_ne!(browser.cookies[SESSION], first);
    assert_eq!(installation.sessions.len(), 2, "the id is never the browser's choice");
    // A cookie that an attacker planted before the login is replaced, not filled.
    let mut victim = installation.browser();
    victim.cookies.insert(SESSION.to_owned(), first.clone());
    assert!(victim.log_in(&installation.idp, "/login").await.sets_session());
    assert_ne!(victim.cookies[SESSION], first);
}

#[tokio::test]
async fn an_answer_counts_once_and_only_in_the_browser_that_asked() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let start = browser.get("/login").await;
    let back = installation.idp.authorize(&start.location());
    let thief = installation.browser().get(back.as_str()).await;
    thief.is_error_page(StatusCode::BAD_REQUEST, "belongs to no login of this browser");
    let mut replay = browser.clone();
    assert!(browser.get(back.as_str()).await.sets_session());
    replay.get(back.as_str()).await.is_error_page(StatusCode::BAD_REQUEST, "finished already");
    browser.get(back.as_str()).await.is_error_page(StatusCode::BAD_REQUEST, "belongs to no login of this browser");
    assert_eq!(installation.idp.requests("token"), 1);
    assert_eq!(installation.sessions.len(), 1);
}

#[tokio::test]
async fn an_attackers_answer_does_not_log_a_victim_in() {
    let installation = Installation::new().await;
    let (mut attacker, mut victim) = (installation.browser(), installation.browser());
    let of_attacker = installation.idp.authorize(&attacker.get("/login").await.location());
    victim.get("/login").await;
    let answer = victim.get(of_attacker.as_str()).await;
    answer.is_error_page(StatusCode::BAD_REQUEST, "belongs to no login of this browser");
    // Nor with the attacker's code under the victim's own state: the identity provider binds the code to the attacker's verifier.
    let start = victim.get("/login").await.location();
    let state = start.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let code = of_attacker.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let answer = victim.get(&format!("/callback?code={code}&state={state}")).await;
    answer.is_error_page(StatusCode::FORBIDDEN, "invalid_grant");
    assert!(installation.sessions.is_empty());
}

#[tokio::test]
async fn malformed_answers_end_in_a_page() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    browser.get("/login").await;
    for address in [
        "/callback",
        "/callback?code=x",
        "/callback?state=",
        "/callback?state=x&code=y",
        "/callback?state=../../x.y&code=y",
        "/callback?state=a&state=b&code=y",
        "/callback?code=y&state=%00",
    ] {
        browser.clone().get(address).await.is_error_page(StatusCode::BAD_REQUEST, "");
    }
    let name = browser.cookies.keys().next().unwrap().clone();
    let id = name.strip_prefix("__Host-kubepass-login-").unwrap();
    browser
        .clone()
        .get(&format!("/callback?state={id}.guess&code=y"))
        .await
        .is_error_page(StatusCode::BAD_REQUEST, "no login of this browser");
    for (other, value) in [(SESSION, browser.cookies[&name].clone()), (name.as_str(), "junk".to_owned())] {
        let mut broken = installation.browser();
        broken.cookies.insert(other.to_owned(), value);
        assert!(broken.get("/").await.body.contains("You are not logged in"));
        assert!(!broken.get(&format!("/callback?state={id}.x&code=y")).await.sets_session());
    }
}

#[tokio::test]
async fn several_logins_run_side_by_side_but_not_without_end() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let mut starts = Vec::new();
    for _ in 0..3 {
        starts.push(browser.get("/login").await.location());
    }
    for start in &starts {
        let back = installation.idp.authorize(start);
        assert!(browser.get(back.as_str()).await.sets_session());
    }
    for _ in 0..20 {
        browser.get("/login").await;
        assert!(browser.cookies.len() <= 5, "{:?}", browser.cookies.keys());
    }
}

#[tokio::test]
async fn a_login_leads_nowhere_else() {
    let installation = Installation::new().await;
    for target in ["https://evil.example/", "//evil.example/", "/\\evil.example", "/login", "/cli/login?x\r\ny", "javascript:alert(1)"] {
        let target: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
        installation.browser().get(&format!("/login?return={target}")).await.is_error_page(StatusCode::BAD_REQUEST, "no page of kubepass");
    }
}

#[tokio::test]
async fn with_several_providers_the_user_chooses_among_those_of_the_route() {
    let installation = Installation::with(Options { partner: true, ..Options::default() }).await;
    let mut browser = installation.browser();
    let page = browser.get("/login").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("href=\"/login?idp=corp&amp;return=%2F\"") && page.body.contains("idp=partner"), "{}", page.body);
    assert_eq!(browser.log_in(&installation.partner_idp, "/login?idp=partner").await.status, StatusCode::SEE_OTHER);
    assert_eq!(installation.sessions.awake()[0].identity.principal.idp, "partner");
    // The route takes one of them: no choice, and no way around.
    let start = installation.browser().get("/login?route=partner.k8s.example.com").await;
    assert!(start.location().as_str().starts_with(installation.partner_idp.issuer()));
    let around = installation.browser().get("/login?route=partner.k8s.example.com&idp=corp").await;
    around.is_error_page(StatusCode::BAD_REQUEST, "cannot be used for this login");
    installation.browser().get("/login?idp=other").await.is_error_page(StatusCode::BAD_REQUEST, "cannot be used");
    installation.browser().get("/login?route=other.example.com").await.is_error_page(StatusCode::NOT_FOUND, "no cluster at");
}

#[tokio::test]
async fn logging_out_ends_the_session_everywhere() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let mut other_tab = browser.clone();
    let form = browser.get("/").await.form();
    let answer = browser.post("/logout", &[("form", &form)]).await;
    assert!(answer.body.contains("Logged out"), "{}", answer.body);
    assert!(browser.cookies.is_empty());
    assert!(other_tab.get("/").await.body.contains("You are not logged in"));
    assert!(installation.sessions.is_empty());
    assert!(installation.store.load(0).await.unwrap().sessions.is_empty(), "a restart does not bring it back");
    let audit = installation.audit();
    assert_eq!((&audit[1]["event"], &audit[1]["by"], &audit[1]["user"]), (&json!("logout"), &json!("user"), &json!("ada@example.com")));
}

#[tokio::test]
async fn another_site_cannot_log_a_user_out() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    let form = browser.get("/").await.form();
    let body = format!("form={form}");
    for headers in [
        &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")][..],
        &[("sec-fetch-site", "same-site"), ("origin", PROD)],
        &[("origin", PROD)],
        &[("origin", "null")],
    ] {
        browser.send("POST", "/logout", headers, body.clone()).await.is_error_page(StatusCode::FORBIDDEN, "another web site");
    }
    for form in ["", "junk", &browser.cookies[SESSION].clone()] {
        browser
            .post("/logout", &[("form", form)])
            .await
            .is_error_page(StatusCode::BAD_REQUEST, "too old, or it was made for another session");
    }
    let of_other = installation.logged_in().await.get("/").await.form();
    browser.post("/logout", &[("form", &of_other)]).await.is_error_page(StatusCode::BAD_REQUEST, "another session");
    assert_eq!(browser.get("/logout").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(installation.sessions.len(), 2);
}

#[tokio::test]
async fn without_the_audit_trail_nobody_gets_in() {
    let installation = Installation::with(Options { audit_file: Some("/dev/full".into()), ..Options::default() }).await;
    let mut browser = installation.browser();
    let answer = browser.log_in(&installation.idp, "/login").await;
    answer.is_error_page(StatusCode::SERVICE_UNAVAILABLE, "audit trail cannot be written");
    assert!(browser.cookies.is_empty() && installation.sessions.is_empty());
    assert!(installation.store.load(0).await.unwrap().sessions.is_empty());
}

#[tokio::test]
async fn cookies_count_on_the_login_host_alone() {
    let installation = Installation::new().await;
    let browser = installation.logged_in().await;
    let cookie = format!("{SESSION}={}", browser.cookies[SESSION]);
    for address in [format!("{PROD}/healthz"), format!("{PROD}/"), format!("{PARTNER}/.pomerium/api/v1/routes")] {
        let answer = installation.browser().send("GET", &address, &[("cookie", &cookie)], String::new()).await;
        assert!(answer.status.is_client_error(), "{address}: {answer:?}");
    }
    let twice = format!("{cookie}; {cookie}");
    let answer = installation.browser().send("GET", "/", &[("cookie", &twice)], String::new()).await;
    assert!(answer.body.contains("You are not logged in"), "two session cookies are not a browser's");
}

#[tokio::test]
async fn unknown_hosts_and_paths_get_nothing() {
    let installation = Installation::new().await;
    let router = &installation.router;
    assert_eq!(program(router, "GET", "https://other.example.com/", None, &[]).await.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(program(router, "GET", &format!("{PROD}/"), None, &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(program(router, "GET", &format!("{PROD}/login"), None, &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(program(router, "POST", &format!("{PROD}/cli/token"), None, &[("a", "b")]).await.status, StatusCode::NOT_FOUND);
    installation.browser().get("/nothing").await.is_error_page(StatusCode::NOT_FOUND, "nothing at this address");
    installation.browser().get("/healthz").await.is_error_page(StatusCode::NOT_FOUND, "nothing at this address");
    let answer = installation.browser().get("/").await;
    assert_eq!(answer.headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
    assert_eq!(answer.headers["cross-origin-opener-policy"], "same-origin");
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let installation = Installation::new().await;
    let large = "a".repeat(65 * 1024);
    let answer = program(&installation.router, "POST", "/cli/token", None, &[("code", &large)]).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
}

#[tokio::test]
async fn one_person_cannot_take_everybody_s_sessions() {
    let installation = Installation::new().await;
    let first = installation.logged_in().await;
    let oldest = installation.sessions.awake().remove(0);
    for n in 1..100_u8 {
        let session = Session { id: SessionId::from_random([n; 16]), created_at: oldest.created_at + 1, ..Session::clone(&oldest) };
        installation.sessions.insert(Arc::new(session)).unwrap();
    }
    let other = Principal { idp: oldest.identity.principal.idp.clone(), subject: "someone else".to_owned() };
    let identity = Identity { principal: other, ..oldest.identity.clone() };
    let stranger = Session { id: SessionId::from_random([200; 16]), created_at: 0, identity, ..Session::clone(&oldest) };
    installation.sessions.insert(Arc::new(stranger)).unwrap();
    installation.logged_in().await;
    assert_eq!(installation.sessions.len(), 101, "a hundred of one person, and one of another");
    assert!(!installation.sessions.holds(&oldest.id), "the oldest has ended");
    assert!(installation.audit().iter().any(|line| line["by"] == "superseded" && line["session"] == oldest.id.to_string()));
    let page = first.clone().get("/").await;
    assert!(page.body.contains("You are not logged in"), "{}", page.body);
    assert!(
        installation.metrics.encode().contains(r#"kubepass_logins_total{idp="corp",result="ok"} 2"#),
        "{}",
        installation.metrics.encode()
    );
}
