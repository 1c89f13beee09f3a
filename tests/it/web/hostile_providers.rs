//! An identity provider that means harm: what it says of its own people it may say; it makes nobody of another's people, takes nothing of theirs,
//! and holds nobody else up.

use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use kubepass::identity::MAX_GROUPS;
use serde_json::{Value, json};
use url::Url;

use super::installation::{Answer, Browser, Installation, Options};
use crate::support::fake_idp::{Behaviour, Endpoint, Signing};

const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;

async fn two() -> Installation {
    Installation::with(Options { partner: true, ..Options::default() }).await
}

/// A login at a provider that misbehaves ends in a page with `text`, an audit line with `reason`, and in no session.
async fn refused(wrong: impl FnOnce(&mut Behaviour), status: StatusCode, text: &str, reason: &str) {
    let installation = Installation::new().await;
    installation.idp.set(wrong);
    let mut browser = installation.browser();
    let answer = browser.log_in(&installation.idp, "/login").await;
    answer.is_error_page(status, text);
    assert!(installation.sessions.is_empty() && browser.cookies.is_empty(), "{:?}", browser.cookies);
    assert_eq!(installation.audit().last().unwrap()["reason"], reason);
}

fn claim(name: &'static str, value: Value) -> impl FnOnce(&mut Behaviour) {
    move |behaviour| drop(behaviour.id_token.insert(name.to_owned(), value))
}

fn now() -> u64 {
    kubepass::server::clock::unix_now()
}

#[tokio::test]
async fn a_token_from_the_future_is_not_valid_yet() {
    for name in ["nbf", "iat"] {
        refused(claim(name, json!(now() + 3_600)), FORBIDDEN, "not valid yet", "id_token_not_yet_valid").await;
    }
    // What is no time begins never.
    for value in [json!("now"), json!([]), json!({}), json!(true)] {
        refused(claim("nbf", value), FORBIDDEN, "not valid yet", "id_token_not_yet_valid").await;
    }
    // The clocks of two machines differ by seconds.
    for (name, time) in [("nbf", json!(now() + 20)), ("iat", json!(now() + 20)), ("nbf", json!(now() as f64 - 0.5)), ("nbf", json!(0))] {
        let installation = Installation::new().await;
        installation.idp.set(claim(name, time));
        installation.logged_in().await;
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_itself_verifies_nothing() {
    refused(|behaviour| behaviour.signing = Signing::OwnKeyInHeader, FORBIDDEN, "signature does not fit", "id_token_signature").await;
    refused(|behaviour| behaviour.signing = Signing::OwnKeyByAddress, FORBIDDEN, "does not publish", "id_token_unknown_key").await;
}

#[tokio::test]
async fn headers_that_can_be_read_in_two_ways_are_not_read() {
    refused(|behaviour| behaviour.signing = Signing::TwoKeyIds, FORBIDDEN, "token answer", "idp_token_answer").await;
    refused(|behaviour| behaviour.signing = Signing::CriticalExtension, FORBIDDEN, "ID token", "id_token_invalid").await;
}

/// Which of the two verifies is nobody's guess.
#[tokio::test]
async fn two_keys_of_one_name_are_none() {
    let installation = Installation::new().await;
    let foreign = installation.idp.foreign_key();
    installation.idp.set(move |behaviour| behaviour.more_keys = vec![foreign]);
    for signing in [Signing::Es256, Signing::ForeignKey] {
        installation.idp.set(move |behaviour| behaviour.signing = signing);
        installation.browser().log_in(&installation.idp, "/login").await.is_error_page(FORBIDDEN, "several published keys fit");
    }
    assert!(installation.sessions.is_empty());
}

#[tokio::test]
async fn a_megabyte_of_keys_is_searched_or_not_read() {
    // The modulus of a key of many kilobytes, and very many keys of a usual size.
    let wide = json!({"kty": "RSA", "use": "sig", "kid": "key-1-rsa", "e": "AQAB", "n": "q".repeat(400_000)});
    let curve =
        |n: usize| json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": format!("k{n}"), "x": "q".repeat(43), "y": "q".repeat(43)});
    let keys: Vec<Value> = std::iter::once(wide).chain((0..4_000).map(curve)).collect();
    let installation = Installation::new().await;
    let many = keys.clone();
    installation.idp.set(move |behaviour| behaviour.more_keys = many);
    let started = Instant::now();
    installation.logged_in().await;
    // The same with a key's own name shared by the wide one: no guess, and no long work either.
    installation.idp.set(|behaviour| behaviour.signing = Signing::Rs256);
    installation.browser().log_in(&installation.idp, "/login").await.is_error_page(FORBIDDEN, "several published keys fit");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let installation = Installation::new().await;
    installation.idp.set(move |behaviour| behaviour.more_keys = [keys.clone(), keys].concat());
    installation.browser().get("/login").await.is_error_page(StatusCode::BAD_GATEWAY, "larger than");
}

#[tokio::test]
async fn very_many_groups_make_no_session() {
    let groups: Vec<String> = (0..10_000).map(|number| format!("g{number}")).collect();
    refused(claim("groups", json!(groups)), FORBIDDEN, "bytes of claims", "identity_refused").await;
    let short: Vec<String> = (0..=MAX_GROUPS).map(|number| format!("{number}")).collect();
    refused(claim("groups", json!(short)), FORBIDDEN, "1025 groups", "identity_refused").await;
    // As many as there may be are kept in the session, and the cookie stays as small as it was.
    let installation = Installation::new().await;
    installation.idp.set(claim("groups", json!(short[..MAX_GROUPS])));
    installation.logged_in().await;
    assert_eq!(installation.sessions.awake()[0].identity.groups.len(), MAX_GROUPS);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_not_awaited() {
    let started = Instant::now();
    refused(|behaviour| behaviour.token = Endpoint::Drip, StatusCode::BAD_GATEWAY, "no answer within", "idp_unreachable").await;
    let installation = Installation::new().await;
    installation.idp.set(|behaviour| behaviour.keys = Endpoint::Drip);
    installation.browser().get("/login").await.is_error_page(StatusCode::BAD_GATEWAY, "no answer within");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

/// Whoever may open the login pages can begin log-ins at the slow one, as many as they like.
#[tokio::test]
async fn a_slow_provider_holds_up_nobody_elses_log_ins() {
    let patient = Options { partner: true, idp_timeout: Duration::from_secs(60), ..Options::default() };
    let installation = Installation::with(patient).await;
    // Discovery and keys are right; the codes are never answered.
    installation.browser().get("/login?idp=partner").await;
    installation.partner_idp.set(|behaviour| behaviour.token = Endpoint::Slow);
    let strangers = (0..64).map(|_| {
        let (mut browser, partner) = (installation.browser(), installation.partner_idp.clone());
        tokio::spawn(async move { browser.log_in(&partner, "/login?idp=partner").await.status })
    });
    let strangers: Vec<_> = strangers.collect();
    while installation.partner_idp.requests("token") < 64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let one_more = installation.browser().log_in(&installation.partner_idp, "/login?idp=partner").await;
    one_more.is_error_page(StatusCode::SERVICE_UNAVAILABLE, "");
    let answer = installation.browser().log_in(&installation.idp, "/login?idp=corp").await;
    assert!(answer.sets_session(), "{}", answer.body);
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// People's browsers go nowhere but to TLS, and to nothing that is no page (here the issuer is plain, for it is on this machine).
#[tokio::test]
async fn an_authorization_endpoint_is_a_page() {
    let installation = Installation::new().await;
    for endpoint in ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "ftp://evil.example/"] {
        installation.idp.set(|behaviour| {
            behaviour.discovery_members.insert("authorization_endpoint".to_owned(), json!(endpoint));
        });
        let answer = installation.browser().get("/login").await;
        answer.is_error_page(FORBIDDEN, "no https URL");
        assert!(!answer.headers.contains_key(header::LOCATION), "{answer:?}");
    }
    installation.idp.set(|behaviour| behaviour.discovery_members.clear());
    installation.logged_in().await;
}

#[tokio::test]
async fn who_somebody_is_stays_within_the_provider_that_says_it() {
    let installation = two().await;
    installation.browser().log_in(&installation.idp, "/login?idp=corp").await;
    // The same subject and address, and the name of the other issuer in every claim that could be read for it.
    installation.partner_idp.set(|behaviour| {
        for name in ["issuer", "idp", "provider", "azp"] {
            behaviour.id_token.insert(name.to_owned(), json!(if name == "azp" { "kubepass" } else { "corp" }));
        }
    });
    installation.browser().log_in(&installation.partner_idp, "/login?idp=partner").await;
    let mut principals: Vec<_> = installation.sessions.awake().iter().map(|session| session.identity.principal.clone()).collect();
    principals.sort();
    let principals: Vec<_> = principals.iter().map(|one| (one.idp.as_str(), one.subject.as_str())).collect();
    assert_eq!(principals, [("corp", "ada-1"), ("partner", "ada-1")]);
    let issuers: Vec<_> = installation.sessions.awake().iter().map(|session| session.identity.claims["iss"].clone()).collect();
    assert!(issuers.contains(&json!(installation.idp.issuer())) && issuers.contains(&json!(installation.partner_idp.issuer())));
}

/// The mix-up attack by discovery: the hostile provider names the honest one's authorization endpoint as its own, so that the honest one's code comes
/// to a login of the hostile one.
struct MixedUp {
    installation: Installation,
    victim: Browser,
    /// Where the honest provider sends the victim's browser.
    back: Url,
}

async fn mix_up(honest_names_itself: bool) -> MixedUp {
    let installation = two().await;
    let authorization = format!("{}/authorize", installation.idp.issuer());
    installation
        .partner_idp
        .set(|behaviour| drop(behaviour.discovery_members.insert("authorization_endpoint".to_owned(), json!(authorization))));
    if honest_names_itself {
        let issuer = installation.idp.issuer().to_owned();
        installation.idp.set(|behaviour| behaviour.answer_issuer = Some(issuer));
    }
    let mut victim = installation.browser();
    let start = victim.get("/login?idp=partner").await;
    let back = installation.idp.authorize(&start.location());
    MixedUp { installation, victim, back }
}

#[tokio::test]
async fn a_code_of_a_provider_that_names_itself_goes_to_no_other() {
    let MixedUp { installation, mut victim, back } = mix_up(true).await;
    victim.get(back.as_str()).await.is_error_page(FORBIDDEN, "another issuer");
    assert_eq!((installation.partner_idp.requests("token"), installation.idp.requests("token")), (0, 0));
    assert!(installation.sessions.is_empty());
}

/// Where the honest provider does not say who it is, its code comes to the hostile one's hands. It is worth nothing there: not at the honest provider,
/// which wants its own client's secret and verifier, and not in a login of the attacker's own.
#[tokio::test]
async fn a_code_that_a_hostile_provider_got_hold_of_is_worth_nothing() {
    let MixedUp { installation, mut victim, back } = mix_up(false).await;
    let answer = victim.get(back.as_str()).await;
    assert!(!answer.sets_session(), "{answer:?}");
    let stolen = installation.partner_idp.asked().remove(0);
    assert_eq!(stolen["code"], value(&back, "code"));
    assert!(installation.sessions.is_empty());
    inject(&installation, &stolen["code"]).await.is_error_page(FORBIDDEN, "invalid_grant");
    assert!(installation.sessions.is_empty());
}

/// The last line: were the honest provider to give tokens for any verifier, the nonce would still be another login's.
#[tokio::test]
async fn a_stolen_code_fails_by_its_nonce_where_the_provider_checks_no_verifier() {
    let installation = Installation::new().await;
    installation.idp.set(|behaviour| behaviour.ignores_pkce = true);
    let back = installation.idp.authorize(&installation.browser().get("/login").await.location());
    inject(&installation, &value(&back, "code")).await.is_error_page(FORBIDDEN, "nonce");
    assert!(installation.sessions.is_empty());
    assert_eq!(installation.idp.requests("token"), 1);
}

/// The attacker's own login at the honest provider, ended with somebody else's code.
async fn inject(installation: &Installation, code: &str) -> Answer {
    let mut attacker = installation.browser();
    let start = attacker.get("/login?idp=corp").await.location();
    attacker.get(&format!("/callback?code={code}&state={}", value(&start, "state"))).await
}

fn value(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} in {url}")).1.into_owned()
}

/// Everything that stands in a page of an error may have been chosen by the provider.
#[tokio::test]
async fn what_a_hostile_provider_says_is_shown_as_text_and_bounded() {
    let installation = Installation::new().await;
    let nasty = format!("<script>alert(1)</script>\r\nSet-Cookie: a=b\u{202e}{}", "x".repeat(10_000));
    let shown = |answer: &Answer| {
        assert!(!answer.body.contains("<script>") && answer.body.len() < 8_000, "{} bytes", answer.body.len());
        assert!(!answer.headers.values().any(|value| value.to_str().is_ok_and(|value| value.contains("a=b"))), "{answer:?}");
    };
    let mut browser = installation.browser();
    let start = browser.get("/login").await.location();
    let back = installation.idp.refuse(&start, &nasty, &nasty);
    shown(&browser.get(back.as_str()).await);
    let fresh = Installation::new().await;
    let issuer = format!("https://evil.example/?{}", "<b>".repeat(2_000));
    fresh.idp.set(move |behaviour| behaviour.discovery_issuer = Some(issuer));
    shown(&fresh.browser().get("/login").await);
}

/// Issuer, audience, subject and the name of the key are those of the honest provider.
#[tokio::test]
async fn a_provider_cannot_speak_for_another() {
    let installation = two().await;
    let issuer = installation.idp.issuer().to_owned();
    installation.partner_idp.set(move |behaviour| drop(behaviour.id_token.insert("iss".to_owned(), json!(issuer))));
    let answer = installation.browser().log_in(&installation.partner_idp, "/login?idp=partner").await;
    answer.is_error_page(FORBIDDEN, "wrong issuer");
    assert!(installation.sessions.is_empty());
}
