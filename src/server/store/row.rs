//! One session in the file: its id and its end in the clear, all else sealed and bound to both. And one record: sealed and bound to its name.

use aws_lc_rs::rand;

use crate::server::store::StoreError;
use crate::session::{Session, SessionId};
use crate::token::{SealError, TokenKeys};

const END_BYTES: usize = 8;

/// `value` is `expires_at (8, big endian) | sealed JSON`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: SessionId,
    pub(super) value: Vec<u8>,
}

impl Row {
    pub(super) fn seal(session: &Session, keys: &TokenKeys) -> Result<Self, StoreError> {
        let json = serde_json::to_vec(session).map_err(|_| StoreError::Encoding)?;
        let sealed = keys.seal(&purpose(&session.id, session.expires_at), &json, nonce()?)?;
        Ok(Self { id: session.id, value: [&session.expires_at.to_be_bytes()[..], &sealed].concat() })
    }

    /// `None` when no accepted key opens it, or what it holds is no session.
    pub(super) fn open(&self, keys: &TokenKeys) -> Option<Session> {
        let (end, sealed) = self.value.split_first_chunk::<END_BYTES>()?;
        let json = keys.open(&purpose(&self.id, u64::from_be_bytes(*end)), sealed)?;
        serde_json::from_slice::<Session>(&json).ok().filter(|session| session.id == self.id)
    }
}

pub(super) fn seal_record(name: &str, value: &[u8], keys: &TokenKeys) -> Result<Vec<u8>, StoreError> {
    Ok(keys.seal(&record_purpose(name), value, nonce()?)?)
}

/// `None` when no accepted key opens it.
pub(super) fn open_record(name: &str, sealed: &[u8], keys: &TokenKeys) -> Option<Vec<u8>> {
    keys.open(&record_purpose(name), sealed)
}

fn nonce() -> Result<[u8; 12], StoreError> {
    let mut nonce = [0; 12];
    rand::fill(&mut nonce).map_err(|_| StoreError::Seal(SealError::Library))?;
    Ok(nonce)
}

/// The end of a row's life; a value too short to have one has none.
pub(super) fn expires_at(value: &[u8]) -> u64 {
    value.first_chunk::<END_BYTES>().map_or(0, |end| u64::from_be_bytes(*end))
}

/// A record that is moved to another name no longer opens.
fn record_purpose(name: &str) -> String {
    format!("record {name}")
}

/// A row that is moved to another id, or whose end is changed, no longer opens.
fn purpose(id: &SessionId, expires_at: u64) -> String {
    format!("session {id} {expires_at}")
}
