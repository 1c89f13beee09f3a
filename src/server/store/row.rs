//! One session in the file: its id and its end in the clear, all else sealed and bound to both. And one record: sealed and bound to its name.

use aws_lc_rs::rand;
use serde::Deserialize;

use crate::identity::Principal;
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

/// Whose a session is, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub session: SessionId,
    pub principal: Principal,
    pub username: String,
    /// Unix seconds.
    pub created_at: u64,
}

/// The fields of a stored session that tell it.
#[derive(Deserialize)]
struct OwnerOfRow {
    id: SessionId,
    identity: IdentityOfRow,
    created_at: u64,
}

#[derive(Deserialize)]
struct IdentityOfRow {
    principal: Principal,
    username: String,
}

impl Row {
    pub(super) fn seal(session: &Session, keys: &TokenKeys) -> Result<Self, StoreError> {
        let json = serde_json::to_vec(session).map_err(|_| StoreError::Encoding)?;
        let sealed = keys.seal(&purpose(&session.id, session.expires_at), &json, nonce()?)?;
        Ok(Self { id: session.id, value: [&session.expires_at.to_be_bytes()[..], &sealed].concat() })
    }

    /// `None` when no accepted key opens it, or what it holds is no session.
    pub(super) fn open(&self, keys: &TokenKeys) -> Option<Session> {
        serde_json::from_slice::<Session>(&self.json(keys)?).ok().filter(|session| session.id == self.id)
    }

    /// As [`Self::open`], where nothing else is asked: in a third of the time.
    pub(super) fn owner(&self, keys: &TokenKeys) -> Option<Owner> {
        let OwnerOfRow { id, identity, created_at } = serde_json::from_slice(&self.json(keys)?).ok()?;
        (id == self.id).then_some(Owner { session: id, principal: identity.principal, username: identity.username, created_at })
    }

    fn json(&self, keys: &TokenKeys) -> Option<Vec<u8>> {
        let (end, sealed) = self.value.split_first_chunk::<END_BYTES>()?;
        keys.open(&purpose(&self.id, u64::from_be_bytes(*end)), sealed)
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
