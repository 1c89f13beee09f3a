//! The self-test's API server: answers every request with the head of it, as it arrived.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Holds a request for this target without an answer.
pub(super) const NEVER_ANSWERED: &str = "/ends";

/// Serves until dropped.
#[derive(Debug)]
pub(super) struct Upstream {
    targets: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(super) fn serve(socket: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let targets = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&targets);
        let task = tokio::spawn(async move {
            // Connections end with Envoy, and with the runtime at the latest.
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let _ = converse(stream, &seen).await;
                });
            }
        });
        Ok(Self { targets, task })
    }

    /// The request targets that arrived.
    pub(super) fn targets(&self) -> Vec<String> {
        self.targets.lock().map(|targets| targets.clone()).unwrap_or_default()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: UnixStream, targets: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let Some(end) = find(&bytes, b"\r\n\r\n").map(|position| position + 4) else {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head: Vec<u8> = bytes.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
        if let Ok(mut targets) = targets.lock() {
            targets.push(target.clone());
        }
        if target == NEVER_ANSWERED {
            continue;
        }
        if let Some(protocol) = text.lines().find_map(|line| line.strip_prefix("upgrade: ")) {
            let switched = format!("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n");
            stream.write_all(switched.as_bytes()).await?;
            stream.write_all(&head).await?;
            return stream.shutdown().await;
        }
        let length = head.len();
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
        stream.write_all(&head).await?;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
