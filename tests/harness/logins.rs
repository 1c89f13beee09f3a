//! A person logs in at the OpenID provider with the scripted browser.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::browser::{Browser, Page};
use super::support::http;
use super::support::idp::{CLIENT_ID, CLIENT_SECRET, Idp, IdpOptions};
use super::support::pki::Authority;
use super::support::proxy::Proxy;
use super::support::run::Run;
use super::support::tools::Tools;

const REDIRECT_URI: &str = "https://login.kubepass.localhost/callback";
/// The pair of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn users() -> Value {
    json!({"alice": {"email": "alice@example.com", "email_verified": true, "name": "Alice", "groups": ["dev", "ops, night shift"]}})
}

fn options(name: &str) -> IdpOptions {
    IdpOptions { name: name.into(), redirect_uris: vec![REDIRECT_URI.into()], users: users(), ..IdpOptions::default() }
}

fn authorization_url(idp: &Idp) -> String {
    format!(
        "{}/auth?client_id={CLIENT_ID}&response_type=code&redirect_uri={REDIRECT_URI}&scope=openid%20email%20profile%20groups&state=s&nonce=n\
         &code_challenge={CHALLENGE}&code_challenge_method=S256",
        idp.issuer()
    )
}

/// Logs in and returns the page of the redirect to the client, which is where the browser stops.
fn log_in(browser: &mut Browser, idp: &Idp, user: &str) -> Page {
    browser.stop_at(|url| url.as_str().starts_with(REDIRECT_URI));
    let page = browser.open(&authorization_url(idp));
    idp.log_in(browser, page, user)
}

/// The claims of the ID token that the code buys; not verified.
fn redeem(idp: &Idp, code: &str, authorities: &[&str]) -> (Value, String) {
    let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT_URI), ("code_verifier", VERIFIER)];
    let secret: String = url::form_urlencoded::byte_serialize(CLIENT_SECRET.as_bytes()).collect();
    let request = http::client(authorities).post(format!("{}/token", idp.issuer())).basic_auth(CLIENT_ID, Some(secret)).form(&form);
    let answer: Value = request.send().unwrap().json().unwrap();
    let token = answer["id_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let access_token = answer["access_token"].as_str().unwrap().to_owned();
    (part(&token, 1), access_token)
}

fn part(token: &str, index: usize) -> Value {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_login_ends_with_a_code_at_the_client_and_claims_in_the_id_token() {
    let run = Run::new("login");
    let idp = Idp::start(Tools::ensure(), &run, options("idp"));
    let mut browser = Browser::new(&Proxy::start(), &[]);
    let page = log_in(&mut browser, &idp, "alice");
    assert_eq!(page.query("state").as_deref(), Some("s"), "{page}");
    assert!(page.hops.len() > 1 && browser.refused_cookies.is_empty(), "{page}\n{:?}", browser.refused_cookies);
    let (claims, _) = redeem(&idp, &page.query("code").unwrap(), &[]);
    assert_eq!((&claims["email"], &claims["nonce"]), (&json!("alice@example.com"), &json!("n")));
    assert_eq!(claims["groups"], json!(["dev", "ops, night shift"]));
    // The provider remembers the person, so a second login shows no page; a browser of someone else is asked.
    let again = browser.open(&authorization_url(&idp));
    assert!(again.query("code").is_some(), "{again}");
    let other = Browser::new(&Proxy::start(), &[]).open(&authorization_url(&idp));
    assert!(other.form().value("prompt") == Some("login"), "{other}");
}

#[test]
fn keys_rotate_users_change_and_claims_move() {
    let run = Run::new("changes");
    let mut idp = Idp::start(Tools::ensure(), &run, options("idp"));
    let keys = |idp: &Idp| -> Value { http::client(&[]).get(format!("{}/jwks", idp.issuer())).send().unwrap().json().unwrap() };
    let first = keys(&idp);
    idp.rotate_keys();
    let second = keys(&idp);
    assert_ne!(first["keys"][0]["kid"], second["keys"][0]["kid"]);
    idp.stop();
    assert!(http::client(&[]).get(idp.issuer()).send().is_err());
    idp.start_again();
    assert_eq!(keys(&idp), second);

    idp.claims_from_userinfo(true);
    idp.set_users(&json!({"bob": {"email": "bob@example.com", "groups": []}}));
    let page = log_in(&mut Browser::new(&Proxy::start(), &[]), &idp, "bob");
    let (claims, access_token) = redeem(&idp, &page.query("code").unwrap_or_else(|| panic!("{page}")), &[]);
    assert_eq!(claims.get("email"), None);
    let userinfo: Value = http::client(&[]).get(format!("{}/me", idp.issuer())).bearer_auth(access_token).send().unwrap().json().unwrap();
    assert_eq!(userinfo["email"], "bob@example.com");
}

#[test]
fn the_provider_misbehaves_when_told() {
    let run = Run::new("bad");
    let idp = Idp::start(Tools::ensure(), &run, options("idp"));
    idp.set(&json!({"id_token": {"claims": {"iss": "https://elsewhere.example", "nonce": null}, "sign": "none"}}));
    let mut browser = Browser::new(&Proxy::start(), &[]);
    let page = log_in(&mut browser, &idp, "alice");
    let (claims, _) = redeem(&idp, &page.query("code").unwrap(), &[]);
    assert_eq!((&claims["iss"], claims.get("nonce")), (&json!("https://elsewhere.example"), None));
    idp.set(&json!({"fail": {"jwks": {"status": 503, "body": {"error": "down"}}}}));
    assert_eq!(http::client(&[]).get(format!("{}/jwks", idp.issuer())).send().unwrap().status(), 503);
    idp.behave();
    let page = browser.open(&authorization_url(&idp));
    let (claims, _) = redeem(&idp, &page.query("code").unwrap(), &[]);
    assert_eq!((&claims["iss"], &claims["nonce"]), (&json!(idp.issuer()), &json!("n")));
}

#[test]
fn two_providers_over_https_by_name() {
    let run = Run::new("https");
    let authority = Authority::new("login authority");
    let proxy = Proxy::start();
    let names = ["one.idp.localhost", "two.idp.localhost"];
    let mut browser = Browser::new(&proxy, &[authority.pem()]);
    let idps: Vec<Idp> = names
        .iter()
        .map(|name| {
            let tls = Some((authority.server(&[name, "127.0.0.1"]), authority.pem().to_owned()));
            let idp = Idp::start(Tools::ensure(), &run, IdpOptions { tls, host: (*name).into(), ..options(name) });
            proxy.map(&format!("{name}:{}", idp.port()), idp.port());
            idp
        })
        .collect();
    for idp in &idps {
        let page = log_in(&mut browser, idp, "alice");
        assert!(page.query("code").is_some(), "{page}");
        assert!(page.query("iss").as_deref() == Some(idp.issuer()), "{page}");
    }
    idps[0].set(&json!({"delay_ms": 300}));
    let began = std::time::Instant::now();
    browser.open(&authorization_url(&idps[0]));
    assert!(began.elapsed() > Duration::from_millis(300));
}
