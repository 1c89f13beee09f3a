#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::cli::installation::Transport;
use crate::cli::random::s256;
use crate::cli::token_cache::Token;

/// A whole installation with one route, on one port: the protocol, with counters.
#[derive(Default)]
struct Server {
    address: Mutex<String>,
    /// Pages that a browser was sent to and confirmed.
    logins: AtomicUsize,
    renewals: AtomicUsize,
    session_ended: AtomicBool,
    token_lifetime: AtomicU64,
    /// Codes and the challenge and redirect that belong to each.
    codes: Mutex<HashMap<String, (String, String)>>,
    /// What `/.kubepass/config` says, when not the truth.
    configuration: Mutex<Option<String>>,
    /// Status and body for `/cli/session-token`, when not a token.
    session_answer: Mutex<Option<(u16, &'static str)>>,
}

impl Server {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Arc::new(Self { address: Mutex::new(listener.local_addr().unwrap().to_string()), ..Self::default() });
        server.token_lifetime.store(3_600, Ordering::SeqCst);
        let serving = Arc::clone(&server);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(connection.unwrap()));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address.lock().unwrap())
    }

    fn serve(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let found = head.iter().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
        let (status, json) = self.answer(&head[0], &header("authorization"), &form);
        write!(connection, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{json}", json.len()).unwrap();
    }

    fn answer(&self, request_line: &str, authorization: &str, form: &HashMap<String, String>) -> (u16, String) {
        match request_line.strip_suffix(" HTTP/1.1").unwrap() {
            "GET /.kubepass/config" => {
                let truth = format!(r#"{{"public_url":"{}","route":"prod","host":"127.0.0.1"}}"#, self.url());
                (200, self.configuration.lock().unwrap().clone().unwrap_or(truth))
            }
            "POST /cli/token" => {
                let code = self.codes.lock().unwrap().remove(&form["code"]);
                let expected = (s256(&form["code_verifier"]), form["redirect_uri"].clone());
                if form["grant_type"] != "authorization_code" || code != Some(expected) {
                    return (400, r#"{"error":"invalid_grant","error_description":"no such code"}"#.to_owned());
                }
                self.session_ended.store(false, Ordering::SeqCst);
                let number = self.logins.fetch_add(1, Ordering::SeqCst) + 1;
                (200, format!(r#"{{"login_token":"login-{number}","expires_in":43200,"user":"foo@example.com"}}"#))
            }
            "POST /cli/session-token" => {
                if let Some((status, body)) = *self.session_answer.lock().unwrap() {
                    return (status, body.to_owned());
                }
                let current = format!("Bearer login-{}", self.logins.load(Ordering::SeqCst));
                if authorization != current || self.session_ended.load(Ordering::SeqCst) {
                    return (401, r#"{"error":"invalid_token"}"#.to_owned());
                }
                assert_eq!(form["host"], "127.0.0.1");
                let number = self.renewals.fetch_add(1, Ordering::SeqCst) + 1;
                let expires_at = NOW + self.token_lifetime.load(Ordering::SeqCst);
                (200, format!(r#"{{"session_token":"session-{number}","expires_at":{expires_at},"route":"prod"}}"#))
            }
            other => panic!("{other}"),
        }
    }

    /// What the login page does with a user who confirms.
    fn confirm(&self, page: &str) {
        let url = url::Url::parse(page).unwrap();
        assert_eq!((url.path(), url.origin().ascii_serialization()), ("/cli/login", self.url()));
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!((query["code_challenge_method"].as_str(), query["route"].as_str()), ("S256", "127.0.0.1"));
        let code = format!("code-{}", self.codes.lock().unwrap().len());
        let bound = (query["code_challenge"].clone(), query["redirect_uri"].clone());
        self.codes.lock().unwrap().insert(code.clone(), bound);
        visit(&format!("{}?code={code}&state={}", query["redirect_uri"], query["state"]));
    }
}

fn visit(url: &str) {
    let url = url::Url::parse(url).unwrap();
    let authority = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut connection = TcpStream::connect(&authority).unwrap();
    write!(connection, "GET {}?{} HTTP/1.1\r\nHost: {authority}\r\n\r\n", url.path(), url.query().unwrap()).unwrap();
    connection.read_to_string(&mut String::new()).unwrap();
}

const NOW: u64 = 1_700_000_000;

struct Client {
    server: Arc<Server>,
    cache: TokenCache,
    wire: Wire,
    route: RouteAddress,
    now: AtomicU64,
    _folder: tempfile::TempDir,
}

impl Client {
    fn new() -> Self {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
        Self {
            cache: TokenCache::open(folder.path().join("kubepass")).unwrap(),
            wire: Wire::new(&Transport::default()).unwrap(),
            route: RouteAddress::parse(&server.url()).unwrap(),
            now: AtomicU64::new(NOW),
            server,
            _folder: folder,
        }
    }

    fn ask_with(&self, caller: Option<u32>, open: &dyn Fn(&str), timeout: Duration) -> Result<String, CredentialError> {
        let caller = caller.map(|number| serde_json::from_str::<Caller>(&format!(r#"{{"process":{number},"started":"1"}}"#)).unwrap());
        let clock = || self.now.load(Ordering::SeqCst);
        let credentials = Credentials { cache: &self.cache, wire: &self.wire, open, timeout, clock: &clock };
        credentials.session(&self.route, caller.as_ref()).map(|session| session.session_token.expose().to_owned())
    }

    /// With a user who confirms every login.
    #[track_caller]
    fn ask(&self, caller: Option<u32>) -> String {
        let server = Arc::clone(&self.server);
        self.ask_with(caller, &move |page| server.confirm(page), Duration::from_secs(20)).unwrap()
    }

    /// Without a browser: only what needs no login works.
    fn ask_without_login(&self, caller: Option<u32>) -> Result<String, CredentialError> {
        self.ask_with(caller, &|_| panic!("a login was begun"), Duration::from_secs(20))
    }

    fn logins(&self) -> usize {
        self.server.logins.load(Ordering::SeqCst)
    }
}

#[test]
fn the_first_logs_in_and_others_use_the_token() {
    let client = Client::new();
    assert_eq!(client.ask(Some(1)), "session-1");
    assert_eq!(client.ask_without_login(Some(2)).unwrap(), "session-1");
    assert_eq!(client.ask_without_login(Some(3)).unwrap(), "session-1");
    assert_eq!(client.logins(), 1);
}

#[test]
fn never_the_same_token_twice_for_one_caller() {
    let client = Client::new();
    assert_eq!(client.ask(Some(1)), "session-1");
    assert_eq!(client.ask_without_login(Some(1)).unwrap(), "session-2");
    assert_eq!(client.ask_without_login(Some(1)).unwrap(), "session-3");
    assert_eq!(client.ask_without_login(Some(2)).unwrap(), "session-3");
    // Who cannot be told apart always gets a new one.
    assert_eq!(client.ask_without_login(None).unwrap(), "session-4");
    assert_eq!(client.ask_without_login(None).unwrap(), "session-5");
    assert_eq!(client.logins(), 1);
}

#[test]
fn a_revoked_session_leads_to_a_login() {
    let client = Client::new();
    assert_eq!(client.ask(Some(1)), "session-1");
    client.server.session_ended.store(true, Ordering::SeqCst);
    // kubectl's second process still gets the cached token, is refused with it, and asks again.
    assert_eq!(client.ask_without_login(Some(2)).unwrap(), "session-1");
    assert_eq!(client.ask(Some(2)), "session-2");
    assert_eq!(client.logins(), 2);
    assert_eq!(client.ask_without_login(Some(3)).unwrap(), "session-2");
}

#[test]
fn renews_before_the_end() {
    let client = Client::new();
    assert_eq!(client.ask(Some(1)), "session-1");
    client.now.store(NOW + 3_539, Ordering::SeqCst);
    assert_eq!(client.ask_without_login(Some(2)).unwrap(), "session-1");
    client.now.store(NOW + 3_540, Ordering::SeqCst);
    client.server.token_lifetime.store(7_200, Ordering::SeqCst);
    assert_eq!(client.ask_without_login(Some(3)).unwrap(), "session-2");
    // The login itself has ended: its token is not even sent.
    client.now.store(NOW + 43_200, Ordering::SeqCst);
    client.server.token_lifetime.store(50_000, Ordering::SeqCst);
    assert_eq!(client.ask(Some(4)), "session-3");
    assert_eq!(client.logins(), 2);
}

#[test]
fn five_at_once_open_one_tab() {
    let client = Client::new();
    std::thread::scope(|scope| {
        for caller in 0..5 {
            let client = &client;
            scope.spawn(move || client.ask(Some(caller)));
        }
    });
    assert_eq!((client.logins(), client.server.renewals.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn a_login_that_nobody_finishes_ends() {
    let client = Client::new();
    let begun = Instant::now();
    let error = client.ask_with(Some(1), &|_| {}, Duration::from_secs(3)).unwrap_err();
    assert!(matches!(error, CredentialError::Login(LoginError::TimedOut)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn refusals_are_told() {
    let client = Client::new();
    let refuse = |page: &str| {
        let query: HashMap<String, String> = url::Url::parse(page).unwrap().query_pairs().into_owned().collect();
        visit(&format!("{}?error=access_denied&error_description=not+%1b%5B31mhere&state={}", query["redirect_uri"], query["state"]));
    };
    let error = client.ask_with(Some(1), &refuse, Duration::from_secs(20)).unwrap_err().to_string();
    assert_eq!(error, "the login was refused: not \u{fffd}[31mhere");

    client.ask(Some(1));
    *client.server.session_answer.lock().unwrap() = Some((403, r#"{"error":"access_denied","error_description":"not for you"}"#));
    let error = client.ask_without_login(Some(1)).unwrap_err().to_string();
    assert_eq!(error, format!("{0} refused: not for you (to log in anew: kubepass login {0})", client.route));
    *client.server.session_answer.lock().unwrap() = Some((502, "<html>"));
    assert!(client.ask_without_login(Some(1)).unwrap_err().to_string().contains("refused: HTTP 502 ("));
    *client.server.session_answer.lock().unwrap() = Some((200, r#"{"session_token":"secret-token"}"#));
    let error = client.ask_without_login(Some(1)).unwrap_err().to_string();
    assert!(error.contains("not the expected JSON") && !error.contains("secret-token"), "{error}");
}

/// A stolen code is worthless: the verifier is not in the browser.
#[test]
fn a_code_of_another_login_is_refused() {
    let client = Client::new();
    let swap = |page: &str| {
        let query: HashMap<String, String> = url::Url::parse(page).unwrap().query_pairs().into_owned().collect();
        let other = (s256("another verifier"), query["redirect_uri"].clone());
        client.server.codes.lock().unwrap().insert("stolen".to_owned(), other);
        visit(&format!("{}?code=stolen&state={}", query["redirect_uri"], query["state"]));
    };
    let error = client.ask_with(Some(1), &swap, Duration::from_secs(20)).unwrap_err().to_string();
    assert!(error.ends_with("refused: no such code"), "{error}");
    assert_eq!(client.logins(), 0);
}

#[test]
fn a_route_that_lies_gets_nothing() {
    for (configuration, why) in [
        (r#"{"public_url":"https://pass.example.com","route":"x","host":"prod.example.com"}"#, r#"it says that it is "prod.example.com""#),
        (r#"{"public_url":"http://pass.example.com","route":"x","host":"127.0.0.1"}"#, "must begin with https://"),
        (r#"{"public_url":"file:///etc/passwd","route":"x","host":"127.0.0.1"}"#, "is not a URL"),
        ("<html>", "is no kubepass route"),
    ] {
        let client = Client::new();
        *client.server.configuration.lock().unwrap() = Some(configuration.to_owned());
        let error = client.ask_without_login(Some(1)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn tokens_are_not_in_debug() {
    assert_eq!(format!("{:?}", Token::new("secret".to_owned())), "Token(..)");
}

/// The kubeconfig of another cluster, with a CA of its own, names this installation: the login must not go past that CA.
#[test]
fn a_login_is_not_shown_to_a_ca_that_came_later() {
    let mut client = Client::new();
    client.ask(Some(1));
    client.ask(Some(1));
    assert_eq!((client.logins(), client.server.renewals.load(Ordering::SeqCst)), (1, 2), "one login renews");
    let ca = include_bytes!("../../../tests/it/fixture/ca.crt").to_vec();
    let plain = std::mem::replace(&mut client.wire, Wire::new(&Transport { ca_bundles: vec![ca], proxy: None }).unwrap());
    client.ask(Some(1));
    assert_eq!(client.logins(), 2, "another login, with the user's consent");
    client.wire = plain;
    client.ask(Some(1));
    assert_eq!(client.logins(), 2, "the system's roots alone are no more than what the login trusted");
}
