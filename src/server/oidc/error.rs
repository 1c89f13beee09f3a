//! What can go wrong with an identity provider, each case with what to do about it. No variant holds a token, a code or an answer's body.

use super::http::FetchError;

/// A login that the identity provider's side ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    #[error("The identity provider `{provider}` cannot be reached: {cause}.")]
    Unreachable { provider: String, cause: FetchError },
    #[error("The identity provider `{provider}` gives no usable discovery document: {detail}.")]
    Discovery { provider: String, detail: String },
    #[error("The identity provider `{provider}` calls itself `{found}`, the configuration says `{expected}`.")]
    DiscoveredIssuer { provider: String, expected: String, found: String },
    #[error("The identity provider `{provider}` refused the login: {error}{}.", described(.description))]
    Refused { provider: String, error: String, description: String },
    #[error(
        "The answer of the identity provider `{provider}` comes from another issuer than the one that was asked, or does not say from which."
    )]
    MixedUp { provider: String },
    #[error("The identity provider `{provider}` gave no usable token answer: {detail}.")]
    TokenAnswer { provider: String, detail: String },
    #[error("The identity provider `{provider}` gave no ID token.")]
    NoIdToken { provider: String },
    #[error("The ID token of `{provider}` is not valid: {fault}.")]
    IdToken { provider: String, fault: IdTokenFault },
    #[error("The identity provider `{provider}` gave no usable user info: {detail}.")]
    UserInfo { provider: String, detail: String },
}

/// Why an ID token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenFault {
    #[error("wrong issuer")]
    Issuer,
    #[error("not made for this client, or for others too")]
    Audience,
    #[error("the nonce is not the one of this login")]
    Nonce,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("the signature does not fit")]
    Signature,
    #[error("it is not signed with RS256/384/512, PS256/384/512 or ES256/384")]
    Algorithm,
    #[error("it is signed with a key that the identity provider does not publish")]
    UnknownKey,
    #[error("it does not belong to the access token that came with it")]
    AccessTokenHash,
    #[error("{0}")]
    Other(String),
}

impl OidcError {
    /// A stable word for metrics and audit.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "idp_unreachable",
            Self::Discovery { .. } => "idp_discovery",
            Self::DiscoveredIssuer { .. } => "idp_wrong_issuer",
            Self::Refused { .. } => "idp_refused",
            Self::MixedUp { .. } => "idp_mixed_up",
            Self::TokenAnswer { .. } => "idp_token_answer",
            Self::NoIdToken { .. } => "no_id_token",
            Self::IdToken { fault, .. } => match fault {
                IdTokenFault::Issuer => "id_token_issuer",
                IdTokenFault::Audience => "id_token_audience",
                IdTokenFault::Nonce => "id_token_nonce",
                IdTokenFault::Expired => "id_token_expired",
                IdTokenFault::NotYetValid => "id_token_not_yet_valid",
                IdTokenFault::Signature => "id_token_signature",
                IdTokenFault::Algorithm => "id_token_algorithm",
                IdTokenFault::UnknownKey => "id_token_unknown_key",
                IdTokenFault::AccessTokenHash => "id_token_at_hash",
                IdTokenFault::Other(_) => "id_token_invalid",
            },
            Self::UserInfo { .. } => "idp_user_info",
        }
    }

    /// What a person can do about it, in one or two sentences.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "Try again in a minute. If it stays so, ask the operator of kubepass to check the network path and the certificate of the identity \
                 provider. Sessions that exist go on."
            }
            Self::Discovery { .. } | Self::DiscoveredIssuer { .. } => {
                "Ask the operator of kubepass to compare `issuer` in the configuration with the identity provider's \
                 `/.well-known/openid-configuration`."
            }
            Self::Refused { error, .. }
                if matches!(error.as_str(), "invalid_client" | "unauthorized_client" | "invalid_scope" | "invalid_request") =>
            {
                "Ask the operator of kubepass to check `client_id`, `client_secret`, `scopes` and the redirect URI registered at the identity provider."
            }
            Self::Refused { .. } => {
                "Log in again, with an account that may use kubepass. If it stays so, give the text above to the operator of the identity provider."
            }
            Self::MixedUp { .. } => {
                "Start again from the beginning. If it happens twice, tell the operator of kubepass: this can be an attack."
            }
            Self::TokenAnswer { .. } | Self::NoIdToken { .. } => {
                "Log in again. If it stays so, ask the operator of kubepass to check `client_id`, `client_secret`, the scope `openid` and the redirect \
                 URI registered at the identity provider."
            }
            Self::IdToken { fault: IdTokenFault::Expired | IdTokenFault::NotYetValid | IdTokenFault::Nonce, .. } => {
                "Log in again. If it stays so, ask the operator of kubepass to compare the clocks of kubepass and of the identity provider."
            }
            Self::IdToken { fault: IdTokenFault::Audience, .. } => {
                "Ask the operator of kubepass to register a client of its own for kubepass, whose ID tokens name this client alone."
            }
            Self::IdToken { .. } => {
                "Log in again. If it stays so, tell the operator of kubepass: nobody can log in until the identity provider signs properly."
            }
            Self::UserInfo { .. } => {
                "Log in again. If it stays so, ask the operator of the identity provider to put `email` and `groups` into the ID token, or to repair \
                 its userinfo endpoint."
            }
        }
    }

    /// Whether the identity provider was away rather than wrong.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

fn described(description: &str) -> String {
    if description.is_empty() { String::new() } else { format!(" ({description})") }
}
