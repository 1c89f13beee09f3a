//! The paths that are compared, and the requests that go by each.

use std::path::PathBuf;

/// The user that every path brings to the API server, and the groups.
pub(super) const USER: &str = "foo@example.com";
pub(super) const GROUPS: [&str; 2] = ["group1", "group2"];

/// Where the pods of the list live.
pub(super) const NAMESPACE: &str = "bench";
pub(super) const PODS: usize = 500;

/// Names of the paths, in the order in which they add to each other; the keys of the summary.
pub(super) const DIRECT: &str = "direct";
pub(super) const ENVOY_FLOOR: &str = "envoy_floor";
pub(super) const EXT_AUTHZ_FLOOR: &str = "ext_authz_floor";
pub(super) const IMPERSONATE: &str = "impersonate";
pub(super) const JWT: &str = "jwt";
/// Another build of kubepass, by impersonation: `BASELINE=PATH`.
pub(super) const BASELINE: &str = "baseline";

/// What kubepass is compared with.
pub(super) const METHODS: [&str; 3] = [IMPERSONATE, JWT, BASELINE];

/// One way to the API server.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) name: &'static str,
    /// Goes into the URL and into TLS; the connection goes to loopback.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// How the API server must have seen the user.
    pub(super) seen_as: SeenAs,
    /// Processes between the client and the API server, by what they are.
    pub(super) processes: Vec<(&'static str, u32)>,
    /// kubepass's own audit trail.
    pub(super) trail: Option<PathBuf>,
}

/// Where an audit event of the API server names the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenAs {
    /// As the impersonated user of kubepass's service account.
    Impersonated,
    /// As the authenticated user itself.
    Authenticated,
}

/// One request that is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Its key in the summary.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) path: &'static str,
    /// Whether the answer is long.
    pub(super) lists: bool,
}

pub(super) const ASKED: [Asked; 2] = [
    Asked { key: "paths", title: "GET /version", path: "/version", lists: false },
    Asked { key: "list_paths", title: "a list of 500 pods", path: "/api/v1/namespaces/bench/pods?limit=500", lists: true },
];

/// How many clients ask at once; the keys of the summary.
pub(super) const CLIENTS: [(&str, usize); 3] = [("c1", 1), ("c8", 8), ("c64", 64)];

/// What kubectl sends with every request.
pub(super) fn usual_headers(bearer: &str) -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/json".to_owned()),
        ("user-agent", "kubectl/v1.36.3 (linux/amd64) kubernetes/0000000".to_owned()),
        ("authorization", format!("Bearer {bearer}")),
    ]
}

/// What a proxy adds, for the path that has none.
pub(super) fn impersonation_headers() -> Vec<(&'static str, String)> {
    let groups = GROUPS.iter().map(|group| ("impersonate-group", (*group).to_owned()));
    std::iter::once(("impersonate-user", USER.to_owned())).chain(groups).collect()
}
