//! The CEL sources of the configuration, compiled; their errors brought to the place in the file.

use super::error::At;
use super::provider::IdentityDraft;
use super::resolving::Resolving;
use super::route::RuleDraft;
use crate::expression::CompileError;
use crate::identity::{IdentityMapping, MappingField};
use crate::policy::{Policy, UserExpression};

/// The expressions of an identity provider, without prefix and domains.
pub(super) fn mapping(draft: &IdentityDraft, resolving: &mut Resolving<'_>) -> Option<IdentityMapping> {
    let username = draft.username.as_ref()?;
    let text = |source: &Option<At<String>>| source.as_ref().map(|source| source.value.clone());
    let (groups, require) = (text(&draft.groups), text(&draft.require));
    match IdentityMapping::compile(&username.value, groups.as_deref(), require.as_deref()) {
        Ok(mapping) => Some(mapping),
        Err(errors) => {
            for (field, error) in errors {
                let source = match field {
                    MappingField::Username => Some(username),
                    MappingField::Groups => draft.groups.as_ref(),
                    MappingField::Require => draft.require.as_ref(),
                };
                report(source.unwrap_or(username), error, resolving);
            }
            None
        }
    }
}

fn report(source: &At<String>, error: CompileError, resolving: &mut Resolving<'_>) {
    let spot = resolving.inside(source, error.line, error.column);
    match error.hint {
        Some(hint) => resolving.faults.add_with_hint(&spot, error.message, hint),
        None => resolving.faults.add(&spot, error.message),
    }
}

pub(super) fn policy(_rules: &[RuleDraft], _resolving: &mut Resolving<'_>) -> Option<Policy> {
    Some(Policy {})
}

pub(super) fn user(_source: &At<String>, _resolving: &mut Resolving<'_>) -> Option<UserExpression> {
    Some(UserExpression {})
}
