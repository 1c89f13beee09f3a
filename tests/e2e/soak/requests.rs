//! The request stream: one request after the other, each of its own kind and path, each answer compared with what may be answered at that moment;
//! and, in the end, what of all that arrived at the API servers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::Value;

use super::super::support::http;
use super::super::support::proxy::Proxy;
use super::super::support::wait::eventually;
use super::super::support::world::{STAGING_HOST, World};
use super::expected::{Ask, Expected};
use super::installation::Installation;

/// Rounds of requests before the next connection.
const ROUNDS_OF_A_CONNECTION: usize = 10;
/// From the beginning of one round to that of the next: other tests want to run too.
const ROUND: Duration = Duration::from_millis(150);

/// One request and its answer.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) ask: Ask,
    /// No other request has it.
    path: String,
    answer: String,
}

/// Requests until the end.
pub(super) struct Requests {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    proxy: Proxy,
    authority: String,
    expected: Expected,
    tokens: Mutex<BTreeMap<(&'static str, &'static str), String>>,
    exchanges: Mutex<Vec<Exchange>>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Requests {
    pub(super) fn start(installation: &Installation, expected: &Expected) -> Self {
        let world = &installation.world;
        let shared = Arc::new(Shared {
            proxy: world.proxy.clone(),
            authority: world.authority.pem().to_owned(),
            expected: expected.clone(),
            tokens: Mutex::default(),
            exchanges: Mutex::default(),
            wrong: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        shared.renew_tokens(installation);
        let asking = Arc::clone(&shared);
        Self { shared, thread: std::thread::spawn(move || asking.run()) }
    }

    /// The tokens of foo, before they end.
    pub(super) fn renew_tokens(&self, installation: &Installation) {
        self.shared.renew_tokens(installation);
    }

    pub(super) fn set_token(&self, user: &'static str, host: &'static str, token: &str) {
        self.shared.set_token(user, host, token);
    }

    pub(super) fn has_token(&self, user: &'static str, host: &'static str) -> bool {
        self.shared.tokens.lock().unwrap().contains_key(&(user, host))
    }

    /// Waits until a request of this kind is answered so, from now on.
    pub(super) fn until(&self, ask: Ask, answer: &str, what: &str) {
        let begin = self.count();
        eventually(&format!("{what}: {ask:?} is answered {answer}"), Duration::from_secs(30), || {
            let exchanges = self.shared.exchanges.lock().unwrap();
            exchanges[begin..].iter().rev().find(|exchange| exchange.ask == ask).filter(|exchange| exchange.answer == answer).map(drop)
        });
    }

    pub(super) fn count(&self) -> usize {
        self.shared.exchanges.lock().unwrap().len()
    }

    /// How often a kind of request was served.
    pub(super) fn answered(&self, ask: Ask) -> usize {
        let exchanges = self.shared.exchanges.lock().unwrap();
        exchanges.iter().filter(|exchange| exchange.ask == ask && (ask == Ask::Stranger || exchange.answer == "200")).count()
    }

    pub(super) fn assert_right(&self, what: &str) {
        let wrong = self.shared.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{what}: wrong answers:\n{}", wrong.join("\n"));
    }

    pub(super) fn end(self) -> Vec<Exchange> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the request stream");
        let exchanges = self.shared.exchanges.lock().unwrap().clone();
        assert!(self.shared.wrong.lock().unwrap().is_empty());
        exchanges
    }
}

impl Shared {
    fn renew_tokens(&self, installation: &Installation) {
        for host in installation.hosts() {
            self.set_token("foo", host, &installation.foo.session_token(&installation.world.url(host)));
        }
    }

    fn set_token(&self, user: &'static str, host: &'static str, token: &str) {
        self.tokens.lock().unwrap().insert((user, host), token.to_owned());
    }

    fn run(&self) {
        let mut client = self.client();
        for round in 0.. {
            let began = Instant::now();
            if round % ROUNDS_OF_A_CONNECTION == 0 {
                client = self.client();
            }
            for (kind, ask) in Ask::ALL.into_iter().enumerate() {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                self.exchange(&client, ask, round * Ask::ALL.len() + kind + 1);
            }
            std::thread::sleep(ROUND.saturating_sub(began.elapsed()));
        }
    }

    fn client(&self) -> Client {
        let proxy = reqwest::Proxy::https(self.proxy.url()).expect("the proxy's URL");
        http::builder(&[&self.authority]).proxy(proxy).build().expect("a client")
    }

    fn exchange(&self, client: &Client, ask: Ask, number: usize) {
        let path = format!("/api/v1/namespaces/default/{}?limit={number}", ask.resource());
        let moment = self.expected.now();
        let mut request = client.get(format!("https://{}{path}", ask.host()));
        if let Some(token) = ask.user().and_then(|user| self.tokens.lock().unwrap().get(&(user, ask.host())).cloned()) {
            request = request.bearer_auth(token);
        }
        let began = Instant::now();
        let (answer, text) = match request.send().and_then(|answer| Ok((answer.status().as_u16(), answer.text()?))) {
            Ok((status, text)) => (normal(status, &text), text),
            Err(error) => (format!("no answer: {error:?}"), String::new()),
        };
        let allowed = self.expected.since(moment, ask);
        if !allowed.contains(&answer) {
            let took = began.elapsed();
            self.wrong.lock().unwrap().push(format!("{ask:?} {path}: {answer} after {took:?}, allowed are {allowed:?}: {text}"));
        }
        self.exchanges.lock().unwrap().push(Exchange { ask, path, answer });
    }
}

/// The status, and which change's rule refused.
fn normal(status: u16, text: &str) -> String {
    let change =
        text.split("denied by policy: change ").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    change.map_or_else(|| status.to_string(), |change| format!("{status} change {change}"))
}

/// By the API servers' own logs: what was answered with 200 was served there, once, for the one who asked; nothing else arrived.
pub(super) fn assert_arrived(world: &World, exchanges: &[Exchange]) {
    let served = |cluster: &super::super::support::cluster::Cluster| {
        let mut by_path: HashMap<String, Vec<Value>> = HashMap::new();
        for event in cluster.audit_events() {
            let path = event["requestURI"].as_str().unwrap_or_default().to_owned();
            if event["stage"] == "ResponseComplete" && path.contains("?limit=") {
                by_path.entry(path).or_default().push(event);
            }
        }
        by_path
    };
    let (prod, staging) = (served(&world.prod), served(&world.staging));
    let mut findings = Vec::new();
    for exchange in exchanges {
        let events = if exchange.ask.host() == STAGING_HOST { &staging } else { &prod };
        let events = events.get(&exchange.path).map(Vec::as_slice).unwrap_or_default();
        let user =
            |event: &Value| if event["impersonatedUser"].is_object() { event["impersonatedUser"].clone() } else { event["user"].clone() };
        let users: Vec<Value> = events.iter().map(|event| user(event)["username"].clone()).collect();
        let wanted: Vec<Value> = match exchange.ask.user().filter(|_| exchange.answer == "200") {
            Some(user) => vec![format!("{user}@example.com").into()],
            None => Vec::new(),
        };
        if users != wanted {
            findings.push(format!("{exchange:?}: the API server served {users:?}"));
        }
    }
    assert!(findings.is_empty(), "{} of {}:\n{}", findings.len(), exchanges.len(), findings.join("\n"));
}
