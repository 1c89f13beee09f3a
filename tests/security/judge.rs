//! What came to the API servers, by their own audit logs, and to the recorders, byte by byte, and whether it should have: every request of the suite
//! stands in a book under its mark, and whatever arrives without a mark, or otherwise than its line says, has got through.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::recorder::{Arrived, Handle, Recorder};
use super::scene::{LEDGER, PEOPLE, PROD, RECORDER, RECORDER_TOKEN, STAGING, Target};
use super::support::jwt;
use super::support::world::{Method, NAMESPACE, SERVICE_ACCOUNT};

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    /// Nothing of it arrives anywhere.
    Stop,
    /// It arrives once, on its route, as the person who sent it and as nobody else.
    AsSelf,
    /// One of both.
    Either,
}

/// A line of the book.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) target: Target,
    pub(super) must: Must,
    pub(super) login: String,
}

/// A request that came to an API server or a recorder.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) target: Target,
    pub(super) mark: Option<String>,
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) user: String,
    pub(super) groups: Vec<String>,
    /// What no request of kubepass's may have, whoever sent it.
    pub(super) faults: Vec<String>,
    /// The API server's event; null at a recorder.
    pub(super) event: Value,
    /// At a recorder.
    pub(super) kept: Option<Arrived>,
}

/// Values that only forged headers hold.
const FORGED: [&str; 2] = ["forged", "203.0.113."];
/// Headers that no upstream may get, by the beginning of their names.
const NOT_FOR_UPSTREAM: [&str; 7] =
    ["x-remote-", "x-kubepass-", "x-pomerium-", "x-original-", "proxy-authorization", "forwarded", "x-real-"];

pub(super) struct Judge {
    state: Mutex<State>,
}

struct State {
    logs: [(Target, Tail); 2],
    recorders: [(Target, Handle, usize); 2],
    book: HashMap<String, Expected>,
    arrivals: Vec<Arrival>,
    /// Of events that are among the arrivals: an API server logs long requests twice.
    seen: HashSet<String>,
    /// Indexes of arrivals that an attack has told of.
    told: HashSet<usize>,
    /// What nobody but their owners and kubepass may see.
    secrets: Vec<String>,
}

impl Judge {
    pub(super) fn new(prod: &Path, staging: &Path, recorder: &Recorder, ledger: &Recorder) -> Self {
        let state = State {
            logs: [(PROD, Tail::of(prod)), (STAGING, Tail::of(staging))],
            recorders: [(RECORDER, recorder.handle(), 0), (LEDGER, ledger.handle(), 0)],
            book: HashMap::new(),
            arrivals: Vec::new(),
            seen: HashSet::new(),
            told: HashSet::new(),
            secrets: Vec::new(),
        };
        Self { state: Mutex::new(state) }
    }

    pub(super) fn expect(&self, mark: &str, expected: Expected) {
        self.state().book.insert(mark.to_owned(), expected);
    }

    /// A token that must not reach an upstream.
    pub(super) fn keep_secret(&self, token: &str) {
        self.state().secrets.push(token.to_owned());
    }

    /// How many requests have arrived.
    pub(super) fn position(&self) -> usize {
        self.read().arrivals.len()
    }

    /// What arrived with a mark.
    pub(super) fn of(&self, mark: &str) -> Vec<Arrival> {
        self.read().arrivals.iter().filter(|arrival| arrival.mark.as_deref() == Some(mark)).cloned().collect()
    }

    /// What arrived from a position on.
    pub(super) fn since(&self, position: usize) -> Vec<Arrival> {
        self.read().arrivals[position..].to_vec()
    }

    /// What of the arrivals from a position on should not be.
    pub(super) fn findings_since(&self, position: usize) -> Vec<String> {
        let mut state = self.read();
        let findings: Vec<(usize, String)> =
            (position..state.arrivals.len()).filter_map(|index| Some((index, state.finding(index)?))).collect();
        state.told.extend(findings.iter().map(|(index, _)| *index));
        findings.into_iter().map(|(_, finding)| finding).collect()
    }

    /// What no attack has told of.
    pub(super) fn sweep(&self) -> Vec<String> {
        let state = self.read();
        let untold = (0..state.arrivals.len()).filter(|index| !state.told.contains(index));
        let arrived = untold.filter_map(|index| state.finding(index));
        let odd = state
            .recorders
            .iter()
            .flat_map(|(target, recorder, _)| recorder.odd(0).into_iter().map(move |what| format!("{}: {what}", target.route)));
        arrived.chain(odd).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.read();
        state
    }
}

impl State {
    fn read(&mut self) {
        let mut fresh = Vec::new();
        for (target, tail) in &mut self.logs {
            for event in tail.read() {
                let id = format!("{} {} {} {}", target.route, event["auditID"], event["requestURI"], event["userAgent"]);
                if concerns_us(&event) && self.seen.insert(id) {
                    fresh.push(arrival_by_log(*target, event));
                }
            }
        }
        for (target, recorder, read) in &mut self.recorders {
            let arrived = recorder.arrived(*read);
            *read += arrived.len();
            fresh.extend(arrived.into_iter().map(|arrived| arrival_by_recorder(*target, arrived, &self.secrets)));
        }
        self.arrivals.extend(fresh);
    }

    /// Why an arrival should not be.
    fn finding(&self, index: usize) -> Option<String> {
        let arrival = &self.arrivals[index];
        let shown = format!(
            "{} {} came to {} as {:?} {:?}",
            arrival.method,
            arrival.uri.chars().take(120).collect::<String>(),
            arrival.target.route,
            arrival.user,
            arrival.groups
        );
        let Some((mark, expected)) = arrival.mark.as_ref().and_then(|mark| Some((mark, self.book.get(mark)?))) else {
            return Some(format!("{shown}, which nobody sent"));
        };
        if arrival.uri.contains("smuggled") {
            return Some(format!("{shown}, smuggled"));
        }
        if expected.must == Must::Stop {
            return Some(format!("{shown}, which must not arrive"));
        }
        if expected.target != arrival.target {
            return Some(format!("{shown}, sent to {}", expected.target.route));
        }
        let others = self.arrivals[..index].iter().filter(|other| other.mark.as_ref() == Some(mark)).count();
        if others > 0 {
            return Some(format!("{shown}, again"));
        }
        if let Err(why) = is_person(arrival, &expected.login) {
            return Some(format!("{shown}: {why}"));
        }
        (!arrival.faults.is_empty()).then(|| format!("{shown}: {}", arrival.faults.join(", ")))
    }
}

/// Whether the upstream took it for a request of that person, groups and all.
fn is_person(arrival: &Arrival, login: &str) -> Result<(), String> {
    let Some((_, email, groups)) = PEOPLE.iter().find(|(known, ..)| *known == login) else { return Err(format!("{login} is nobody")) };
    let mut groups: Vec<&str> = groups.to_vec();
    if !arrival.target.is_recorder() {
        groups.push("system:authenticated");
    }
    if arrival.user == *email && arrival.groups == groups { Ok(()) } else { Err(format!("sent by {email} of {groups:?}")) }
}

/// Of the suite, or of kubepass.
fn concerns_us(event: &Value) -> bool {
    let user = &event["user"];
    let of_kubepass = user["username"] == account().as_str()
        || user["extra"]["kubepass.dev/session"].is_array()
        || PEOPLE.iter().any(|(_, email, _)| user["username"] == *email);
    let uri = text(&event["requestURI"]);
    of_kubepass || uri.contains("smuggled") || mark_of(uri, text(&event["userAgent"])).is_some()
}

fn arrival_by_log(target: Target, event: Value) -> Arrival {
    let (user, impersonated) = (&event["user"], &event["impersonatedUser"]);
    let (by_kubepass, served) = match target.method {
        Method::Impersonate => (user["username"] == account().as_str() && impersonated.is_object(), impersonated),
        Method::Jwt => (user["extra"]["kubepass.dev/session"].is_array() && impersonated.is_null(), user),
    };
    let mut faults = Vec::new();
    if !by_kubepass {
        faults.push(format!("not as kubepass gets in: user {user}, impersonated {impersonated}"));
    }
    let ours = ["kubepass.dev/session", "kubepass.dev/policy", "authentication.kubernetes.io/credential-id"];
    let extra = served["extra"].as_object().into_iter().flatten().filter(|(key, _)| !ours.contains(&key.as_str()));
    faults.extend(extra.map(|(key, value)| format!("extra value {key}: {value}")));
    if target.method == Method::Impersonate && !served["uid"].is_null() {
        faults.push(format!("uid {}", served["uid"]));
    }
    if event["sourceIPs"] != serde_json::json!(["127.0.0.1"]) {
        faults.push(format!("comes from {}", event["sourceIPs"]));
    }
    if text(&event["auditID"]).len() != 36 || text(&event["auditID"]).starts_with("00000000") {
        faults.push(format!("audit id {}", event["auditID"]));
    }
    let groups = served["groups"].as_array().into_iter().flatten().map(|group| text(group).to_owned()).collect();
    Arrival {
        target,
        mark: mark_of(text(&event["requestURI"]), text(&event["userAgent"])),
        method: text(&event["verb"]).to_owned(),
        uri: text(&event["requestURI"]).to_owned(),
        user: text(&served["username"]).to_owned(),
        groups,
        faults,
        kept: None,
        event,
    }
}

fn arrival_by_recorder(target: Target, kept: Arrived, secrets: &[String]) -> Arrival {
    let values = |wanted: &str| -> Vec<String> {
        let found = kept.headers.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    };
    let mut faults = wire_faults(&kept, secrets);
    let (users, authorizations) = (values("impersonate-user"), values("authorization"));
    let (mut user, mut groups) = (users.join(", "), values("impersonate-group"));
    let mut impersonates = kept.headers.iter().filter(|(name, _)| name.starts_with("impersonate-"));
    match target.method {
        Method::Impersonate => {
            if impersonates.any(|(name, _)| name != "impersonate-user" && name != "impersonate-group") || users.len() != 1 {
                faults.push("it impersonates otherwise than kubepass does".to_owned());
            }
            if authorizations != [format!("Bearer {RECORDER_TOKEN}")] {
                faults.push("its authorization is not the service account's".to_owned());
            }
        }
        Method::Jwt => {
            if impersonates.next().is_some() {
                faults.push("it impersonates".to_owned());
            }
            let token = authorizations.first().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
            if authorizations.len() != 1 || jwt::header(token)["typ"] != "kubepass-upstream+jwt" {
                faults.push("its authorization is not a token for the cluster".to_owned());
            }
            let claims = jwt::claims(token);
            text(&claims["username"]).clone_into(&mut user);
            groups = claims["groups"].as_array().into_iter().flatten().map(|group| text(group).to_owned()).collect();
        }
    }
    let agent = values("user-agent").join(", ");
    Arrival {
        target,
        mark: mark_of(&kept.target, &agent),
        method: kept.method.clone(),
        uri: kept.target.clone(),
        user,
        groups,
        faults,
        event: Value::Null,
        kept: Some(kept),
    }
}

/// What of the bytes no upstream may get.
fn wire_faults(kept: &Arrived, secrets: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, value) in &kept.headers {
        let shown = String::from_utf8_lossy(value);
        let forwarded = name.starts_with("x-forwarded-") && !["x-forwarded-for", "x-forwarded-proto"].contains(&name.as_str());
        let of_client =
            NOT_FOR_UPSTREAM.iter().any(|prefix| name.starts_with(prefix)) || name == "cookie" || name.contains('_') || forwarded;
        if of_client || FORGED.iter().any(|forged| shown.contains(forged)) {
            faults.push(format!("header {name}: {shown}"));
        }
        if name.is_empty() || name.starts_with([' ', '\t']) || value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            faults.push(format!("a header line that can be read in two ways: {name:?}: {shown:?}"));
        }
    }
    let lengths = || kept.headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
    if lengths().count() > 1 || lengths().any(|value| value.is_empty() || !value.iter().all(u8::is_ascii_digit)) {
        faults.push(format!("a length that is none: {:?}", lengths().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>()));
    }
    let count = |wanted: &str| kept.headers.iter().filter(|(name, _)| name == wanted).count();
    let is = |wanted: &str, expected: &[u8]| kept.headers.iter().all(|(name, value)| name != wanted || value == expected);
    if count("host") != 1 || count("audit-id") != 1 || count("x-forwarded-for") != 1 || !is("x-forwarded-for", b"127.0.0.1") {
        faults.push("host, audit-id or x-forwarded-for is not single and ours".to_owned());
    }
    let usual = |value: &[u8]| [&b"upgrade"[..], b"keep-alive", b"close"].iter().any(|usual| value.eq_ignore_ascii_case(usual));
    if kept.headers.iter().any(|(name, value)| name == "connection" && !usual(value)) {
        faults.push("its connection header names others".to_owned());
    }
    let head = String::from_utf8_lossy(&kept.head);
    if secrets.iter().any(|secret| head.contains(secret.as_str())) {
        faults.push("a session token came with it".to_owned());
    }
    faults
}

/// `NAME-NUMBER` behind `attack=` in the target or `security/` in the user agent, up to a dot.
fn mark_of(uri: &str, agent: &str) -> Option<String> {
    let behind = |text: &str, word: &str| text.split_once(word).and_then(|(_, rest)| rest.split_once('.')).map(|(mark, _)| mark.to_owned());
    behind(uri, "attack=").or_else(|| behind(agent, "security/"))
}

fn account() -> String {
    format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A log that grows, read on from where it was.
struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0 }
    }

    /// The whole lines that are new.
    fn read(&mut self) -> Vec<Value> {
        let mut bytes = Vec::new();
        let Ok(mut file) = std::fs::File::open(&self.path) else { return Vec::new() };
        file.seek(SeekFrom::Start(self.offset)).and_then(|_| file.read_to_end(&mut bytes)).expect("the audit log");
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("an audit event")).collect()
    }
}
