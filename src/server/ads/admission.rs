//! Which Envoys may have the configuration. Where the identity of a request depends on how Envoy treats headers, a version of which nobody
//! has seen that gets nothing, unless the operator names it.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use tonic::Status;

use crate::config::EnvoyVersions;
use crate::defence::{Defence, off};
use crate::snapshot::{NodeView, Nodes};
use crate::xds::bootstrap::TESTED_ENVOYS;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// kubepass started it, and tried it before. Named nodes beside it are of others.
    Tried { allowed: EnvoyVersions },
    /// Others start it: the versions that tests have shown, and those that the configuration names. The version is an Envoy's own word: this keeps
    /// out mistakes, and nobody who lies.
    Tested { allowed: EnvoyVersions },
}

impl Default for Admission {
    fn default() -> Self {
        Self::Tried { allowed: EnvoyVersions::default() }
    }
}

impl Admission {
    /// Nobody has tried the Envoys of others, also where kubepass runs one of its own.
    pub(super) fn of(&self, node: &NodeView) -> Self {
        match self {
            Self::Tried { allowed } if node.name().is_some() => Self::Tested { allowed: allowed.clone() },
            other => other.clone(),
        }
    }

    /// Judges what a client says of itself in its first request.
    pub(super) fn check(&self, node: Option<&Node>) -> Result<(), Status> {
        let Self::Tested { allowed } = self else { return Ok(()) };
        let node = node.filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("the first request names no node: set node.id in the bootstrap"))?;
        let Some(version) = version(node) else {
            return Err(Status::failed_precondition("the first request does not say which version of Envoy this is"));
        };
        let (major, minor, patch) = version;
        if TESTED_ENVOYS.contains(&(major, minor)) || allowed.allow(version) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "no test has shown that Envoy {major}.{minor}.{patch} treats headers as kubepass relies on, so it gets nothing; \
             `control_plane: {{allow_envoy_versions: [{major}.{minor}.{patch}]}}` serves it all the same"
        )))
    }
}

/// `node.id` is a claim: it must be the name of the node that the connection belongs to, or begin with it and a slash, for Envoys that share one.
pub(super) fn check_claim(node: Option<&Node>, known: &NodeView, nodes: &Nodes) -> Result<(), Status> {
    let id = node.map_or("", |node| node.id.as_str());
    let claimed = id.split_once('/').map_or(id, |(name, _)| name);
    match known.name() {
        _ if off(Defence::NodeClaim) => Ok(()),
        Some(name) if claimed == &**name => Ok(()),
        Some(name) => Err(Status::permission_denied(format!(
            "this Envoy is the node `{name}`, but its node.id names another: start it from what `kubepass-server bootstrap --node {name}` prints"
        ))),
        None if nodes.named(claimed).is_some() => {
            Err(Status::permission_denied("its node.id is the name of a node of the configuration, which this Envoy is not"))
        }
        None => Ok(()),
    }
}

/// Such as `1.40.0`; empty when the client does not say.
pub(super) fn version_text(node: &Node) -> String {
    version(node).map(|(major, minor, patch)| format!("{major}.{minor}.{patch}")).unwrap_or_default()
}

fn version(node: &Node) -> Option<(u32, u32, u32)> {
    let Some(UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type else { return None };
    build.version.as_ref().map(|version| (version.major_number, version.minor_number, version.patch))
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::BuildVersion;
    use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
    use tonic::Code;

    use super::*;
    use crate::config::{self, NodeIdentity};

    fn node(id: &str, version: Option<(u32, u32, u32)>) -> Node {
        let version = version.map(|(major_number, minor_number, patch)| SemanticVersion { major_number, minor_number, patch });
        let build = version.map(|version| BuildVersion { version: Some(version), ..BuildVersion::default() });
        Node { id: id.into(), user_agent_version_type: build.map(UserAgentVersionType::UserAgentBuildVersion), ..Node::default() }
    }

    #[test]
    fn a_claim_is_the_name_that_the_connection_shows() {
        let node = |name: &str, uid| config::Node { name: name.to_owned(), identity: NodeIdentity::Uid(uid) };
        let nodes = Nodes::new(&[node("edge", 1), node("edge-2", 2)], &[]);
        let check = |known: Option<&str>, id: &str, expected: Result<(), Code>| {
            let known = known.map_or(NodeView::UNNAMED, |name| nodes.named(name).unwrap_or(NodeView::UNNAMED));
            let claim = check_claim(Some(&self::node(id, None)), known, &nodes);
            assert_eq!(claim.map_err(|status| status.code()), expected, "{known:?} {id:?}");
        };
        check(Some("edge"), "edge", Ok(()));
        check(Some("edge"), "edge/pod-1", Ok(()));
        for other in ["edge-2", "edge-2/edge", "", "Edge", "edg", "/edge"] {
            check(Some("edge"), other, Err(Code::PermissionDenied));
        }
        check(None, "kubepass-managed", Ok(()));
        check(None, "edge", Err(Code::PermissionDenied));
        check(None, "edge/1", Err(Code::PermissionDenied));
        assert!(check_claim(None, nodes.named("edge").unwrap_or(NodeView::UNNAMED), &nodes).is_err());
    }

    #[test]
    fn an_envoy_of_others_needs_a_name_and_a_version_that_was_tested() {
        let check = |node: Option<Node>, expected: Result<(), Code>| {
            let got = Admission::Tested { allowed: EnvoyVersions::default() }.check(node.as_ref());
            assert_eq!(got.map_err(|status| status.code()), expected, "{node:?}");
            assert_eq!(Admission::default().check(node.as_ref()).map_err(|status| status.code()), Ok(()));
        };
        check(None, Err(Code::InvalidArgument));
        check(Some(node("", Some((1, 40, 0)))), Err(Code::InvalidArgument));
        check(Some(node("a", None)), Err(Code::FailedPrecondition));
        for (major, minor) in TESTED_ENVOYS {
            check(Some(node("a", Some((*major, *minor, 7)))), Ok(()));
        }
        check(Some(node("a", Some((1, 38, 3)))), Err(Code::FailedPrecondition));
        check(Some(node("a", Some((1, 41, 0)))), Err(Code::FailedPrecondition));
        check(Some(node("a", Some((2, 40, 0)))), Err(Code::FailedPrecondition));
    }
}
