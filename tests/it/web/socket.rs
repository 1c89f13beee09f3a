//! The web part's Unix socket: requests as Envoy sends them, and clients that send too much.

use std::path::Path;
use std::time::Duration;

use kubepass::server::unix_socket::UnixSocket;
use kubepass::server::web::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::installation::Installation;

async fn exchange(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_socket_answers_bounds_and_drains() {
    let installation = Installation::new().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/web.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let listener = UnixSocket::bind(&socket).unwrap();
    let server = tokio::spawn(serve(listener, installation.router.clone(), async { drop(stopped.await) }));

    let good = "GET / HTTP/1.1\r\nhost: pass.example.com\r\nconnection: close\r\n";
    let answer = exchange(&socket, format!("{good}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("You are not logged in"), "{answer}");
    let large = format!("{good}x: {}\r\n\r\n", "a".repeat(200 << 10));
    let answer = exchange(&socket, large.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let answer = exchange(&socket, format!("{good}{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let two_hosts = format!("{good}host: prod.k8s.example.com\r\n\r\n");
    let answer = exchange(&socket, two_hosts.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    // An idle connection does not hold the end up.
    let idle = UnixStream::connect(&socket).await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(15), server).await.expect("it ends").unwrap().unwrap();
    drop(idle);
}
