//! The CEL sources of the configuration, compiled; their errors brought to the place in the file.

use super::error::At;
use super::provider::IdentityDraft;
use super::resolving::Resolving;
use super::route::RuleDraft;
use crate::identity::{IdentityMapping, MappingField};
use crate::policy::{Policy, UserExpression};

pub(super) fn mapping(draft: &IdentityDraft, resolving: &mut Resolving<'_>) -> Option<IdentityMapping> {
    let username = draft.username.as_ref()?;
    let groups = draft.groups.as_ref().map(|source| source.value.as_str());
    let require = draft.require.as_ref().map(|source| source.value.as_str());
    let errors = match IdentityMapping::compile(&username.value, groups, require) {
        Ok(mapping) => return Some(mapping),
        Err(errors) => errors,
    };
    for (field, error) in errors {
        let source = match field {
            MappingField::Username => Some(username),
            MappingField::Groups => draft.groups.as_ref(),
            MappingField::Require => draft.require.as_ref(),
        };
        let Some(source) = source else { continue };
        let spot = resolving.inside(source, error.line, error.column);
        match error.hint {
            Some(hint) => resolving.faults.add_with_hint(&spot, error.message, hint),
            None => resolving.faults.add(&spot, error.message),
        }
    }
    None
}

pub(super) fn policy(_rules: &[RuleDraft], _resolving: &mut Resolving<'_>) -> Option<Policy> {
    Some(Policy {})
}

pub(super) fn user(_source: &At<String>, _resolving: &mut Resolving<'_>) -> Option<UserExpression> {
    Some(UserExpression {})
}
