//! Why verified claims make no identity: for the page that the person sees and for the audit line. No text repeats the value of a claim.

use crate::expression::EvaluationError;
use crate::identity::claims::MAX_CLAIMS_BYTES;
use crate::identity::mapping::MAX_GROUPS;
use crate::identity::name::NameFault;

/// Why verified claims make no identity, and who can do what about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingRefusal {
    #[error("the identity provider sent no usable claim `sub`: it must name everybody by a text of their own")]
    NoSubject,
    #[error(
        "the identity provider sent {bytes} bytes of claims and at most {MAX_CLAIMS_BYTES} are taken; the largest is `{largest}`: have it send less to this client, for example by fewer scopes or a filter on groups"
    )]
    ClaimsTooLarge { bytes: usize, largest: String },
    #[error("the identity provider does not say that the e-mail address is verified: verify it there, or set `identity.require`")]
    EmailNotVerified,
    #[error("the identity provider's claims do not meet `identity.require`{}", missing_claim(.missing))]
    RequirementNotMet { missing: Option<String> },
    #[error("`identity.require` has no answer for these claims: {0}; check it against what the identity provider sends")]
    RequirementFailed(EvaluationError),
    #[error("`identity.username` gives no name for these claims: {0}; check it and `scopes` against what the identity provider sends")]
    UsernameFailed(EvaluationError),
    #[error("the username {0}: change it at the identity provider, or take another claim in `identity.username`")]
    UsernameInvalid(NameFault),
    #[error("the e-mail address {0}: change it at the identity provider")]
    EmailInvalid(NameFault),
    #[error("the username or e-mail address is in none of the domains that `identity.email_domains` lists for this identity provider")]
    OutsideDomains,
    #[error("`identity.groups` gives no groups for these claims: {0}; write `has(claims.x) ? claims.x : []` where a claim may be missing")]
    GroupsFailed(EvaluationError),
    #[error(
        "the identity provider left the groups out of the token because there are too many: have it send only the groups that are assigned to this client"
    )]
    GroupsElsewhere,
    #[error("the identity provider names {count} groups and at most {MAX_GROUPS} are taken: have it send fewer to this client")]
    TooManyGroups { count: usize },
    #[error("group {position} of those that the identity provider names {fault}: rename it there, or leave it out in `identity.groups`")]
    GroupInvalid { position: usize, fault: NameFault },
}

fn missing_claim(missing: &Option<String>) -> String {
    missing.as_ref().map(|claim| format!(": `{claim}` is missing")).unwrap_or_default()
}

impl MappingRefusal {
    /// One stable word, for metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoSubject => "no_subject",
            Self::ClaimsTooLarge { .. } => "claims_too_large",
            Self::EmailNotVerified => "email_not_verified",
            Self::RequirementNotMet { .. } => "requirement_not_met",
            Self::RequirementFailed(_) => "requirement_failed",
            Self::UsernameFailed(_) => "username_failed",
            Self::UsernameInvalid(_) => "username_invalid",
            Self::EmailInvalid(_) => "email_invalid",
            Self::OutsideDomains => "outside_domains",
            Self::GroupsFailed(_) => "groups_failed",
            Self::GroupsElsewhere => "groups_elsewhere",
            Self::TooManyGroups { .. } => "too_many_groups",
            Self::GroupInvalid { .. } => "group_invalid",
        }
    }
}
