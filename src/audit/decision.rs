//! The event of one decision, from the request and what the decision rested on.

use std::borrow::Cow;

use crate::access::{AccessRequest, Answer, Decision, Outcome, RequestTarget};
use crate::audit::event::{DecisionEvent, KubernetesWords};
use crate::defence::{Defence, off};
use crate::envoy_names as names;
use crate::kubernetes::request_info::RequestInfo;

/// Characters of a path that an audit line keeps; exec commands stand in the query and are short.
const MAX_PATH_CHARS: usize = 2_048;
/// How a JSON object begins in base64, and so every JWT.
const TOKEN_BEGIN: &str = "eyJ";
/// Of everything else that a client may make as long as its headers may be.
const MAX_TEXT_CHARS: usize = 1_024;
/// Characters of a user agent that an audit line keeps.
const MAX_USER_AGENT_CHARS: usize = 256;

/// Builds the event. `answer` is what the decision is answered with (`Answer::to`). Takes nothing of the credential.
pub fn decision_event<'a>(
    request: &AccessRequest<'a>,
    decision: &'a Decision<'a>,
    answer: Option<&'a Answer>,
    policy_version: &'a str,
) -> DecisionEvent<'a> {
    let evidence = &decision.evidence;
    let mut event = DecisionEvent {
        request_id: request.request_id,
        node: request.node.name().map(|name| &**name),
        outcome: "allow",
        route: route_name(request),
        source_ip: request.source_ip,
        user_agent: cut(request.headers.user_agent, MAX_USER_AGENT_CHARS),
        method: cut(request.method, MAX_TEXT_CHARS),
        host: cut(request.host, MAX_TEXT_CHARS),
        path: cut_path(request.path),
        kubernetes: evidence.request_info.as_ref().filter(|_| matches!(request.target, RequestTarget::Kubernetes(_))).map(words),
        rule: evidence.rule.as_deref(),
        rule_errors: &evidence.rule_faults,
        dropped_groups: &evidence.dropped_groups,
        policy_version,
        ..DecisionEvent::default()
    };
    if let Some(session) = &evidence.session {
        event.user = Some(&session.identity.username);
        event.groups = session.identity.groups.as_slice();
        event.idp = Some(&session.identity.principal.idp);
        event.subject = Some(&session.identity.principal.subject);
        event.session = Some(session.id);
    }
    match &decision.outcome {
        Outcome::Allow(grant) => {
            event.upstream_user = Some(grant.identity().user().as_str());
            event.upstream_groups = grant.identity().groups();
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
    event
}

fn route_name<'a>(request: &AccessRequest<'a>) -> &'a str {
    match request.target {
        RequestTarget::Kubernetes(id) | RequestTarget::Http(id) => names::route_name(id),
        RequestTarget::Web => names::WEB_TARGET,
        RequestTarget::Unknown => "",
    }
}

fn words<'a>(info: &'a RequestInfo<'_>) -> KubernetesWords<'a> {
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
fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}...(cut, {} bytes)", text.get(..end).unwrap_or_default(), text.len())),
    }
}

/// A token that a client wrote into a path or query would be good for whoever reads the trail.
fn cut_path(path: &str) -> Cow<'_, str> {
    if !path.contains(TOKEN_BEGIN) || off(Defence::TrailRedaction) {
        return cut(path, MAX_PATH_CHARS);
    }
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (mut shown, mut rest) = (String::with_capacity(path.len()), path);
    while let Some((before, from)) = rest.split_once(TOKEN_BEGIN) {
        let end = from.find(|c| !is_of_token(c)).unwrap_or(from.len());
        let (token, behind) = from.split_at(end);
        shown.push_str(before);
        // Two dots make three parts.
        if token.bytes().filter(|byte| *byte == b'.').count() == 2 {
            shown.push_str("(token)");
        } else {
            shown.push_str(TOKEN_BEGIN);
            shown.push_str(token);
        }
        rest = behind;
    }
    shown.push_str(rest);
    Cow::Owned(cut(&shown, MAX_PATH_CHARS).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::audit::event::{AuditEvent, AuditLine, SCHEMA};
    use crate::header::HeaderValue;
    use crate::policy::RuleFault;
    use crate::token::SessionId;

    /// What stands in operators' trails and is read by their programs, byte for byte.
    #[test]
    fn a_line_has_its_fields_in_their_order() {
        let names = ["a".to_owned(), "b \"c\"".to_owned()];
        let headers = [HeaderValue::new("corp:a").unwrap()];
        let faults = [RuleFault { rule: "team".into(), error: "`team` is missing".to_owned() }];
        let info = RequestInfo::parse("GET", "/apis/apps/v1/namespaces/web/deployments/x/scale").unwrap();
        let event = DecisionEvent {
            request_id: "7373a616",
            node: Some("edge"),
            outcome: "deny",
            reason: Some("policy_denied"),
            message: Some("no".into()),
            route: "prod",
            user: Some("ann"),
            groups: &names,
            dropped_groups: &names[1..],
            idp: Some("corp"),
            subject: Some("s"),
            session: Some(SessionId::from_random([9; 16])),
            upstream_user: Some("corp:ann"),
            upstream_groups: &headers,
            source_ip: "192.0.2.1",
            user_agent: "kubectl".into(),
            method: "GET".into(),
            host: "prod.example.com".into(),
            path: "/apis".into(),
            kubernetes: Some(words(&info)),
            rule: Some("team"),
            rule_errors: &faults,
            policy_version: "0123",
            stream_limit_ms: Some(1_000),
        };
        let line = |event: &DecisionEvent<'_>| {
            let line = AuditLine { schema: SCHEMA, time: "2026-01-02T03:04:05.000006Z".to_owned(), event: AuditEvent::Decision(event) };
            serde_json::to_string(&line).unwrap()
        };
        assert_eq!(
            line(&event),
            "{\"schema\":\"kubepass.audit/v1\",\"time\":\"2026-01-02T03:04:05.000006Z\",\"event\":\"decision\",\"request_id\":\"7373a616\",\"node\":\"edge\",\
             \"outcome\":\"deny\",\"reason\":\"policy_denied\",\"message\":\"no\",\"route\":\"prod\",\"user\":\"ann\",\
             \"groups\":[\"a\",\"b \\\"c\\\"\"],\"dropped_groups\":[\"b \\\"c\\\"\"],\"idp\":\"corp\",\"subject\":\"s\",\
             \"session\":\"09090909090909090909090909090909\",\"upstream_user\":\"corp:ann\",\"upstream_groups\":[\"corp:a\"],\
             \"source_ip\":\"192.0.2.1\",\"user_agent\":\"kubectl\",\"method\":\"GET\",\"host\":\"prod.example.com\",\"path\":\"/apis\",\
             \"kubernetes\":{\"verb\":\"get\",\"api_group\":\"apps\",\"api_version\":\"v1\",\"resource\":\"deployments\",\
             \"subresource\":\"scale\",\"namespace\":\"web\",\"name\":\"x\"},\"rule\":\"team\",\
             \"rule_errors\":[\"team: `team` is missing\"],\"policy_version\":\"0123\",\"stream_limit_ms\":1000}"
        );
        assert_eq!(
            line(&DecisionEvent { outcome: "challenge", ..DecisionEvent::default() }),
            "{\"schema\":\"kubepass.audit/v1\",\"time\":\"2026-01-02T03:04:05.000006Z\",\"event\":\"decision\",\"request_id\":\"\",\
             \"outcome\":\"challenge\",\"route\":\"\",\"source_ip\":\"\",\"method\":\"\",\"host\":\"\",\"path\":\"\",\"policy_version\":\"\"}"
        );
    }

    #[test]
    fn tokens_in_paths_are_left_out() {
        for (path, shown) in [
            ("/api?access_token=eyJh.eyJi.c-_d&x=y", "/api?access_token=(token)&x=y"),
            ("/api?a=eyJh.eyJi.c&b=eyJh.eyJi.d", "/api?a=(token)&b=(token)"),
            ("/api/eyJh/log", "/api/eyJh/log"),
            ("/api?continue=eyJ2IjoibWV0YSJ9", "/api?continue=eyJ2IjoibWV0YSJ9"),
            ("/api", "/api"),
            ("eyJ", "eyJ"),
        ] {
            assert_eq!(cut_path(path), shown);
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("/api?a=1", 8), "/api?a=1");
        assert_eq!(cut("/api?a=1&command=rm", 8), "/api?a=1...(cut, 19 bytes)");
        assert_eq!(cut("äöü", 2), "äö...(cut, 6 bytes)");
    }
}
