#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::*;
use crate::token::signing_key::tests::{key, pem};
use crate::token::{
    AssertionTokenClaims, LoginTokenClaims, MAX_ASSERTION_TOKEN_SECONDS, MAX_UPSTREAM_TOKEN_BYTES, MAX_UPSTREAM_TOKEN_SECONDS, Secret,
    SessionId, SessionTokenClaims, SigningAlgorithm, TokenKeys, UpstreamTokenClaims,
};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://pass.example.com";
const AUDIENCE: &str = "prod";

fn upstream_claims() -> UpstreamTokenClaims {
    UpstreamTokenClaims {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        subject: "corp:248289761001".into(),
        token_id: "0123".into(),
        issued_at: NOW,
        expires_at: NOW + 300,
        username: "oidc:alice@example.com".into(),
        groups: vec!["sre".into(), "Team, EU".into()],
        uid: Some("u-1".into()),
        extra: BTreeMap::from([("example.com/team".to_owned(), vec!["a".to_owned(), "b".to_owned()])]),
        session: SessionId::from_random([5; 16]),
        policy_version: "0123456789abcdef".into(),
    }
}

fn assertion_claims() -> AssertionTokenClaims {
    AssertionTokenClaims {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        subject: "corp:248289761001".into(),
        token_id: "0123".into(),
        issued_at: NOW,
        expires_at: NOW + 300,
        email: "alice@example.com".into(),
        username: "alice@example.com".into(),
        groups: vec!["sre".into()],
        session: SessionId::from_random([5; 16]),
    }
}

fn set(keys: &[&SigningKey]) -> JwkSet {
    JwkSet { keys: keys.iter().map(|key| key.public_jwk().clone()).collect() }
}

fn all_keys() -> Vec<SigningKey> {
    let (rs256, ps256) = (Some(SigningAlgorithm::Rs256), Some(SigningAlgorithm::Ps256));
    vec![key("signing.pem", None), key("p384-sec1.pem", None), key("rsa.pem", rs256), key("rsa-pkcs1.pem", ps256)]
}

fn parts(token: &str) -> (Value, Value) {
    let parts: Vec<Value> =
        token.split('.').take(2).map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()).collect();
    (parts[0].clone(), parts[1].clone())
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Any header over any payload, correctly signed by `signing.pem`: what only a fault of ours could make.
fn forge(header: &Value, payload: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let key = EncodingKey::from_ec_pem(pem("signing.pem").as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
    format!("{message}.{signature}")
}

#[track_caller]
fn check(token: &str, expected: Result<(), TokenRejection>) {
    let result = set(&[&key("signing.pem", None)]).verify_upstream_token(token, ISSUER, AUDIENCE, NOW + 1).map(|_| ());
    assert_eq!(result, expected, "{token}");
}

#[test]
fn what_was_signed_is_verified_with_every_algorithm() {
    for key in all_keys() {
        let jwks = set(&[&key]);
        let token = key.sign_upstream_token(&upstream_claims()).unwrap();
        assert_eq!(parts(token.expose()).0, json!({"typ": "kubepass-upstream+jwt", "alg": key.algorithm().name(), "kid": key.kid()}));
        assert_eq!(jwks.verify_upstream_token(token.expose(), ISSUER, AUDIENCE, NOW).unwrap(), upstream_claims());
        let token = key.sign_assertion_token(&assertion_claims()).unwrap();
        assert_eq!(parts(token.expose()).0, json!({"typ": "kubepass-assertion+jwt", "alg": key.algorithm().name(), "kid": key.kid()}));
        assert_eq!(jwks.verify_assertion_token(token.expose(), ISSUER, AUDIENCE, NOW).unwrap(), assertion_claims());
    }
}

#[test]
fn the_claims_on_the_wire_are_held() {
    let key = key("signing.pem", None);
    let payload = |claims: &UpstreamTokenClaims| parts(key.sign_upstream_token(claims).unwrap().expose()).1;
    let mut expected = json!({
        "iss": ISSUER, "aud": "prod", "sub": "corp:248289761001", "exp": NOW + 300, "nbf": NOW, "iat": NOW, "jti": "0123",
        "token_use": "upstream", "username": "oidc:alice@example.com", "groups": ["sre", "Team, EU"], "uid": "u-1",
        "extra": {"example.com/team": ["a", "b"]}, "kubepass_session": "05050505050505050505050505050505",
        "kubepass_policy": "0123456789abcdef",
    });
    assert_eq!(payload(&upstream_claims()), expected);
    // What is not there is not said, but the groups always are: an API server's mapping reads them.
    let bare = UpstreamTokenClaims { uid: None, extra: BTreeMap::new(), groups: Vec::new(), ..upstream_claims() };
    expected["groups"] = json!([]);
    expected.as_object_mut().unwrap().retain(|claim, _| !matches!(claim.as_str(), "uid" | "extra"));
    assert_eq!(payload(&bare), expected);

    let expected = json!({
        "iss": ISSUER, "aud": "prod", "sub": "corp:248289761001", "exp": NOW + 300, "nbf": NOW, "iat": NOW, "jti": "0123",
        "token_use": "assertion", "email": "alice@example.com", "username": "alice@example.com", "groups": ["sre"],
        "kubepass_session": "05050505050505050505050505050505",
    });
    assert_eq!(parts(key.sign_assertion_token(&assertion_claims()).unwrap().expose()).1, expected);
}

/// Four kinds, the same claims and audience, and for the signed ones even the same key: each counts as itself and as nothing else.
#[test]
fn no_kind_is_accepted_as_another() {
    let (secret, key) = (TokenKeys::derive(&[Secret::new([1; 32]).unwrap()]), key("signing.pem", None));
    let jwks = set(&[&key]);
    let (session, subject, token_id) = (SessionId::from_random([5; 16]), "corp:a".to_owned(), "0".to_owned());
    let (issued_at, expires_at, audience) = (NOW, NOW + 300, AUDIENCE.to_owned());
    let of_session = SessionTokenClaims {
        session,
        audience: audience.clone(),
        subject: subject.clone(),
        token_id: token_id.clone(),
        issued_at,
        expires_at,
    };
    let of_login = LoginTokenClaims { session, audience, subject, token_id, issued_at, expires_at };
    let tokens = [
        ("session", secret.sign_session_token(&of_session).unwrap()),
        ("login", secret.sign_login_token(&of_login).unwrap()),
        ("upstream", key.sign_upstream_token(&upstream_claims()).unwrap().expose().to_owned()),
        ("assertion", key.sign_assertion_token(&assertion_claims()).unwrap().expose().to_owned()),
    ];
    for (kind, token) in &tokens {
        let results = [
            ("session", secret.verify_session_token(token, AUDIENCE, NOW).err()),
            ("login", secret.verify_login_token(token, AUDIENCE, NOW).err()),
            ("upstream", jwks.verify_upstream_token(token, ISSUER, AUDIENCE, NOW).err()),
            ("assertion", jwks.verify_assertion_token(token, ISSUER, AUDIENCE, NOW).err()),
        ];
        for (verifier, rejection) in results {
            let expected = (*kind != verifier).then_some(TokenRejection::WrongType);
            assert_eq!(rejection, expected, "{kind} as {verifier}");
        }
    }
    // The type alone changed by someone who has the key: the claims still have their say.
    let (_, payload) = parts(&tokens[3].1);
    let header = json!({"typ": "kubepass-upstream+jwt", "alg": "ES256", "kid": key.kid()});
    check(&forge(&header, &payload), Err(TokenRejection::Malformed));
    let mut payload = parts(&tokens[2].1).1;
    payload["token_use"] = json!("assertion");
    check(&forge(&header, &payload), Err(TokenRejection::WrongType));
}

#[test]
fn every_header_but_ours_is_refused() {
    let token = key("signing.pem", None).sign_upstream_token(&upstream_claims()).unwrap();
    let (header, payload) = parts(token.expose());
    check(&forge(&header, &payload), Ok(()));
    let changed = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        forge(&header, &payload)
    };
    for alg in ["none", "None", "HS256", "RS256", "PS256", "ES384", "EdDSA", ""] {
        check(&changed("alg", json!(alg)), Err(TokenRejection::Malformed));
    }
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("jku", json!("https://evil.example.com/jwks")),
        ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ("x5c", json!(["AAAA"])),
        ("cty", json!("JWT")),
    ] {
        check(&changed(name, value), Err(TokenRejection::Malformed));
    }
    for typ in ["JWT", "at+jwt", "KUBEPASS-UPSTREAM+JWT", ""] {
        check(&changed("typ", json!(typ)), Err(TokenRejection::WrongType));
    }
    check(&changed("kid", json!("unknown")), Err(TokenRejection::BadSignature));
}

#[test]
fn only_a_signature_by_the_published_key_counts() {
    let signing = key("signing.pem", None);
    let token = signing.sign_upstream_token(&upstream_claims()).unwrap().expose().to_owned();
    let (message, signature) = token.rsplit_once('.').unwrap();
    check(message, Err(TokenRejection::Malformed));
    check(&format!("{message}."), Err(TokenRejection::BadSignature));
    check("", Err(TokenRejection::Malformed));
    check(&format!("{token}{signature}"), Err(TokenRejection::BadSignature));

    // One claim changed, the signature kept.
    let (header, mut payload) = parts(&token);
    payload["username"] = json!("admin");
    check(&format!("{}.{}.{signature}", encode(&header), encode(&payload)), Err(TokenRejection::BadSignature));

    // The right name over another key's signature.
    let other = key("signing-2.pem", None).sign_upstream_token(&upstream_claims()).unwrap().expose().to_owned();
    check(&other, Err(TokenRejection::BadSignature));
    let (_, foreign) = other.rsplit_once('.').unwrap();
    check(&format!("{message}.{foreign}"), Err(TokenRejection::BadSignature));

    // HS256 with the public key as the secret (RFC 8725, 2.1).
    let header = json!({"typ": "kubepass-upstream+jwt", "alg": "HS256", "kid": signing.kid()});
    let message = format!("{}.{}", encode(&header), encode(&parts(&token).1));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pem("public.pem").as_bytes()), message.as_bytes());
    check(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag)), Err(TokenRejection::Malformed));

    assert_eq!(JwkSet::default().verify_upstream_token(&token, ISSUER, AUDIENCE, NOW), Err(TokenRejection::BadSignature));
}

#[test]
fn issuer_audience_and_time_are_exact() {
    let key = key("signing.pem", None);
    let token = key.sign_upstream_token(&upstream_claims()).unwrap();
    let verify = |issuer: &str, audience: &str, now: u64| {
        set(&[&key]).verify_upstream_token(token.expose(), issuer, audience, now).map(|_| ()).err()
    };
    assert_eq!(verify(ISSUER, AUDIENCE, NOW), None);
    for issuer in ["", "https://pass.example.com/", "https://other.example.com"] {
        assert_eq!(verify(issuer, AUDIENCE, NOW), Some(TokenRejection::Malformed), "{issuer}");
    }
    for audience in ["", "prod2", "Prod", "staging"] {
        assert_eq!(verify(ISSUER, audience, NOW), Some(TokenRejection::WrongAudience), "{audience}");
    }
    assert_eq!(verify(ISSUER, AUDIENCE, NOW + 299), None);
    assert_eq!(verify(ISSUER, AUDIENCE, NOW + 300), Some(TokenRejection::Expired));
    assert_eq!(verify(ISSUER, AUDIENCE, NOW - CLOCK_LEEWAY_SECONDS), None);
    assert_eq!(verify(ISSUER, AUDIENCE, NOW - CLOCK_LEEWAY_SECONDS - 1), Some(TokenRejection::NotYetValid));
}

#[test]
fn a_token_without_life_or_with_too_much_of_either_is_not_made() {
    let key = key("signing.pem", None);
    let upstream = |expires_at: u64| key.sign_upstream_token(&UpstreamTokenClaims { expires_at, ..upstream_claims() }).err();
    assert_eq!(upstream(NOW), Some(SignError::Lifetime));
    assert_eq!(upstream(NOW - 1), Some(SignError::Lifetime));
    assert_eq!(upstream(NOW + MAX_UPSTREAM_TOKEN_SECONDS), None);
    assert_eq!(upstream(NOW + MAX_UPSTREAM_TOKEN_SECONDS + 1), Some(SignError::Lifetime));
    let assertion = |expires_at: u64| key.sign_assertion_token(&AssertionTokenClaims { expires_at, ..assertion_claims() }).err();
    assert_eq!(assertion(NOW), Some(SignError::Lifetime));
    assert_eq!(assertion(NOW + MAX_ASSERTION_TOKEN_SECONDS), None);
    assert_eq!(assertion(NOW + MAX_ASSERTION_TOKEN_SECONDS + 1), Some(SignError::Lifetime));
}

#[test]
fn the_size_is_bounded_exactly() {
    let key = key("signing.pem", None);
    let with = |letters: usize| key.sign_upstream_token(&UpstreamTokenClaims { username: "x".repeat(letters), ..upstream_claims() });
    let (mut fits, mut too_long) = (1, MAX_UPSTREAM_TOKEN_BYTES);
    while too_long - fits > 1 {
        let middle = fits.midpoint(too_long);
        *if with(middle).is_ok() { &mut fits } else { &mut too_long } = middle;
    }
    let longest = with(fits).unwrap();
    assert!((MAX_UPSTREAM_TOKEN_BYTES - 3..=MAX_UPSTREAM_TOKEN_BYTES).contains(&longest.expose().len()), "{}", longest.expose().len());
    assert!(set(&[&key]).verify_upstream_token(longest.expose(), ISSUER, AUDIENCE, NOW).is_ok());
    assert_eq!(with(too_long).err(), Some(SignError::TooLarge { limit: MAX_UPSTREAM_TOKEN_BYTES }));
    // 500 groups of 40 letters: a refusal, never a token without some of them.
    let groups: Vec<String> = (0..500).map(|number| format!("{number:040}")).collect();
    let refused = key.sign_upstream_token(&UpstreamTokenClaims { groups, ..upstream_claims() });
    assert_eq!(refused.err(), Some(SignError::TooLarge { limit: MAX_UPSTREAM_TOKEN_BYTES }));
    check(&"x".repeat(MAX_UPSTREAM_TOKEN_BYTES + 1), Err(TokenRejection::Malformed));
}

#[test]
fn debug_shows_no_token() {
    let key = key("signing.pem", None);
    assert_eq!(format!("{:?}", key.sign_upstream_token(&upstream_claims()).unwrap()), "UpstreamToken([redacted])");
    assert_eq!(format!("{:?}", key.sign_assertion_token(&assertion_claims()).unwrap()), "AssertionToken([redacted])");
}
