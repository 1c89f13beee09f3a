//! What people do with plain kubectl and helm, told as they would tell it, on two clusters that kubepass enters by different methods: each
//! story is told for both rows of [`super::rows`]. What a story rests on is the API server's own
//! answer and audit log; at its end both audit trails must still agree on every request.

mod access;
mod answers;
mod changes;
mod incident;
mod streams;
mod trails;

use super::support::cluster::Cluster;
use super::support::kubectl::Running;

/// Where the stories on the shared installation live, so that other tests find `default` as they expect it.
pub(super) const NAMESPACE: &str = "stories";

/// The namespace of the stories with a running pod `web` in it; harmless when it is there.
pub(super) fn namespace(cluster: &Cluster) {
    cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"));
    cluster.run_pod(NAMESPACE, "web");
}

/// A Role called `name` with one rule (YAML flow keys), bound to a `User` or `Group`.
pub(super) fn bind(cluster: &Cluster, namespace: &str, name: &str, rule: &str, (kind, subject): (&str, &str)) {
    cluster.apply(&format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}, namespace: {namespace}}}\nrules: [{{{rule}}}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: '{subject}'}}]\n"
    ));
}

/// Everything in one namespace.
const ANYTHING: &str = "apiGroups: ['*'], resources: ['*'], verbs: ['*']";
pub(super) const READ_PODS: &str = "apiGroups: [''], resources: [pods, pods/log], verbs: [get, list, watch]";

/// The local port of a `kubectl port-forward` that just began.
pub(super) fn forwarded_port(forward: &mut Running) -> u16 {
    let line = forward.wait_text("Forwarding from 127.0.0.1:");
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("no port in {line:?}"))
}
