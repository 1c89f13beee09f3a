//! The authorization code flow with one identity provider (OpenID Connect Core 1.0 section 3.1, PKCE by RFC 7636, `iss` by RFC 9207): the URL to send
//! the browser to, and the way from the code that comes back to verified claims.

use chrono::DateTime;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AccessTokenHash, AdditionalClaims, AuthType, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, IdToken, IdTokenFields, IdTokenVerifier, Nonce, NonceVerifier,
    OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, StandardErrorResponse,
    StandardTokenResponse, TokenResponse, UserInfoClaims, UserInfoError,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::config::IdentityProvider;
use crate::defence::{Defence, off};

use super::error::{IdTokenFault, OidcError};
use super::provider::{Discovered, Provider, shortened};

/// How far the clock of the identity provider may be behind ours, or before it, in seconds.
const CLOCK_SKEW: u64 = 60;
/// Times before which a token is not valid, or was not there. The library reads neither.
const BEGINNINGS: [&str; 2] = ["nbf", "iat"];
/// Claims that sessions and policies read whatever the mapping says; where one of them, or one that the mapping reads, is missing from the ID token,
/// userinfo is asked.
const USER_INFO_CLAIMS: [&str; 3] = [EMAIL, EMAIL_VERIFIED, "groups"];
const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";
/// Asymmetric only: with a MAC the client secret would sign, and `none` signs nothing.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 8] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
];

/// Where to send the browser, and what must be kept to trust its return.
#[derive(Debug)]
pub struct AuthorizationStart {
    pub url: Url,
    pub proof: LoginProof,
}

/// What ties an answer to the login that asked for it; secret until then.
#[derive(Debug, Clone)]
pub struct LoginProof {
    pub nonce: SecretString,
    pub pkce_verifier: SecretString,
}

/// What came back through the browser: nothing of it is trusted yet.
#[derive(Debug)]
pub struct AuthorizationAnswer {
    pub code: SecretString,
    /// `iss` of RFC 9207, where the identity provider sends it.
    pub issuer: Option<String>,
}

/// Every claim besides the standard ones, as the identity provider gave it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct OtherClaims(Map<String, Value>);
impl AdditionalClaims for OtherClaims {}

type OidcIdToken = IdToken<OtherClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type IdFields =
    IdTokenFields<OtherClaims, EmptyExtraTokenFields, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type TokenAnswer = StandardTokenResponse<IdFields, CoreTokenType>;
type OidcClient = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    TokenAnswer,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Provider {
    /// The URL that starts a login; nonce and PKCE verifier are made here, `state` by the caller.
    pub async fn authorization_start(
        &self,
        settings: &IdentityProvider,
        redirect_uri: &Url,
        state: &str,
    ) -> Result<AuthorizationStart, OidcError> {
        let discovered = self.discovered().await?;
        let client = client(settings, &discovered, redirect_uri);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = CsrfToken::new(state.to_owned());
        let mut request = client.authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || state, Nonce::new_random);
        if !off(Defence::LoginPkce) {
            request = request.set_pkce_challenge(challenge);
        }
        for scope in settings.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, _, nonce) = request.url();
        let proof = LoginProof { nonce: nonce.secret().as_str().into(), pkce_verifier: verifier.into_secret().into() };
        Ok(AuthorizationStart { url, proof })
    }

    /// From the code to verified claims: code exchange, ID token, and userinfo where the ID token lacks claims. The ID token's claims win.
    /// `now` in Unix seconds.
    pub async fn claims(
        &self,
        settings: &IdentityProvider,
        redirect_uri: &Url,
        answer: &AuthorizationAnswer,
        proof: &LoginProof,
        now: u64,
    ) -> Result<Map<String, Value>, OidcError> {
        let discovered = self.discovered().await?;
        let expected = discovered.metadata.issuer().as_str();
        // Where every answer names its issuer, one that does not has lost it on the way.
        if answer.issuer.as_deref().map_or(discovered.answers_name_issuer, |issuer| issuer != expected) && !off(Defence::LoginIssuer) {
            return Err(OidcError::MixedUp { provider: self.name.clone() });
        }
        let tokens = self.exchange(settings, &discovered, redirect_uri, answer, proof).await?;
        let id_token = tokens.id_token().ok_or_else(|| OidcError::NoIdToken { provider: self.name.clone() })?;
        let nonce = Nonce::new(proof.nonce.expose_secret().to_owned());
        let check = |discovered: &Discovered| verified(settings, discovered, id_token, &tokens, &nonce, now);
        let claims = match check(&discovered) {
            Err(IdTokenFault::UnknownKey) => check(&*self.newer_than(&discovered).await?),
            result => result,
        };
        let mut claims = claims.map_err(|fault| OidcError::IdToken { provider: self.name.clone(), fault })?;
        let lacks = settings.mapping.claims_read().chain(USER_INFO_CLAIMS).any(|name| !claims.contains_key(name));
        if lacks && discovered.metadata.userinfo_endpoint().is_some() {
            let user_info = self.user_info(settings, &discovered, redirect_uri, &tokens, &claims).await?;
            add_user_info(&mut claims, user_info);
        }
        Ok(claims)
    }

    async fn exchange(
        &self,
        settings: &IdentityProvider,
        discovered: &Discovered,
        redirect_uri: &Url,
        answer: &AuthorizationAnswer,
        proof: &LoginProof,
    ) -> Result<TokenAnswer, OidcError> {
        let client = client(settings, discovered, redirect_uri);
        let fault = |detail: &str| OidcError::TokenAnswer { provider: self.name.clone(), detail: shortened(detail) };
        let mut request = client
            .exchange_code(AuthorizationCode::new(answer.code.expose_secret().to_owned()))
            .map_err(|_| fault("it has no token endpoint"))?;
        if !off(Defence::LoginPkce) {
            request = request.set_pkce_verifier(PkceCodeVerifier::new(proof.pkce_verifier.expose_secret().to_owned()));
        }
        request.request_async(&self.call()).await.map_err(|error| match error {
            RequestTokenError::Request(cause) => self.unreachable(cause),
            RequestTokenError::ServerResponse(response) => OidcError::Refused {
                provider: self.name.clone(),
                error: shortened(&error_word(response.error())),
                description: shortened(response.error_description().map_or("", String::as_str)),
            },
            // The parser's text names a place, never the answer's content: that may hold tokens.
            RequestTokenError::Parse(error, _) => fault(&format!("not the expected JSON, at `{}`", error.path())),
            RequestTokenError::Other(_) => fault("an unexpected status or content type"),
        })
    }

    async fn user_info(
        &self,
        settings: &IdentityProvider,
        discovered: &Discovered,
        redirect_uri: &Url,
        tokens: &TokenAnswer,
        claims: &Map<String, Value>,
    ) -> Result<Map<String, Value>, OidcError> {
        let fault = |detail: &str| OidcError::UserInfo { provider: self.name.clone(), detail: shortened(detail) };
        let client = client(settings, discovered, redirect_uri);
        let subject = claims.get("sub").and_then(Value::as_str).ok_or_else(|| fault("the ID token has no subject"))?;
        let subject = openidconnect::SubjectIdentifier::new(subject.to_owned());
        let request = client.user_info(tokens.access_token().clone(), Some(subject)).map_err(|_| fault("it has no userinfo endpoint"))?;
        let info: UserInfoClaims<OtherClaims, CoreGenderClaim> =
            request.request_async(&self.call()).await.map_err(|error| match error {
                UserInfoError::Request(cause) => self.unreachable(cause),
                UserInfoError::Response(status, _, _) => fault(&format!("HTTP status {}", status.as_u16())),
                UserInfoError::ClaimsVerification(_) => fault("it is about another subject, or its signature does not fit"),
                UserInfoError::Parse(_) => fault("not the expected JSON"),
                _ => fault("an unexpected answer"),
            })?;
        object(&info).ok_or_else(|| fault("not an object"))
    }

    fn call(
        &self,
    ) -> impl Fn(HttpRequest) -> futures::future::BoxFuture<'static, Result<openidconnect::HttpResponse, super::http::FetchError>> {
        let client = self.http.clone();
        move |request| {
            let client = client.clone();
            Box::pin(async move { client.call(request).await })
        }
    }
}

fn client(settings: &IdentityProvider, discovered: &Discovered, redirect_uri: &Url) -> OidcClient {
    let secret = ClientSecret::new(settings.client_secret.expose_secret().to_owned());
    let metadata = discovered.metadata.clone().set_jwks(discovered.keys.clone());
    let basic = metadata.token_endpoint_auth_methods_supported().is_none_or(|methods| {
        // RFC 8414: the default is `client_secret_basic`; it is also what we take when both are there.
        methods.contains(&CoreClientAuthMethod::ClientSecretBasic) || !methods.contains(&CoreClientAuthMethod::ClientSecretPost)
    });
    OidcClient::from_provider_metadata(metadata, ClientId::new(settings.client_id.clone()), Some(secret))
        .set_redirect_uri(RedirectUrl::from_url(redirect_uri.clone()))
        .set_auth_type(if basic { AuthType::BasicAuth } else { AuthType::RequestBody })
}

/// OpenID Connect Core 1.0, section 3.1.3.7, plus `at_hash` of 3.1.3.8.
fn verified(
    settings: &IdentityProvider,
    discovered: &Discovered,
    id_token: &OidcIdToken,
    tokens: &TokenAnswer,
    nonce: &Nonce,
    now: u64,
) -> Result<Map<String, Value>, IdTokenFault> {
    let latest = now.saturating_add(CLOCK_SKEW);
    let now = i64::try_from(now.saturating_sub(CLOCK_SKEW)).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let now = now.ok_or_else(|| IdTokenFault::Other("our clock is unusable".to_owned()))?;
    let issuer = discovered.metadata.issuer().clone();
    // A public client's verifier: the client secret never becomes a key, so HS256 cannot pass.
    let verifier = IdTokenVerifier::new_public_client(ClientId::new(settings.client_id.clone()), issuer, discovered.keys.clone())
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || now);
    let is_ours = |said: Option<&Nonce>| if off(Defence::LoginNonce) { Ok(()) } else { nonce.verify(said) };
    let claims = id_token.claims(&verifier, is_ours).map_err(id_token_fault)?;
    if claims.authorized_party().is_some_and(|party| party.as_str() != settings.client_id) {
        return Err(IdTokenFault::Audience);
    }
    if let Some(expected) = claims.access_token_hash() {
        let algorithm = id_token.signing_alg().map_err(|_| IdTokenFault::Algorithm)?;
        let key = id_token.signing_key(&verifier).map_err(|_| IdTokenFault::UnknownKey)?;
        let actual = AccessTokenHash::from_token(tokens.access_token(), algorithm, key).map_err(|_| IdTokenFault::AccessTokenHash)?;
        if actual != *expected {
            return Err(IdTokenFault::AccessTokenHash);
        }
    }
    let claims = object(claims).ok_or_else(|| IdTokenFault::Other("its claims are not an object".to_owned()))?;
    if BEGINNINGS.iter().any(|name| claims.get(*name).is_some_and(|time| !has_begun(time, latest))) {
        return Err(IdTokenFault::NotYetValid);
    }
    Ok(claims)
}

/// A time that is no number has never begun.
fn has_begun(time: &Value, latest: u64) -> bool {
    // RFC 7519 lets it have a fraction.
    time.as_u64().map_or_else(|| time.as_f64().is_some_and(|time| time <= latest as f64), |time| time <= latest)
}

/// Adds what the ID token lacks. An address and whether it is verified belong together: the flag of one address never stands beside another.
fn add_user_info(claims: &mut Map<String, Value>, mut user_info: Map<String, Value>) {
    if !claims.contains_key(EMAIL) {
        claims.remove(EMAIL_VERIFIED);
    } else if user_info.get(EMAIL) != claims.get(EMAIL) {
        user_info.remove(EMAIL_VERIFIED);
    }
    for (name, value) in user_info {
        claims.entry(name).or_insert(value);
    }
}

fn id_token_fault(error: openidconnect::ClaimsVerificationError) -> IdTokenFault {
    use openidconnect::{ClaimsVerificationError as Claims, SignatureVerificationError as Signature};
    match error {
        Claims::Expired(_) => IdTokenFault::Expired,
        Claims::InvalidAudience(_) => IdTokenFault::Audience,
        Claims::InvalidIssuer(_) => IdTokenFault::Issuer,
        Claims::InvalidNonce(_) => IdTokenFault::Nonce,
        Claims::SignatureVerification(error) => match error {
            Signature::NoMatchingKey => IdTokenFault::UnknownKey,
            Signature::DisallowedAlg(_) | Signature::UnsupportedAlg(_) | Signature::NoSignature => IdTokenFault::Algorithm,
            Signature::AmbiguousKeyId(_) => IdTokenFault::Other("it names no key and several published keys fit".to_owned()),
            _ => IdTokenFault::Signature,
        },
        other => IdTokenFault::Other(shortened(&other.to_string())),
    }
}

fn error_word(error: &CoreErrorResponseType) -> String {
    serde_json::to_value(error).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_else(|| "error".to_owned())
}

fn object(claims: &impl Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(claims) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}
