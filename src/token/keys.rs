//! `TokenKeys`: the keys of all accepted secrets, found by their ids.

use std::fmt;
use std::sync::Arc;

use super::secret::{AeadKey, DerivedKeys, JwtKey, Secret};
use super::session_id::decode_hex;
use crate::defence::{Defence, off};

/// Names a derived key without telling anything about it; as text, 16 hexadecimal digits: the `kid` of a token's header.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

/// The keys that derive from `secrets`: those of the first secret sign and seal, those of every secret are accepted.
#[derive(Clone)]
pub struct TokenKeys {
    secrets: Vec<Arc<DerivedKeys>>,
}

/// Which of our two kinds of token; each has its own key, header `typ` and claim `token_use`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenUse {
    Login,
    Session,
}

impl TokenKeys {
    /// Without any secret the result signs nothing and accepts nothing.
    pub fn derive(secrets: &[Secret]) -> Self {
        Self { secrets: secrets.iter().map(|secret| Arc::clone(secret.keys())).collect() }
    }

    /// Whether a session token that this key verified would be verified by these keys too. Allocates nothing.
    pub fn accepts_session_token_key(&self, id: KeyId) -> bool {
        self.accepted_jwt_key(TokenUse::Session, id).is_some()
    }

    pub(super) fn signing_key(&self, token_use: TokenUse) -> Option<&JwtKey> {
        self.secrets.first().map(|keys| keys.jwt_key(token_use))
    }

    pub(super) fn accepted_jwt_key(&self, token_use: TokenUse, id: KeyId) -> Option<&JwtKey> {
        self.secrets.iter().map(|keys| keys.jwt_key(token_use)).find(|key| key.id == id)
    }

    /// `choose` picks the use (sealing or cookies); without an id the first key, which seals.
    pub(super) fn aead_key(&self, choose: fn(&DerivedKeys) -> &AeadKey, id: Option<KeyId>) -> Option<&AeadKey> {
        self.secrets.iter().map(|keys| choose(keys)).find(|key| id.is_none_or(|id| key.id == id))
    }
}

impl DerivedKeys {
    fn jwt_key(&self, token_use: TokenUse) -> &JwtKey {
        match token_use {
            TokenUse::Login if !off(Defence::TokenKeys) => &self.login_token,
            TokenUse::Login | TokenUse::Session => &self.session_token,
        }
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKeys({} secrets, [redacted])", self.secrets.len())
    }
}

impl TokenUse {
    /// The header's `typ` (RFC 8725, 3.11: explicit typing).
    pub(super) fn header_type(self) -> &'static str {
        match self {
            Self::Login => "kubepass-login+jwt",
            Self::Session => "kubepass-session+jwt",
        }
    }

    /// The claim `token_use`: a reader that sees claims only can still tell the kinds apart.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Session => "session",
        }
    }
}

impl KeyId {
    pub(super) const BYTES: usize = 8;

    pub(super) const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        decode_hex(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
}
