//! An upstream that keeps every byte: a TLS server in the place of an API server, with HTTP/1.1 read line by line and HTTP/2. It answers as it is
//! told for a request, and otherwise with an empty object; upgrades it agrees to, and keeps what follows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::Response;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::support::https;
use super::support::pki::Pair;

type Tls = TlsStream<TcpStream>;

const EMPTY_OBJECT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived {
    pub(super) method: String,
    pub(super) target: String,
    /// Names in lower case, in the order of the request.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// The head's bytes; for HTTP/2 its fields, one a line.
    pub(super) head: Vec<u8>,
    /// The body, trailers included; after an upgrade all that follows.
    pub(super) body: Vec<u8>,
}

/// What a request is answered.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Bytes over HTTP/1.1.
    pub(super) answer: Vec<u8>,
    /// Whether the connection ends behind them.
    pub(super) close: bool,
}

pub(super) struct Recorder {
    port: u16,
    kept: Arc<Kept>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Kept {
    arrived: Mutex<Vec<Arrived>>,
    /// Bytes that were no whole request, and what HTTP/2 found wrong.
    odd: Mutex<Vec<String>>,
    /// By a part of the request's target.
    scripts: Mutex<HashMap<String, Script>>,
}

impl Recorder {
    pub(super) fn start(pair: &Pair) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (kept, acceptor) = (Arc::new(Kept::default()), TlsAcceptor::from(Arc::new(https::tls(pair, &[b"h2", b"http/1.1"]))));
        let keeping = Arc::clone(&kept);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (kept, acceptor) = (Arc::clone(&keeping), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        http2(stream, &kept).await;
                    } else {
                        // The end of a connection is no matter here.
                        let _ = http1(stream, &kept).await;
                    }
                });
            }
        });
        Self { port, kept, _runtime: runtime }
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// What came so far, oldest first, without the first `from`.
    pub(super) fn arrived(&self, from: usize) -> Vec<Arrived> {
        locked(&self.kept.arrived).iter().skip(from).cloned().collect()
    }

    /// Answers requests whose target holds `part` with these bytes.
    pub(super) fn answer(&self, part: &str, answer: impl Into<Vec<u8>>, close: bool) {
        locked(&self.kept.scripts).insert(part.to_owned(), Script { answer: answer.into(), close });
    }

    /// A view that shares everything with this one.
    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.kept))
    }
}

/// Reads what a recorder keeps.
#[derive(Clone)]
pub(super) struct Handle(Arc<Kept>);

impl Handle {
    pub(super) fn arrived(&self, from: usize) -> Vec<Arrived> {
        locked(&self.0.arrived).iter().skip(from).cloned().collect()
    }

    pub(super) fn odd(&self, from: usize) -> Vec<String> {
        locked(&self.0.odd).iter().skip(from).cloned().collect()
    }
}

impl Kept {
    fn push(&self, arrived: Arrived) -> usize {
        let mut all = locked(&self.arrived);
        all.push(arrived);
        all.len() - 1
    }

    fn add_to_body(&self, index: usize, bytes: &[u8]) {
        locked(&self.arrived)[index].body.extend_from_slice(bytes);
    }

    fn odd(&self, what: String) {
        locked(&self.odd).push(what);
    }

    fn script(&self, target: &str) -> Option<Script> {
        locked(&self.scripts).iter().find(|(part, _)| target.contains(part.as_str())).map(|(_, script)| script.clone())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn http1(mut stream: Tls, kept: &Kept) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(end) = read_head(&mut stream, &mut buffer).await? else {
            if !buffer.is_empty() {
                kept.odd(format!("no whole request: {}", String::from_utf8_lossy(&buffer)));
            }
            return Ok(());
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let arrived = read_request(head);
        let target = arrived.target.clone();
        let upgrade = arrived.headers.iter().find(|(name, _)| name == "upgrade").map(|(_, value)| value.clone());
        let (length, chunked) = body_of(&arrived);
        let script = kept.script(&target);
        let index = kept.push(arrived);
        if let (Some(protocol), None) = (&upgrade, &script) {
            let answer = [&b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: "[..], protocol, b"\r\n\r\n"];
            stream.write_all(&answer.concat()).await?;
            stream.flush().await?;
            kept.add_to_body(index, &buffer);
            let mut part = [0; 4096];
            loop {
                match stream.read(&mut part).await? {
                    0 => return Ok(()),
                    read => kept.add_to_body(index, &part[..read]),
                }
            }
        }
        if chunked {
            read_chunks(&mut stream, &mut buffer, index, kept).await?;
        } else {
            while buffer.len() < length {
                fill(&mut stream, &mut buffer).await?;
            }
            kept.add_to_body(index, &buffer.drain(..length).collect::<Vec<_>>());
        }
        let script = script.unwrap_or_else(|| Script { answer: EMPTY_OBJECT.to_vec(), close: false });
        stream.write_all(&script.answer).await?;
        stream.flush().await?;
        if script.close {
            return stream.shutdown().await;
        }
    }
}

/// The length of the next head in the buffer; none at the end of the connection.
async fn read_head(stream: &mut Tls, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(read) => buffer.extend_from_slice(&part[..read]),
        }
    }
}

async fn fill(stream: &mut Tls, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut part = [0; 4096];
    match stream.read(&mut part).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        read => {
            buffer.extend_from_slice(&part[..read]);
            Ok(())
        }
    }
}

/// Keeps chunks as they came, to the end of the trailers.
async fn read_chunks(stream: &mut Tls, buffer: &mut Vec<u8>, index: usize, kept: &Kept) -> std::io::Result<()> {
    loop {
        let line = read_line(stream, buffer).await?;
        kept.add_to_body(index, &line);
        let text = String::from_utf8_lossy(&line).into_owned();
        let length = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        while buffer.len() < length + 2 {
            fill(stream, buffer).await?;
        }
        kept.add_to_body(index, &buffer.drain(..length + 2).collect::<Vec<_>>());
    }
    loop {
        let line = read_line(stream, buffer).await?;
        kept.add_to_body(index, &line);
        if line == b"\r\n" {
            return Ok(());
        }
    }
}

async fn read_line(stream: &mut Tls, buffer: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
            return Ok(buffer.drain(..at + 2).collect());
        }
        fill(stream, buffer).await?;
    }
}

fn read_request(head: Vec<u8>) -> Arrived {
    let mut lines = head.strip_suffix(b"\r\n\r\n").unwrap_or(&head).split(|byte| *byte == b'\n');
    let request_line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut words = request_line.split(' ').map(|word| word.trim_end().to_owned());
    let headers = lines.map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        (name, line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec())
    });
    let (method, target, headers) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), headers.collect());
    Arrived { method, target, headers, head, ..Arrived::default() }
}

/// Its length, and whether it comes in chunks.
fn body_of(arrived: &Arrived) -> (usize, bool) {
    let value = |wanted: &str| {
        let header = arrived.headers.iter().find(|(name, _)| name == wanted);
        header.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
    };
    let chunked = value("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    (value("content-length").and_then(|value| value.parse().ok()).unwrap_or(0), chunked)
}

async fn http2(stream: Tls, kept: &Arc<Kept>) {
    let mut requests = match h2::server::handshake(stream).await {
        Ok(requests) => requests,
        Err(error) => return kept.odd(format!("no HTTP/2: {error}")),
    };
    while let Some(next) = requests.accept().await {
        match next {
            Ok((request, respond)) => {
                let (parts, body) = request.into_parts();
                let index = kept.push(read_fields(&parts));
                tokio::spawn(answer_http2(body, respond, index, Arc::clone(kept)));
            }
            // Whoever closes is no wrongdoer; a frame that no request may have is.
            Err(error) => {
                if error.is_library() && !error.is_io() {
                    kept.odd(format!("not good HTTP/2: {error}"));
                }
                return;
            }
        }
    }
}

fn read_fields(parts: &axum::http::request::Parts) -> Arrived {
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut headers = vec![("host".to_owned(), parts.uri.authority().map(ToString::to_string).unwrap_or_default().into_bytes())];
    headers.extend(parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())));
    let mut head = format!("{} {target}\n", parts.method).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\n"].concat());
    }
    Arrived { method: parts.method.to_string(), target, headers, head, ..Arrived::default() }
}

async fn answer_http2(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>, index: usize, kept: Arc<Kept>) {
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        kept.add_to_body(index, &part);
    }
    if let Ok(Some(trailers)) = body.trailers().await {
        for (name, value) in &trailers {
            kept.add_to_body(index, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
    }
    let answer = Response::builder().header("content-type", "application/json").body(()).expect("an answer");
    if let Ok(mut stream) = respond.send_response(answer, false) {
        let _ = stream.send_data(Bytes::from_static(b"{}"), true);
    }
}
