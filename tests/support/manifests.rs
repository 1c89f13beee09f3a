//! The texts that a test cluster is made of: policy, kwok's configuration, node and pod, kubeconfig.

use std::path::Path;

/// What the harness itself asks an API server for, to see whether it takes kubepass's tokens yet.
pub const PROBE: &str = "/asked-by-the-harness";

/// Every request is logged when it is answered, and long ones also when they begin; not those of the cluster's own parts and not [`PROBE`].
pub(super) const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: [system:apiserver, kwok]
  - level: None
    nonResourceURLs: [/asked-by-the-harness]
  - level: Metadata
";

/// Structured authentication that trusts nobody yet: issuers are added to the file later.
pub const NO_ISSUERS: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
";

/// One node, and on it one running pod `web` in `default` whose container is also called `web`.
pub(super) const NODE_AND_POD: &str = "\
apiVersion: v1
kind: Node
metadata:
  name: node-1
  labels: {kubernetes.io/hostname: node-1}
status:
  allocatable: {cpu: '8', memory: 16Gi, pods: '110'}
  capacity: {cpu: '8', memory: 16Gi, pods: '110'}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  labels: {app: web}
spec:
  nodeName: node-1
  containers:
    - name: web
      image: registry.example/web:1
      ports: [{containerPort: 80}]
";

/// What kwok answers for a pod: commands run on this machine in `work_dir`, logs come from a file (of its own for a pod called `quiet`), every
/// forwarded port leads to one server.
pub(super) fn kwok_config(stages: &str, work_dir: &Path, logs: &Path, quiet_logs: &Path, forward_to: u16) -> String {
    let (work_dir, logs, quiet_logs) = (work_dir.display(), logs.display(), quiet_logs.display());
    format!(
        "{stages}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterExec
metadata: {{name: local}}
spec:
  execs:
    - local: {{workDir: {work_dir}}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {{name: quiet}}
spec:
  selector: {{matchNames: [quiet]}}
  logs:
    - {{logsFile: {quiet_logs}, follow: true}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {{name: file}}
spec:
  logs:
    - {{logsFile: {logs}, follow: true}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterAttach
metadata: {{name: file}}
spec:
  attaches:
    - {{logsFile: {logs}}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterPortForward
metadata: {{name: local}}
spec:
  forwards:
    - target: {{address: 127.0.0.1, port: {forward_to}}}
"
    )
}

/// A kubeconfig with one cluster, one user with a client certificate, one context; all three are called `name`.
pub(super) fn kubeconfig(name: &str, server: &str, ca: &Path, cert: &Path, key: &Path) -> String {
    let (ca, cert, key) = (ca.display(), cert.display(), key.display());
    format!(
        "apiVersion: v1
kind: Config
clusters:
  - name: {name}
    cluster: {{server: '{server}', certificate-authority: '{ca}'}}
users:
  - name: {name}
    user: {{client-certificate: '{cert}', client-key: '{key}'}}
contexts:
  - name: {name}
    context: {{cluster: {name}, user: {name}}}
current-context: {name}
"
    )
}
