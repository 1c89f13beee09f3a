//! Who someone is: `Principal` (identity provider and subject), `Identity`, `Groups`; and the mapping from claims.
//! It knows nothing of tokens, sessions, routes or clusters: prefixes and allow-lists of a route come later, at the route.

mod claims;
mod groups;
mod mapping;
mod name;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use claims::MAX_CLAIMS_BYTES;
pub use groups::Groups;
pub use mapping::{IdentityMapping, MAX_GROUPS, MappingField, MappingRefusal};
pub use name::{MAX_NAME_BYTES, NameFault};

/// The one name of a person: two identity providers never share one, whatever e-mail they claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Name of the identity provider in the configuration.
    pub idp: String,
    /// The claim `sub`: unique at that provider and never given to another person (OpenID Connect Core 1.0, 2).
    pub subject: String,
}

/// Who someone is, as the mapping of their identity provider gave it at login.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub principal: Principal,
    /// Not empty; with the prefix of the identity provider, before the prefix of a route.
    pub username: String,
    /// A verified address, or empty.
    pub email: String,
    /// Before the prefix and the allow-list of a route.
    pub groups: Groups,
    /// What policies read as `user.claims`; holds no tokens.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.idp, self.subject)
    }
}
