//! One session in the file: its id and its end in the clear, all else sealed and bound to both.

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
        let mut nonce = [0; 12];
        rand::fill(&mut nonce).map_err(|_| StoreError::Seal(SealError::Library))?;
        let sealed = keys.seal(&purpose(&session.id, session.expires_at), &json, nonce)?;
        Ok(Self { id: session.id, value: [&session.expires_at.to_be_bytes()[..], &sealed].concat() })
    }

    /// `None` when no accepted key opens it, or what it holds is no session.
    pub(super) fn open(&self, keys: &TokenKeys) -> Option<Session> {
        let (end, sealed) = self.value.split_first_chunk::<END_BYTES>()?;
        let json = keys.open(&purpose(&self.id, u64::from_be_bytes(*end)), sealed)?;
        serde_json::from_slice::<Session>(&json).ok().filter(|session| session.id == self.id)
    }
}

/// The end of a row's life; a value too short to have one has none.
pub(super) fn expires_at(value: &[u8]) -> u64 {
    value.first_chunk::<END_BYTES>().map_or(0, |end| u64::from_be_bytes(*end))
}

/// A row that is moved to another id, or whose end is changed, no longer opens.
fn purpose(id: &SessionId, expires_at: u64) -> String {
    format!("session {id} {expires_at}")
}
