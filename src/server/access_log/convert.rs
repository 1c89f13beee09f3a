//! One access log entry to one completion event. Total: whatever an entry holds, the result is a value.

use envoy_types::pb::envoy::config::core::v3::RequestMethod;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
};
use envoy_types::pb::google::protobuf::value::Kind;

use super::flags::short_words;
use crate::audit::CompletionEvent;
use crate::envoy_names as names;
use crate::kubernetes::RequestInfo;

/// Envoy's routes are named like their targets; those to our own pages on a route's host, `web:...`.
const WEB_PREFIX: &str = "web:";

/// Longest id, in bytes; ours are UUIDs.
const MAX_ID: usize = 128;
/// Longest route name, in characters.
const MAX_ROUTE: usize = 253;
/// Longest text that says why a request ended, in characters.
const MAX_DETAILS: usize = 256;

/// What an entry says.
#[derive(Debug, PartialEq)]
pub enum Converted {
    Event(CompletionEvent),
    /// See `EntryResult::Skipped`.
    Skipped,
    /// Why.
    Malformed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    End,
}

/// What an entry says of a request as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    StillThere(&'a str),
    Ended(&'a str),
}

/// By the id of its decision; `None` for what tells neither.
pub fn news(entry: &HttpAccessLogEntry) -> Option<News<'_>> {
    let id = request_id(entry.request.as_ref()?)?;
    match entry.common_properties.as_ref()?.access_log_type() {
        AccessLogType::DownstreamPeriodic => Some(News::StillThere(id)),
        AccessLogType::DownstreamEnd | AccessLogType::NotSet => Some(News::Ended(id)),
        _ => None,
    }
}

pub fn completion(entry: &HttpAccessLogEntry) -> Converted {
    let Some(common) = &entry.common_properties else {
        return Converted::Malformed("it has no common properties");
    };
    let (no_request, no_response) = (HttpRequestProperties::default(), HttpResponseProperties::default());
    let request = entry.request.as_ref().unwrap_or(&no_request);
    let Some(phase) = phase(common, request) else {
        return Converted::Skipped;
    };
    let Some(route) = route(common) else {
        return Converted::Skipped;
    };
    let Some(request_id) = request_id(request) else {
        return Converted::Malformed("it has no usable request id");
    };
    let response = entry.response.as_ref().unwrap_or(&no_response);
    // Bytes on the wire count what a tunnel carried as well; an Envoy that does not count them gives those of the bodies.
    let bytes = |on_the_wire: u64, of_the_body: u64| if on_the_wire > 0 { on_the_wire } else { of_the_body };
    Converted::Event(CompletionEvent {
        request_id: request_id.to_owned(),
        node: None,
        phase: if phase == Phase::Start { "start" } else { "end" },
        route: shortened(route, MAX_ROUTE),
        status: response.response_code.as_ref().map_or(0, |code| code.value),
        bytes_received: bytes(common.downstream_wire_bytes_received, request.request_body_bytes),
        bytes_sent: bytes(common.downstream_wire_bytes_sent, response.response_body_bytes),
        duration_ms: duration_ms(common),
        ended_by: if phase == Phase::End { ended_by(&response.response_code_details, common) } else { String::new() },
        flags: common.response_flags.as_ref().map(short_words).unwrap_or_default(),
    })
}

/// `None` for entries that are neither the start of something long nor an end.
fn phase(common: &AccessLogCommon, request: &HttpRequestProperties) -> Option<Phase> {
    match common.access_log_type() {
        AccessLogType::DownstreamTunnelSuccessfullyEstablished => Some(Phase::Start),
        // Written when the request arrives, before it is decided: whether it went on is for its decision line to say. An exec's start is its tunnel.
        AccessLogType::DownstreamStart => is_long_without_tunnel(request).then_some(Phase::Start),
        // An Envoy that does not tell the type writes at the end only.
        AccessLogType::DownstreamEnd | AccessLogType::NotSet => Some(Phase::End),
        _ => None,
    }
}

fn is_long_without_tunnel(request: &HttpRequestProperties) -> bool {
    let method = RequestMethod::try_from(request.request_method).unwrap_or(RequestMethod::MethodUnspecified);
    // What cannot be read is refused, so it does not last.
    RequestInfo::parse(method.as_str_name(), &request.path)
        .is_ok_and(|info| info.is_long_running() && !matches!(info.policy_verb(), "exec" | "attach" | "portforward"))
}

/// The route's name, empty where no route was found; `None` for our own pages, unless ext_authz refused them: that left a decision to be
/// completed. What ext_authz granted counts before what Envoy matched.
fn route(common: &AccessLogCommon) -> Option<&str> {
    let grant = grant(common);
    if let Some(id) = grant.and_then(names::route_id) {
        return Some(names::route_name(id));
    }
    let matched = common.route_name.as_str();
    if matched == names::WEB_TARGET || matched.starts_with(WEB_PREFIX) {
        return answer(common, names::REASON_KEY).map(|_| names::WEB_TARGET);
    }
    Some(names::route_id(matched).map_or("", names::route_name))
}

fn grant(common: &AccessLogCommon) -> Option<&str> {
    answer(common, names::GRANT_KEY)
}

/// What ext_authz answered beside its verdict.
fn answer<'a>(common: &'a AccessLogCommon, key: &str) -> Option<&'a str> {
    let answer = common.metadata.as_ref()?.filter_metadata.get(names::EXT_AUTHZ_NAMESPACE)?;
    match answer.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// The id of the decision's line: `audit-id` where the request was let pass, else Envoy's own request id, which is the same.
fn request_id(request: &HttpRequestProperties) -> Option<&str> {
    let candidates = [request.request_headers.get(names::AUDIT_ID), Some(&request.request_id)];
    candidates.into_iter().flatten().map(String::as_str).find(|id| is_id(id))
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

fn duration_ms(common: &AccessLogCommon) -> u64 {
    let Some(duration) = &common.duration else { return 0 };
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

/// Envoy's response code details, and what ended the connection where it says so.
fn ended_by(details: &str, common: &AccessLogCommon) -> String {
    let connection = common.connection_termination_details.as_str();
    let both = match (details.is_empty(), connection.is_empty()) {
        (_, true) => details.to_owned(),
        (true, false) => connection.to_owned(),
        (false, false) => format!("{details}; {connection}"),
    };
    shortened(&both, MAX_DETAILS)
}

fn shortened(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
