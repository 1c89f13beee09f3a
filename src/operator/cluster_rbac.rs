//! `kubepass-server cluster rbac ROUTE`: what to apply on a route's cluster so that kubepass may impersonate there, no more than the route
//! needs. Prints only; applying it is for someone who is an administrator of that cluster.

use std::path::Path;

use super::route_named;
use crate::config::{Impersonate, KubernetesTarget, Method, Target};
use crate::kubernetes::manifests::{RbacInput, impersonation_rbac};
use crate::server::publisher::load_before_tokens;

/// Of the service account, its namespace and its cluster role.
const NAME: &str = "kubepass";

/// The manifest as YAML, comments first. Works before the route has a token, since this is what makes one.
///
/// # Errors
/// A text for the operator: a configuration that is not valid, an unknown route.
pub fn run(config: &Path, route: &str, constrained: bool) -> Result<String, String> {
    let snapshot = load_before_tokens(config).map_err(|error| error.to_string())?;
    let found = route_named(&snapshot, route)?;
    let Target::Kubernetes(target) = &found.target else {
        return Err(format!("the route {route:?} leads to a web page, not to a cluster"));
    };
    match &target.method {
        Method::Impersonate(method) => Ok(impersonation_rbac(&rbac_input(&found.name, target, method, constrained))),
        Method::Jwt(_) => Err(format!(
            "the route {route:?} uses tokens, which need no right on the cluster: see `kubepass-server cluster authentication-config {route}`"
        )),
    }
}

fn rbac_input<'a>(route: &'a str, target: &KubernetesTarget, method: &Impersonate, constrained: bool) -> RbacInput<'a> {
    let may_pass = |name: &String| !is_kept_back(name, &target.allow_system);
    let groups = target.groups.allow.iter().map(|group| format!("{}{group}", target.groups.prefix));
    RbacInput {
        route,
        namespace: NAME,
        name: NAME,
        users: method.users.as_ref().map(|users| users.iter().filter(|user| may_pass(user)).cloned().collect()),
        groups: target.groups.is_finite().then(|| without_duplicates(groups.filter(may_pass))),
        uid: method.uid.is_some(),
        extra_keys: method.extra.iter().map(|(key, _)| key.clone()).collect(),
        constrained,
    }
}

/// Names that are never sent to an API server, so that the token needs no right to them.
fn is_kept_back(name: &str, allow_system: &[String]) -> bool {
    let begins_with = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    begins_with("kubepass:") || (begins_with("system:") && !allow_system.iter().any(|allowed| allowed == name))
}

fn without_duplicates(names: impl Iterator<Item = String>) -> Vec<String> {
    names.fold(Vec::new(), |mut kept, name| {
        if !kept.contains(&name) {
            kept.push(name);
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GroupSettings, Impersonate, ServerAddress};

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn target(prefix: &str, allow: &[&str], users: Option<&[&str]>, allow_system: &[&str]) -> KubernetesTarget {
        KubernetesTarget {
            server: ServerAddress { host: "10.0.0.1".to_owned(), port: 6443, server_name: "kubernetes".to_owned() },
            ca_pem: String::new(),
            method: Method::Impersonate(Impersonate {
                token: "secret".to_owned().into(),
                uid: None,
                extra: Vec::new(),
                users: users.map(texts),
            }),
            username_prefix: String::new(),
            groups: GroupSettings { prefix: prefix.to_owned(), allow: texts(allow), max: 64 },
            allow_system: texts(allow_system),
        }
    }

    fn input(target: &KubernetesTarget, constrained: bool) -> RbacInput<'_> {
        match &target.method {
            Method::Impersonate(method) => rbac_input("prod", target, method, constrained),
            Method::Jwt(_) => RbacInput::default(),
        }
    }

    #[test]
    fn a_finite_list_names_what_the_api_server_sees() {
        let target = target("corp:", &["sre", "oncall", "sre"], Some(&["foo", "system:admin"]), &[]);
        let input = input(&target, false);
        assert_eq!((input.groups, input.users), (Some(texts(&["corp:sre", "corp:oncall"])), Some(texts(&["foo"]))));
    }

    #[test]
    fn a_pattern_is_any_group() {
        let target = target("", &["sre", "team-*"], None, &[]);
        let input = input(&target, true);
        assert_eq!((input.groups, input.users, input.constrained), (None, None, true));
    }

    #[test]
    fn reserved_names_only_where_the_route_allows_them() {
        let allow = ["system:masters", "System:x", "kubepass:x", "system:auditors"];
        let target = target("", &allow, None, &["system:auditors", "kubepass:x"]);
        let input = input(&target, false);
        assert_eq!(input.groups, Some(texts(&["system:auditors"])));
    }
}
