#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::token::{Secret, SessionId};

const NOW: u64 = 1_800_000_000;
const HOST: &str = "prod.k8s.example.com";
const PUBLIC: &str = "https://pass.example.com";

fn secret(seed: u8) -> Secret {
    Secret::new([seed; 32]).unwrap()
}

fn keys(seeds: &[u8]) -> TokenKeys {
    TokenKeys::derive(&seeds.iter().map(|seed| secret(*seed)).collect::<Vec<_>>())
}

fn session_claims() -> SessionTokenClaims {
    SessionTokenClaims {
        session: SessionId::from_random([5; 16]),
        audience: HOST.into(),
        subject: "corp:alice".into(),
        token_id: "0123".into(),
        issued_at: NOW,
        expires_at: NOW + 600,
    }
}

fn login_claims() -> LoginTokenClaims {
    LoginTokenClaims {
        session: SessionId::from_random([5; 16]),
        audience: PUBLIC.into(),
        subject: "corp:alice".into(),
        token_id: "0123".into(),
        issued_at: NOW,
        expires_at: NOW + 43_200,
    }
}

fn good_header() -> Value {
    let id = secret(1).keys().session_token.id.to_string();
    json!({"typ": "kubepass-session+jwt", "alg": "HS256", "kid": id})
}

fn good_payload() -> Value {
    serde_json::to_value(session_claims().to_payload()).unwrap()
}

/// A token with these parts, correctly signed by the session key of secret 1: what only a fault of ours could make.
fn forge(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret(1).keys().session_token.encoding.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

fn check(token: &str, expected: Result<(), TokenRejection>) {
    let result = keys(&[1]).verify_session_token(token, HOST, NOW + 1).map(|_| ());
    assert_eq!(result, expected, "{token}");
}

fn with(mut value: Value, key: &str, new: Value) -> String {
    value[key] = new;
    value.to_string()
}

fn without(mut value: Value, key: &str) -> String {
    value.as_object_mut().unwrap().remove(key).unwrap();
    value.to_string()
}

#[test]
fn what_was_signed_is_verified() {
    let keys = keys(&[1]);
    let token = keys.sign_session_token(&session_claims()).unwrap();
    assert_eq!(keys.verify_session_token(&token, HOST, NOW).unwrap(), session_claims());
    let token = keys.sign_login_token(&login_claims()).unwrap();
    assert_eq!(keys.verify_login_token(&token, PUBLIC, NOW).unwrap(), login_claims());
    check(&forge(&good_header().to_string(), &good_payload().to_string()), Ok(()));
}

#[test]
fn the_claims_on_the_wire_are_held() {
    let token = keys(&[1]).sign_login_token(&login_claims()).unwrap();
    let parts: Vec<Value> =
        token.split('.').take(2).map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()).collect();
    let id = secret(1).keys().login_token.id.to_string();
    assert_eq!(parts[0], json!({"typ": "kubepass-login+jwt", "alg": "HS256", "kid": id}));
    let expected = json!({
        "iss": "kubepass", "aud": PUBLIC, "sub": "corp:alice", "sid": "05050505050505050505050505050505",
        "token_use": "login", "iat": NOW, "nbf": NOW, "exp": NOW + 43_200, "jti": "0123",
    });
    assert_eq!(parts[1], expected);
}

#[test]
fn one_kind_of_token_is_not_the_other() {
    let keys = keys(&[1]);
    let login = LoginTokenClaims { audience: HOST.into(), ..login_claims() };
    let login = keys.sign_login_token(&login).unwrap();
    check(&login, Err(TokenRejection::WrongType));
    let session = SessionTokenClaims { audience: PUBLIC.into(), ..session_claims() };
    let session = keys.sign_session_token(&session).unwrap();
    assert_eq!(keys.verify_login_token(&session, PUBLIC, NOW), Err(TokenRejection::WrongType));

    // The header of the other kind, put on by someone who has no key.
    let (_, rest) = login.split_once('.').unwrap();
    check(&format!("{}.{rest}", URL_SAFE_NO_PAD.encode(good_header().to_string())), Err(TokenRejection::BadSignature));
    // The type alone changed: the key's id is one of another use.
    let id = secret(1).keys().login_token.id.to_string();
    check(&forge(&with(good_header(), "kid", json!(id)), &good_payload().to_string()), Err(TokenRejection::BadSignature));
    // And with our own signature the claim still has its say.
    check(&forge(&good_header().to_string(), &with(good_payload(), "token_use", json!("login"))), Err(TokenRejection::WrongType));
}

#[test]
fn every_header_but_ours_is_refused() {
    let malformed = |header: &str| check(&forge(header, &good_payload().to_string()), Err(TokenRejection::Malformed));
    for alg in ["none", "None", "NONE", "hs256", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", ""] {
        malformed(&with(good_header(), "alg", json!(alg)));
    }
    malformed(&with(good_header(), "alg", json!(["HS256"])));
    malformed(&without(good_header(), "alg"));
    malformed(&without(good_header(), "kid"));
    for kid in ["", "../../dev/null", "x", "0000000000000000 ", "ABCDEF0123456789"] {
        malformed(&with(good_header(), "kid", json!(kid)));
    }
    for (key, value) in [
        ("crit", json!(["exp"])),
        ("jku", json!("https://evil.example.com/jwks")),
        ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ("x5u", json!("https://evil.example.com")),
        ("x5c", json!(["AAAA"])),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("b64", json!(false)),
        ("anything", json!(1)),
    ] {
        malformed(&with(good_header(), key, value));
    }
    let header = good_header().to_string();
    malformed(&header.replacen('{', r#"{"alg":"none","#, 1));
    malformed(&header.replacen('{', r#"{"typ":"JWT","#, 1));
    malformed(&header.replacen('}', r#","b64":true}"#, 1));
    malformed("");
    malformed("null");
    malformed("[]");
    malformed("{");
    malformed(&format!("{header}{header}"));

    let wrong_type = |header: &str| check(&forge(header, &good_payload().to_string()), Err(TokenRejection::WrongType));
    wrong_type(&without(good_header(), "typ"));
    for typ in ["JWT", "at+jwt", "kubepass-login+jwt", "KUBEPASS-SESSION+JWT", "application/kubepass-session+jwt", ""] {
        wrong_type(&with(good_header(), "typ", json!(typ)));
    }
}

#[test]
fn every_payload_but_ours_is_refused() {
    let check = |payload: &str, rejection| check(&forge(&good_header().to_string(), payload), Err(rejection));
    for claim in ["iss", "aud", "sub", "sid", "token_use", "iat", "nbf", "exp", "jti"] {
        check(&without(good_payload(), claim), TokenRejection::Malformed);
        check(&with(good_payload(), claim, Value::Null), TokenRejection::Malformed);
        check(&with(good_payload(), claim, json!([good_payload()[claim]])), TokenRejection::Malformed);
        let text = good_payload().to_string();
        check(&text.replacen('{', &format!(r#"{{"{claim}":{},"#, good_payload()[claim]), 1), TokenRejection::Malformed);
    }
    for (claim, value) in [
        ("iss", json!("kubepass ")),
        ("iss", json!("https://kubepass")),
        ("sid", json!("")),
        ("sid", json!("05050505050505050505050505050505050505")),
        ("sid", json!("0505050505050505050505050505050G")),
        ("exp", json!(NOW as f64 + 600.0)),
        ("exp", json!((NOW + 600).to_string())),
        ("exp", json!(-1)),
        ("iat", json!(NOW as f64)),
        // No life, one longer than its kind may have, one that begins before it was issued.
        ("exp", json!(NOW)),
        ("exp", json!(NOW - 1)),
        ("exp", json!(NOW + MAX_SESSION_TOKEN_SECONDS + 1)),
        ("exp", json!(u64::MAX)),
        ("iat", json!(0)),
        ("nbf", json!(0)),
        ("admin", json!(true)),
    ] {
        check(&with(good_payload(), claim, value), TokenRejection::Malformed);
    }
    check(&with(good_payload(), "token_use", json!("Session")), TokenRejection::WrongType);
    check(&with(good_payload(), "token_use", json!("upstream")), TokenRejection::WrongType);
    for payload in ["", "null", "[]", "{}", "{"] {
        check(payload, TokenRejection::Malformed);
    }
}

#[test]
fn the_audience_is_one_exact_host() {
    let keys = keys(&[1]);
    let token = keys.sign_session_token(&session_claims()).unwrap();
    for audience in
        ["", "dev.k8s.example.com", "k8s.example.com", "PROD.k8s.example.com", "prod.k8s.example.com:443", "prod.k8s.example.com."]
    {
        assert_eq!(keys.verify_session_token(&token, audience, NOW), Err(TokenRejection::WrongAudience), "{audience:?}");
    }
    let nobody = keys.sign_session_token(&SessionTokenClaims { audience: String::new(), ..session_claims() }).unwrap();
    assert_eq!(keys.verify_session_token(&nobody, "", NOW), Err(TokenRejection::WrongAudience));
}

#[test]
fn life_has_exact_ends() {
    let keys = keys(&[1]);
    let token = keys.sign_session_token(&session_claims()).unwrap();
    let check = |now: u64, expected| assert_eq!(keys.verify_session_token(&token, HOST, now).map(|_| ()), expected, "{now}");
    check(NOW + 599, Ok(()));
    check(NOW + 600, Err(TokenRejection::Expired));
    check(u64::MAX, Err(TokenRejection::Expired));
    check(NOW - CLOCK_LEEWAY_SECONDS, Ok(()));
    check(NOW - CLOCK_LEEWAY_SECONDS - 1, Err(TokenRejection::NotYetValid));
    check(0, Err(TokenRejection::NotYetValid));
}

#[test]
fn every_accepted_secret_verifies_and_only_the_first_signs() {
    let old = keys(&[1]).sign_session_token(&session_claims()).unwrap();
    let rotated = keys(&[2, 1]);
    assert!(rotated.verify_session_token(&old, HOST, NOW).is_ok());
    let new = rotated.sign_session_token(&session_claims()).unwrap();
    assert!(keys(&[2]).verify_session_token(&new, HOST, NOW).is_ok());
    assert_eq!(keys(&[1]).verify_session_token(&new, HOST, NOW), Err(TokenRejection::BadSignature));
    assert_eq!(keys(&[2]).verify_session_token(&old, HOST, NOW), Err(TokenRejection::BadSignature));
    assert_eq!(keys(&[]).verify_session_token(&old, HOST, NOW), Err(TokenRejection::BadSignature));
    assert_eq!(keys(&[]).sign_session_token(&session_claims()), Err(SignError::NoSecret));
}

#[test]
fn a_change_at_any_place_is_seen() {
    let keys = keys(&[1]);
    let token = keys.sign_session_token(&session_claims()).unwrap();
    for index in 0..token.len() {
        for replacement in [b'A', b'B', b'_', b'.', b'=', b' ', b'\n', 0x7f] {
            let mut changed = token.clone().into_bytes();
            if changed[index] == replacement {
                continue;
            }
            changed[index] = replacement;
            let changed = String::from_utf8(changed).unwrap();
            assert!(keys.verify_session_token(&changed, HOST, NOW).is_err(), "{changed}");
        }
        assert!(keys.verify_session_token(&token[..index], HOST, NOW).is_err(), "cut at {index}");
        let longer = format!("{}A{}", &token[..index], &token[index..]);
        assert!(keys.verify_session_token(&longer, HOST, NOW).is_err(), "{longer}");
    }
}

#[test]
fn texts_around_a_good_token_are_refused() {
    let token = keys(&[1]).sign_session_token(&session_claims()).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    for text in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{token}.."),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("{token}\0"),
        format!("{token}="),
        format!("{token}=="),
        format!("Bearer {token}"),
        format!("{message}."),
        format!("{message}.="),
        format!("{message}.{}", STANDARD_ALPHABET_SIGNATURE),
        message.to_owned(),
        token.replace('.', "%2E"),
        token.to_lowercase(),
        format!("{token},{token}"),
    ] {
        assert!(keys(&[1]).verify_session_token(&text, HOST, NOW).is_err(), "{text}");
    }
}

const STANDARD_ALPHABET_SIGNATURE: &str = "+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8";

#[test]
fn a_token_has_a_largest_size() {
    let keys = keys(&[1]);
    let long = |length: usize| SessionTokenClaims { subject: "x".repeat(length), ..session_claims() };
    assert_eq!(keys.sign_session_token(&long(MAX_TOKEN_BYTES)), Err(SignError::TooLarge { limit: MAX_TOKEN_BYTES }));
    let largest = (0..MAX_TOKEN_BYTES).rev().find_map(|length| keys.sign_session_token(&long(length)).ok()).unwrap();
    assert!(largest.len() > MAX_TOKEN_BYTES - 4);
    assert!(keys.verify_session_token(&largest, HOST, NOW).is_ok());

    let payload = with(good_payload(), "sub", json!("x".repeat(MAX_TOKEN_BYTES)));
    check(&forge(&good_header().to_string(), &payload), Err(TokenRejection::Malformed));
    check(&".".repeat(1 << 20), Err(TokenRejection::Malformed));
}

#[test]
fn a_life_that_its_kind_may_not_have_is_not_signed() {
    let keys = keys(&[1]);
    let sign = |expires_at: u64| keys.sign_session_token(&SessionTokenClaims { expires_at, ..session_claims() });
    assert!(sign(NOW + MAX_SESSION_TOKEN_SECONDS).is_ok());
    for expires_at in [NOW + MAX_SESSION_TOKEN_SECONDS + 1, NOW, NOW - 1, 0, u64::MAX] {
        assert_eq!(sign(expires_at), Err(SignError::Lifetime), "{expires_at}");
    }
    assert_eq!(keys.sign_login_token(&LoginTokenClaims { expires_at: NOW, ..login_claims() }), Err(SignError::Lifetime));
}

proptest::proptest! {
    #[test]
    fn any_text_ends_in_a_rejection(text in ".{0,300}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,80}", 0..5)) {
        let keys = keys(&[1]);
        for token in [text, parts.join(".")] {
            assert!(keys.verify_session_token(&token, HOST, NOW).is_err());
            assert!(keys.verify_login_token(&token, PUBLIC, NOW).is_err());
        }
    }

    #[test]
    fn any_header_and_payload_with_our_signature_end_in_a_value(header in ".{0,100}", payload in ".{0,200}") {
        let _ = keys(&[1]).verify_session_token(&forge(&header, &payload), HOST, NOW);
    }
}
