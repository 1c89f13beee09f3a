//! One attack as it is made: requests of one person on some routes, each in all forms in which its bytes can be said, and what must become of
//! each. At its end every route must carry a plain, an upgraded and an HTTP/2 request of the same person that is no attack: so a refusal is
//! never owed to a mistake of the attack itself, and whatever an attack let through has come before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attack::Verdict;
use super::judge::{Arrival, Expected, Must};
use super::scene::{self, Scene, Target};
use super::support::header_attacks::{ATTACKS, HEADERS, Verdict as Listed};
use super::support::raw::{Answer, Connection};
use super::support::raw_http2::{Field, Http2};

/// For an answer, and then for what an upstream writes behind it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at a time: many end only when Envoy has waited a second.
const LANES: usize = 40;

const PLAIN: &str = "GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n";
const UPGRADE: &str = "GET {exec} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n";
const WEBSOCKET: &str =
    "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n";
const AGREE: &str = "connection: Upgrade\r\nupgrade: {protocol}\r\n";

/// Headers that HTTP/2 does not have.
const OF_A_CONNECTION: [&str; 7] = ["connection", "proxy-connection", "upgrade", "transfer-encoding", "te", "host", "keep-alive"];

type Forbidden = (&'static str, fn(&Arrival) -> bool);

pub(super) struct Trial<'s> {
    pub(super) scene: &'s Scene,
    name: &'static str,
    login: String,
    targets: Vec<Target>,
    start: usize,
    awaited: Vec<String>,
    ends: BTreeMap<String, usize>,
    patience: Duration,
    /// What is sent next, many at a time.
    waiting: Vec<Job>,
    forbidden: Vec<Forbidden>,
    findings: Vec<String>,
}

/// A request by itself, on a connection of its own.
struct Job {
    mark: String,
    target: Target,
    server_name: Option<String>,
    bytes: Bytes,
}

enum Bytes {
    /// HTTP/1.1.
    Text(Vec<u8>),
    /// The fields of an HTTP/2 request without a body.
    Fields(Vec<Field>),
    /// HTTP/2 otherwise.
    Frames(Vec<Field>, Frames),
}

/// Writes frames, and gives the stream whose answer counts.
type Frames = Box<dyn Fn(&mut Http2, &[Field]) -> u32 + Send + Sync>;

/// A request that was sent, and how it was answered.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) mark: String,
    pub(super) answer: Option<Answer>,
}

impl Sent {
    /// 0 when there was no answer.
    pub(super) fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    pub(super) fn text(&self) -> String {
        self.answer.as_ref().map_or(String::new(), Answer::text)
    }
}

impl<'s> Trial<'s> {
    pub(super) fn new(scene: &'s Scene, name: &'static str) -> Self {
        Self {
            scene,
            name,
            login: "foo".to_owned(),
            targets: scene::ALL.to_vec(),
            start: scene.judge.position(),
            awaited: Vec::new(),
            ends: BTreeMap::new(),
            patience: PATIENCE,
            waiting: Vec::new(),
            forbidden: Vec::new(),
            findings: Vec::new(),
        }
    }

    pub(super) fn by(mut self, login: &str) -> Self {
        login.clone_into(&mut self.login);
        self
    }

    pub(super) fn on(mut self, targets: &[Target]) -> Self {
        self.targets = targets.to_vec();
        self
    }

    /// How long it waits for each answer.
    pub(super) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What no arrival of this trial may be, also where it arrives as the person.
    pub(super) fn never(mut self, what: &'static str, is_it: fn(&Arrival) -> bool) -> Self {
        self.forbidden.push((what, is_it));
        self
    }

    /// Something else that should not be.
    pub(super) fn finding(&mut self, what: impl Into<String>) {
        self.findings.push(what.into());
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        self.targets.clone()
    }

    /// Header lines (with `\r\n` between them) beside a good `authorization`: plain, with both upgrades, and over HTTP/2 where it has such lines.
    pub(super) fn lines(&mut self, lines: &str, must: Must) {
        self.plain(lines, must);
        self.upgrades(lines, must);
        self.http2_lines(lines, must);
    }

    /// Over HTTP/1.1.
    pub(super) fn plain(&mut self, lines: &str, must: Must) {
        self.raw(&format!("{PLAIN}{lines}\r\n\r\n"), must);
    }

    /// `exec` over WebSocket and over SPDY.
    pub(super) fn upgrades(&mut self, lines: &str, must: Must) {
        for protocol in ["websocket", "SPDY/3.1"] {
            self.upgrade(protocol, &AGREE.replace("{protocol}", protocol), lines, must);
        }
    }

    /// The same with its own lines for `connection` and `upgrade`.
    pub(super) fn upgrade(&mut self, protocol: &str, agree: &str, lines: &str, must: Must) {
        let has_own = lines.to_ascii_lowercase().contains("sec-websocket-protocol");
        let websocket = if has_own { &WEBSOCKET[..WEBSOCKET.find("sec-websocket-protocol").unwrap()] } else { WEBSOCKET };
        let more = if protocol == "websocket" { websocket } else { "x-stream-protocol-version: v4.channel.k8s.io\r\n" };
        let lines = if lines.is_empty() { String::new() } else { format!("{lines}\r\n") };
        self.raw(&format!("{UPGRADE}{agree}{more}{lines}\r\n"), must);
    }

    /// The lines as fields; nothing where HTTP/2 has no such fields.
    pub(super) fn http2_lines(&mut self, lines: &str, must: Must) {
        let pairs: Option<Vec<(String, String)>> = lines.split("\r\n").filter(|line| !line.is_empty()).map(pair).collect();
        let Some(pairs) = pairs else { return };
        if pairs.iter().any(|(name, _)| OF_A_CONNECTION.contains(&name.as_str())) {
            return;
        }
        let more: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.http2(&[&usual_fields()[..], &more].concat(), must);
    }

    /// A whole request over HTTP/1.1 on each route; each character is a byte.
    pub(super) fn raw(&mut self, template: &str, must: Must) {
        for target in self.targets() {
            self.wait_raw(target, Some(target.host), template, must);
        }
    }

    pub(super) fn wait_raw(&mut self, target: Target, server_name: Option<&str>, template: &str, must: Must) {
        let mark = self.mark(target, must);
        let bytes = Bytes::Text(latin_1(&self.fill(template, target, &mark)));
        self.waiting.push(Job { mark, target, server_name: server_name.map(str::to_owned), bytes });
    }

    /// The same to one route, with another server name or none.
    pub(super) fn raw_to(&mut self, target: Target, server_name: Option<&str>, template: &str, must: Must) -> Sent {
        self.flush();
        self.wait_raw(target, server_name, template, must);
        let job = self.waiting.pop().expect("the request");
        let sent = job.send(self.scene, self.patience);
        self.ended(sent)
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        let (jobs, scene, patience) = (std::mem::take(&mut self.waiting), self.scene, self.patience);
        let (next, sent) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..LANES.min(jobs.len()) {
                scope.spawn(|| {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let answered = job.send(scene, patience);
                        sent.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
                    }
                });
            }
        });
        for sent in sent.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.ended(sent);
        }
    }

    /// A request over HTTP/2 on each route: its fields, pseudo headers first, as templates.
    pub(super) fn http2(&mut self, fields: &[(&str, &str)], must: Must) {
        for target in self.targets() {
            let mark = self.mark(target, must);
            let bytes = Bytes::Fields(self.fields(target, &mark, fields));
            self.waiting.push(Job { mark, target, server_name: None, bytes });
        }
    }

    /// The same to one route; `send` writes the frames and returns the stream. It waits with the others for [`Trial::flush`].
    pub(super) fn frames(
        &mut self,
        target: Target,
        fields: &[(&str, &str)],
        must: Must,
        send: impl Fn(&mut Http2, &[Field]) -> u32 + Send + Sync + 'static,
    ) {
        let mark = self.mark(target, must);
        let bytes = Bytes::Frames(self.fields(target, &mark, fields), Box::new(send));
        self.waiting.push(Job { mark, target, server_name: None, bytes });
    }

    pub(super) fn fields(&self, target: Target, mark: &str, fields: &[(&str, &str)]) -> Vec<Field> {
        let fill = |text: &str| latin_1(&self.fill(text, target, mark));
        fields.iter().map(|(name, value)| (fill(name), fill(value))).collect()
    }

    /// The rows of the tables of forged requests whose names begin with one of these.
    pub(super) fn listed(&mut self, names: &[&str]) {
        let chosen = |name: &str| names.iter().any(|start| name.starts_with(start));
        let must = |listed: &Listed| if *listed == Listed::AsSelf { Must::AsSelf } else { Must::Stop };
        let (mut lines, mut whole) = (0, 0);
        for (_, text, verdict) in HEADERS.iter().filter(|(name, ..)| chosen(name)) {
            lines += 1;
            self.plain(text, must(verdict));
            self.http2_lines(text, must(verdict));
            // What `connection` nominates is another matter on an upgrade.
            if !OF_A_CONNECTION.iter().any(|name| text.to_ascii_lowercase().contains(&format!("{name}: "))) {
                self.upgrades(text, must(verdict));
            }
        }
        for attack in ATTACKS.iter().filter(|attack| chosen(attack.name)) {
            whole += 1;
            for target in self.targets() {
                let server_name = (!attack.server_name.is_empty()).then(|| self.fill(attack.server_name, target, ""));
                self.wait_raw(target, server_name.as_deref(), attack.request, must(&attack.verdict));
            }
        }
        assert!(lines + whole >= names.len(), "{names:?} are not in the tables");
    }

    /// A connection to a route's host.
    pub(super) fn open(&self, target: Target, server_name: Option<&str>) -> Connection {
        open(self.scene, target, server_name)
    }

    /// A line in the book for a request that is sent next.
    pub(super) fn mark(&mut self, target: Target, must: Must) -> String {
        let mark = format!("{}-{}", self.name, self.scene.next());
        self.scene.judge.expect(&mark, Expected { target, must, login: self.login.clone() });
        if must == Must::AsSelf {
            self.awaited.push(mark.clone());
        }
        mark
    }

    pub(super) fn ended(&mut self, sent: Sent) -> Sent {
        match sent.status() {
            0 => self.ended_as("closed"),
            status => self.ended_as(&status.to_string()),
        }
        sent
    }

    pub(super) fn ended_as(&mut self, end: &str) {
        *self.ends.entry(end.to_owned()).or_default() += 1;
    }

    /// Fills in the words in braces.
    pub(super) fn fill(&self, template: &str, target: Target, mark: &str) -> String {
        let at = format!("/version?attack={mark}.");
        let exec = format!("/api/v1/namespaces/default/pods/web/exec?command=true&stdout=true&attack={mark}.");
        let (upper, public) = (target.host.to_ascii_uppercase(), super::support::world::PUBLIC_HOST);
        let words = [
            ("{at}", at.as_str()),
            ("{exec}", &exec),
            ("{mark}", mark),
            ("{host}", target.host),
            ("{HOST}", &upper),
            ("{other}", target.other().host),
            ("{public}", public),
        ];
        let mut text = words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value));
        if text.contains("{token}") {
            text = text.replace("{token}", &self.scene.token(&self.login, target));
        }
        if text.contains("{other token}") {
            text = text.replace("{other token}", &self.scene.token(&self.login, target.other()));
        }
        text
    }

    /// What no attack is: arrives on every route as the person.
    pub(super) fn controls(&mut self) {
        if self.login == "eve" {
            // Whom no rule lets in has no request that arrives.
            "foo".clone_into(&mut self.login);
        }
        self.plain("accept: */*", Must::AsSelf);
        self.http2(&usual_fields(), Must::AsSelf);
        // Whom policy lets only look cannot show that an upgrade passes.
        if self.login != "rea" {
            self.upgrades("", Must::AsSelf);
        }
    }

    /// The end: how the attack did, by what the upstreams wrote down.
    pub(super) fn verdict(mut self) -> Verdict {
        self.flush();
        let ends = std::mem::take(&mut self.ends);
        self.controls();
        self.flush();
        self.ends = ends;
        self.judged()
    }

    /// The same without requests that are no attack: the trial has made its own.
    pub(super) fn judged(mut self) -> Verdict {
        self.flush();
        let ends: Vec<String> = self.ends.iter().map(|(end, count)| format!("{end} x{count}")).collect();
        let deadline = Instant::now() + PATIENCE;
        let mut missing = self.awaited.clone();
        loop {
            missing.retain(|mark| self.scene.judge.of(mark).is_empty());
            if missing.is_empty() || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut findings = self.findings;
        findings.extend(self.scene.judge.findings_since(self.start));
        for arrival in self.scene.judge.since(self.start) {
            for (what, is_it) in &self.forbidden {
                if is_it(&arrival) {
                    findings.push(format!("{what}: {} {} as {}", arrival.method, arrival.uri, arrival.user));
                }
            }
        }
        if findings.is_empty() && !missing.is_empty() {
            panic!(
                "{} of {} requests that should arrive did not: {missing:?}; ends: {}",
                missing.len(),
                self.awaited.len(),
                ends.join(", ")
            );
        }
        Verdict::of(&findings, ends.join(", "))
    }
}

impl Job {
    fn send(&self, scene: &Scene, patience: Duration) -> Sent {
        let answer = match &self.bytes {
            Bytes::Text(bytes) => {
                let mut connection = open(scene, self.target, self.server_name.as_deref()).within(patience);
                // What answers HEAD announces a body that does not come.
                let mut answer =
                    if bytes.starts_with(b"HEAD ") { connection.send(bytes).answer_to_head() } else { connection.send(bytes).answer() };
                while answer.as_ref().is_some_and(|answer| answer.status != 101 && answer.status < 200) {
                    answer = connection.answer();
                }
                answer
            }
            Bytes::Fields(fields) => {
                let mut connection = Http2::open(scene.world.port, self.target.host, scene.world.authority.pem());
                let stream = connection.request(fields, true);
                connection.answer(stream)
            }
            Bytes::Frames(fields, send) => {
                let mut connection = Http2::open(scene.world.port, self.target.host, scene.world.authority.pem());
                let stream = send(&mut connection, fields);
                connection.answer(stream)
            }
        };
        Sent { mark: self.mark.clone(), answer }
    }
}

fn open(scene: &Scene, target: Target, server_name: Option<&str>) -> Connection {
    let (port, authority) = (scene.world.port, scene.world.authority.pem());
    let connection = match server_name {
        Some(name) => Connection::open(port, name, authority),
        None => Connection::open_without_server_name(port, target.host, authority),
    };
    connection.within(PATIENCE)
}

/// The fields of a good request.
pub(super) fn usual_fields() -> [(&'static str, &'static str); 6] {
    [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "{host}"),
        (":path", "{at}"),
        ("user-agent", "security/{mark}."),
        ("authorization", "Bearer {token}"),
    ]
}

/// A line's name in lower case and its value.
fn pair(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim_start_matches(' ').to_owned()))
}

/// Each character as one byte.
fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("Latin-1")).collect()
}
