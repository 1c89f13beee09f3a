//! The event of one decision, from the request and what the decision rested on.

use crate::access::{AccessRequest, Answer, Decision, Outcome, RequestTarget};
use crate::audit::event::{AuditEvent, DecisionEvent, KubernetesWords};
use crate::envoy_names as names;
use crate::kubernetes::request_info::RequestInfo;

/// Characters of a path that an audit line keeps; exec commands stand in the query and are short.
const MAX_PATH_CHARS: usize = 2_048;
/// Of everything else that a client may make as long as its headers may be.
const MAX_TEXT_CHARS: usize = 1_024;
/// Characters of a user agent that an audit line keeps.
const MAX_USER_AGENT_CHARS: usize = 256;

/// Builds the event. `answer` is what the decision is answered with (`Answer::to`). Takes nothing of the credential.
pub fn decision_event(request: &AccessRequest<'_>, decision: &Decision<'_>, answer: Option<&Answer>, policy_version: &str) -> AuditEvent {
    let evidence = &decision.evidence;
    let mut event = DecisionEvent {
        request_id: request.request_id.to_owned(),
        node: request.node.name().cloned(),
        outcome: "allow",
        route: route_name(request).to_owned(),
        source_ip: request.source_ip.to_owned(),
        user_agent: cut(request.headers.user_agent, MAX_USER_AGENT_CHARS),
        method: cut(request.method, MAX_TEXT_CHARS),
        host: cut(request.host, MAX_TEXT_CHARS),
        path: cut(request.path, MAX_PATH_CHARS),
        kubernetes: evidence.request_info.as_ref().filter(|_| matches!(request.target, RequestTarget::Kubernetes(_))).map(words),
        rule: evidence.rule.as_deref().map(str::to_owned),
        rule_errors: evidence.rule_faults.iter().map(|fault| format!("{}: {}", fault.rule, fault.error)).collect(),
        dropped_groups: evidence.dropped_groups.clone(),
        policy_version: policy_version.to_owned(),
        ..DecisionEvent::default()
    };
    if let Some(session) = &evidence.session {
        event.user = Some(session.identity.username.clone());
        event.groups = session.identity.groups.as_slice().to_vec();
        event.idp = Some(session.identity.principal.idp.clone());
        event.subject = Some(session.identity.principal.subject.clone());
        event.session = Some(session.id.to_string());
    }
    match &decision.outcome {
        Outcome::Allow(grant) => {
            event.upstream_user = Some(grant.identity().user().as_str().to_owned());
            event.upstream_groups = grant.identity().groups().iter().map(|group| group.as_str().to_owned()).collect();
            event.stream_limit_ms = Some(grant.stream_limit_ms());
        }
        Outcome::Web => {}
        Outcome::Challenge(_) => event.outcome = "challenge",
        Outcome::Deny(_) => event.outcome = "deny",
    }
    if let Some(answer) = answer {
        event.reason = Some(answer.word);
        event.message = Some(cut(&answer.status.message, MAX_PATH_CHARS));
    }
    AuditEvent::Decision(Box::new(event))
}

fn route_name<'a>(request: &AccessRequest<'a>) -> &'a str {
    match request.target {
        RequestTarget::Kubernetes(id) | RequestTarget::Http(id) => names::route_name(id),
        RequestTarget::Web => names::WEB_TARGET,
        RequestTarget::Unknown => "",
    }
}

fn words(info: &RequestInfo<'_>) -> KubernetesWords {
    KubernetesWords {
        verb: cut(&info.verb, MAX_TEXT_CHARS),
        api_group: cut(&info.api_group, MAX_TEXT_CHARS),
        api_version: cut(&info.api_version, MAX_TEXT_CHARS),
        resource: cut(&info.resource, MAX_TEXT_CHARS),
        subresource: cut(&info.subresource, MAX_TEXT_CHARS),
        namespace: cut(&info.namespace, MAX_TEXT_CHARS),
        name: cut(&info.name, MAX_TEXT_CHARS),
    }
}

/// What is left out is told: a line that ends early must not look whole (`?x=AAA...&command=` would hide a command).
fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...(cut, {} bytes)", text.get(..end).unwrap_or_default(), text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("/api?a=1", 8), "/api?a=1");
        assert_eq!(cut("/api?a=1&command=rm", 8), "/api?a=1...(cut, 19 bytes)");
        assert_eq!(cut("äöü", 2), "äö...(cut, 6 bytes)");
    }
}
