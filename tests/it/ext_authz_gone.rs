//! Without an ext_authz that answers, Envoy with our filter chain sends nothing upstream. (What it does with contradictory and invalid answers
//! is part of the self-test, which runs at every start.)

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use kubepass::xds::resources::self_test::{HOST, PUBLIC_HOST, SelfTestSockets, bootstrap};

use super::support::leash::{self, Process};
use super::support::tools::Tools;

/// The status of Envoy's answer to a request to the API server, and to one to the web pages.
fn ask(listener: &Path) -> Vec<(String, serde_json::Value)> {
    let ask = |host: &str| {
        let mut stream = UnixStream::connect(listener).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET /version HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        (answer.lines().next().unwrap_or_default().to_owned(), serde_json::from_str(body).unwrap_or_default())
    };
    [HOST, PUBLIC_HOST].map(ask).into()
}

#[track_caller]
fn check(listener: &Path, upstream: &UnixListener) {
    for (line, status) in ask(listener) {
        assert_eq!(line, "HTTP/1.1 503 Service Unavailable");
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"ServiceUnavailable".into()), "{status}");
        assert!(status["message"].as_str().unwrap().contains("nothing was sent to the API server"), "{status}");
    }
    assert_eq!(upstream.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "something went upstream");
}

#[test]
fn nothing_goes_upstream_without_ext_authz() {
    let folder = tempfile::tempdir().unwrap();
    let socket = |name: &str| folder.path().join(name).display().to_string();
    let (listener, admin, ext_authz, upstream) = (socket("l"), socket("a"), socket("z"), socket("u"));
    let config = folder.path().join("bootstrap.pb");
    let sockets = SelfTestSockets { listener: &listener, admin: &admin, ext_authz: &ext_authz, upstream: &upstream };
    std::fs::write(&config, bootstrap(&sockets)).unwrap();
    let upstream = UnixListener::bind(&upstream).unwrap();
    upstream.set_nonblocking(true).unwrap();

    let mut command = leash::command(Tools::ensure().envoy());
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]).arg(&config);
    let mut envoy = Process::start("envoy", &folder.path().join("envoy.log"), command);
    let listener = Path::new(&listener);
    envoy.until("Envoy listens", Duration::from_secs(20), || UnixStream::connect(listener).ok());

    // Nobody there.
    check(listener, &upstream);
    // Somebody who takes connections and never says a word.
    let silent = UnixListener::bind(&ext_authz).unwrap();
    check(listener, &upstream);
    // Somebody who hangs up.
    drop(silent);
    check(listener, &upstream);
}
