//! Our cookies: `__Host-` always (HTTPS, this host alone, no `Domain`), sealed always, so that a value of one cookie is none of another. What a session
//! cookie names still has to live in the session table.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::session::SessionId;
use crate::token::{SealError, TokenKeys};

use super::limits::PARALLEL_LOGINS;
use super::random;

pub(super) const SESSION: &str = "__Host-kubepass-session";
/// Followed by the login's own id, so that log-ins in several tabs do not disturb each other.
pub(super) const LOGIN_PREFIX: &str = "__Host-kubepass-login-";
/// The same on the host of a plain HTTP route.
pub(super) const START_PREFIX: &str = "__Host-kubepass-start-";

/// `Set-Cookie` for a session that has `seconds` left.
pub(super) fn set_session(keys: &TokenKeys, session: SessionId, seconds: u64) -> Result<HeaderValue, SealError> {
    let value = keys.seal_cookie(SESSION, session.as_bytes(), random::bytes())?;
    Ok(set(SESSION, &value, seconds))
}

/// The session that the browser's cookie names, when we sealed it; whether it lives is asked of the session table.
pub(super) fn session(keys: &TokenKeys, headers: &HeaderMap) -> Option<SessionId> {
    Some(SessionId::from_random(keys.open_cookie(SESSION, only(headers, SESSION)?)?.try_into().ok()?))
}

/// The value of a cookie that was sent exactly once. Two of the name cannot be ours: `__Host-` allows one. Then none counts.
pub(super) fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut found = cookies(headers).filter(|(found, _)| *found == name);
    found.next().filter(|_| found.next().is_none()).map(|(_, value)| value)
}

/// `Set-Cookie` for one of our cookies. `name` and `value` are cookie text by construction: our constants, hexadecimal ids and base64url.
pub(super) fn set(name: &str, value: &str, seconds: u64) -> HeaderValue {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// `Set-Cookie` that removes a cookie.
pub(super) fn remove(name: &str) -> HeaderValue {
    set(name, "", 0)
}

/// Removes the cookies of log-ins that this browser has left open, when they are many: they would fill its headers.
pub(super) fn surplus(headers: &HeaderMap, prefix: &str) -> Vec<HeaderValue> {
    let open: Vec<_> = cookies(headers).filter_map(|(name, _)| name.strip_prefix(prefix)).filter(|id| is_id(id)).collect();
    if open.len() < PARALLEL_LOGINS {
        return Vec::new();
    }
    open.iter().map(|id| remove(&format!("{prefix}{id}"))).collect()
}

/// Whether a text has the form of [`random::id`].
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Name and value of every cookie that the browser sent (RFC 6265, 5.4), in order. Other hosts of the domain set cookies too: one that is no text
/// hides no other, and only blank and tab are cut off, for a browser takes every other sort of space for a part of the name and so lets any host
/// set `<space>__Host-...`.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    lines
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.trim_matches([' ', '\t']).split_once('='))
}
