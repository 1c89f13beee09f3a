//! Which Envoys may have the configuration. Where the identity of a request depends on how Envoy treats headers, a version of which nobody
//! has seen that gets nothing, unless the operator names it.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use tonic::Status;

use crate::xds::bootstrap::TESTED_ENVOYS;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Admission {
    /// kubepass started it, and tried it before.
    #[default]
    Tried,
    /// Others start it: the versions that tests have shown, and those that are named here, such as `1.39.2`.
    Tested { allowed: Vec<String> },
}

impl Admission {
    /// Judges what a client says of itself in its first request.
    pub(super) fn check(&self, node: Option<&Node>) -> Result<(), Status> {
        let Self::Tested { allowed } = self else { return Ok(()) };
        let node = node.filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("the first request names no node: set node.id in the bootstrap"))?;
        let Some((major, minor, patch)) = version(node) else {
            return Err(Status::failed_precondition("the first request does not say which version of Envoy this is"));
        };
        let text = format!("{major}.{minor}.{patch}");
        if TESTED_ENVOYS.contains(&(major, minor)) || allowed.contains(&text) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "no test has shown that Envoy {text} treats headers as kubepass relies on, so it gets no routes; \
             `kubepass-server up` tries an Envoy, `kubepass-server serve --allow-envoy {text}` takes it all the same"
        )))
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

    fn node(id: &str, version: Option<(u32, u32, u32)>) -> Node {
        let version = version.map(|(major_number, minor_number, patch)| SemanticVersion { major_number, minor_number, patch });
        let build = version.map(|version| BuildVersion { version: Some(version), ..BuildVersion::default() });
        Node { id: id.into(), user_agent_version_type: build.map(UserAgentVersionType::UserAgentBuildVersion), ..Node::default() }
    }

    #[test]
    fn an_envoy_of_others_needs_a_name_and_a_version_that_was_tested_or_allowed() {
        let allowed = vec!["1.39.2".to_owned()];
        let check = |node: Option<Node>, expected: Result<(), Code>| {
            let got = Admission::Tested { allowed: allowed.clone() }.check(node.as_ref());
            assert_eq!(got.map_err(|status| status.code()), expected, "{node:?}");
            assert_eq!(Admission::Tried.check(node.as_ref()).map_err(|status| status.code()), Ok(()));
        };
        check(None, Err(Code::InvalidArgument));
        check(Some(node("", Some((1, 40, 0)))), Err(Code::InvalidArgument));
        check(Some(node("a", None)), Err(Code::FailedPrecondition));
        check(Some(node("a", Some((1, 40, 0)))), Ok(()));
        check(Some(node("a", Some((1, 40, 7)))), Ok(()));
        check(Some(node("a", Some((1, 39, 2)))), Ok(()));
        check(Some(node("a", Some((1, 39, 3)))), Err(Code::FailedPrecondition));
        check(Some(node("a", Some((1, 41, 0)))), Err(Code::FailedPrecondition));
    }
}
