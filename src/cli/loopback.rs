//! The loopback listener of a login (RFC 8252, 7.3): waits until the browser brings the code for our state, and answers nothing else.
//!
//! Any program and any web page on this machine can reach it, so a wrong state changes nothing and the wait goes on.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use url::form_urlencoded;

use super::random::sha256_base64;

/// Longest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Browsers open connections in advance and leave them idle.
const MAX_CONNECTIONS: usize = 32;
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What the browser brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    Code(String),
    /// RFC 6749, 4.1.2.1.
    Refused {
        error: String,
        description: String,
    },
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Loopback {
    address: SocketAddr,
    callbacks: Receiver<Callback>,
    stopped: Arc<AtomicBool>,
}

/// What each connection needs.
#[derive(Debug, Clone)]
struct Expectation {
    authority: String,
    state: String,
    found: SyncSender<Callback>,
    open: Arc<AtomicUsize>,
}

impl Loopback {
    pub(crate) fn listen(state: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (found, callbacks) = sync_channel(1);
        let stopped = Arc::new(AtomicBool::new(false));
        let expectation = Expectation { authority: address.to_string(), state: state.to_owned(), found, open: Arc::default() };
        let is_stopped = Arc::clone(&stopped);
        std::thread::Builder::new().name("loopback".to_owned()).spawn(move || accept(&listener, &expectation, &is_stopped))?;
        Ok(Self { address, callbacks, stopped })
    }

    pub(crate) fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// `None` when the deadline passed.
    pub(crate) fn wait(&self, deadline: Instant) -> Option<Callback> {
        self.callbacks.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; should that fail, it ends with the process.
        _ = TcpStream::connect_timeout(&self.address, CONNECTION_TIMEOUT);
    }
}

fn accept(listener: &TcpListener, expectation: &Expectation, stopped: &AtomicBool) {
    for connection in listener.incoming() {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(connection) = connection else { continue };
        if expectation.open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            expectation.open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let expectation = expectation.clone();
        std::thread::spawn(move || {
            // A connection that breaks brings nothing; the browser says so to its user.
            _ = serve(connection, &expectation);
            expectation.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve(mut connection: TcpStream, expectation: &Expectation) -> io::Result<()> {
    connection.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
    connection.set_write_timeout(Some(CONNECTION_TIMEOUT))?;
    let head = read_head(&mut connection, Instant::now() + CONNECTION_TIMEOUT)?;
    let answer = judge(&head, expectation);
    let (status, text) = match &answer {
        Ok(Callback::Code(_)) => ("200 OK", "You are logged in. You can close this window and go back to the terminal."),
        Ok(Callback::Refused { .. }) => ("200 OK", "The login was refused. The terminal says why; you can close this window."),
        Err(refusal) => (refusal.status(), "This page belongs to a login of kubepass that is waiting in a terminal."),
    };
    connection.write_all(page(status, text).as_bytes())?;
    if let Ok(callback) = answer {
        // Only the first counts.
        _ = expectation.found.try_send(callback);
    }
    connection.shutdown(std::net::Shutdown::Write)
}

fn read_head(connection: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut part = [0_u8; 2048];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let count = connection.read(&mut part)?;
        if count == 0 || Instant::now() > deadline {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(part.get(..count).unwrap_or_default());
        if head.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}

/// Why a request is not our callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotOurs {
    Malformed,
    Method,
    Host,
    Path,
    State,
}

impl NotOurs {
    fn status(self) -> &'static str {
        match self {
            Self::Malformed | Self::State => "400 Bad Request",
            Self::Method => "405 Method Not Allowed",
            // A name that was made to point to 127.0.0.1 (DNS rebinding).
            Self::Host => "421 Misdirected Request",
            Self::Path => "404 Not Found",
        }
    }
}

fn judge(head: &[u8], expectation: &Expectation) -> Result<Callback, NotOurs> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(head).is_ok_and(|status| status.is_complete()) {
        return Err(NotOurs::Malformed);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(NotOurs::Malformed) };
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    if hosts.next().map(|header| header.value) != Some(expectation.authority.as_bytes()) || hosts.next().is_some() {
        return Err(NotOurs::Host);
    }
    if method != "GET" {
        return Err(NotOurs::Method);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != "/callback" {
        return Err(NotOurs::Path);
    }
    let parameter =
        |wanted: &str| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    let state = parameter("state").unwrap_or_default();
    verify_slices_are_equal(state.as_bytes(), expectation.state.as_bytes()).map_err(|_| NotOurs::State)?;
    match (parameter("error"), parameter("code")) {
        (Some(error), _) => Ok(Callback::Refused { error, description: parameter("error_description").unwrap_or_default() }),
        (None, Some(code)) if !code.is_empty() => Ok(Callback::Code(code)),
        _ => Err(NotOurs::Malformed),
    }
}

/// As the pages of the installation look.
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1b1f24;background:#f4f5f7}\
main{max-width:38rem;margin:8vh auto;padding:2rem;background:#fff;border:1px solid #d8dce1;border-radius:8px}h1{margin-top:0;font-size:1.5rem}";

/// Fixed texts only: nothing of the request comes back.
fn page(status: &str, text: &str) -> String {
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>kubepass</title>\
         <style>{STYLE}</style><main><h1>kubepass</h1><p>{text}</p></main></html>\n"
    );
    let style = sha256_base64(STYLE);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'sha256-{style}'; frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn check(head: &str, expected: Result<Callback, NotOurs>) {
        let expectation =
            Expectation { authority: "127.0.0.1:4000".to_owned(), state: "s1".to_owned(), found: sync_channel(1).0, open: Arc::default() };
        assert_eq!(judge(head.as_bytes(), &expectation), expected, "{head}");
    }

    #[test]
    fn takes_only_its_own_callback() {
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:4000\r\n\r\n");
        check(&get("/callback?code=c%2B1&state=s1"), Ok(Callback::Code("c+1".to_owned())));
        check(
            &get("/callback?error=access_denied&error_description=not+you&state=s1"),
            Ok(Callback::Refused { error: "access_denied".to_owned(), description: "not you".to_owned() }),
        );
        check(&get("/callback?code=c&state=s2"), Err(NotOurs::State));
        check(&get("/callback?code=c&state="), Err(NotOurs::State));
        check(&get("/callback?code=c"), Err(NotOurs::State));
        check(&get("/callback?error=x&state=s2"), Err(NotOurs::State));
        check(&get("/callback?state=s1"), Err(NotOurs::Malformed));
        check(&get("/callback?state=s1&code="), Err(NotOurs::Malformed));
        check(&get("/"), Err(NotOurs::Path));
        check(&get("/callback/?code=c&state=s1"), Err(NotOurs::Path));
        for host in ["Host: localhost:4000\r\n", "Host: evil.example:4000\r\n", "", "Host: 127.0.0.1:4000\r\nHost: 127.0.0.1:4000\r\n"] {
            check(&format!("GET /callback?code=c&state=s1 HTTP/1.1\r\n{host}\r\n"), Err(NotOurs::Host));
        }
        check("POST /callback?code=c&state=s1 HTTP/1.1\r\nHost: 127.0.0.1:4000\r\n\r\n", Err(NotOurs::Method));
        check("nonsense\r\n\r\n", Err(NotOurs::Malformed));
    }

    fn ask(address: SocketAddr, target: &str) -> String {
        let mut connection = TcpStream::connect(address).unwrap();
        write!(connection, "GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn goes_on_waiting_after_a_wrong_state() {
        let loopback = Loopback::listen("right").unwrap();
        let idle = TcpStream::connect(loopback.address).unwrap();
        assert!(ask(loopback.address, "/callback?code=evil&state=wrong").starts_with("HTTP/1.1 400"));
        assert_eq!(loopback.wait(Instant::now()), None);
        let answer = ask(loopback.address, "/callback?code=good&state=right");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("default-src 'none'") && !answer.contains("good"));
        assert_eq!(loopback.wait(Instant::now() + CONNECTION_TIMEOUT), Some(Callback::Code("good".to_owned())));
        drop(idle);
        let address = loopback.address;
        drop(loopback);
        // The thread ends after the connection that woke it.
        assert!((0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            TcpStream::connect(address).is_err()
        }));
    }
}
