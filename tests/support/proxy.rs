//! A proxy that answers `CONNECT` and maps names to loopback ports, so that the tests need no DNS and no port 443: for kubectl
//! (`proxy-url` in the kubeconfig), for a CLI (`HTTPS_PROXY`) and for the scripted browser. Bytes pass unchanged and without a time limit.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The proxy lives in threads of this process.
#[derive(Clone, Debug)]
pub struct Proxy {
    port: u16,
    names: Arc<Mutex<HashMap<String, u16>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Self { port: listener.local_addr().expect("bound").port(), names: Arc::default(), refused: Arc::default() };
        let serving = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(client));
            }
        });
        proxy
    }

    /// Sends `authority` ("prod.k8s.localhost:443") to a port on 127.0.0.1 from now on.
    pub fn map(&self, authority: &str, port: u16) {
        self.names.lock().unwrap().insert(authority.to_ascii_lowercase(), port);
    }

    /// A name leads nowhere from now on, at any port. Connections that are open stay.
    pub fn unmap(&self, host: &str) {
        self.names.lock().unwrap().retain(|authority, _| authority.split(':').next() != Some(host));
    }

    /// For `HTTPS_PROXY` and `proxy-url`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Authorities that a client asked for and that have no mapping.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    fn serve(&self, mut client: TcpStream) {
        let Some((authority, early)) = connect_request(&client) else { return };
        match self.target(&authority) {
            Some(target) => {
                let answered = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                if answered.is_ok() {
                    join(client, target, &early);
                }
            }
            None => {
                self.refused.lock().unwrap().push(authority);
                let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
            }
        }
    }

    fn target(&self, authority: &str) -> Option<TcpStream> {
        let port = self.names.lock().unwrap().get(authority).copied().or_else(|| authority.strip_prefix("127.0.0.1:")?.parse().ok())?;
        TcpStream::connect(("127.0.0.1", port)).ok()
    }
}

/// The authority of a CONNECT request, and the bytes that came behind its head.
fn connect_request(client: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(client);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let authority = request.strip_prefix("CONNECT ")?.split(' ').next()?.to_ascii_lowercase();
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        line.clear();
    }
    Some((authority, reader.buffer().to_vec()))
}

/// Copies both ways until both ends have closed.
fn join(client: TcpStream, mut target: TcpStream, early: &[u8]) {
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    if target.write_all(early).is_err() {
        return;
    }
    let (Ok(from_client), Ok(from_target)) = (client.try_clone(), target.try_clone()) else { return };
    thread::spawn(move || copy(from_target, client));
    copy(from_client, target);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut part = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut part) {
        if to.write_all(&part[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    // Without this a client that is gone would leave the other direction open for good.
    let _ = from.shutdown(Shutdown::Read);
}
