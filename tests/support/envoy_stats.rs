//! Counters of a running Envoy, from its admin socket.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Those whose names match a regular expression.
pub fn read(socket: &Path, filter: &str) -> BTreeMap<String, u64> {
    let answer = get(socket, &format!("/stats?filter={filter}")).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    let lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// Bytes that it has allocated and not given back, now.
pub fn allocated(socket: &Path) -> u64 {
    let answer = get(socket, "/memory").unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    let memory: serde_json::Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    memory["allocated"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

fn get(socket: &Path, path: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(unchunked(body))
}

/// The admin interface answers in chunks, which end anywhere.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let Some(chunk) = usize::from_str_radix(length, 16).ok().filter(|length| *length > 0).and_then(|length| rest.get(..length)) else {
            break;
        };
        text.push_str(chunk);
        body = rest[chunk.len()..].strip_prefix("\r\n").unwrap_or_default();
    }
    text
}
