//! What one access log entry tells: the line that it is worth, and what became of a request as a stream. Total: whatever an entry holds, the result
//! is a value.

use super::entry::Entry;
use crate::audit::CompletionEvent;
use crate::envoy_names as names;
use crate::kubernetes::RequestInfo;
use crate::server::live_streams::News;

/// Envoy's routes are named like their targets; those to our own pages on a route's host, `web:...`.
const WEB_PREFIX: &str = "web:";

/// The status of what ended without an answer.
const NO_ANSWER: Option<u32> = Some(0);
/// Begins what Envoy says where it asked and did not get leave.
const ASKED: &str = "ext_authz";
/// What it says where it learned no decision, in time for instance.
const NOT_TOLD: &str = "ext_authz_error";

/// Longest id, in bytes; ours are UUIDs.
const MAX_ID: usize = 128;
/// Longest route name, in characters.
const MAX_ROUTE: usize = 253;
/// Longest text that says why a request ended, in characters.
const MAX_DETAILS: usize = 256;
/// Longest of Envoy's response flags, in bytes, and most of them; it has some thirty.
const MAX_FLAG: usize = 32;
const MAX_FLAGS: usize = 64;

/// All that an entry tells.
#[derive(Debug, PartialEq)]
pub struct Told<'a> {
    /// Of the request as a stream, by the id of its decision.
    pub news: Option<News<'a>>,
    pub line: Converted,
}

/// What an entry says to the audit trail.
#[derive(Debug, PartialEq)]
pub enum Converted {
    Event(CompletionEvent),
    /// The end of a request that Envoy answered without asking whether it may go on.
    Undecided(CompletionEvent),
    /// A request goes on.
    StillThere,
    /// See `EntryResult::Skipped`.
    Skipped,
    /// Why.
    Malformed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    StillThere,
    End,
}

pub fn told<'a>(entry: &Entry<'a>) -> Told<'a> {
    let (phase, status) = (phase(entry), entry.status.parse().ok());
    Told { news: news(entry, phase, status), line: completion(entry, phase, status) }
}

/// Only of what was granted: a request that Envoy refuses before it removes a client's headers stands in the log under an id of the client's, and
/// must not end the streams that they have. Such a refusal has a status. What ended without one, or for want of a decision, was being checked, and
/// kubepass may grant it all the same.
fn news<'a>(entry: &Entry<'a>, phase: Option<Phase>, status: Option<u32>) -> Option<News<'a>> {
    let id = Some(entry.id).filter(|id| is_id(id))?;
    let is_granted = names::route_id(entry.grant).is_some();
    match phase? {
        Phase::StillThere if is_granted => Some(News::StillThere(id)),
        Phase::End if is_granted => Some(News::Ended(id)),
        Phase::End if status == NO_ANSWER || entry.details == NOT_TOLD => Some(News::Left(id)),
        _ => None,
    }
}

fn completion(entry: &Entry<'_>, phase: Option<Phase>, status: Option<u32>) -> Converted {
    if entry.kind.is_empty() {
        return Converted::Malformed("it does not say of which kind it is");
    }
    let phase = match phase {
        Some(Phase::StillThere) => return Converted::StillThere,
        Some(phase) if phase == Phase::End || may_last(entry) => phase,
        _ => return Converted::Skipped,
    };
    let Some(route) = route(entry) else {
        return Converted::Skipped;
    };
    if entry.id.is_empty() && status == NO_ANSWER {
        // Its client left before the headers were whole: there was no request.
        return Converted::Skipped;
    }
    let is_undecided = phase == Phase::End && is_undecided(entry, status);
    if !is_undecided && !is_id(entry.id) {
        return Converted::Malformed("it has no usable request id");
    }
    let event = CompletionEvent {
        request_id: if is_undecided { String::new() } else { entry.id.to_owned() },
        node: None,
        phase: if phase == Phase::Start { "start" } else { "end" },
        route: shortened(route, MAX_ROUTE),
        status: status.unwrap_or(0),
        // Bytes on the wire: they count what a tunnel carried as well.
        bytes_received: entry.received.parse().unwrap_or(0),
        bytes_sent: entry.sent.parse().unwrap_or(0),
        duration_ms: entry.duration.parse().unwrap_or(0),
        ended_by: if phase == Phase::End { ended_by(entry) } else { String::new() },
        flags: flags(entry.flags),
    };
    if is_undecided { Converted::Undecided(event) } else { Converted::Event(event) }
}

/// Envoy refuses some requests before it removes a client's headers, so that they stand in its log under an id of the client's: theirs is not taken, or
/// anybody could write of another's request, or have the line of their own left out. What was asked has the answer in its entry, but for what got none,
/// or whose client left before: these have Envoy's own id, and a decision all the same, as [`news`] says.
fn is_undecided(entry: &Entry<'_>, status: Option<u32>) -> bool {
    let is_answered = names::route_id(entry.grant).is_some() || entry.grant == names::WEB_TARGET || !entry.reason.is_empty();
    !is_answered && status != NO_ANSWER && !entry.details.starts_with(ASKED)
}

/// `None` for what is of no interest here: the upstream's side, UDP.
fn phase(entry: &Entry<'_>) -> Option<Phase> {
    match entry.kind {
        "DownstreamTunnelSuccessfullyEstablished" | "DownstreamStart" => Some(Phase::Start),
        "DownstreamPeriodic" => Some(Phase::StillThere),
        // Without the options that have it tell more, Envoy writes at the end only, and then does not tell the kind.
        "DownstreamEnd" | "NotSet" => Some(Phase::End),
        _ => None,
    }
}

/// Of a start: whether it is that of something long. A tunnel is. Other starts are written when the request arrives, before it is decided: whether
/// it went on is for its decision line to say. An exec's start is its tunnel.
fn may_last(entry: &Entry<'_>) -> bool {
    // What cannot be read is refused, so it does not last.
    entry.kind != "DownstreamStart"
        || RequestInfo::parse(entry.method, entry.path)
            .is_ok_and(|info| info.is_long_running() && !matches!(info.policy_verb(), "exec" | "attach" | "portforward"))
}

/// The route's name, empty where no route was found; `None` for our own pages, unless ext_authz refused them: that left a decision to be
/// completed. What ext_authz granted counts before what Envoy matched.
fn route<'a>(entry: &Entry<'a>) -> Option<&'a str> {
    if let Some(id) = names::route_id(entry.grant) {
        return Some(names::route_name(id));
    }
    let matched = entry.route;
    if matched == names::WEB_TARGET || matched.starts_with(WEB_PREFIX) {
        return (!entry.reason.is_empty()).then_some(names::WEB_TARGET);
    }
    Some(names::route_id(matched).map_or("", names::route_name))
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// Envoy's response code details, and what ended the connection where it says so.
fn ended_by(entry: &Entry<'_>) -> String {
    let (details, connection) = (entry.details, entry.connection);
    let both = match (details.is_empty(), connection.is_empty()) {
        (_, true) => details.to_owned(),
        (true, false) => connection.to_owned(),
        (false, false) => format!("{details}; {connection}"),
    };
    shortened(&both, MAX_DETAILS)
}

/// The short words of Envoy's documentation ("Access logging", `%RESPONSE_FLAGS%`).
fn flags(text: &str) -> Vec<String> {
    let is_flag =
        |word: &&str| (1..=MAX_FLAG).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.split(',').filter(is_flag).take(MAX_FLAGS).map(str::to_owned).collect()
}

fn shortened(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
