//! An identity provider on loopback that does as it is told, right or wrong.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Map, Value, json};
use url::Url;

pub(crate) const CLIENT_ID: &str = "kubepass";
pub(crate) const CLIENT_SECRET: &str = "client-secret-of-32-characters-ok";

/// One for all: making it takes a second.
static RSA: LazyLock<String> = LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());

/// How one endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Right,
    Error500,
    OAuthError,
    Redirect,
    Huge,
    HugeWithoutLength,
    Slow,
    NotJson,
}

/// How ID tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    Es256,
    Rs256,
    Ps256,
    /// `alg: none`, no signature.
    None,
    /// `alg: none` over a token that has a signature.
    NoneWithSignature,
    /// With the client secret as the key.
    Hs256,
    /// With the published public key as the HMAC key.
    Hs256OfPublicKey,
    /// By a key that is not published, under the published key's id.
    ForeignKey,
    /// By a key that is not published, under its own id.
    UnknownKey,
    /// Right, then one claim changed.
    Tampered,
}

/// What the provider does; tests change it.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) discovery: Endpoint,
    pub(crate) keys: Endpoint,
    pub(crate) token: Endpoint,
    pub(crate) user_info: Endpoint,
    pub(crate) discovery_issuer: Option<String>,
    pub(crate) signing: Signing,
    /// Replace or (with null) remove claims of the ID token.
    pub(crate) id_token: Map<String, Value>,
    pub(crate) with_id_token: bool,
    pub(crate) user_info_claims: Value,
    /// RFC 9207 on the authorization answer.
    pub(crate) answer_issuer: Option<String>,
    pub(crate) lifetime: i64,
}

#[derive(Debug)]
struct Asked {
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    behaviour: Mutex<Behaviour>,
    codes: Mutex<HashMap<String, Asked>>,
    keys: Mutex<Keys>,
    requests: Mutex<HashMap<&'static str, usize>>,
}

#[derive(Debug)]
struct Keys {
    ec: KeyPair,
    foreign: KeyPair,
    id: String,
}

#[derive(Debug, Clone)]
pub(crate) struct FakeIdp(Arc<Shared>);

impl FakeIdp {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let idp = Self::at(listener.local_addr().unwrap());
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(user_info))
            .with_state(Arc::clone(&idp.0));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        idp
    }

    fn at(address: SocketAddr) -> Self {
        let behaviour = Behaviour {
            discovery: Endpoint::Right,
            keys: Endpoint::Right,
            token: Endpoint::Right,
            user_info: Endpoint::Right,
            discovery_issuer: None,
            signing: Signing::Es256,
            id_token: Map::new(),
            with_id_token: true,
            user_info_claims: json!({"sub": "ada-1"}),
            answer_issuer: None,
            lifetime: 300,
        };
        Self(Arc::new(Shared {
            issuer: format!("http://{address}"),
            behaviour: Mutex::new(behaviour),
            codes: Mutex::default(),
            keys: Mutex::new(Keys::generate("key-1")),
            requests: Mutex::default(),
        }))
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.0.issuer
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.0.behaviour.lock().unwrap());
    }

    pub(crate) fn rotate_keys(&self) {
        *self.0.keys.lock().unwrap() = Keys::generate("key-2");
    }

    /// How often an endpoint was asked.
    pub(crate) fn requests(&self, endpoint: &'static str) -> usize {
        self.0.requests.lock().unwrap().get(endpoint).copied().unwrap_or_default()
    }

    /// The user says yes at the authorization endpoint: where the browser goes next.
    pub(crate) fn authorize(&self, url: &Url) -> Url {
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert!(url.as_str().starts_with(&format!("{}/authorize?", self.0.issuer)), "{url}");
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], CLIENT_ID);
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"), "{url}");
        let code = URL_SAFE_NO_PAD.encode(digest(&SHA256, asked["state"].as_bytes()));
        let redirect_uri = asked["redirect_uri"].clone();
        self.0.codes.lock().unwrap().insert(
            code.clone(),
            Asked { nonce: asked["nonce"].clone(), challenge: asked["code_challenge"].clone(), redirect_uri: redirect_uri.clone() },
        );
        let mut back = Url::parse(&redirect_uri).unwrap();
        back.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked["state"]);
        if let Some(issuer) = &self.0.behaviour.lock().unwrap().answer_issuer {
            back.query_pairs_mut().append_pair("iss", issuer);
        }
        back
    }

    /// The user, or the provider, says no.
    pub(crate) fn refuse(&self, url: &Url, error: &str, description: &str) -> Url {
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let mut back = Url::parse(&asked["redirect_uri"]).unwrap();
        back.query_pairs_mut().append_pair("error", error).append_pair("error_description", description);
        back.query_pairs_mut().append_pair("state", &asked["state"]);
        back
    }
}

impl Keys {
    fn generate(id: &str) -> Self {
        let ec = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self { ec: ec(), foreign: ec(), id: id.to_owned() }
    }

    fn published(&self) -> Value {
        let ec = EncodingKey::from_ec_pem(self.ec.serialize_pem().as_bytes()).unwrap();
        let rsa = EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap();
        let jwk = |key: &EncodingKey, algorithm, id: String| {
            let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
            jwk["kid"] = json!(id);
            jwk["use"] = json!("sig");
            jwk.as_object_mut().unwrap().remove("alg");
            jwk
        };
        json!({"keys": [jwk(&ec, Algorithm::ES256, self.id.clone()), jwk(&rsa, Algorithm::RS256, format!("{}-rsa", self.id))]})
    }

    fn sign(&self, signing: Signing, claims: &Map<String, Value>) -> String {
        let encode = |algorithm, id: &str, key: &EncodingKey| {
            let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
            jsonwebtoken::encode(&header, claims, key).unwrap()
        };
        let ec = |pair: &KeyPair| EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let rsa = || EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap();
        let rsa_id = format!("{}-rsa", self.id);
        let none = |signature: &str| {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.{signature}", part(&json!({"alg": "none", "kid": self.id})), part(&json!(claims)))
        };
        match signing {
            Signing::Es256 => encode(Algorithm::ES256, &self.id, &ec(&self.ec)),
            Signing::Rs256 => encode(Algorithm::RS256, &rsa_id, &rsa()),
            Signing::Ps256 => encode(Algorithm::PS256, &rsa_id, &rsa()),
            Signing::None => none(""),
            Signing::NoneWithSignature => none("c2lnbmF0dXJl"),
            Signing::Hs256 => encode(Algorithm::HS256, &self.id, &EncodingKey::from_secret(CLIENT_SECRET.as_bytes())),
            Signing::Hs256OfPublicKey => encode(Algorithm::HS256, &self.id, &EncodingKey::from_secret(self.ec.public_key_pem().as_bytes())),
            Signing::ForeignKey => encode(Algorithm::ES256, &self.id, &ec(&self.foreign)),
            Signing::UnknownKey => encode(Algorithm::ES256, "unknown", &ec(&self.foreign)),
            Signing::Tampered => {
                let good = encode(Algorithm::ES256, &self.id, &ec(&self.ec));
                let parts: Vec<_> = good.split('.').collect();
                let mut claims = claims.clone();
                claims.insert("email".to_owned(), json!("root@example.com"));
                format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(json!(claims).to_string()), parts[2])
            }
        }
    }
}

impl Shared {
    fn count(&self, endpoint: &'static str) -> Behaviour {
        *self.requests.lock().unwrap().entry(endpoint).or_default() += 1;
        self.behaviour.lock().unwrap().clone()
    }
}

async fn answer(endpoint: Endpoint, right: impl FnOnce() -> Value) -> Response {
    let json = |value: Value| (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response();
    match endpoint {
        Endpoint::Right => json(right()),
        Endpoint::Error500 => (StatusCode::INTERNAL_SERVER_ERROR, "out of order").into_response(),
        Endpoint::OAuthError => {
            let body = json!({"error": "invalid_grant", "error_description": "<b>no</b> such code"}).to_string();
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        // To itself: who follows it never comes to an end.
        Endpoint::Redirect => (StatusCode::FOUND, [(header::LOCATION, "")]).into_response(),
        Endpoint::Huge => json(json!({"padding": "a".repeat(4 << 20)})),
        Endpoint::HugeWithoutLength => {
            let chunk = || Ok::<_, std::io::Error>(vec![b' '; 64 << 10]);
            let body = axum::body::Body::from_stream(futures::stream::iter((0..1000).map(move |_| chunk())));
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Endpoint::Slow => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            json(right())
        }
        Endpoint::NotJson => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], "<html>").into_response(),
    }
}

async fn discovery(State(idp): State<Arc<Shared>>) -> Response {
    let behaviour = idp.count("discovery");
    let issuer = behaviour.discovery_issuer.clone().unwrap_or_else(|| idp.issuer.clone());
    let at = |path: &str| format!("{}{path}", idp.issuer);
    answer(behaviour.discovery, || {
        json!({
            "issuer": issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            // It even says that it would take these: nobody must believe it.
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
        })
    })
    .await
}

async fn keys(State(idp): State<Arc<Shared>>) -> Response {
    let behaviour = idp.count("keys");
    let published = idp.keys.lock().unwrap().published();
    answer(behaviour.keys, || published).await
}

async fn token(State(idp): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
    let behaviour = idp.count("token");
    let credentials = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    assert_eq!(headers[header::AUTHORIZATION], format!("Basic {credentials}"));
    assert_eq!(form["grant_type"], "authorization_code");
    let Some(asked) = idp.codes.lock().unwrap().remove(&form["code"]) else {
        return answer(Endpoint::OAuthError, || Value::Null).await;
    };
    assert_eq!(form["redirect_uri"], asked.redirect_uri);
    if URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes())) != asked.challenge {
        return answer(Endpoint::OAuthError, || Value::Null).await;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let mut claims = json!({
        "iss": idp.issuer, "aud": CLIENT_ID, "sub": "ada-1", "nonce": asked.nonce, "iat": now, "exp": now + behaviour.lifetime,
        "email": "ada@example.com", "email_verified": true, "groups": ["staff", "sre"],
    });
    let claims = claims.as_object_mut().unwrap();
    for (name, value) in &behaviour.id_token {
        if value.is_null() {
            claims.remove(name)
        } else {
            claims.insert(name.clone(), value.clone())
        };
    }
    let mut answered = json!({"access_token": "access-token", "token_type": "Bearer", "expires_in": 300});
    if behaviour.with_id_token {
        answered["id_token"] = json!(idp.keys.lock().unwrap().sign(behaviour.signing, claims));
    }
    answer(behaviour.token, || answered).await
}

async fn user_info(State(idp): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let behaviour = idp.count("userinfo");
    assert_eq!(headers[header::AUTHORIZATION], "Bearer access-token");
    answer(behaviour.user_info, || behaviour.user_info_claims).await
}
