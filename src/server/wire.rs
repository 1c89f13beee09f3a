//! Protobuf's wire format, read in place and written straight: no message is built on the way. It takes and refuses what `prost` does, and knows
//! no message of its own; which fields mean what is for the services to say (`ext_authz`, `access_log`). And how gRPC carries such messages:
//! as the bytes that they are ([`AsBytes`]).

use std::fmt::{self, Display, Write as _};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper::body::Body as HttpBody;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{StdError, http};
use tonic::server::Grpc;
use tonic::{Request, Response, Status};

/// How deep messages and groups may stand in each other.
const MAX_DEPTH: u32 = 100;

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the message ends too early")]
    Truncated,
    #[error("a number of the message is too long")]
    Varint,
    #[error("a field of the message has no number or no known type")]
    Key,
    #[error("a field of the message is of another type than it must be")]
    Type,
    #[error("a text of the message is not UTF-8")]
    NotUtf8,
    #[error("a group of the message ends where none began")]
    Group,
    #[error("the message is nested too deeply")]
    Depth,
}

/// The fields of one message, in their order.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    depth: u32,
}

/// A field. Only those with a length are used here (texts, bytes and messages); of others there is nothing but the number.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    content: Option<&'a [u8]>,
    depth: u32,
}

/// gRPC messages that stay bytes: who takes one reads it in place, and what is sent comes encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsBytes {
    /// What a usual message has, taken at once for each.
    pub(super) usual_bytes: usize,
    /// From so many on, what is written goes out before there is more.
    pub(super) max_bytes: usize,
}

impl AsBytes {
    /// Answers one request of a method that takes one message and gives one. A message of more than `max_bytes` is refused.
    pub(super) async fn unary<B, F>(self, request: http::Request<B>, answer: impl FnMut(Request<Bytes>) -> F) -> http::Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send,
        F: Future<Output = Result<Response<Vec<u8>>, Status>>,
    {
        Grpc::new(self).max_decoding_message_size(self.max_bytes).unary(tower::service_fn(answer), request).await
    }
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message, depth: MAX_DEPTH }
    }

    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = key(&mut self.rest)?;
        let content = match kind {
            Kind::Length => Some(delimited(&mut self.rest)?),
            other => {
                skip(number, other, &mut self.rest, self.depth)?;
                None
            }
        };
        Ok(Some(Field { number, content, depth: self.depth }))
    }

    /// The next one of that number; those before it are passed over.
    pub(super) fn next_of(&mut self, number: u32) -> Result<Option<Field<'a>>, WireError> {
        while let Some(field) = self.next()? {
            if field.number == number {
                return Ok(Some(field));
            }
        }
        Ok(None)
    }
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], WireError> {
        self.content.ok_or(WireError::Type)
    }

    pub(super) fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::NotUtf8)
    }

    pub(super) fn message(&self) -> Result<Fields<'a>, WireError> {
        let depth = self.depth.checked_sub(1).ok_or(WireError::Depth)?;
        Ok(Fields { rest: self.bytes()?, depth })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Varint,
    EightBytes,
    Length,
    GroupStart,
    GroupEnd,
    FourBytes,
}

fn key(rest: &mut &[u8]) -> Result<(u32, Kind), WireError> {
    let key = u32::try_from(varint(rest)?).map_err(|_| WireError::Key)?;
    let kind = match key & 7 {
        0 => Kind::Varint,
        1 => Kind::EightBytes,
        2 => Kind::Length,
        3 => Kind::GroupStart,
        4 => Kind::GroupEnd,
        5 => Kind::FourBytes,
        _ => return Err(WireError::Key),
    };
    if key >> 3 == 0 { Err(WireError::Key) } else { Ok((key >> 3, kind)) }
}

fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(WireError::Truncated)?;
        *rest = after;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Varint)
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let length = usize::try_from(varint(rest)?).map_err(|_| WireError::Truncated)?;
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let (taken, after) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
    *rest = after;
    Ok(taken)
}

/// Passes over the value of a field that nobody reads.
fn skip(number: u32, kind: Kind, rest: &mut &[u8], depth: u32) -> Result<(), WireError> {
    let inner = depth.checked_sub(1).ok_or(WireError::Depth)?;
    match kind {
        Kind::Varint => varint(rest).map(drop),
        Kind::EightBytes => take(rest, 8).map(drop),
        Kind::FourBytes => take(rest, 4).map(drop),
        Kind::Length => delimited(rest).map(drop),
        Kind::GroupEnd => Err(WireError::Group),
        Kind::GroupStart => loop {
            match key(rest)? {
                (end, Kind::GroupEnd) if end == number => return Ok(()),
                (number, kind) => skip(number, kind, rest, inner)?,
            }
        },
    }
}

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// An integer, a bool or an enumeration's value; what is negative is not written here.
    pub(super) fn number(&mut self, field: u32, value: u32) {
        self.key(field, 0);
        self.varint(u64::from(value));
    }

    pub(super) fn text(&mut self, field: u32, text: impl Display) {
        self.message(field, |content| {
            // Writing into a Vec cannot fail.
            let _ = write!(content, "{text}");
        });
    }

    #[cfg(test)]
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.message(field, |content| content.0.extend_from_slice(bytes));
    }

    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.key(field, 2);
        // The length stands before what it counts: one byte is kept free for it, and more are put in where it needs more.
        let start = self.0.len();
        self.0.push(0);
        write(self);
        let (length, count) = encoded((self.0.len() - start - 1) as u64);
        self.0.splice(start..=start, length.into_iter().take(count));
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn varint(&mut self, value: u64) {
        let (bytes, count) = encoded(value);
        self.0.extend(bytes.into_iter().take(count));
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A varint and how many of the bytes it takes.
fn encoded(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, index + 1);
        }
        *byte |= 0x80;
    }
    (bytes, 10)
}

impl Codec for AsBytes {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AsBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.usual_bytes, self.max_bytes)
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.usual_bytes, self.max_bytes)
    }
}
