//! What a token is asked for, what it then says, and whether one at hand says exactly that.

use aws_lc_rs::rand;

use crate::identity::Principal;
use crate::server::signing::MintRefusal;
use crate::session::Session;
use crate::token::{AssertionTokenClaims, MAX_ASSERTION_TOKEN_SECONDS, UpstreamTokenClaims};

/// Who an API server is to see.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamTokenRequest<'a, T> {
    /// Its end is the latest end of the token.
    pub session: &'a Session,
    /// Of the route and the API server behind it.
    pub route_id: &'a str,
    /// The origin of `public_url`.
    pub issuer: &'a str,
    pub audience: &'a str,
    pub lifetime_seconds: u64,
    /// With the route's prefix.
    pub username: &'a str,
    pub uid: Option<&'a str>,
    pub groups: &'a [T],
    /// Each key once.
    pub extra: &'a [(String, Vec<T>)],
    pub policy_version: &'a str,
}

/// Who the upstream of a plain HTTP route is to see: the session's own identity.
#[derive(Debug, Clone, Copy)]
pub struct AssertionTokenRequest<'a> {
    /// Its end is the latest end of the token.
    pub session: &'a Session,
    /// Of the route and its upstream.
    pub route_id: &'a str,
    /// The origin of `public_url`.
    pub issuer: &'a str,
    pub audience: &'a str,
}

impl<T: AsRef<str>> UpstreamTokenRequest<'_, T> {
    pub(super) fn claims(&self, now: u64) -> Result<UpstreamTokenClaims, MintRefusal> {
        let expires_at = end(self.session, self.lifetime_seconds, now)?;
        let texts = |texts: &[T]| texts.iter().map(|text| text.as_ref().to_owned()).collect();
        Ok(UpstreamTokenClaims {
            issuer: self.issuer.to_owned(),
            audience: self.audience.to_owned(),
            subject: self.session.identity.principal.to_string(),
            token_id: token_id()?,
            issued_at: now,
            expires_at,
            username: self.username.to_owned(),
            groups: texts(self.groups),
            uid: self.uid.map(str::to_owned),
            extra: self.extra.iter().map(|(key, values)| (key.clone(), texts(values))).collect(),
            session: self.session.id,
            policy_version: self.policy_version.to_owned(),
        })
    }

    /// Whether a token with these claims is what this request would get, but for the time. Allocates nothing. Every field is named, so that
    /// a new one cannot be forgotten.
    pub(super) fn is_said_by(&self, claims: &UpstreamTokenClaims) -> bool {
        let UpstreamTokenClaims {
            issuer,
            audience,
            subject,
            token_id: _,
            issued_at,
            expires_at,
            username,
            groups,
            uid,
            extra,
            session,
            policy_version,
        } = claims;
        *session == self.session.id
            && is_subject(subject, &self.session.identity.principal)
            && issuer == self.issuer
            && audience == self.audience
            && username == self.username
            && are_equal(groups, self.groups)
            && uid.as_deref() == self.uid
            && extra.len() == self.extra.len()
            && self.extra.iter().all(|(key, values)| extra.get(key).is_some_and(|said| are_equal(said, values)))
            && policy_version == self.policy_version
            && end(self.session, self.lifetime_seconds, *issued_at) == Ok(*expires_at)
    }
}

impl AssertionTokenRequest<'_> {
    pub(super) fn claims(&self, now: u64) -> Result<AssertionTokenClaims, MintRefusal> {
        let identity = &self.session.identity;
        Ok(AssertionTokenClaims {
            issuer: self.issuer.to_owned(),
            audience: self.audience.to_owned(),
            subject: identity.principal.to_string(),
            token_id: token_id()?,
            issued_at: now,
            expires_at: end(self.session, MAX_ASSERTION_TOKEN_SECONDS, now)?,
            email: identity.email.clone(),
            username: identity.username.clone(),
            groups: identity.groups.as_slice().to_vec(),
            session: self.session.id,
        })
    }

    /// As for [`UpstreamTokenRequest`].
    pub(super) fn is_said_by(&self, claims: &AssertionTokenClaims) -> bool {
        let AssertionTokenClaims { issuer, audience, subject, token_id: _, issued_at, expires_at, email, username, groups, session } =
            claims;
        let identity = &self.session.identity;
        *session == self.session.id
            && is_subject(subject, &identity.principal)
            && issuer == self.issuer
            && audience == self.audience
            && *email == identity.email
            && *username == identity.username
            && are_equal(groups, identity.groups.as_slice())
            && end(self.session, MAX_ASSERTION_TOKEN_SECONDS, *issued_at) == Ok(*expires_at)
    }
}

/// When a token that is made at `now` ends: never after its session.
fn end(session: &Session, lifetime_seconds: u64, now: u64) -> Result<u64, MintRefusal> {
    let end = now.saturating_add(lifetime_seconds).min(session.expires_at);
    if end > now { Ok(end) } else { Err(MintRefusal::SessionEnded) }
}

/// `subject == principal.to_string()` without the text.
fn is_subject(subject: &str, principal: &Principal) -> bool {
    let rest = subject.strip_prefix(principal.idp.as_str()).and_then(|rest| rest.strip_prefix(':'));
    rest == Some(principal.subject.as_str())
}

fn are_equal<A: AsRef<str>, B: AsRef<str>>(left: &[A], right: &[B]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.as_ref() == right.as_ref())
}

/// 128 random bits.
fn token_id() -> Result<String, MintRefusal> {
    let mut random = [0; 16];
    rand::fill(&mut random).map_err(|_| MintRefusal::Library)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
