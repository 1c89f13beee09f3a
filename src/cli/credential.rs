//! The session token for one route: out of the cache, renewed by the login, or after a new login. In that order, and never the same token
//! twice for one caller: kubectl asks again within one life only after the API server's side answered 401.

use std::time::{Duration, Instant};

use super::address::{AddressError, InstallationAddress, RouteAddress};
use super::caller::Caller;
use super::installation::{ProtocolError, SessionAnswer, Wire};
use super::login::{LoginError, LoginRequest, log_in};
use super::terminal::say;
use super::token_cache::{CacheError, CachedLogin, CachedSession, TokenCache};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Login(#[from] LoginError),
}

/// Everything that getting a credential needs from outside.
pub(crate) struct Credentials<'a> {
    pub(crate) cache: &'a TokenCache,
    pub(crate) wire: &'a Wire,
    /// Shows a URL to the user.
    pub(crate) open: &'a dyn Fn(&str),
    /// For the whole of one call, also for waiting for another process' login.
    pub(crate) timeout: Duration,
    /// Unix seconds.
    pub(crate) clock: &'a dyn Fn() -> u64,
}

impl Credentials<'_> {
    /// A session token for `route`, marked as given to `caller`.
    pub(crate) fn session(&self, route: &RouteAddress, caller: Option<&Caller>) -> Result<CachedSession, CredentialError> {
        let deadline = Instant::now() + self.timeout;
        let _lock = self.cache.lock_route(route, deadline)?;
        let mut session = match self.cache.session(route) {
            Some(session) if session.is_good_for(caller, (self.clock)()) => session,
            _ => self.renew(route, deadline)?,
        };
        session.hand_to(caller);
        self.cache.put_session(route, &session)?;
        Ok(session)
    }

    /// A new login, whatever the cache holds. `route` is told to the login pages, which may then offer only what that route accepts.
    pub(crate) fn log_in(&self, installation: &InstallationAddress, route: Option<&RouteAddress>) -> Result<CachedLogin, CredentialError> {
        let deadline = Instant::now() + self.timeout;
        let _lock = self.cache.lock_installation(installation, deadline)?;
        self.log_in_locked(installation, route, deadline)
    }

    /// Asks the route anew for its installation: it may have moved since the last token.
    fn renew(&self, route: &RouteAddress, deadline: Instant) -> Result<CachedSession, CredentialError> {
        let installation = self.wire.installation_of(route)?;
        let _lock = self.cache.lock_installation(&installation, deadline)?;
        let answer = match self.renew_by_login(&installation, route)? {
            Some(answer) => answer,
            None => {
                let login = self.log_in_locked(&installation, Some(route), deadline)?;
                self.wire.session_token(&installation, &login.login_token, route)?
            }
        };
        Ok(CachedSession::new(route, &installation, answer.session_token, (self.clock)(), answer.expires_at))
    }

    /// `None` when only a new login helps.
    fn renew_by_login(&self, installation: &InstallationAddress, route: &RouteAddress) -> Result<Option<SessionAnswer>, CredentialError> {
        let is_good = |login: &CachedLogin| (self.clock)() < login.expires_at && self.may_carry(login);
        let Some(login) = self.cache.login(installation).filter(is_good) else { return Ok(None) };
        match self.wire.session_token(installation, &login.login_token, route) {
            Ok(answer) => Ok(Some(answer)),
            Err(ProtocolError::LoginEnded) => {
                self.cache.forget_installation(&installation.to_string())?;
                Ok(None)
            }
            // Another login may fit the route better; but opening a browser by ourselves could go round in circles.
            Err(ProtocolError::Refused { server, message }) => {
                let message = format!("{message} (to log in anew: kubepass login {route})");
                Err(ProtocolError::Refused { server, message }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A route says itself which installation it belongs to, and its kubeconfig brings a CA and a proxy. So a login travels only where it was
    /// got: past no CA that was not trusted then, or any kubeconfig could have the login token of another installation sent to its proxy.
    fn may_carry(&self, login: &CachedLogin) -> bool {
        self.wire.authorities().iter().all(|authority| login.authorities.contains(authority))
    }

    fn log_in_locked(
        &self,
        installation: &InstallationAddress,
        route: Option<&RouteAddress>,
        deadline: Instant,
    ) -> Result<CachedLogin, CredentialError> {
        let answer = log_in(self.wire, installation, &LoginRequest { route, open: self.open, deadline })?;
        let login = CachedLogin {
            installation: installation.to_string(),
            login_token: answer.login_token,
            expires_at: (self.clock)().saturating_add(answer.expires_in),
            user: answer.user,
            authorities: self.wire.authorities().to_vec(),
        };
        self.cache.forget_installation(&login.installation)?;
        self.cache.put_login(installation, &login)?;
        // The browser decides who logs in, and whoever saw the page's address could have brought a code of their own: so the name is said
        // each time, also under kubectl, which shows it.
        say(&format!("Logged in to {installation} as {}.", login.user));
        Ok(login)
    }
}

#[cfg(test)]
mod tests;
