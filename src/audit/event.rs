//! One JSON object a line. `schema` rises when a field changes its meaning or goes; new fields may come without it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::header::HeaderValue;
use crate::policy::RuleFault;
use crate::token::SessionId;

/// The version of the line's shape.
pub const SCHEMA: &str = "kubepass.audit/v1";

/// One line of the trail: when, and what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditLine<'a> {
    pub schema: &'static str,
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    #[serde(flatten)]
    pub event: AuditEvent<'a>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent<'a> {
    /// A request was decided, written before it goes on.
    Decision(&'a DecisionEvent<'a>),
    /// A stream (exec, watch, ...) began at the upstream, or any request ended: from Envoy's access log.
    Completion(Box<CompletionEvent>),
    /// Envoy answered a request by itself and asked nobody: no decision belongs to it, and it has no id but what its client made up, which
    /// is not told.
    Undecided(Box<CompletionEvent>),
    Login(LoginEvent),
    LoginRefused(LoginRefusedEvent),
    /// A client exchanged its login token for a session token.
    TokenIssued(TokenIssuedEvent),
    Logout(LogoutEvent),
    ConfigChanged(ConfigChangedEvent),
    /// A key with which tokens for others are signed is published, signs, is withdrawn or gone.
    SigningKey(SigningKeyEvent),
    /// The trail is written again after a time in which it was not.
    TrailRestored(TrailRestoredEvent),
}

/// Kubernetes words of a request, as the API server reads it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct KubernetesWords<'a> {
    pub verb: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub api_group: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub api_version: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub resource: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub subresource: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub namespace: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_empty")]
    pub name: Cow<'a, str>,
}

/// Borrowed from what was decided and written at once, for there is one for each request.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct DecisionEvent<'a> {
    /// Also the `Audit-ID` that the API server logs and the `X-Request-Id` that the client sees.
    pub request_id: &'a str,
    /// The Envoy that asked, where the configuration has nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<&'a str>,
    /// `allow`, `challenge` or `deny`.
    pub outcome: &'static str,
    /// Stable word for the reason of a refusal, for example `policy_denied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
    pub route: &'a str,
    /// Who was authenticated, as the identity provider's mapping gave it (before the route's prefix).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub groups: &'a [String],
    /// Groups that the route's allow-list kept back.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub dropped_groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The user that the API server sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_user: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "header_values")]
    pub upstream_groups: &'a [HeaderValue],
    pub source_ip: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    pub user_agent: Cow<'a, str>,
    pub method: Cow<'a, str>,
    pub host: Cow<'a, str>,
    /// Path with query, at most 2,048 characters; then `...(cut, N bytes)`. The API server's own line, of the same id, has it whole.
    pub path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesWords<'a>>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'a str>,
    /// Rules that could not be evaluated, each `name: why`.
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "rule_faults")]
    pub rule_errors: &'a [RuleFault],
    pub policy_version: &'a str,
    /// Milliseconds after which the stream ends at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_limit_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CompletionEvent {
    pub request_id: String,
    /// The Envoy that says so, where the configuration has nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// `start` or `end`.
    pub phase: &'static str,
    pub route: String,
    /// 0 when the client left before an answer.
    pub status: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub duration_ms: u64,
    /// Envoy's response code details, for example `via_upstream` or `upstream_max_stream_duration_reached`.
    pub ended_by: String,
    /// Envoy's response flags, for example `UAEX`, `UF`, `DC`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LoginEvent {
    pub session: String,
    pub user: String,
    pub groups: Vec<String>,
    pub idp: String,
    pub subject: String,
    pub source_ip: String,
    pub user_agent: String,
    /// `browser`, `kubepass` or `pomerium-cli`.
    pub client: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LoginRefusedEvent {
    pub idp: String,
    pub reason: String,
    pub source_ip: String,
    pub user_agent: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TokenIssuedEvent {
    pub session: String,
    pub user: String,
    pub route: String,
    pub client: String,
    pub source_ip: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LogoutEvent {
    pub session: String,
    pub user: String,
    /// `user`, `operator`, `expired`, `superseded` by a newer session of a person who has very many, or `identity_changed` where the configuration
    /// makes another identity of the login's claims now, or none.
    pub by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TrailRestoredEvent {
    /// Events that could not be written since the last such line.
    pub lines_lost: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ConfigChangedEvent {
    /// `applied` or `rejected`.
    pub outcome: &'static str,
    pub version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SigningKeyEvent {
    /// `upstream` (for API servers) or `assertion` (for plain HTTP routes).
    pub tokens: &'static str,
    /// `published`, `signs`, `withdrawn` or `removed` from what is published.
    pub change: &'static str,
    /// The key's id (`kid`).
    pub key: String,
    pub algorithm: &'static str,
}

#[allow(clippy::ptr_arg, reason = "serde gives the field as it is")]
fn is_empty(text: &Cow<'_, str>) -> bool {
    text.is_empty()
}

fn header_values<S: Serializer>(values: &[HeaderValue], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(HeaderValue::as_str))
}

fn rule_faults<S: Serializer>(faults: &[RuleFault], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(faults.iter().map(|fault| format!("{}: {}", fault.rule, fault.error)))
}
