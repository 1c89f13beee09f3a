//! One HTTP/1.1 request over a Unix socket, byte for byte as given. A client library would tidy up exactly what the self-test must send
//! (names in odd case, several lines of one header, hop-by-hop lists).

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// An answer with its body; after a `101`, the body is what came through the tunnel until it closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names in lower case, in the order of arrival.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// More than that is not an answer of ours or of Envoy's admin interface (a config dump of ten thousand routes has about a tenth of it).
const MAX_REPLY: usize = 512 * 1024 * 1024;

/// Sends `request` (head and body) and reads the whole answer.
///
/// # Errors
/// No connection, no whole answer within `patience`, or something that is not HTTP.
pub(super) async fn exchange(socket: &Path, request: &str, patience: Duration) -> io::Result<Reply> {
    tokio::time::timeout(patience, talk(socket, request)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn talk(socket: &Path, request: &str) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    loop {
        if let Some(reply) = whole_reply(&bytes)? {
            return Ok(reply);
        }
        if bytes.len() > MAX_REPLY {
            return Err(not_http("the answer is too large"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return at_end(&bytes);
        }
    }
}

/// The reply, when its head says how long it is and all of it is there.
fn whole_reply(bytes: &[u8]) -> io::Result<Option<Reply>> {
    let Some((mut reply, body)) = head(bytes)? else { return Ok(None) };
    let Some(length) = reply.header("content-length").and_then(|length| length.parse().ok()) else { return Ok(None) };
    let Some(body) = body.get(..length) else { return Ok(None) };
    reply.body = String::from_utf8_lossy(body).into_owned();
    Ok(Some(reply))
}

/// The connection is closed: what came is the answer.
fn at_end(bytes: &[u8]) -> io::Result<Reply> {
    let (mut reply, body) = head(bytes)?.ok_or_else(|| not_http("the connection closed before an answer"))?;
    let chunked = reply.header("transfer-encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked"));
    let body = if chunked { dechunked(body).ok_or_else(|| not_http("the answer broke off"))? } else { body.to_vec() };
    reply.body = String::from_utf8_lossy(&body).into_owned();
    Ok(reply)
}

fn head(bytes: &[u8]) -> io::Result<Option<(Reply, &[u8])>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(not_http)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let headers = response
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let reply = Reply { status: response.code.unwrap_or_default(), headers, body: String::new() };
    Ok(Some((reply, bytes.get(length..).unwrap_or_default())))
}

fn dechunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, length)) = httparse::parse_chunk_size(bytes).ok()? else { return None };
        let length = usize::try_from(length).ok()?;
        if length == 0 {
            return Some(body);
        }
        let end = start.checked_add(length)?;
        body.extend_from_slice(bytes.get(start..end)?);
        bytes = bytes.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

fn not_http(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn replies_end_where_their_length_says() {
        let bytes = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nx-A: 1\r\n\r\nok";
        assert_eq!(whole_reply(bytes.get(..bytes.len() - 1).unwrap()).unwrap(), None);
        let reply = whole_reply(bytes).unwrap().unwrap();
        assert_eq!((reply.status, reply.header("x-a"), reply.body.as_str()), (403, Some("1"), "ok"));
    }

    #[test]
    fn chunks_are_joined_and_broken_ones_refused() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let body = |chunks: &str| at_end(format!("{head}{chunks}").as_bytes()).map(|reply| reply.body);
        assert_eq!(body("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").unwrap(), "abc");
        assert!(body("2\r\nab\r\n").is_err());
        assert!(body("ffffffffffffffff\r\nab\r\n").is_err());
    }
}
