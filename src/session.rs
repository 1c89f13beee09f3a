//! `Session` as a value, and the table in memory that says which sessions live: what a check reads, without lock and without I/O.
//! The table is the only judge: a token counts while its session stands in the table, and no longer. Where sessions last, and rest while nobody asks for
//! them, is not known here.

mod route_cookie;
mod table;
mod verified_tokens;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::token::{LoginTokenClaims, MAX_SESSION_TOKEN_SECONDS, SessionTokenClaims};

pub use crate::token::SessionId;
pub use route_cookie::{ROUTE_COOKIE, open_route_cookie, seal_route_cookie};
pub use table::{Authenticated, HOT_SESSIONS, InsertRefusal, Look, MAX_SESSIONS, Resting, SessionTable, Shown};

/// One login: who, since when and until when. It never changes; it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub identity: Identity,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds; the session is dead from this second on.
    pub expires_at: u64,
    /// Who asked for the login: `browser`, `kubepass` or `pomerium-cli`.
    pub client: String,
    /// Where the login came from.
    pub source_ip: String,
}

impl Session {
    pub fn is_alive(&self, now: u64) -> bool {
        now < self.expires_at
    }

    /// Claims of a token for one route (`audience` = its host without port): an hour, or what is left of the session.
    /// `token_id` is unique random text.
    pub fn session_token_claims(&self, audience: &str, token_id: String, now: u64) -> SessionTokenClaims {
        SessionTokenClaims {
            session: self.id,
            audience: audience.to_owned(),
            subject: self.identity.principal.to_string(),
            token_id,
            issued_at: now,
            expires_at: self.expires_at.min(now.saturating_add(MAX_SESSION_TOKEN_SECONDS)),
        }
    }

    /// Claims of the token that renews session tokens (`audience` = `public_url`): as long as the session.
    pub fn login_token_claims(&self, audience: &str, token_id: String, now: u64) -> LoginTokenClaims {
        LoginTokenClaims {
            session: self.id,
            audience: audience.to_owned(),
            subject: self.identity.principal.to_string(),
            token_id,
            issued_at: now,
            expires_at: self.expires_at,
        }
    }
}
