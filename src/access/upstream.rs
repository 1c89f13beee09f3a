//! From a session's identity and a route to the names that the API server will see. What does not fit is refused, never trimmed or cut.

use std::sync::Arc;

use crate::config::{Impersonate, KubernetesTarget, Method, Route, Target};
use crate::defence::{Defence, off};
use crate::header::{HeaderValue, InvalidHeaderValue};
use crate::identity::Identity;
use crate::kubernetes::impersonation;
use crate::policy::UserView;

/// Prefix of names that belong to Kubernetes itself.
const SYSTEM: &str = "system:";
/// Prefix kept for kubepass's own use; never mapped from an identity provider.
const RESERVED: &str = "kubepass:";

/// Who the API server will see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamIdentity {
    user: HeaderValue,
    uid: Option<HeaderValue>,
    groups: Vec<HeaderValue>,
    extra: Vec<(String, Vec<HeaderValue>)>,
}

impl UpstreamIdentity {
    pub fn user(&self) -> &HeaderValue {
        &self.user
    }

    pub fn uid(&self) -> Option<&HeaderValue> {
        self.uid.as_ref()
    }

    pub fn groups(&self) -> &[HeaderValue] {
        &self.groups
    }

    /// Keys in lower case with their values.
    pub fn extra(&self) -> &[(String, Vec<HeaderValue>)] {
        &self.extra
    }
}

/// A name that must not go upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameRefusal {
    #[error("your {what} {name:?} cannot be sent to Kubernetes: {why}")]
    Invalid { what: &'static str, name: String, why: String },
    #[error("your {what} {name:?} is a name of Kubernetes itself; no identity provider may give it")]
    System { what: &'static str, name: String },
    #[error("your {what} {name:?} begins with \"kubepass:\", which is reserved")]
    Reserved { what: &'static str, name: String },
    #[error("your {what} {name:?} could be somebody else's of the route {route:?}, which leads to the same API server with a prefix")]
    OtherRoute { what: &'static str, name: String, route: String },
    #[error("your user name {name:?} is not among the users that this route lists")]
    UserNotListed { name: String },
    #[error("the {what} of your identity could not be worked out: {why}")]
    Expression { what: String, why: String },
    #[error(
        "you are in {have} groups that this cluster takes, and it takes {max} at most; ask your administrator to narrow the route's group allow-list"
    )]
    TooManyGroups { have: usize, max: usize },
}

impl NameRefusal {
    fn invalid(what: &'static str, (name, why): (String, InvalidHeaderValue)) -> Self {
        Self::Invalid { what, why: why.to_string(), name }
    }
}

/// Whose names the names of a route must not look like.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// See `Snapshot::neighbours`.
    pub neighbours: &'a [Arc<Route>],
    /// What the identity provider's configuration puts before usernames.
    pub provider_prefix: &'a str,
}

/// Maps an identity onto a route. The second value names the groups that the allow-list kept back.
pub fn map(
    identity: &Identity,
    user: &UserView<'_>,
    target: &KubernetesTarget,
    beside: Beside<'_>,
) -> (Result<UpstreamIdentity, NameRefusal>, Vec<String>) {
    let is_taken = |group: &&String| is_listed(group, &target.groups.allow);
    let groups = identity.groups.as_slice().iter();
    let dropped = groups.clone().filter(|group| !is_taken(group)).cloned().collect();
    (build(identity, user, target, groups.filter(is_taken), beside), dropped)
}

/// The name alone, for an upstream that is no API server: it gets everything else in a token.
///
/// # Errors
/// When the name could not be told from another, or is none.
pub fn name(identity: &Identity) -> Result<UpstreamIdentity, NameRefusal> {
    let user = HeaderValue::new_or_back(identity.username.clone()).map_err(|refused| NameRefusal::invalid("user name", refused))?;
    Ok(UpstreamIdentity { user, uid: None, groups: Vec::new(), extra: Vec::new() })
}

fn build<'a>(
    identity: &Identity,
    user: &UserView<'_>,
    target: &KubernetesTarget,
    groups: impl Iterator<Item = &'a String> + Clone,
    beside: Beside<'_>,
) -> Result<UpstreamIdentity, NameRefusal> {
    // An empty name must not pass as "prefix only".
    let name = if identity.username.is_empty() { String::new() } else { [&*target.username_prefix, &identity.username].concat() };
    if let Method::Impersonate(Impersonate { users: Some(users), .. }) = &target.method
        && !users.contains(&name)
    {
        return Err(NameRefusal::UserNotListed { name });
    }
    let count = groups.clone().count();
    if count > target.groups.max {
        return Err(NameRefusal::TooManyGroups { have: count, max: target.groups.max });
    }
    let uid = target.method.uid().map(|uid| texts("uid", uid.evaluate(user))).transpose()?;
    let uid = match uid.as_deref() {
        None | Some([]) => None,
        Some([one]) => Some(one.clone()),
        Some(_) => return Err(NameRefusal::Expression { what: "uid".into(), why: "it gives several values".into() }),
    };
    let extra = target
        .method
        .extra()
        .iter()
        .map(|(key, values)| Ok((key.clone(), texts(key, values.evaluate(user))?)))
        .collect::<Result<_, _>>()?;
    beside.check_user(&name, target, &identity.principal.idp)?;
    let user = checked("user name", name, &target.allow_system)?;
    let mut names = Vec::with_capacity(count);
    for group in groups {
        let group = [&*target.groups.prefix, group].concat();
        beside.check_group(&group, target)?;
        names.push(checked("group", group, &target.allow_system)?);
    }
    Ok(UpstreamIdentity { user, uid, groups: names, extra })
}

impl Beside<'_> {
    /// Two routes that take one provider can give one name to two of its people; of two providers the configuration has made sure already.
    fn check_user(&self, name: &str, target: &KubernetesTarget, idp: &str) -> Result<(), NameRefusal> {
        let is_given = |route: &Route, other: &KubernetesTarget| {
            let takes = route.identity_providers.as_ref().is_none_or(|listed| listed.iter().any(|name| name == idp));
            let longer = other.username_prefix.len() > target.username_prefix.len();
            takes && longer && name.strip_prefix(&*other.username_prefix).is_some_and(|rest| rest.starts_with(self.provider_prefix))
        };
        self.check("user name", name, is_given)
    }

    fn check_group(&self, name: &str, target: &KubernetesTarget) -> Result<(), NameRefusal> {
        let longer = |other: &KubernetesTarget| other.groups.prefix.len() > target.groups.prefix.len();
        self.check("group", name, |_, other| longer(other) && name.starts_with(&*other.groups.prefix))
    }

    fn check(&self, what: &'static str, name: &str, is_given: impl Fn(&Route, &KubernetesTarget) -> bool) -> Result<(), NameRefusal> {
        let gives = |route: &&Arc<Route>| matches!(&route.target, Target::Kubernetes(other) if is_given(route, other));
        let Some(route) = self.neighbours.iter().find(gives) else { return Ok(()) };
        Err(NameRefusal::OtherRoute { what, name: name.to_owned(), route: route.name.clone() })
    }
}

/// The only way for a name to become a header value.
fn checked(what: &'static str, name: String, allow_system: &[String]) -> Result<HeaderValue, NameRefusal> {
    // Kubernetes compares case-sensitively; refusing every case costs nobody anything and leaves no look-alike.
    if starts_with(&name, SYSTEM) && !allow_system.contains(&name) && !off(Defence::SystemNames) {
        return Err(NameRefusal::System { what, name });
    }
    if starts_with(&name, RESERVED) {
        return Err(NameRefusal::Reserved { what, name });
    }
    HeaderValue::new_or_back(name).map_err(|refused| NameRefusal::invalid(what, refused))
}

fn texts<E: std::fmt::Display>(what: &str, values: Result<Vec<String>, E>) -> Result<Vec<HeaderValue>, NameRefusal> {
    let refuse = |why: String| NameRefusal::Expression { what: what.to_owned(), why };
    let values = values.map_err(|error| refuse(error.to_string()))?;
    // Envoy has as many slots; what is above would silently not go upstream.
    if values.len() > impersonation::MAX_EXTRA_VALUES {
        return Err(refuse(format!("it gives {} values, and at most {} can be sent", values.len(), impersonation::MAX_EXTRA_VALUES)));
    }
    values.into_iter().map(|value| HeaderValue::new(value).map_err(|error| refuse(error.to_string()))).collect()
}

fn is_listed(group: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => group.starts_with(start),
        None => group == pattern,
    })
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_values_than_slots_are_refused_and_never_cut() {
        let given = |count: usize| texts("team", Ok::<_, String>(vec!["a".to_owned(); count]));
        assert_eq!(given(impersonation::MAX_EXTRA_VALUES).map(|values| values.len()), Ok(16));
        let refusal = given(impersonation::MAX_EXTRA_VALUES + 1).map_err(|refusal| refusal.to_string());
        assert!(refusal.is_err_and(|text| text.contains("17 values")));
    }
}
