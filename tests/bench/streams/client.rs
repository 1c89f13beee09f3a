//! The least that a client of streams can be: HTTP/2 for watches and logs, HTTP/1.1 with a WebSocket for `exec`, each over a TLS connection of its
//! own to a port of loopback. Windows are those of Go's client, which kubectl has.

use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::paths::Path;

/// Of Go's HTTP/2 client: `transportDefaultStreamFlow`, and a connection that never waits.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
/// The least that a client of HTTP/2 takes at once by default.
const FRAME_BYTES: u32 = 16 << 10;

/// Channels of `v5.channel.k8s.io`.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const ERROR: u8 = 3;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const MASKED: u8 = 0x80;

#[derive(Clone)]
pub(super) struct Client {
    http2: TlsConnector,
    http1: TlsConnector,
}

/// One answer that goes on. Dropping it closes its connection.
pub(super) struct Watch {
    body: RecvStream,
    /// Bytes of a line that is not whole yet.
    rest: Vec<u8>,
    connection: JoinHandle<()>,
}

/// One WebSocket of `exec`.
pub(super) struct Exec {
    stream: BufStream<TlsStream<TcpStream>>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub(super) fn new(authorities: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        for pem in authorities {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS versions");
        let config = versions.with_root_certificates(roots).with_no_client_auth();
        let offering = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        Self { http2: offering(b"h2"), http1: offering(b"http/1.1") }
    }

    /// `GET` of something whose answer goes on.
    pub(super) async fn get(&self, path: &Path, asked: &str) -> Result<Watch, Failed> {
        let stream = connect(&self.http2, path).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).max_frame_size(FRAME_BYTES);
        let (mut requests, connection) = builder.handshake::<_, Bytes>(stream).await?;
        let connection = tokio::spawn(async move { _ = connection.await });
        let mut request = axum::http::Request::get(format!("https://{}:{}{asked}", path.host, path.port));
        for (name, value) in &path.headers {
            request = request.header(*name, value);
        }
        let (answer, _) = requests.send_request(request.body(())?, true)?;
        let answer = answer.await?;
        if answer.status() != 200 {
            return Err(format!("{}: {asked} was answered {}", path.name, answer.status()).into());
        }
        Ok(Watch { body: answer.into_body(), rest: Vec::new(), connection })
    }

    /// Opens an `exec`.
    pub(super) async fn exec(&self, path: &Path, asked: &str) -> Result<Exec, Failed> {
        let mut stream = BufStream::with_capacity(64 << 10, 4 << 10, connect(&self.http1, path).await?);
        let headers: String = path.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "GET {asked} HTTP/1.1\r\nhost: {}:{}\r\n{headers}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n",
            path.host, path.port
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(format!("{}: {asked} was answered {}", path.name, String::from_utf8_lossy(&head)).into());
        }
        Ok(Exec { stream })
    }
}

async fn connect(connector: &TlsConnector, path: &Path) -> Result<TlsStream<TcpStream>, Failed> {
    let tcp = TcpStream::connect(("127.0.0.1", path.port)).await?;
    tcp.set_nodelay(true)?;
    Ok(connector.connect(ServerName::try_from(path.host.clone())?, tcp).await?)
}

impl Watch {
    /// The next whole line.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, Failed> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(self.rest.drain(..=end).collect());
            }
            let part = self.part().await?.ok_or("the answer ended")?;
            self.rest.extend_from_slice(&part);
        }
    }

    /// The next bytes; none at the end.
    pub(super) async fn part(&mut self) -> Result<Option<Bytes>, Failed> {
        let Some(part) = self.body.data().await.transpose()? else { return Ok(None) };
        self.body.flow_control().release_capacity(part.len())?;
        Ok(Some(part))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Exec {
    /// Writes to the command's standard input. The mask, which a client must have, is zero.
    pub(super) async fn write(&mut self, text: &str) -> Result<(), Failed> {
        let length = u8::try_from(text.len() + 1)?.min(125);
        self.stream.write_all(&[BINARY, MASKED | length, 0, 0, 0, 0, STDIN]).await?;
        self.stream.write_all(text.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next bytes of its standard output; none when it has ended well.
    pub(super) async fn read(&mut self) -> Result<Option<usize>, Failed> {
        loop {
            let (kind, length) = self.frame_head().await?;
            if kind == CLOSE {
                return Ok(None);
            }
            if length == 0 {
                continue;
            }
            let channel = self.stream.read_u8().await?;
            if channel == ERROR {
                let said = self.payload(length - 1).await?;
                return if String::from_utf8_lossy(&said).contains("Success") {
                    Ok(None)
                } else {
                    Err(String::from_utf8_lossy(&said).into())
                };
            }
            self.skip(length - 1).await?;
            if channel == STDOUT && length > 1 {
                return Ok(Some(length - 1));
            }
        }
    }

    async fn frame_head(&mut self) -> Result<(u8, usize), Failed> {
        let kind = self.stream.read_u8().await?;
        let length = match self.stream.read_u8().await? {
            126 => self.stream.read_u16().await?.into(),
            127 => usize::try_from(self.stream.read_u64().await?)?,
            short => short.into(),
        };
        Ok((kind, length))
    }

    async fn payload(&mut self, length: usize) -> Result<Vec<u8>, Failed> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn skip(&mut self, mut length: usize) -> Result<(), Failed> {
        let mut bytes = [0; 16 << 10];
        while length > 0 {
            let some = length.min(bytes.len());
            self.stream.read_exact(&mut bytes[..some]).await?;
            length -= some;
        }
        Ok(())
    }
}
