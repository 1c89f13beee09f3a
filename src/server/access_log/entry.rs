//! Envoy's message, `opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest`, read in place: its entries, one after the other, each as the
//! texts that Envoy wrote into it. An entry that cannot be read does not hide those beside it.

use std::str::from_utf8;

use crate::envoy_names as names;
use crate::server::wire::{Field, Fields, WireError};

/// What Envoy writes where it has nothing to tell.
const NOTHING: &[u8] = b"-";

/// What one entry tells (`envoy_names::ENTRY`); empty where it tells nothing, or what is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry<'a> {
    pub kind: &'a str,
    pub id: &'a str,
    pub grant: &'a str,
    pub route: &'a str,
    pub reason: &'a str,
    pub status: &'a str,
    pub details: &'a str,
    pub connection: &'a str,
    pub flags: &'a str,
    pub received: &'a str,
    pub sent: &'a str,
    pub duration: &'a str,
    pub method: &'a str,
    pub path: &'a str,
}

/// The entries of one message, each read when it is asked for. What comes after bytes that are no message is lost.
#[derive(Debug)]
pub struct Entries<'a> {
    message: Fields<'a>,
    resource: Fields<'a>,
    scope: Fields<'a>,
}

impl<'a> Entries<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Self { message: Fields::of(message), resource: Fields::of(&[]), scope: Fields::of(&[]) }
    }

    /// `ExportLogsServiceRequest`: 1 resource_logs. `ResourceLogs`: 2 scope_logs. `ScopeLogs`: 2 log_records.
    fn step(&mut self) -> Result<Option<Field<'a>>, WireError> {
        loop {
            if let Some(record) = self.scope.next_of(2)? {
                return Ok(Some(record));
            }
            if let Some(scope) = self.resource.next_of(2)? {
                self.scope = scope.message()?;
            } else if let Some(resource) = self.message.next_of(1)? {
                self.resource = resource.message()?;
            } else {
                return Ok(None);
            }
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Ok(None) => None,
            Ok(Some(record)) => Some(record.message().and_then(Entry::read)),
            Err(error) => {
                *self = Self::of(&[]);
                Some(Err(error))
            }
        }
    }
}

impl<'a> Entry<'a> {
    /// `LogRecord`: 6 attributes.
    fn read(mut record: Fields<'a>) -> Result<Self, WireError> {
        let mut entry = Self::default();
        while let Some(attribute) = record.next_of(6)? {
            let (word, value) = attribute_of(attribute.message()?)?;
            if let Some(slot) = entry.slot(word) {
                *slot = if value == NOTHING { "" } else { from_utf8(value).unwrap_or("") };
            }
        }
        Ok(entry)
    }

    fn slot(&mut self, word: &[u8]) -> Option<&mut &'a str> {
        Some(match from_utf8(word).ok()? {
            names::ENTRY_KIND => &mut self.kind,
            names::ENTRY_ID => &mut self.id,
            names::ENTRY_GRANT => &mut self.grant,
            names::ENTRY_ROUTE => &mut self.route,
            names::ENTRY_REASON => &mut self.reason,
            names::ENTRY_STATUS => &mut self.status,
            names::ENTRY_DETAILS => &mut self.details,
            names::ENTRY_CONNECTION => &mut self.connection,
            names::ENTRY_FLAGS => &mut self.flags,
            names::ENTRY_RECEIVED => &mut self.received,
            names::ENTRY_SENT => &mut self.sent,
            names::ENTRY_DURATION => &mut self.duration,
            names::ENTRY_METHOD => &mut self.method,
            names::ENTRY_PATH => &mut self.path,
            _ => return None,
        })
    }
}

/// `KeyValue`: 1 key, 2 value. `AnyValue`: 1 string_value; what is of another type is empty.
fn attribute_of(mut fields: Fields<'_>) -> Result<(&[u8], &[u8]), WireError> {
    let (mut word, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => word = field.bytes()?,
            2 => {
                let mut any = field.message()?;
                while let Some(text) = any.next_of(1)? {
                    value = text.bytes()?;
                }
            }
            _ => {}
        }
    }
    Ok((word, value))
}
