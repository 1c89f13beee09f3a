//! Envoy's question, `envoy.service.auth.v3.CheckRequest`, to an `AccessRequest`: read in place, field by field, into borrowed texts. Whatever is
//! missing becomes a value that denies; bytes that are no such message are an error, on which Envoy refuses.
//!
//! A message may come in parts, as protobuf allows: a part that comes again adds to the one before, and the last value of a field counts.

use std::net::IpAddr;
use std::str::from_utf8;

use crate::access::request::{HeaderReading, RequestHeaders};
use crate::access::{AccessRequest, Malformed, RequestTarget};
use crate::envoy_names as names;
use crate::server::wire::{Field, Fields, WireError};
use crate::snapshot::NodeView;

#[cfg(test)]
mod tests;

/// Characters of a request id; Envoy's own (a UUID) has 36. The API server takes an `Audit-ID` of up to 64.
const MAX_REQUEST_ID: usize = 64;

/// Reads a question of `node`.
///
/// # Errors
/// When the bytes are no `CheckRequest`. Fields that are not read may hold anything.
pub fn read<'a>(message: &'a [u8], node: &'a NodeView) -> Result<AccessRequest<'a>, WireError> {
    let mut question = Question::default();
    let mut fields = Fields::of(message);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            question.attributes(field.message()?)?;
        }
    }
    Ok(question.into_request(node))
}

/// What has been read of it.
#[derive(Default)]
struct Question<'a> {
    target: Option<&'a str>,
    sni: &'a str,
    /// Where the connection comes from.
    connected_ip: Option<&'a str>,
    /// The header in which Envoy tells another source, and how often it is there: see `names::SOURCE`.
    told_source: &'a [u8],
    told_sources: usize,
    method: &'a str,
    path: &'a str,
    /// The path as it goes upstream. In the other one Envoy writes `!` for each byte that is no text, which HTTP/2 can carry in a query.
    sent_path: Option<&'a [u8]>,
    host: &'a str,
    request_id: Option<&'a [u8]>,
    headers: HeaderReading<'a>,
    /// Envoy joined the values of repeated headers, and so hides what it must show.
    headers_are_joined: bool,
}

impl<'a> Question<'a> {
    fn into_request(self, node: &'a NodeView) -> AccessRequest<'a> {
        let request_id = request_id(self.request_id);
        // Without an id no audit line could be joined with the API server's; and only the raw list shows every value of a repeated header.
        let is_whole = !request_id.is_empty() && !self.headers_are_joined;
        let is_as_sent = self.sent_path.is_none_or(|sent| sent == self.path.as_bytes());
        AccessRequest {
            node,
            request_id,
            target: self.target.map_or(RequestTarget::Unknown, RequestTarget::parse),
            method: self.method,
            path: self.path,
            host: self.host,
            sni: self.sni,
            source_ip: self.told_ip().or(self.connected_ip).unwrap_or(""),
            headers: match (is_whole, is_as_sent) {
                (true, true) => self.headers.finish(),
                (true, false) => RequestHeaders::malformed(Malformed::NotText),
                (false, _) => RequestHeaders::malformed(Malformed::MissingAttributes),
            },
        }
    }

    fn told_ip(&self) -> Option<&'a str> {
        let told = from_utf8(self.told_source).ok().filter(|_| self.told_sources == 1)?;
        told.parse::<IpAddr>().is_ok().then_some(told)
    }

    /// `AttributeContext`: 1 source, 4 request, 10 context_extensions, 12 tls_session.
    fn attributes(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.source(field.message()?)?,
                4 => self.request(field.message()?)?,
                10 => {
                    let (key, value) = entry(&field)?;
                    if key == names::TARGET_KEY {
                        self.target = Some(value);
                    }
                }
                12 => self.tls_session(field.message()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `Peer`: 1 address.
    fn source(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.source_address(field.message()?)?;
            }
        }
        Ok(())
    }

    /// `Address`, one of: 1 socket_address, 2 pipe, 3 envoy_internal_address.
    fn source_address(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.connected_ip = socket_address(field.message()?, self.connected_ip)?,
                2 | 3 => {
                    field.bytes()?;
                    self.connected_ip = None;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `TLSSession`: 1 sni.
    fn tls_session(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.sni = field.text()?;
            }
        }
        Ok(())
    }

    /// `Request`: 2 http.
    fn request(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.http(field.message()?)?;
            }
        }
        Ok(())
    }

    /// `HttpRequest`: 2 method, 3 headers, 4 path, 5 host, 13 header_map.
    fn http(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            match field.number {
                2 => self.method = field.text()?,
                3 => {
                    entry(&field)?;
                    self.headers_are_joined = true;
                }
                4 => self.path = field.text()?,
                5 => self.host = field.text()?,
                13 => self.header_map(field.message()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `HeaderMap`: 1 headers, the raw list that Envoy sends when `encode_raw_headers` is set; ours always is.
    fn header_map(&mut self, mut fields: Fields<'a>) -> Result<(), WireError> {
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                let (name, value) = header(field.message()?)?;
                match name {
                    "x-request-id" => {
                        self.request_id.get_or_insert(value);
                    }
                    ":path" => {
                        self.sent_path.get_or_insert(value);
                    }
                    names::SOURCE => {
                        self.told_source = value;
                        self.told_sources += 1;
                    }
                    _ => {}
                }
                self.headers.add(name, value);
            }
        }
        Ok(())
    }
}

/// `SocketAddress`: 2 address.
fn socket_address<'a>(mut fields: Fields<'a>, before: Option<&'a str>) -> Result<Option<&'a str>, WireError> {
    let mut address = before.unwrap_or("");
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            address = field.text()?;
        }
    }
    Ok(Some(address))
}

/// `HeaderValue`: 1 key, 2 value, 3 raw_value, which counts where it is not empty.
fn header(mut fields: Fields<'_>) -> Result<(&str, &[u8]), WireError> {
    let (mut name, mut value, mut raw): (&str, &str, &[u8]) = ("", "", &[]);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.text()?,
            2 => value = field.text()?,
            3 => raw = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, if raw.is_empty() { value.as_bytes() } else { raw }))
}

/// An entry of a map of texts: 1 key, 2 value.
fn entry<'a>(field: &Field<'a>) -> Result<(&'a str, &'a str), WireError> {
    let (mut key, mut value) = ("", "");
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Envoy makes the id itself and overwrites what a client sends; empty when it is not there or has not the form of an id.
fn request_id(header: Option<&[u8]>) -> &str {
    let id = header.and_then(|value| from_utf8(value).ok()).unwrap_or("");
    let is_id = id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_id { id } else { "" }
}
