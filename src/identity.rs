//! Who someone is: `Principal` (identity provider and subject), `Identity`, `Groups`; and the mapping from claims.

/// How the claims of one identity provider become an identity.
#[derive(Debug)]
pub struct IdentityMapping {}
