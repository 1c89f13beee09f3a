//! What API servers read: the discovery document and the keys, the same for everyone, whatever becomes of the identity provider.

use axum::http::{StatusCode, header};
use kubepass::server::clock::unix_now as now;
use serde_json::json;

use super::installation::{Answer, Installation, PROD, PUBLIC, program};
use crate::support::fake_idp::Endpoint;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const JWKS: &str = "/.well-known/jwks.json";
const ASSERTION_JWKS: &str = "/.well-known/kubepass/assertion-jwks.json";
const ALL: [&str; 3] = [CONFIGURATION, JWKS, ASSERTION_JWKS];

async fn get(installation: &Installation, path: &str) -> Answer {
    let answer = program(&installation.router, "GET", path, None, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer
}

fn kids(answer: &Answer) -> Vec<String> {
    answer.json()["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_document_leads_to_the_keys() {
    let installation = Installation::new().await;
    let document = get(&installation, CONFIGURATION).await.json();
    let expected = json!({
        "issuer": PUBLIC,
        "jwks_uri": format!("{PUBLIC}{JWKS}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    assert_eq!(document, expected);
    let keys = get(&installation, JWKS).await;
    assert_eq!(kids(&keys), [installation.signing.upstream_ring().signer(now()).unwrap().kid()]);
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
}

#[tokio::test]
async fn no_private_part_and_no_key_of_the_other_kind_is_published() {
    let installation = Installation::new().await;
    let (upstream, assertion) = (get(&installation, JWKS).await, get(&installation, ASSERTION_JWKS).await);
    assert!(!kids(&upstream).is_empty() && !kids(&assertion).is_empty());
    assert!(kids(&upstream).iter().all(|kid| !kids(&assertion).contains(kid)));
    for answer in [upstream, assertion] {
        for key in answer.json()["keys"].as_array().unwrap() {
            let members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
            assert!(members.iter().all(|name| ["alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"].contains(name)), "{members:?}");
        }
    }
}

#[tokio::test]
async fn answers_may_be_kept_for_half_a_minute() {
    let installation = Installation::new().await;
    for path in ALL {
        let first = get(&installation, path).await;
        assert_eq!(first.headers[header::CACHE_CONTROL], "public, max-age=30", "{path}");
        assert_eq!(first.headers[header::CONTENT_TYPE], "application/json", "{path}");
        let tag = first.headers[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(get(&installation, path).await.headers[header::ETAG], tag.as_str(), "{path}");
        let mut browser = installation.browser();
        let same = browser.send("GET", path, &[("if-none-match", &tag)], String::new()).await;
        assert_eq!((same.status, same.body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{path}");
        assert_eq!(
            (&same.headers[header::ETAG], &same.headers[header::CACHE_CONTROL]),
            (&first.headers[header::ETAG], &first.headers[header::CACHE_CONTROL])
        );
        let other = browser.send("GET", path, &[("if-none-match", "\"other\"")], String::new()).await;
        assert_eq!((other.status, &other.body), (StatusCode::OK, &first.body), "{path}");
    }
}

#[tokio::test]
async fn only_reading_is_possible_and_no_cookie_counts() {
    let installation = Installation::new().await;
    let mut browser = installation.logged_in().await;
    for path in ALL {
        let answer = browser.get(path).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, &get(&installation, path).await.body), "{path}");
        assert!(answer.headers.get(header::SET_COOKIE).is_none() && answer.headers.get(header::VARY).is_none(), "{answer:?}");
        let head = browser.send("HEAD", path, &[], String::new()).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""), "{path}");
        assert_eq!(head.headers[header::ETAG], answer.headers[header::ETAG], "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = browser.send(method, path, &[], String::new()).await;
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
        let elsewhere = program(&installation.router, "GET", &format!("{PROD}{path}"), None, &[]).await;
        assert_eq!(elsewhere.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn the_identity_provider_is_not_asked() {
    let installation = Installation::new().await;
    installation.idp.set(|behaviour| behaviour.discovery = Endpoint::Error500);
    for path in ALL {
        get(&installation, path).await;
    }
    assert_eq!(installation.idp.requests("discovery"), 0);
}
