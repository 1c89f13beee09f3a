//! What the web part refuses and why, each case with what to do about it: one value that becomes a page for a browser or OAuth JSON for a client.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::server::oidc::OidcError;

use super::pages::Page;
use super::redirect::RedirectRefusal;

/// A request of a browser that does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebError {
    #[error("{0}")]
    Oidc(#[from] OidcError),
    #[error("Your account cannot be used here: {0}.")]
    Identity(String),
    #[error("The parameter `{name}` is not usable: {problem}.")]
    Parameter { name: &'static str, problem: &'static str },
    #[error("The program on your computer gave an address that a browser must not be sent to: {0}.")]
    Redirect(#[from] RedirectRefusal),
    #[error("There is no cluster at `{0}` here.")]
    UnknownRoute(String),
    #[error("The identity provider `{0}` cannot be used for this login.")]
    UnknownProvider(String),
    #[error("The cluster `{0}` takes no log-ins of pomerium-cli.")]
    PomeriumCli(String),
    #[error("This answer belongs to no login of this browser.")]
    LoginUnknown,
    #[error("The login took longer than ten minutes.")]
    LoginExpired,
    #[error("This login was finished already.")]
    LoginUsed,
    #[error("Too many log-ins are under way.")]
    Busy,
    #[error("The audit trail cannot be written, so nobody is let in.")]
    Audit,
    #[error("The session store cannot be used.")]
    Store,
    #[error("There are too many sessions.")]
    TooManySessions,
    #[error("The request came from another web site.")]
    CrossSite,
    #[error("This form is too old, or it was made for another session.")]
    Form,
    #[error("You are not logged in.")]
    LoggedOut,
    #[error("There is nothing at this address.")]
    NotFound,
    #[error("This took too long: the identity provider may be slow.")]
    Slow,
    #[error("Something failed inside kubepass.")]
    Internal,
}

impl WebError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Oidc(error) if error.is_outage() => StatusCode::BAD_GATEWAY,
            Self::Oidc(_) | Self::Identity(_) | Self::PomeriumCli(_) | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Parameter { .. } | Self::Redirect(_) | Self::UnknownProvider(_) => StatusCode::BAD_REQUEST,
            Self::LoginUnknown | Self::LoginExpired | Self::LoginUsed | Self::Form => StatusCode::BAD_REQUEST,
            Self::UnknownRoute(_) | Self::NotFound => StatusCode::NOT_FOUND,
            Self::LoggedOut => StatusCode::UNAUTHORIZED,
            Self::Busy | Self::Audit | Self::Store | Self::TooManySessions => StatusCode::SERVICE_UNAVAILABLE,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable word for logs and audit.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Oidc(error) => error.word(),
            Self::Identity(_) => "identity_refused",
            Self::Parameter { .. } => "bad_parameter",
            Self::Redirect(_) => "bad_redirect_uri",
            Self::UnknownRoute(_) => "unknown_route",
            Self::UnknownProvider(_) => "unknown_provider",
            Self::PomeriumCli(_) => "pomerium_cli_not_allowed",
            Self::LoginUnknown => "login_unknown",
            Self::LoginExpired => "login_expired",
            Self::LoginUsed => "login_used",
            Self::Busy => "busy",
            Self::Audit => "audit_unavailable",
            Self::Store => "store_unavailable",
            Self::TooManySessions => "too_many_sessions",
            Self::CrossSite => "cross_site",
            Self::Form => "form_invalid",
            Self::LoggedOut => "logged_out",
            Self::NotFound => "not_found",
            Self::Slow => "slow",
            Self::Internal => "internal",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Oidc(_) | Self::Identity(_) | Self::LoginUnknown | Self::LoginExpired | Self::LoginUsed => "You are not logged in",
            Self::Audit | Self::Store | Self::TooManySessions | Self::Busy => "kubepass cannot let anybody in now",
            Self::NotFound | Self::UnknownRoute(_) => "Nothing here",
            _ => "This does not work",
        }
    }

    /// What a person can do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Oidc(error) => error.advice(),
            Self::Identity(_) => {
                "Log in with another account, or ask the operator of kubepass: `identity` of this identity provider in the configuration says which \
                 accounts may be used."
            }
            Self::Parameter { .. } | Self::Redirect(_) | Self::UnknownProvider(_) => {
                "Start again from the program that sent you here, in its newest version."
            }
            Self::UnknownRoute(_) => "Check the address in your kubeconfig, or ask the operator of kubepass.",
            Self::PomeriumCli(_) => "Use the command line tool `kubepass`, or ask the operator to set `pomerium_cli: true` on this route.",
            Self::LoginUnknown => "Start the login again, in one and the same browser, with cookies allowed.",
            Self::LoginExpired | Self::LoginUsed | Self::Form | Self::LoggedOut => "Start again from the beginning.",
            Self::Busy | Self::TooManySessions | Self::Slow => "Try again in a minute. If it stays so, tell the operator of kubepass.",
            Self::Audit => "Tell the operator of kubepass: the disk of the audit trail may be full.",
            Self::Store => "Tell the operator of kubepass: the disk of the session store may be full, or slow.",
            Self::CrossSite => {
                "Open kubepass itself and try there. If you did not mean to come here, close this window: nothing has happened."
            }
            Self::NotFound => "Go to the start page.",
            Self::Internal => "Try again. If it stays so, give the request's number to the operator of kubepass.",
        }
    }

    /// Some texts repeat what a stranger sent: no line of the log may be forged with it.
    fn printable(&self) -> String {
        self.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }

    pub(super) fn page(&self, request_id: &str) -> Response {
        let text = self.printable();
        tracing::info!(reason = self.word(), request_id, error = text, "web.refused");
        Page::error(self.status(), self.title(), &text, self.advice(), request_id).into_response()
    }
}

/// A request of a client program that does not get what it asked for: the error of RFC 6749, 5.2, and RFC 6750, 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    pub(super) description: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self { status, error, description: description.into() }
    }

    pub(super) fn invalid_request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// The credential does not count: the client logs in again.
    pub(super) fn invalid_token(description: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", description)
    }

    pub(super) fn unavailable(error: &WebError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", format!("{error} {}", error.advice()))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let challenge = (self.status == StatusCode::UNAUTHORIZED).then(|| HeaderValue::from_static("Bearer error=\"invalid_token\""));
        let mut response = (self.status, Json(json!({"error": self.error, "error_description": self.description}))).into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_stranger_begins_a_line() {
        let error = WebError::UnknownRoute("x\n2026-01-01 INFO login user=\"root\"\u{1b}[2K".to_owned());
        assert!(!error.printable().contains(char::is_control), "{:?}", error.printable());
    }
}
