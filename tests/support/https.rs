//! A small HTTPS server on loopback for what stands near a cluster: static files, or an upstream that keeps what it was sent. HTTP/1.1 only;
//! it lives as long as this process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::pki::Pair;

type Tls = BufReader<StreamOwned<ServerConnection, TcpStream>>;

/// What a client asked; bodies are not read.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Names in lower case, in the order of the request.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    /// All values of a header (lower case).
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// A server that keeps every request and answers it with a file's content, or with an empty object where it has no files.
#[derive(Clone, Debug)]
pub struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves the files of a directory.
    pub fn of_files(pair: &Pair, directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self::start(pair, move |path| std::fs::read(directory.join(path.trim_start_matches('/'))).ok())
    }

    /// Takes everything.
    pub fn that_keeps_requests(pair: &Pair) -> Self {
        Self::start(pair, |_| Some(b"{}".to_vec()))
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// What came so far, oldest first.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn start(pair: &Pair, find: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (config, find) = (Arc::new(tls(pair, &[b"http/1.1"])), Arc::new(find));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self { port: listener.local_addr().expect("bound").port(), asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, find, asked) = (Arc::clone(&config), Arc::clone(&find), Arc::clone(&asked));
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).expect("a TLS server");
                    let mut stream = BufReader::new(StreamOwned::new(connection, tcp));
                    while let Some(request) = request(&mut stream) {
                        let content = find(&request.path);
                        asked.lock().unwrap().push(request);
                        if answer(&mut stream, content.as_deref()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        server
    }
}

/// A server's side of TLS with this certificate, which speaks these protocols, the best first.
pub fn tls(pair: &Pair, protocols: &[&[u8]]) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a private key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS versions");
    let mut config = versions.with_no_client_auth().with_single_cert(chain, key).expect("a certificate and its key");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// None at the end of the connection.
fn request(stream: &mut Tls) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|&read| read > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    Some(Asked {
        method: words.next()?,
        path: words.next()?,
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
    })
}

fn answer(stream: &mut Tls, content: Option<&[u8]>) -> std::io::Result<()> {
    let (status, body) = content.map_or(("404 Not Found", &b"{}"[..]), |content| ("200 OK", content));
    let out = stream.get_mut();
    write!(out, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())?;
    out.write_all(body)?;
    out.flush()
}
