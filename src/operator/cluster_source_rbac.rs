//! `kubepass-server cluster source-rbac`: what to apply on the API server of `cluster_source`, so that kubepass may read its own kinds and what they
//! name there, and write statuses. Prints only.

use std::path::Path;

use crate::config::ClusterSource;
use crate::server::publisher::cluster_source;

/// Of the service account, the roles and their bindings. Not the one through which requests are impersonated.
const NAME: &str = "kubepass-server";

/// The manifest as YAML, comments first.
///
/// # Errors
/// A text for the operator: a file that cannot be read, or that has no `cluster_source`.
pub fn run(config: &Path) -> Result<String, String> {
    cluster_source(config).map(|source| manifest(&source)).map_err(|error| error.to_string())
}

fn manifest(source: &ClusterSource) -> String {
    let namespace = &source.namespace;
    let reach = match &source.namespaces {
        Some(namespaces) => format!("in the namespaces {}", namespaces.join(", ")),
        None => "in EVERY namespace; name some under `cluster_source.namespaces` to narrow it".to_owned(),
    };
    let mut parts = vec![format!(
        "# Whoever steals this service account's token can read every Secret {reach}.\n\
         # kubepass itself keeps only Secrets and ConfigMaps with the label kubepass.dev/use: \"true\".\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"
    )];
    parts.push(format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {NAME}, namespace: {namespace}}}\n"));
    parts.push(format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {NAME}}}\nrules:\n\
         - apiGroups: [kubepass.dev]\n  resources: [routes, policies, gateways, grants]\n  verbs: [list, watch]\n\
         - apiGroups: [kubepass.dev]\n  resources: [routes/status, policies/status, gateways/status]\n  verbs: [patch]\n\
         - apiGroups: [\"\"]\n  resources: [secrets, configmaps]\n  verbs: [list, watch]\n"
    ));
    match &source.namespaces {
        Some(namespaces) => parts.extend(namespaces.iter().map(|of| binding("RoleBinding", "ClusterRole", NAME, Some(of), namespace))),
        None => parts.push(binding("ClusterRoleBinding", "ClusterRole", NAME, None, namespace)),
    }
    let lease = format!("{NAME}-lease");
    parts.push(format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {lease}, namespace: {namespace}}}\nrules:\n\
         - apiGroups: [coordination.k8s.io]\n  resources: [leases]\n  verbs: [create]\n\
         - apiGroups: [coordination.k8s.io]\n  resources: [leases]\n  resourceNames: [{}]\n  verbs: [get, update]\n",
        source.lease.name
    ));
    parts.push(binding("RoleBinding", "Role", &lease, Some(namespace), namespace));
    parts.join("---\n")
}

fn binding(kind: &str, role_kind: &str, role: &str, namespace: Option<&str>, account_namespace: &str) -> String {
    let place = namespace.map(|namespace| format!(", namespace: {namespace}")).unwrap_or_default();
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {role}{place}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {role_kind}, name: {role}}}\n\
         subjects: [{{kind: ServiceAccount, name: {NAME}, namespace: {account_namespace}}}]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Lease;

    #[test]
    fn secrets_are_bound_in_the_namespaces_that_are_watched_and_nowhere_else() {
        let check = |namespaces: Option<&[&str]>, has: &[&str], lacks: &[&str]| {
            let namespaces = namespaces.map(|names| names.iter().map(|&name| name.to_owned()).collect());
            let lease = Lease { name: "kubepass".to_owned(), seconds: 15 };
            let text = manifest(&ClusterSource { namespace: "kubepass".to_owned(), namespaces, kubeconfig: None, lease });
            has.iter().for_each(|part| assert!(text.contains(part), "{part} in\n{text}"));
            lacks.iter().for_each(|part| assert!(!text.contains(part), "{part} in\n{text}"));
        };
        check(
            Some(&["bank", "kubepass"]),
            &["{name: kubepass-server, namespace: bank}", "{name: kubepass-server, namespace: kubepass}", "namespaces bank, kubepass."],
            &["ClusterRoleBinding", "EVERY"],
        );
        check(None, &["kind: ClusterRoleBinding", "EVERY"], &["namespace: bank"]);
    }
}
