//! The CEL sources of the configuration, compiled; their errors brought to the place in the file.

use super::error::At;
use super::names::quote;
use super::provider::IdentityDraft;
use super::resolving::Resolving;
use super::route::{RuleDraft, RuleEffect};
use crate::identity::{IdentityMapping, MappingField};
use crate::policy::{CompileError, Effect, Policy, RuleError, RuleSource, UserExpression};

const MAX_NAME_CHARACTERS: usize = 100;
const MAX_MESSAGE_CHARACTERS: usize = 1000;

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

/// An error inside a source, at its place in the file.
fn report(source: &At<String>, error: CompileError, resolving: &mut Resolving<'_>) {
    let spot = resolving.inside(source, error.line, error.column);
    match error.hint {
        Some(hint) => resolving.faults.add_with_hint(&spot, error.message, hint),
        None => resolving.faults.add(&spot, error.message),
    }
}

/// The rules of a route, compiled, each under a name of its own.
pub(super) fn policy(rules: &[RuleDraft], resolving: &mut Resolving<'_>) -> Option<Policy> {
    let names: Vec<String> = rules.iter().enumerate().map(|(index, rule)| rule_name(index, rule)).collect();
    for (index, (rule, name)) in rules.iter().zip(&names).enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            let spot = rule.name.as_ref().map_or(&rule.spot, |name| &name.spot);
            resolving.faults.add(spot, format!("another rule of this route has the name {}", quote(name)));
        }
        if rule.known_as.is_none() {
            check_text(rule.name.as_ref(), MAX_NAME_CHARACTERS, resolving);
            check_text(rule.message.as_ref(), MAX_MESSAGE_CHARACTERS, resolving);
        }
    }
    let sources: Vec<RuleSource<'_>> = rules
        .iter()
        .zip(&names)
        .map(|(rule, name)| RuleSource {
            name,
            effect: match rule.effect {
                RuleEffect::Allow => Effect::Allow,
                RuleEffect::Deny => Effect::Deny,
            },
            source: &rule.source.value,
            message: rule.message.as_ref().map(|message| message.value.trim_end()),
        })
        .collect();
    match Policy::compile_with(&sources, &mut resolving.compiled) {
        Ok(policy) => Some(policy),
        Err(errors) => {
            for RuleError { rule, error } in errors {
                if let Some(rule) = rules.get(rule) {
                    report(&rule.source, error, resolving);
                }
            }
            None
        }
    }
}

/// What the API server is told besides name and groups: CEL over `user`.
pub(super) fn user(source: &At<String>, resolving: &mut Resolving<'_>) -> Option<UserExpression> {
    match UserExpression::compile(&source.value) {
        Ok(expression) => Some(expression),
        Err(errors) => {
            for error in errors {
                report(source, error, resolving);
            }
            None
        }
    }
}

/// Names and messages end in answers, logs and terminals.
fn check_text(text: Option<&At<String>>, longest: usize, resolving: &mut Resolving<'_>) {
    let Some(text) = text else { return };
    if text.value.trim().is_empty() {
        resolving.faults.add(&text.spot, "is empty; leave the key out instead");
    } else if text.value.trim_end().chars().any(char::is_control) {
        resolving.faults.add(&text.spot, "must be one line without control characters");
    } else if text.value.chars().count() > longest {
        resolving.faults.add(&text.spot, format!("is longer than {longest} characters"));
    }
}

/// A rule without a name is known by its place among the rules, from 1.
pub(super) fn rule_name(index: usize, rule: &RuleDraft) -> String {
    if let Some(name) = &rule.known_as {
        return name.clone();
    }
    rule.name.as_ref().map_or_else(|| format!("rule-{}", index + 1), |name| name.value.clone())
}
