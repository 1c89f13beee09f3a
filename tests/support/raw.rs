//! HTTP/1.1 byte by byte over TLS, for requests that no well-behaved client sends: repeated, forged or malformed headers, odd paths.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A TLS connection to a loopback port, after which anything may be written.
pub struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

/// An answer as it came. Header names are in lower case.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// Connects with `name` as SNI, offering only `http/1.1`, trusting `authority` (PEM).
    pub fn open(port: u16, name: &str, authority: &str) -> Self {
        Self::connect(port, name, authority, true)
    }

    /// The same, but `name` is only what the certificate must say: none is sent as SNI.
    pub fn open_without_server_name(port: u16, name: &str, authority: &str) -> Self {
        Self::connect(port, name, authority, false)
    }

    /// The same from an address of loopback, with bytes before TLS begins. A connection that the server closes meanwhile shows by its answer.
    pub fn open_from(source: Ipv4Addr, before_tls: &[u8], port: u16, name: &str, authority: &str) -> Self {
        let mut tcp = tcp_from(source, port);
        let _ = tcp.write_all(before_tls);
        Self::over(tcp, name, authority, true)
    }

    fn connect(port: u16, name: &str, authority: &str, with_server_name: bool) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
        Self::over(tcp, name, authority, with_server_name)
    }

    fn over(tcp: TcpStream, name: &str, authority: &str, with_server_name: bool) -> Self {
        Self { stream: BufReader::new(tls(tcp, name, authority, with_server_name, b"http/1.1")) }
    }

    /// Waits no longer than that for bytes of an answer, instead of 30 seconds.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        self.stream.get_ref().sock.set_read_timeout(Some(patience)).expect("a timeout");
        self
    }

    /// Sends bytes as they are. An error is kept for the answer: the server may have closed before it read all.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.get_mut().write_all(bytes).and_then(|()| self.stream.get_mut().flush());
        self
    }

    /// Sends a request without a body: request line, the headers in order (nothing is added, not even `host`), empty line.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> &mut Self {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n").as_bytes())
    }

    /// Reads one answer; none when the connection ends before its head is whole. After a 101 the body is empty and [`Connection::stream`]
    /// holds what follows.
    pub fn answer(&mut self) -> Option<Answer> {
        self.read_answer(true)
    }

    /// The same for what was asked with HEAD: headers may announce a body, but none follows.
    pub fn answer_to_head(&mut self) -> Option<Answer> {
        self.read_answer(false)
    }

    fn read_answer(&mut self, has_body: bool) -> Option<Answer> {
        let status_line = self.line()?;
        let status: u16 = status_line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if has_body && !matches!(status, 100..=199 | 204 | 304) {
            answer.body = self.body(&answer);
        }
        Some(answer)
    }

    /// The certificate that the server showed, as DER; only after an answer.
    pub fn server_certificate(&self) -> Vec<u8> {
        let shown = self.stream.get_ref().conn.peer_certificates().and_then(|chain| chain.first());
        shown.expect("the handshake is over").to_vec()
    }

    pub fn stream(&mut self) -> &mut (impl Read + use<>) {
        &mut self.stream
    }

    fn body(&mut self, answer: &Answer) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) {
            let _ = (&mut self.stream).take(length).read_to_end(&mut body);
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(length) = self.line().and_then(|line| u64::from_str_radix(&line, 16).ok()).filter(|&length| length > 0) {
                let _ = (&mut self.stream).take(length).read_to_end(&mut body);
                let _ = self.line();
            }
            let _ = self.line();
        } else {
            let _ = self.stream.read_to_end(&mut body);
        }
        body
    }

    /// A line without its end; none at the end of the connection.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).ok().filter(|&read| read > 0)?;
        Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// A TLS client that offers one protocol; the handshake comes with the first bytes.
pub(super) fn tls(
    tcp: TcpStream,
    name: &str,
    authority: &str,
    with_server_name: bool,
    protocol: &[u8],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS versions");
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = with_server_name;
    config.alpn_protocols = vec![protocol.to_vec()];
    let server = ServerName::try_from(name.to_owned()).expect("a server name");
    let tls = ClientConnection::new(Arc::new(config), server).expect("a TLS client");
    tcp.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    StreamOwned::new(tls, tcp)
}

fn tcp_from(source: Ipv4Addr, port: u16) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let connected = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?.into_std()
    });
    let tcp = connected.unwrap_or_else(|error| panic!("port {port} from {source}: {error}"));
    tcp.set_nonblocking(false).expect("a blocking socket");
    tcp
}
