//! Manifests to apply on a cluster: the service account through which requests are impersonated, and what it may become.
//!
//! Verbs, groups and resources as `k8s.io/apiserver/pkg/endpoints/filters/impersonation` (v0.36) checks them; the constrained form is KEP-5284.

use std::fmt::Write as _;

use super::impersonation::decoded_extra_key;

/// What the service account of one route must be allowed to impersonate. Names are as the API server will see them, prefixes included.
#[derive(Debug, Clone, Default)]
pub struct RbacInput<'a> {
    pub route: &'a str,
    /// Namespace of the service account.
    pub namespace: &'a str,
    /// Name of the service account, and of the cluster role and its binding.
    pub name: &'a str,
    /// The users that may be impersonated; `None` is any user.
    pub users: Option<Vec<String>>,
    /// The groups that may be impersonated; `None` is any group, empty is none.
    pub groups: Option<Vec<String>>,
    /// Whether the route sends a uid.
    pub uid: bool,
    /// Keys of the extra values that the route sends, as in `impersonate-extra-KEY`.
    pub extra_keys: Vec<String>,
    /// Constrained impersonation (Kubernetes 1.36 and later) instead of the `impersonate` verb.
    pub constrained: bool,
}

/// Verbs of requests to resources, and lower-case methods of requests to other paths, as `impersonate-on:user-info:` names them.
const RESOURCE_VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const PATH_VERBS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

/// The YAML to apply: comments that say what a stolen token could become, Namespace, ServiceAccount, ClusterRole, ClusterRoleBinding, and the command
/// that makes the token.
pub fn impersonation_rbac(input: &RbacInput<'_>) -> String {
    [preamble(input), namespace(input), service_account(input), cluster_role(input), binding(input), token_command(input)].join("---\n")
}

fn preamble(input: &RbacInput<'_>) -> String {
    let mut text = format!("# Impersonation for route {}.\n", quoted(input.route));
    for line in stolen_token(input) {
        _ = writeln!(text, "# {line}");
    }
    for user in input.users.iter().flatten().filter(|user| user.starts_with("system:serviceaccount:")) {
        _ = writeln!(
            text,
            "# NOT GRANTED: {}: a service account is its own resource; grant \"impersonate\" on that one by a Role in its namespace.",
            quoted(user)
        );
    }
    if input.constrained {
        text.push_str(
            "# Needs Kubernetes 1.36 or later (constrained impersonation); an older API server refuses every request with these rules.\n",
        );
        for key in input.extra_keys.iter().filter(|key| !key.contains("%2f")) {
            _ = writeln!(
                text,
                "# WARNING: extra key {}: constrained impersonation admits only keys with a domain, such as example.com/KEY.",
                quoted(key)
            );
        }
    }
    text
}

/// The first thing that who applies this should know.
fn stolen_token(input: &RbacInput<'_>) -> Vec<String> {
    let mut lines = vec!["Whoever steals this service account's token can, without any login,".to_owned()];
    lines.push(match &input.users {
        None if input.constrained => {
            "- become ANY user, also \"system:\" users such as system:kube-controller-manager (but no node and no service account);"
                .to_owned()
        }
        None => "- become ANY user, also \"system:\" users such as system:kube-controller-manager and every node;".to_owned(),
        Some(users) => format!("- become one of the {} users listed below;", users.len()),
    });
    lines.push(match &input.groups {
        None if input.constrained => "- take ANY group except system:masters, which the API server refuses;".to_owned(),
        None => "- take ANY group, also system:masters: full control of the cluster;".to_owned(),
        Some(groups) if groups.is_empty() => "- take no group.".to_owned(),
        Some(groups) => format!("- take any of the {} groups listed below.", groups.len()),
    });
    if input.users.is_none() || input.groups.is_none() {
        lines.push("To narrow it: list the route's users, and give the route a groups allow-list without \"*\".".to_owned());
    }
    lines
}

fn namespace(input: &RbacInput<'_>) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n", quoted(input.namespace))
}

fn service_account(input: &RbacInput<'_>) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {}\n  namespace: {}\n# The token is made and handed over by a person; no pod needs it.\n\
         automountServiceAccountToken: false\n",
        quoted(input.name),
        quoted(input.namespace)
    )
}

fn cluster_role(input: &RbacInput<'_>) -> String {
    let mut text =
        format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {}\nrules:\n", quoted(input.name));
    let (verb, core) = if input.constrained { ("impersonate:user-info", AUTHENTICATION) } else { ("impersonate", "") };
    let users = input.users.as_ref().map(|users| without_service_accounts(users));
    text.push_str(&rule(core, "users", verb, users.as_deref()));
    text.push_str(&rule(core, "groups", verb, input.groups.as_deref()));
    if input.uid {
        text.push_str(&rule(AUTHENTICATION, "uids", verb, None));
    }
    for key in &input.extra_keys {
        text.push_str(&rule(AUTHENTICATION, &format!("userextras/{}", decoded_extra_key(key)), verb, None));
    }
    if input.constrained {
        let verbs = |verbs: &[&str]| verbs.iter().map(|verb| format!("\"impersonate-on:user-info:{verb}\"")).collect::<Vec<_>>().join(", ");
        _ = write!(
            text,
            "# What may be done while impersonating; the impersonated user's own rights are checked as well.\n\
             - apiGroups: [\"*\"]\n  resources: [\"*\"]\n  verbs: [{}]\n- nonResourceURLs: [\"*\"]\n  verbs: [{}]\n",
            verbs(&RESOURCE_VERBS),
            verbs(&PATH_VERBS)
        );
    }
    text
}

const AUTHENTICATION: &str = "authentication.k8s.io";

/// One rule. An empty list of names gives no rule at all: to RBAC, `resourceNames: []` means any name.
fn rule(api_group: &str, resource: &str, verb: &str, names: Option<&[String]>) -> String {
    let mut text = format!("- apiGroups: [{}]\n  resources: [{}]\n  verbs: [{}]\n", quoted(api_group), quoted(resource), quoted(verb));
    match names {
        None => text,
        Some([]) => String::new(),
        Some(names) => {
            text.push_str("  resourceNames:\n");
            for name in names {
                _ = writeln!(text, "  - {}", quoted(name));
            }
            text
        }
    }
}

fn without_service_accounts(users: &[String]) -> Vec<String> {
    users.iter().filter(|user| !user.starts_with("system:serviceaccount:")).cloned().collect()
}

fn binding(input: &RbacInput<'_>) -> String {
    let name = quoted(input.name);
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n  name: {name}\nroleRef:\n  \
         apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: {name}\nsubjects:\n- kind: ServiceAccount\n  name: {name}\n  namespace: {}\n",
        quoted(input.namespace)
    )
}

fn token_command(input: &RbacInput<'_>) -> String {
    format!(
        "# Then make the token, and put it into the file that the route's \"token\" names (it is read again when the file changes):\n\
         #   (umask 077; kubectl --namespace {namespace} create token {name} --duration 8760h > token)\n\
         # The cluster may cap the duration: the command then says so. To take the token back, delete the service account.\n",
        namespace = one_line(input.namespace),
        name = one_line(input.name)
    )
}

/// A YAML double-quoted scalar: JSON's is one, once the line breaks that only YAML knows are escaped too.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.chars().fold(String::with_capacity(json.len()), |mut quoted, character| {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}') {
            _ = write!(quoted, "\\u{:04x}", u32::from(character));
        } else {
            quoted.push(character);
        }
        quoted
    })
}

/// For a comment with a command in it.
fn one_line(text: &str) -> String {
    text.chars().filter(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.')).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn input() -> RbacInput<'static> {
        RbacInput { route: "prod", namespace: "kubepass", name: "kubepass-prod", ..RbacInput::default() }
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|&name| name.to_owned()).collect())
    }

    /// The rules as (api groups, resources, verbs, names).
    fn rules(input: &RbacInput<'_>) -> Vec<serde_json::Value> {
        let text = impersonation_rbac(input);
        let role = text.split("---\n").find(|document| document.contains("kind: ClusterRole\n")).unwrap();
        let value: serde_json::Value = serde_yaml::from_str(role).unwrap();
        value["rules"].as_array().unwrap().clone()
    }

    #[test]
    fn golden_unrestricted() {
        assert_eq!(
            impersonation_rbac(&input()),
            r#"# Impersonation for route "prod".
# Whoever steals this service account's token can, without any login,
# - become ANY user, also "system:" users such as system:kube-controller-manager and every node;
# - take ANY group, also system:masters: full control of the cluster;
# To narrow it: list the route's users, and give the route a groups allow-list without "*".
---
apiVersion: v1
kind: Namespace
metadata:
  name: "kubepass"
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: "kubepass-prod"
  namespace: "kubepass"
# The token is made and handed over by a person; no pod needs it.
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: "kubepass-prod"
rules:
- apiGroups: [""]
  resources: ["users"]
  verbs: ["impersonate"]
- apiGroups: [""]
  resources: ["groups"]
  verbs: ["impersonate"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: "kubepass-prod"
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: "kubepass-prod"
subjects:
- kind: ServiceAccount
  name: "kubepass-prod"
  namespace: "kubepass"
---
# Then make the token, and put it into the file that the route's "token" names (it is read again when the file changes):
#   (umask 077; kubectl --namespace kubepass create token kubepass-prod --duration 8760h > token)
# The cluster may cap the duration: the command then says so. To take the token back, delete the service account.
"#
        );
    }

    #[test]
    fn lists_become_resource_names() {
        let narrow = RbacInput {
            users: names(&["foo@example.com", "system:serviceaccount:ci:deployer"]),
            groups: names(&["corp:sre", "a: \"b\"\n- c"]),
            uid: true,
            extra_keys: vec!["team".to_owned(), "example.com%2fteam".to_owned()],
            ..input()
        };
        let expected = serde_json::json!([
            {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["foo@example.com"]},
            {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["corp:sre", "a: \"b\"\n- c"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "verbs": ["impersonate"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/team"], "verbs": ["impersonate"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/example.com/team"], "verbs": ["impersonate"]},
        ]);
        assert_eq!(serde_json::Value::from(rules(&narrow)), expected);
        assert!(impersonation_rbac(&narrow).contains("# NOT GRANTED: \"system:serviceaccount:ci:deployer\""));
    }

    #[test]
    fn an_empty_list_is_no_rule() {
        let nobody = RbacInput { users: names(&["foo"]), groups: names(&[]), ..input() };
        assert_eq!(rules(&nobody).len(), 1);
        assert!(impersonation_rbac(&nobody).contains("# - take no group.\n"));
    }

    #[test]
    fn constrained_never_grants_the_legacy_verb() {
        let constrained =
            RbacInput { constrained: true, uid: true, extra_keys: vec!["team".to_owned()], groups: names(&["sre"]), ..input() };
        let rules = rules(&constrained);
        let verbs: Vec<&str> = rules.iter().flat_map(|rule| rule["verbs"].as_array().unwrap()).map(|verb| verb.as_str().unwrap()).collect();
        assert!(verbs.iter().all(|verb| *verb == "impersonate:user-info" || verb.starts_with("impersonate-on:user-info:")), "{verbs:?}");
        let of = |resource: &str| rules.iter().find(|rule| rule["resources"][0] == resource).unwrap();
        for resource in ["users", "groups", "uids", "userextras/team"] {
            assert_eq!(of(resource)["apiGroups"][0], "authentication.k8s.io", "{resource}");
        }
        assert_eq!(of("groups")["resourceNames"], serde_json::json!(["sre"]));
        assert!(of("*")["verbs"].as_array().unwrap().contains(&"impersonate-on:user-info:deletecollection".into()));
        assert_eq!(rules.last().unwrap()["nonResourceURLs"], serde_json::json!(["*"]));
        let text = impersonation_rbac(&constrained);
        assert!(text.contains("# WARNING: extra key \"team\""));
        assert!(text.contains("no node and no service account"));
    }
}
