//! The contract of an unmodified pomerium-cli, step by step, and that it gives nothing on routes that do not ask for it.

use axum::http::StatusCode;
use url::Url;

use super::installation::{Browser, Installation, Options, PARTNER, PROD, program};

const REDIRECT: &str = "http://127.0.0.1:45123";

fn login_api(host: &str, redirect_uri: &str) -> String {
    let query: String = url::form_urlencoded::byte_serialize(redirect_uri.as_bytes()).collect();
    format!("{host}/.pomerium/api/v1/login?pomerium_redirect_uri={query}")
}

async fn sign_in_url(installation: &Installation) -> String {
    let answer = program(&installation.router, "GET", &login_api(PROD, REDIRECT), None, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    answer.body
}

async fn token(installation: &Installation, browser: &mut Browser) -> String {
    let page = browser.get(&sign_in_url(installation).await).await;
    let answer = browser.post("/confirm", &[("form", &page.form()), ("decision", "allow")]).await;
    let to_client = answer.location();
    assert!(to_client.as_str().starts_with("http://127.0.0.1:45123/?pomerium_jwt="), "{to_client}");
    to_client.query_pairs().next().unwrap().1.into_owned()
}

async fn probe(installation: &Installation, host: &str, path: &str, bearer: &str) -> StatusCode {
    program(&installation.router, "GET", &format!("{host}{path}"), Some(bearer), &[]).await.status
}

#[tokio::test]
async fn an_unmodified_client_logs_in_and_sees_its_token_die() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let sign_in = Url::parse(&sign_in_url(&installation).await).unwrap();
    assert_eq!(sign_in.host_str(), Some("pass.example.com"));
    let to_login = browser.get(sign_in.as_str()).await.location();
    let back = browser.log_in(&installation.idp, to_login.as_str()).await.location();
    let page = browser.get(back.as_str()).await;
    for part in ["ada@example.com", "pomerium-cli", "prod.k8s.example.com", "45123", "history"] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert_eq!(installation.sessions.awake()[0].client, "pomerium-cli");
    let token = token(&installation, &mut browser).await;
    // The client reads an integer `exp` from the token without checking it, and sends it with its own word before it.
    use base64::Engine;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&payload).unwrap()["exp"].is_u64());
    let bearer = format!("Pomerium-{token}");
    for path in ["/healthz", "/livez"] {
        assert_eq!(probe(&installation, PROD, path, &bearer).await, StatusCode::OK);
        for wrong in [token.as_str(), "Pomerium-", "Pomerium-junk", &format!("{bearer}x"), &format!("pomerium-{token}")] {
            assert_eq!(probe(&installation, PROD, path, wrong).await, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert_eq!(probe(&installation, PARTNER, path, &bearer).await, StatusCode::UNAUTHORIZED, "a token is for one route");
    }
    let routes = program(&installation.router, "GET", &format!("{PROD}/.pomerium/api/v1/routes"), Some(&bearer), &[]).await.json();
    let only = serde_json::json!({"id": "prod", "name": "prod", "type": "http", "from": PROD, "description": "Kubernetes API server"});
    assert_eq!(routes, serde_json::json!({"routes": [only]}));
    installation.sessions.end(&installation.sessions.awake()[0].id);
    assert_eq!(probe(&installation, PROD, "/healthz", &bearer).await, StatusCode::UNAUTHORIZED, "an ended session is seen at once");
    let routes = program(&installation.router, "GET", &format!("{PROD}/.pomerium/api/v1/routes"), Some(&bearer), &[]).await;
    assert_eq!(routes.status, StatusCode::UNAUTHORIZED, "never a redirect");
    let audit = installation.audit();
    assert_eq!(
        (&audit[1]["event"], &audit[1]["client"], &audit[1]["route"]),
        (&"token_issued".into(), &"pomerium-cli".into(), &"prod".into())
    );
}

#[tokio::test]
async fn the_login_api_answers_as_the_client_expects() {
    let installation = Installation::new().await;
    let status = async |address: &str| program(&installation.router, "GET", address, None, &[]).await.status;
    assert_eq!(status(&format!("{PROD}/.pomerium/api/v1/login")).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&login_api(PROD, "https://evil.example")).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(&login_api(PROD, "http://127.0.0.1:45123@evil.example")).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(&login_api("https://prod.k8s.example.com:443", REDIRECT)).await, StatusCode::OK);
    assert_eq!(status(&login_api(PROD, "http://[::1]:45123")).await, StatusCode::OK);
    assert_eq!(status(&login_api(PROD, "http://localhost:45123")).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(&login_api(PARTNER, REDIRECT)).await, StatusCode::NOT_FOUND, "only where the route says so");
    assert_eq!(status(&format!("{PROD}/.pomerium/")).await, StatusCode::NOT_FOUND);
    let post = program(&installation.router, "POST", &login_api(PROD, REDIRECT), None, &[]).await;
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn no_token_without_a_click_or_for_other_routes() {
    let installation = Installation::with(Options { partner: true, ..Options::default() }).await;
    let mut browser = installation.browser();
    browser.log_in(&installation.idp, "/login?idp=corp").await;
    let page = browser.get(&sign_in_url(&installation).await).await;
    assert_eq!(page.status, StatusCode::OK, "a page, not the token");
    let refused = browser.post("/confirm", &[("form", &page.form()), ("decision", "deny")]).await;
    assert_eq!(refused.status, StatusCode::OK);
    assert!(refused.body.contains("Refused"), "{}", refused.body);
    let cross =
        browser.send("POST", "/confirm", &[("origin", "https://evil.example")], format!("form={}&decision=allow", page.form())).await;
    cross.is_error_page(StatusCode::FORBIDDEN, "another web site");
    let address = |route: &str, redirect: &str| format!("/pomerium/login?redirect_uri={redirect}&route={route}");
    browser.get(&address("partner.k8s.example.com", REDIRECT)).await.is_error_page(StatusCode::FORBIDDEN, "no log-ins of pomerium-cli");
    browser.get(&address("other.example.com", REDIRECT)).await.is_error_page(StatusCode::NOT_FOUND, "no cluster");
    browser
        .get(&address("prod.k8s.example.com", "http://evil.example:45123"))
        .await
        .is_error_page(StatusCode::BAD_REQUEST, "must not be sent");
    assert_eq!(installation.audit_events(), ["login"]);
}
