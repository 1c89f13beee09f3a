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

pub const CLIENT_ID: &str = "kubepass";
pub const CLIENT_SECRET: &str = "client-secret-of-32-characters-ok";

/// One for all: making it takes a second.
static RSA: LazyLock<String> = LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem());

/// How one endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Right,
    Error500,
    OAuthError,
    Redirect,
    Huge,
    HugeWithoutLength,
    Slow,
    /// A byte now and then, without end: no pause is long.
    Drip,
    NotJson,
}

/// How ID tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
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
    /// By a key that is not published and stands in the header itself (`jwk`).
    OwnKeyInHeader,
    /// By a key that is not published, with an address of the attacker's where it could be read (`jku`, `x5u`).
    OwnKeyByAddress,
    /// By a key that is not published; the header names two keys, first the published one.
    TwoKeyIds,
    /// Right, with an extension in the header that must be understood.
    CriticalExtension,
}

/// What the provider does; tests change it.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub discovery: Endpoint,
    pub keys: Endpoint,
    pub token: Endpoint,
    pub user_info: Endpoint,
    pub discovery_issuer: Option<String>,
    /// Replace members of the discovery document.
    pub discovery_members: Map<String, Value>,
    /// Further published keys, before the right one.
    pub more_keys: Vec<Value>,
    /// The verifier of a code does not matter.
    pub ignores_pkce: bool,
    pub signing: Signing,
    /// Replace or (with null) remove claims of the ID token.
    pub id_token: Map<String, Value>,
    pub with_id_token: bool,
    pub user_info_claims: Value,
    /// RFC 9207 on the authorization answer.
    pub answer_issuer: Option<String>,
    pub lifetime: i64,
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
    /// What the token endpoint was asked.
    asked: Mutex<Vec<HashMap<String, String>>>,
}

#[derive(Debug)]
struct Keys {
    ec: KeyPair,
    foreign: KeyPair,
    id: String,
}

#[derive(Debug, Clone)]
pub struct FakeIdp(Arc<Shared>);

impl FakeIdp {
    pub async fn start() -> Self {
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
        Self(Arc::new(Shared {
            issuer: format!("http://{address}"),
            behaviour: Mutex::new(Behaviour::right()),
            codes: Mutex::default(),
            keys: Mutex::new(Keys::generate("key-1")),
            requests: Mutex::default(),
            asked: Mutex::default(),
        }))
    }

    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Back to right behaviour.
    pub fn behave(&self) {
        self.set(|behaviour| *behaviour = Behaviour::right());
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.0.behaviour.lock().unwrap());
    }

    pub fn rotate_keys(&self) {
        *self.0.keys.lock().unwrap() = Keys::generate("key-2");
    }

    /// How often an endpoint was asked.
    pub fn requests(&self, endpoint: &'static str) -> usize {
        self.0.requests.lock().unwrap().get(endpoint).copied().unwrap_or_default()
    }

    /// The forms that came to the token endpoint.
    pub fn asked(&self) -> Vec<HashMap<String, String>> {
        self.0.asked.lock().unwrap().clone()
    }

    /// The public key that nobody published, as a JWK under the published key's id.
    pub fn foreign_key(&self) -> Value {
        let keys = self.0.keys.lock().unwrap();
        let mut jwk = foreign_jwk(&keys.foreign);
        jwk["kid"] = json!(keys.id);
        jwk
    }

    /// The user says yes at the authorization endpoint: where the browser goes next.
    pub fn authorize(&self, url: &Url) -> Url {
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
    pub fn refuse(&self, url: &Url, error: &str, description: &str) -> Url {
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let mut back = Url::parse(&asked["redirect_uri"]).unwrap();
        back.query_pairs_mut().append_pair("error", error).append_pair("error_description", description);
        back.query_pairs_mut().append_pair("state", &asked["state"]);
        back
    }
}

impl Behaviour {
    fn right() -> Self {
        Self {
            discovery: Endpoint::Right,
            keys: Endpoint::Right,
            token: Endpoint::Right,
            user_info: Endpoint::Right,
            discovery_issuer: None,
            discovery_members: Map::new(),
            more_keys: Vec::new(),
            ignores_pkce: false,
            signing: Signing::Es256,
            id_token: Map::new(),
            with_id_token: true,
            user_info_claims: json!({"sub": "ada-1"}),
            answer_issuer: None,
            lifetime: 300,
        }
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
        let by_hand = |header: &str| signed_by_hand(header, claims, &ec(&self.foreign));
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
            Signing::OwnKeyInHeader => by_hand(&json!({"alg": "ES256", "kid": self.id, "jwk": foreign_jwk(&self.foreign)}).to_string()),
            Signing::OwnKeyByAddress => {
                let address = "https://evil.example/keys";
                by_hand(&json!({"alg": "ES256", "kid": "unknown", "jku": address, "x5u": address}).to_string())
            }
            Signing::TwoKeyIds => by_hand(&format!(r#"{{"alg":"ES256","kid":"{}","kid":"unknown"}}"#, self.id)),
            Signing::CriticalExtension => {
                let header = json!({"alg": "ES256", "kid": self.id, "crit": ["exp"], "exp": 1});
                signed_by_hand(&header.to_string(), claims, &ec(&self.ec))
            }
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

/// Any header, whatever a library would say to it.
fn signed_by_hand(header: &str, claims: &Map<String, Value>, key: &EncodingKey) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(json!(claims).to_string()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, Algorithm::ES256).unwrap();
    format!("{signed}.{signature}")
}

fn foreign_jwk(pair: &KeyPair) -> Value {
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap()
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
        Endpoint::Drip => {
            let drop = async |()| {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>(vec![b' ']), ()))
            };
            let body = axum::body::Body::from_stream(futures::stream::unfold((), drop));
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Endpoint::NotJson => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], "<html>").into_response(),
    }
}

async fn discovery(State(idp): State<Arc<Shared>>) -> Response {
    let behaviour = idp.count("discovery");
    let issuer = behaviour.discovery_issuer.clone().unwrap_or_else(|| idp.issuer.clone());
    let at = |path: &str| format!("{}{path}", idp.issuer);
    answer(behaviour.discovery, || {
        let mut document = json!({
            "issuer": issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            // It even says that it would take these: nobody must believe it.
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
        });
        document.as_object_mut().unwrap().extend(behaviour.discovery_members);
        document
    })
    .await
}

async fn keys(State(idp): State<Arc<Shared>>) -> Response {
    let behaviour = idp.count("keys");
    let mut published = idp.keys.lock().unwrap().published();
    let keys = published["keys"].as_array_mut().unwrap();
    keys.splice(0..0, behaviour.more_keys);
    answer(behaviour.keys, || published).await
}

async fn token(State(idp): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
    let behaviour = idp.count("token");
    idp.asked.lock().unwrap().push(form.clone());
    let credentials = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    assert_eq!(headers[header::AUTHORIZATION], format!("Basic {credentials}"));
    assert_eq!(form["grant_type"], "authorization_code");
    let Some(asked) = idp.codes.lock().unwrap().remove(&form["code"]) else {
        return answer(Endpoint::OAuthError, || Value::Null).await;
    };
    assert_eq!(form["redirect_uri"], asked.redirect_uri);
    let fits = URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes())) == asked.challenge;
    if !fits && !behaviour.ignores_pkce {
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
