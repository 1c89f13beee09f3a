//! HTTP/2 frame by frame over TLS, for what no library would send: names in capitals, doubled pseudo headers, line ends in values.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use super::raw::{self, Answer};

/// Frame types.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Name and value as they go over the wire.
pub type Field = (Vec<u8>, Vec<u8>);

/// A connection on which anything may be written.
pub struct Http2 {
    stream: StreamOwned<ClientConnection, TcpStream>,
    next: u32,
}

impl Http2 {
    /// Connects with `name` as SNI, offering only `h2`, trusting `authority` (PEM).
    pub fn open(port: u16, name: &str, authority: &str) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
        let stream = raw::tls(tcp, name, authority, true, b"h2");
        stream.sock.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let mut connection = Self { stream, next: 1 };
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // No header table, since the reader here keeps none, and no push.
        connection.frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        connection
    }

    /// Sends bytes as they are. An error shows by the answer that does not come.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        self
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.send(&[head.as_slice(), payload].concat())
    }

    /// The number of the next stream.
    pub fn next_stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        stream
    }

    /// Opens a stream with a header block; `end`: no body follows.
    pub fn request(&mut self, fields: &[Field], end: bool) -> u32 {
        let stream = self.next_stream();
        self.headers(stream, fields, end);
        stream
    }

    /// A header block in one frame; of an open stream it is its trailers.
    pub fn headers(&mut self, stream: u32, fields: &[Field], end: bool) -> &mut Self {
        self.frame(HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, &block(fields))
    }

    pub fn data(&mut self, stream: u32, bytes: &[u8], end: bool) -> &mut Self {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes)
    }

    /// The answer on a stream, with its status and body only; none when the stream or the connection ends before.
    pub fn answer(&mut self, stream: u32) -> Option<Answer> {
        let mut answer: Option<Answer> = None;
        loop {
            let (kind, flags, of, payload) = self.read_frame()?;
            match kind {
                SETTINGS if flags & ACK == 0 => _ = self.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => _ = self.frame(PING, ACK, 0, &payload),
                GOAWAY => return answer,
                RST_STREAM if of == stream => return answer,
                HEADERS if of == stream && answer.is_none() => {
                    let status = status(unpadded(flags, &payload)?)?;
                    answer = (status >= 200).then(|| Answer { status, headers: Vec::new(), body: Vec::new() });
                }
                DATA if of == stream => {
                    if let Some(answer) = &mut answer {
                        answer.body.extend_from_slice(unpadded(flags, &payload)?);
                    }
                }
                _ => {}
            }
            if of == stream && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return answer;
            }
        }
    }

    fn read_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }
}

/// A header block: every field a literal that is not indexed, nothing compressed.
pub fn block(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            write_length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// RFC 7541, 5.1, with a prefix of seven bits.
fn write_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    let (payload, padding) = match flags & PADDED {
        0 => (payload, 0),
        _ => (payload.get(1..)?, usize::from(*payload.first()?)),
    };
    let payload = if flags & PRIORITY == 0 { payload } else { payload.get(5..)? };
    payload.get(..payload.len().checked_sub(padding)?)
}

/// `:status`, which comes first.
fn status(block: &[u8]) -> Option<u16> {
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = read_integer(block, &mut at, prefix)?;
        match (prefix, index) {
            (7, 8..=14) => return Some([200, 204, 206, 304, 400, 404, 500][index - 8]),
            // Another field, or a new size of the table.
            (7 | 5, _) => {}
            (_, 8..=14) => return read_text(block, &mut at)?.parse().ok(),
            _ => {
                if index == 0 {
                    read_text(block, &mut at)?;
                }
                read_text(block, &mut at)?;
            }
        }
    }
}

fn read_integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let most = (1 << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

/// Of compressed texts only digits are understood; the rest is left out.
fn read_text(block: &[u8], at: &mut usize) -> Option<String> {
    let compressed = block.get(*at)? & 0x80 != 0;
    let length = read_integer(block, at, 7)?;
    let bytes = block.get(*at..*at + length)?;
    *at += length;
    Some(if compressed { digits(bytes) } else { String::from_utf8_lossy(bytes).into_owned() })
}

/// RFC 7541, appendix B: `0` to `2` have five bits, `3` to `9` six.
fn digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| (byte >> shift) & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    let (mut text, mut rest) = (String::new(), bits.as_slice());
    while rest.len() >= 5 {
        let (five, six) = (number(&rest[..5]), rest.get(..6).map_or(0xff, number));
        let (digit, length) = match (five, six) {
            (0..=2, _) => (five, 5),
            (_, 0x19..=0x1f) => (six - 0x19 + 3, 6),
            _ => break,
        };
        text.push(char::from(b'0' + digit));
        rest = &rest[length..];
    }
    text
}
