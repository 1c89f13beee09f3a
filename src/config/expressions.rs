//! The CEL sources of the configuration, compiled; their errors brought to the place in the file.

use super::error::At;
use super::provider::IdentityDraft;
use super::resolving::Resolving;
use super::route::RuleDraft;
use crate::identity::IdentityMapping;
use crate::policy::{Policy, UserExpression};

pub(super) fn mapping(_draft: &IdentityDraft, _resolving: &mut Resolving<'_>) -> Option<IdentityMapping> {
    Some(IdentityMapping {})
}

pub(super) fn policy(_rules: &[RuleDraft], _resolving: &mut Resolving<'_>) -> Option<Policy> {
    Some(Policy {})
}

pub(super) fn user(_source: &At<String>, _resolving: &mut Resolving<'_>) -> Option<UserExpression> {
    Some(UserExpression {})
}
