//! Whatever an identity provider does wrong ends in a page that says what to do, and in no session.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::installation::{Installation, Options};
use crate::support::fake_idp::{Behaviour, Endpoint, Signing};

/// Logs in at a provider that does `wrong`; the answer must be a page with `text`, an audit line with `reason`, and no session anywhere.
#[track_caller]
fn check(wrong: impl FnOnce(&mut Behaviour), status: StatusCode, text: &'static str, reason: &'static str) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let installation = Installation::new().await;
        let mut browser = installation.browser();
        // Discovery is right at first, so that what is tested here is the answer to the login.
        let start = browser.get("/login").await;
        let back = installation.idp.authorize(&start.location());
        installation.idp.set(wrong);
        let answer = browser.get(back.as_str()).await;
        answer.is_error_page(status, text);
        assert!(installation.sessions.is_empty(), "{place}");
        assert!(browser.cookies.is_empty(), "{place}: {:?}", browser.cookies);
        let audit = installation.audit();
        assert_eq!(audit.len(), 1, "{place}: {audit:?}");
        assert_eq!(audit[0]["event"], "login_refused", "{place}");
        assert_eq!(audit[0]["reason"], reason, "{place}");
        assert_eq!(audit[0]["idp"], "corp", "{place}");
        assert_eq!(audit[0]["source_ip"], "192.0.2.1", "{place}");
    }
}

fn claim(name: &'static str, value: Value) -> impl FnOnce(&mut Behaviour) {
    move |behaviour| {
        behaviour.id_token.insert(name.to_owned(), value);
    }
}

fn signing(signing: Signing) -> impl FnOnce(&mut Behaviour) {
    move |behaviour| behaviour.signing = signing
}

fn token(endpoint: Endpoint) -> impl FnOnce(&mut Behaviour) {
    move |behaviour| behaviour.token = endpoint
}

const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;

#[tokio::test]
async fn wrong_issuer() {
    check(claim("iss", json!("https://evil.example")), FORBIDDEN, "wrong issuer", "id_token_issuer").await;
}

#[tokio::test]
async fn wrong_audience() {
    for audience in [json!("another"), json!([]), Value::Null, json!(["kubepass", "another"]), json!("kubepass2"), json!("Kubepass")] {
        check(claim("aud", audience), FORBIDDEN, "not made for this client", "id_token_audience").await;
    }
    check(claim("azp", json!("another")), FORBIDDEN, "not made for this client", "id_token_audience").await;
}

#[tokio::test]
async fn wrong_nonce() {
    for nonce in [json!("another"), json!(""), Value::Null] {
        check(claim("nonce", nonce), FORBIDDEN, "nonce", "id_token_nonce").await;
    }
}

#[tokio::test]
async fn wrong_signature() {
    check(signing(Signing::ForeignKey), FORBIDDEN, "signature does not fit", "id_token_signature").await;
    check(signing(Signing::Tampered), FORBIDDEN, "signature does not fit", "id_token_signature").await;
    check(signing(Signing::UnknownKey), FORBIDDEN, "does not publish", "id_token_unknown_key").await;
}

#[tokio::test]
async fn no_asymmetric_signature() {
    for wrong in [Signing::None, Signing::NoneWithSignature, Signing::Hs256, Signing::Hs256OfPublicKey] {
        check(signing(wrong), FORBIDDEN, "not signed with RS256", "id_token_algorithm").await;
    }
}

#[tokio::test]
async fn expired() {
    check(|behaviour| behaviour.lifetime = -61, FORBIDDEN, "expired", "id_token_expired").await;
}

#[tokio::test]
async fn access_token_of_another() {
    check(claim("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), FORBIDDEN, "access token", "id_token_at_hash").await;
}

#[tokio::test]
async fn unusable_token_answers() {
    check(|behaviour| behaviour.with_id_token = false, FORBIDDEN, "gave no ID token", "no_id_token").await;
    check(token(Endpoint::OAuthError), FORBIDDEN, "invalid_grant (&lt;b&gt;no&lt;/b&gt; such code)", "idp_refused").await;
    check(token(Endpoint::Error500), FORBIDDEN, "no usable token answer", "idp_token_answer").await;
    check(token(Endpoint::NotJson), FORBIDDEN, "no usable token answer", "idp_token_answer").await;
    check(token(Endpoint::Redirect), FORBIDDEN, "no usable token answer", "idp_token_answer").await;
}

#[tokio::test]
async fn huge_answers_are_not_read() {
    check(token(Endpoint::Huge), StatusCode::BAD_GATEWAY, "larger than", "idp_unreachable").await;
    check(token(Endpoint::HugeWithoutLength), StatusCode::BAD_GATEWAY, "larger than", "idp_unreachable").await;
}

#[tokio::test]
async fn slow_answers_are_not_awaited() {
    let started = Instant::now();
    check(token(Endpoint::Slow), StatusCode::BAD_GATEWAY, "no answer within", "idp_unreachable").await;
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn user_info_of_another_or_none() {
    let lacking = |behaviour: &mut Behaviour| {
        behaviour.id_token.insert("email".to_owned(), Value::Null);
    };
    let other = move |behaviour: &mut Behaviour| {
        lacking(behaviour);
        behaviour.user_info_claims = json!({"sub": "eve-1", "email": "ada@example.com", "email_verified": true});
    };
    check(other, FORBIDDEN, "another subject", "idp_user_info").await;
    for (endpoint, status, reason) in [
        (Endpoint::Error500, FORBIDDEN, "idp_user_info"),
        (Endpoint::NotJson, FORBIDDEN, "idp_user_info"),
        (Endpoint::Redirect, FORBIDDEN, "idp_user_info"),
        (Endpoint::Huge, StatusCode::BAD_GATEWAY, "idp_unreachable"),
    ] {
        let wrong = move |behaviour: &mut Behaviour| {
            lacking(behaviour);
            behaviour.user_info = endpoint;
        };
        check(wrong, status, "corp", reason).await;
    }
}

#[tokio::test]
async fn identities_that_the_mapping_refuses() {
    check(claim("email_verified", json!(false)), FORBIDDEN, "Your account cannot be used", "identity_refused").await;
    check(claim("email_verified", Value::Null), FORBIDDEN, "Your account cannot be used", "identity_refused").await;
    check(claim("email", json!("")), FORBIDDEN, "Your account cannot be used", "identity_refused").await;
    check(claim("groups", json!([1, 2])), FORBIDDEN, "Your account cannot be used", "identity_refused").await;
}

#[tokio::test]
async fn mixed_up_providers() {
    let installation = Installation::new().await;
    installation.idp.set(|behaviour| behaviour.answer_issuer = Some("https://evil.example".to_owned()));
    let answer = installation.browser().log_in(&installation.idp, "/login").await;
    answer.is_error_page(FORBIDDEN, "another issuer");
    assert_eq!(installation.idp.requests("token"), 0, "the code goes nowhere");
    installation.idp.set(|behaviour| behaviour.answer_issuer = Some(installation.idp.issuer().to_owned()));
    assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session());
}

#[tokio::test]
async fn errors_in_the_browser_are_shown_as_text() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let start = browser.get("/login").await;
    let back = installation.idp.refuse(&start.location(), "access_denied", "<script>alert(1)</script>");
    let answer = browser.get(back.as_str()).await;
    answer.is_error_page(FORBIDDEN, "access_denied (&lt;script&gt;alert(1)&lt;/script&gt;)");
    assert_eq!(installation.idp.requests("token"), 0);
    assert_eq!(installation.audit_events(), ["login_refused"]);
}

#[tokio::test]
async fn discovery_that_is_wrong_or_away_is_said_and_tried_again() {
    let installation = Installation::new().await;
    for (wrong, status, text) in [
        (Endpoint::Error500, FORBIDDEN, "HTTP status 500"),
        (Endpoint::NotJson, FORBIDDEN, "no usable discovery document"),
        (Endpoint::Redirect, FORBIDDEN, "HTTP status 302"),
        (Endpoint::Huge, StatusCode::BAD_GATEWAY, "larger than"),
        (Endpoint::Slow, StatusCode::BAD_GATEWAY, "no answer within"),
    ] {
        installation.idp.set(|behaviour| behaviour.discovery = wrong);
        installation.browser().get("/login").await.is_error_page(status, text);
        installation.idp.set(|behaviour| (behaviour.discovery, behaviour.keys) = (Endpoint::Right, wrong));
        installation.browser().get("/login").await.is_error_page(status, "corp");
        installation.idp.set(|behaviour| behaviour.keys = Endpoint::Right);
    }
    installation.idp.set(|behaviour| behaviour.discovery_issuer = Some("https://evil.example".to_owned()));
    installation.browser().get("/login").await.is_error_page(FORBIDDEN, "calls itself `https://evil.example`");
    installation.idp.set(|behaviour| behaviour.discovery_issuer = None);
    assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session(), "as soon as it is right, logins work");
}

#[tokio::test]
async fn a_provider_that_goes_away_keeps_its_keys_here() {
    let installation = Installation::new().await;
    assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session());
    installation.idp.set(|behaviour| behaviour.discovery = Endpoint::Error500);
    assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session());
    assert_eq!(installation.idp.requests("discovery"), 1);
}

#[tokio::test]
async fn rotated_keys_are_fetched_once_they_are_used() {
    let installation = Installation::new().await;
    assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session());
    installation.idp.rotate_keys();
    assert!(installation.browser().log_in(&installation.idp, "/login").await.sets_session());
    assert_eq!(installation.idp.requests("keys"), 2);
}

#[tokio::test]
async fn unknown_keys_do_not_make_us_hammer_the_provider() {
    let installation = Installation::with(Options { key_cool_down: Duration::from_secs(60), ..Options::default() }).await;
    installation.idp.set(|behaviour| behaviour.signing = Signing::UnknownKey);
    for _ in 0..5 {
        installation.browser().log_in(&installation.idp, "/login").await.is_error_page(FORBIDDEN, "does not publish");
    }
    assert_eq!(installation.idp.requests("keys"), 2, "the first, and one for the unknown key");
}

#[tokio::test]
async fn providers_are_watched_and_dropped_with_the_configuration() {
    use kubepass::server::oidc::{Providers, Timing};
    let installation = Installation::with(Options { partner: true, ..Options::default() }).await;
    let config = std::sync::Arc::clone(installation.snapshot.load().config());
    installation.partner_idp.set(|behaviour| behaviour.discovery = Endpoint::Error500);
    let timing = Timing { failure_cool_down: Duration::ZERO, ..Timing::default() };
    let providers = Providers::new(timing);
    let healthy = async |expected: [Option<bool>; 2]| {
        while providers.health().iter().map(|health| health.reachable).collect::<Vec<_>>() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let watched = async {
        healthy([Some(true), Some(false)]).await;
        assert!(providers.health()[1].last_error.as_deref().unwrap().contains("HTTP status 500"));
        installation.partner_idp.set(|behaviour| behaviour.discovery = Endpoint::Right);
        healthy([Some(true), Some(true)]).await;
    };
    tokio::select! {
        () = providers.keep_fresh(|| std::sync::Arc::clone(&config), Duration::from_millis(20)) => unreachable!("it never ends"),
        () = watched => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("health does not follow: {:?}", providers.health()),
    }
    assert_eq!(installation.idp.requests("discovery"), 1, "what is fresh is not fetched again");
}
