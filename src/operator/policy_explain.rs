//! `kubepass-server policy explain`: what would be decided about one request of one person, and why, rule by rule.
//!
//! It asks the same function as the service (`access::decide`), for a session that is made up for the question. Pure: text in, text out;
//! nothing is sent anywhere.

mod words;

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::route_named;
use crate::access::request::{AccessRequest, RequestHeaders, RequestTarget};
use crate::access::{Answer, Decision, DenyReason, Outcome, SessionState, decide, policy_input, user_view};
use crate::config::{Route, Target};
use crate::identity::{Groups, Identity, Principal};
use crate::kubernetes::RequestInfo;
use crate::policy::{Effect, PolicyInput, RuleResult};
use crate::session::{Authenticated, Session, SessionId};
use crate::snapshot::{NodeView, Snapshot};

/// Who asks for what.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub route: &'a str,
    /// As the mapping of the identity provider gives it, before the route's prefix.
    pub user: &'a str,
    /// The user's name where that is an address and this is `None`.
    pub email: Option<&'a str>,
    /// As the mapping gives them, before the route's prefix and allow-list.
    pub groups: &'a [String],
    pub claims: Map<String, Value>,
    /// The first that the route takes where this is `None`.
    pub idp: Option<&'a str>,
    pub source_ip: &'a str,
    /// Seconds since login.
    pub session_age: u64,
    /// Words as after `kubectl` (`get pods -n web`), or a path with an optional method before it.
    pub words: &'a [&'a str],
}

/// The question is about the policy: it is asked where the route is served.
fn a_node_that_serves<'s>(snapshot: &'s Snapshot, route: &Route) -> &'s NodeView {
    let unnamed = Some(NodeView::UNNAMED).filter(|node| node.serves(route));
    unnamed.or_else(|| snapshot.nodes().iter().find(|node| node.serves(route))).unwrap_or(NodeView::UNNAMED)
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub allowed: bool,
    /// For a person to read; ends with a line break.
    pub text: String,
}

/// Decides the question at `now` (Unix seconds) as the service would.
///
/// # Errors
/// A text for the operator: an unknown route, or words that are not understood.
pub fn explain(snapshot: &Snapshot, question: &Question<'_>, now: u64) -> Result<Explanation, String> {
    let route = route_named(snapshot, question.route)?;
    let request = words::request(question.words)?;
    let session = Arc::new(session(snapshot, route, question, now)?);
    let authenticated = Authenticated { session: Arc::clone(&session), token_expires_at: session.expires_at };
    let id = route.id();
    let access = AccessRequest {
        node: a_node_that_serves(snapshot, route),
        request_id: "",
        target: match route.target {
            Target::Kubernetes(_) => RequestTarget::Kubernetes(id),
            Target::Http(_) => RequestTarget::Http(id),
        },
        method: &request.method,
        path: &request.path,
        host: &route.host,
        sni: &route.host,
        source_ip: question.source_ip,
        headers: RequestHeaders { user_agent: "kubectl", ..RequestHeaders::default() },
    };
    let decision = decide(snapshot, &access, SessionState::Live(authenticated), now);
    let mut text = String::new();
    write_question(&mut text, &session, &access);
    write_decision(&mut text, &decision);
    if let Some(info) = &decision.evidence.request_info {
        write_rules(&mut text, route, &policy_input(route, &access, &user_view(&session, now), info, now), &decision);
    }
    write_identity(&mut text, &decision);
    Ok(Explanation { allowed: matches!(decision.outcome, Outcome::Allow(_)), text })
}

/// A session as a login would make it. It is in no table.
fn session(snapshot: &Snapshot, route: &Route, question: &Question<'_>, now: u64) -> Result<Session, String> {
    let listed = route.identity_providers.as_ref().and_then(|listed| listed.first().cloned());
    let first = || snapshot.config().identity_providers.first().map(|provider| provider.name.clone());
    let idp = match question.idp {
        Some(idp) if snapshot.identity_provider(idp).is_none() => return Err(format!("there is no identity provider {idp:?}")),
        Some(idp) => idp.to_owned(),
        None => listed.or_else(first).unwrap_or_default(),
    };
    let assumed = || if question.user.contains('@') { question.user } else { "" };
    let created_at = now.saturating_sub(question.session_age);
    Ok(Session {
        id: SessionId::from_random([0; 16]),
        identity: Identity {
            principal: Principal { idp, subject: question.user.to_owned() },
            username: question.user.to_owned(),
            email: question.email.unwrap_or_else(assumed).to_owned(),
            groups: Groups::from(question.groups.to_vec()),
            claims: question.claims.clone(),
        },
        created_at,
        expires_at: created_at.saturating_add(snapshot.config().sessions.lifetime_seconds),
        client: String::new(),
        source_ip: question.source_ip.to_owned(),
    })
}

// Writing to a `String` cannot fail, so the results below are dropped.

fn write_question(text: &mut String, session: &Session, request: &AccessRequest<'_>) {
    let identity = &session.identity;
    let email = if identity.email.is_empty() { "no e-mail".to_owned() } else { format!("e-mail {:?}", identity.email) };
    let _ = writeln!(text, "user     {:?}, {email}, groups {}", identity.username, quoted(identity.groups.iter()));
    let _ = writeln!(text, "         of identity provider {:?}", identity.principal.idp);
    let _ = writeln!(text, "request  {} {}", request.method, request.path);
}

fn write_decision(text: &mut String, decision: &Decision<'_>) {
    if let Some(info) = &decision.evidence.request_info {
        let _ = writeln!(text, "         {}", kubernetes_words(info));
    }
    let because = match (&decision.outcome, decision.evidence.rule.as_deref()) {
        (Outcome::Allow(_), Some(rule)) => format!("ALLOWED by rule {rule:?}"),
        (Outcome::Allow(_) | Outcome::Web, _) => "ALLOWED".to_owned(),
        (Outcome::Deny(DenyReason::Rule { rule, .. }), _) => format!("DENIED by rule {rule:?}"),
        (Outcome::Challenge(_) | Outcome::Deny(_), _) => "DENIED".to_owned(),
    };
    let _ = writeln!(text, "decision {because}");
    if let Some(answer) = Answer::to(decision) {
        let _ = writeln!(text, "         {}", answer.status.message);
    }
}

fn kubernetes_words(info: &RequestInfo<'_>) -> String {
    let mut words = vec![format!("verb {}", info.policy_verb())];
    let fields = [
        ("group", &info.api_group),
        ("resource", &info.resource),
        ("subresource", &info.subresource),
        ("namespace", &info.namespace),
        ("name", &info.name),
    ];
    words.extend(fields.iter().filter(|(_, value)| !value.is_empty()).map(|(field, value)| format!("{field} {value}")));
    words.push(if info.read_only() { "read-only" } else { "not read-only" }.to_owned());
    words.join(", ")
}

fn write_rules(text: &mut String, route: &Route, input: &PolicyInput<'_>, decision: &Decision<'_>) {
    let traces = route.policy.explain(input);
    let width = traces.iter().map(|trace| trace.rule.chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "rules    a deny rule that matches decides, else the first allow rule that matches");
    for (rule, trace) in route.policy.rules().iter().zip(&traces) {
        let result = match (&trace.result, trace.effect) {
            (RuleResult::Matched, _) => "matches".to_owned(),
            (RuleResult::NotMatched, _) => "does not match".to_owned(),
            (RuleResult::Error(why), Effect::Deny) => format!("cannot be evaluated, so it denies: {why}"),
            (RuleResult::Error(why), Effect::Allow) => format!("cannot be evaluated, so it does not match: {why}"),
        };
        let decided = decision.evidence.rule.as_deref() == Some(&*trace.rule);
        let mark = if decided { "  <- decides" } else { "" };
        let _ = writeln!(text, "         {:<5} {:<width$}  {result}{mark}", trace.effect.to_string(), trace.rule);
        for line in rule.source().lines().map(str::trim).filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "               {:<width$}  | {line}", "");
        }
    }
}

fn write_identity(text: &mut String, decision: &Decision<'_>) {
    if let Outcome::Allow(grant) = &decision.outcome {
        let identity = grant.identity();
        let groups = match grant.route().target {
            Target::Kubernetes(_) => quoted(identity.groups().iter().map(|group| group.as_str())),
            // In the token that such an upstream verifies.
            Target::Http(_) => quoted(grant.session().identity.groups.iter()),
        };
        let _ = writeln!(text, "upstream user {:?}, groups {groups}", identity.user().as_str());
        if let Some(uid) = identity.uid() {
            let _ = writeln!(text, "         uid {:?}", uid.as_str());
        }
        for (key, values) in identity.extra() {
            let _ = writeln!(text, "         extra {key}: {}", quoted(values.iter().map(|value| value.as_str())));
        }
    }
    if !decision.evidence.dropped_groups.is_empty() {
        let _ = writeln!(text, "         kept back by the route's allow-list: {}", quoted(decision.evidence.dropped_groups.iter()));
    }
}

fn quoted<S: AsRef<str>>(texts: impl Iterator<Item = S>) -> String {
    let quoted: Vec<String> = texts.map(|text| format!("{:?}", text.as_ref())).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}
