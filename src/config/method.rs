//! `routes[].kubernetes.impersonate` and `.jwt`: the two ways in which an API server learns who the user is. A route has exactly one.

use super::error::At;
use super::expressions;
use super::kubernetes_target::{RESERVED, SYSTEM};
use super::model::{Impersonate, Jwt, Method};
use super::names::quote;
use super::reader::{Item, Reading, Section};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use crate::kubernetes::claim_extra::check_claim_extra_key;
use crate::kubernetes::impersonation;
use crate::policy::UserExpression;

const DEFAULT_LIFETIME_SECONDS: u64 = 300;
/// Shorter, and tokens would be made at every other request; longer, and a stolen one would outlive what it stands for.
const LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 60..=3600;
const MAX_AUDIENCE_BYTES: usize = 256;

#[derive(Debug)]
pub(super) enum MethodDraft {
    Impersonate(ImpersonateDraft),
    Jwt(JwtDraft),
}

#[derive(Debug)]
pub(super) struct ImpersonateDraft {
    token: Option<At<Reference>>,
    uid: Option<At<String>>,
    extra: Vec<(At<String>, At<String>)>,
    users: Option<Vec<At<String>>>,
}

#[derive(Debug)]
pub(super) struct JwtDraft {
    pub(super) audience: Option<At<String>>,
    lifetime_seconds: Option<u64>,
    uid: Option<At<String>>,
    extra: Vec<(At<String>, At<String>)>,
    pub(super) shared_audience: bool,
}

impl MethodDraft {
    /// Reads the one key of the two that a route has.
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading) -> Option<Self> {
        let (impersonate, jwt) = (section.optional("impersonate"), section.optional("jwt"));
        match (impersonate, jwt) {
            (Some(item), None) => ImpersonateDraft::read(&item, reading).map(Self::Impersonate),
            (None, Some(item)) => JwtDraft::read(&item, reading).map(Self::Jwt),
            (Some(_), Some(jwt)) => {
                reading.faults.add_with_hint(
                    &jwt.spot(),
                    "`jwt` beside `impersonate`: an API server learns who the user is in one way only",
                    "leave one of the two out",
                );
                None
            }
            (None, None) => {
                reading.faults.add_with_hint(
                    section.spot(),
                    "one of the keys `impersonate` and `jwt` is missing",
                    "write impersonate: {token: {file: prod-token}}, or for Kubernetes 1.30 and later jwt: {audience: prod}",
                );
                None
            }
        }
    }

    pub(super) fn impersonation_token(&self) -> Option<&Reference> {
        match self {
            Self::Impersonate(draft) => draft.token.as_ref().map(|token| &token.value),
            Self::Jwt(_) => None,
        }
    }

    pub(super) fn jwt(&self) -> Option<&JwtDraft> {
        match self {
            Self::Impersonate(_) => None,
            Self::Jwt(draft) => Some(draft),
        }
    }

    pub(super) fn resolve(&self, allow_system: &[At<String>], resolving: &mut Resolving<'_>) -> Option<Method> {
        match self {
            Self::Impersonate(draft) => draft.resolve(allow_system, resolving).map(Method::Impersonate),
            Self::Jwt(draft) => draft.resolve(resolving).map(Method::Jwt),
        }
    }
}

impl ImpersonateDraft {
    fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let token = section.required("token", reading).and_then(|item| reference::read_secret(&item, reading));
        let uid = section.optional("uid").and_then(|item| item.text(reading));
        let extra = read_extra(&mut section, reading);
        let users = section.optional("users");
        let users = users.and_then(|item| {
            item.filled_list("nobody could be impersonated; leave the key out to allow all", reading, |item, reading| item.text(reading))
        });
        section.finish(reading);
        Some(Self { token, uid, extra, users })
    }

    fn resolve(&self, allow_system: &[At<String>], resolving: &mut Resolving<'_>) -> Option<Impersonate> {
        let token = self.token.as_ref().and_then(|token| resolving.token(token));
        let uid = self.uid.as_ref().map(|source| expressions::user(source, resolving));
        let extra: Vec<_> = self.extra.iter().map(|(key, source)| resolve_extra(key, source, resolving)).collect();
        for user in self.users.iter().flatten() {
            self.check_user(user, allow_system, resolving);
        }
        Some(Impersonate {
            token: token?,
            uid: uid.map_or(Some(None), |uid| uid.map(Some))?,
            extra: extra.into_iter().collect::<Option<_>>()?,
            users: self.users.as_ref().map(|users| users.iter().map(|user| user.value.clone()).collect()),
        })
    }

    fn check_user(&self, user: &At<String>, allow_system: &[At<String>], resolving: &mut Resolving<'_>) {
        if user.value.is_empty() || user.value.contains('*') {
            resolving.faults.add_with_hint(
                &user.spot,
                format!("{} is not a username", quote(&user.value)),
                "names are taken as they stand, without patterns",
            );
        } else if user.value.starts_with(SYSTEM) && !allow_system.iter().any(|name| name.value == user.value) {
            let hint = format!("name it in `allow_system` too: allow_system: [\"{}\"]", user.value);
            resolving.faults.add_with_hint(&user.spot, format!("{} never passes on its own", quote(&user.value)), hint);
        } else if user.value.starts_with(RESERVED) {
            resolving.faults.add(&user.spot, format!("{} begins with `{RESERVED}`, which is reserved", quote(&user.value)));
        }
    }
}

impl JwtDraft {
    fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let audience = section.required("audience", reading).and_then(|item| item.text(reading));
        let lifetime = section.optional("lifetime");
        let lifetime_seconds = lifetime.and_then(|item| item.duration(*LIFETIME_SECONDS.start(), *LIFETIME_SECONDS.end(), reading));
        let uid = section.optional("uid").and_then(|item| item.text(reading));
        let extra = read_extra(&mut section, reading);
        let shared_audience = section.optional("shared_audience").and_then(|item| item.boolean(reading));
        section.finish(reading);
        Some(Self { audience, lifetime_seconds, uid, extra, shared_audience: shared_audience.unwrap_or(false) })
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<Jwt> {
        let audience = self.audience.as_ref().and_then(|audience| resolve_audience(audience, resolving));
        let uid = self.uid.as_ref().map(|source| expressions::user(source, resolving));
        let extra: Vec<_> = self.extra.iter().map(|(key, source)| resolve_claim_extra(key, source, resolving)).collect();
        Some(Jwt {
            audience: audience?,
            lifetime_seconds: self.lifetime_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS),
            uid: uid.map_or(Some(None), |uid| uid.map(Some))?,
            extra: extra.into_iter().collect::<Option<_>>()?,
            shared_audience: self.shared_audience,
        })
    }
}

fn read_extra(section: &mut Section<'_>, reading: &mut Reading) -> Vec<(At<String>, At<String>)> {
    let pairs = section.optional("extra").and_then(|item| item.pairs(reading)).unwrap_or_default();
    pairs.into_iter().filter_map(|(key, item)| item.text(reading).map(|source| (key, source))).collect()
}

/// It stands in the API server's configuration too, where blanks and quotes only mislead.
fn resolve_audience(audience: &At<String>, resolving: &mut Resolving<'_>) -> Option<String> {
    let text = &audience.value;
    let valid = !text.is_empty()
        && text.len() <= MAX_AUDIENCE_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(&byte));
    if !valid {
        let hint = format!("at most {MAX_AUDIENCE_BYTES} visible ASCII characters without quotes, for example prod");
        resolving.faults.add_with_hint(&audience.spot, format!("{} cannot be an audience", quote(text)), hint);
        return None;
    }
    Some(text.clone())
}

fn resolve_claim_extra(key: &At<String>, source: &At<String>, resolving: &mut Resolving<'_>) -> Option<(String, UserExpression)> {
    if let Err(fault) = check_claim_extra_key(&key.value) {
        let message = format!("{} cannot be the key of an extra field of a token: {fault}", quote(&key.value));
        resolving.faults.add_with_hint(&key.spot, message, "a domain of yours and a name, in lower case; for example example.com/team");
    }
    expressions::user(source, resolving).map(|expression| (key.value.clone(), expression))
}

/// The key as a part of a header name, in which the slash of a key with a domain is `%2f`.
fn resolve_extra(key: &At<String>, source: &At<String>, resolving: &mut Resolving<'_>) -> Option<(String, UserExpression)> {
    let encoded = key.value.replace('/', "%2f");
    let valid = impersonation::valid_extra_key(&encoded) && !key.value.contains('%');
    if !valid {
        let hint = "lower-case letters, digits, `-`, `.` and `_`, with at most one `/`; for example example.com/team";
        resolving.faults.add_with_hint(&key.spot, format!("{} cannot be the key of an extra field", quote(&key.value)), hint);
    }
    expressions::user(source, resolving).map(|expression| (encoded, expression))
}
