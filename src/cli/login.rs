//! One browser login: loopback listener, proof key, one-time code (RFC 8252, RFC 7636). The code is worthless without the verifier, which
//! never leaves this process but for the exchange; no token is ever in a URL.

use std::io;
use std::time::{Duration, Instant};

use url::form_urlencoded::Serializer;

use super::address::{InstallationAddress, RouteAddress};
use super::installation::{CodeExchange, LoginAnswer, ProtocolError, Wire};
use super::loopback::{Callback, Loopback};
use super::random::{NoRandomness, random_token, s256};
use super::terminal::printable;

/// A login needs at least this much time, or it is not begun.
const LEAST_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("nobody finished the login in time")]
    TimedOut,
    #[error("the login was refused: {0}")]
    Refused(String),
    #[error("cannot listen on 127.0.0.1 for the browser's return: {0}")]
    Listen(io::Error),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Cannot be from the code that the browser just brought.
    #[error("the login code was not accepted")]
    CodeRefused,
}

/// What a login needs besides the two ends of the wire.
pub(crate) struct LoginRequest<'a> {
    /// The route that the user is on their way to; it may accept some identity providers only.
    pub(crate) route: Option<&'a RouteAddress>,
    /// Shows a URL to the user.
    pub(crate) open: &'a dyn Fn(&str),
    pub(crate) deadline: Instant,
}

pub(crate) fn log_in(wire: &Wire, installation: &InstallationAddress, request: &LoginRequest<'_>) -> Result<LoginAnswer, LoginError> {
    if request.deadline.saturating_duration_since(Instant::now()) < LEAST_TIME {
        return Err(LoginError::TimedOut);
    }
    let (state, verifier) = (random_token()?, random_token()?);
    let loopback = Loopback::listen(&state).map_err(LoginError::Listen)?;
    let redirect_uri = loopback.redirect_uri();
    (request.open)(&login_page(installation, request.route, &redirect_uri, &s256(&verifier), &state));
    let code = match loopback.wait(request.deadline).ok_or(LoginError::TimedOut)? {
        Callback::Code(code) => code,
        Callback::Refused { error, description } if description.is_empty() => return Err(LoginError::Refused(printable(&error))),
        Callback::Refused { description, .. } => return Err(LoginError::Refused(printable(&description))),
    };
    let exchange = CodeExchange { code: &code, code_verifier: &verifier, redirect_uri: &redirect_uri };
    wire.exchange_code(installation, &exchange).map_err(|error| match error {
        ProtocolError::LoginEnded => LoginError::CodeRefused,
        other => other.into(),
    })
}

fn login_page(
    installation: &InstallationAddress,
    route: Option<&RouteAddress>,
    redirect_uri: &str,
    code_challenge: &str,
    state: &str,
) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("redirect_uri", redirect_uri);
    query.append_pair("code_challenge", code_challenge);
    query.append_pair("code_challenge_method", "S256");
    query.append_pair("state", state);
    if let Some(route) = route {
        query.append_pair("route", route.host());
    }
    installation.endpoint(&format!("/cli/login?{}", query.finish()))
}
