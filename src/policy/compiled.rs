//! What was compiled already, by its text: rules that many routes have, and those that a reload did not touch, are compiled once.

use std::collections::HashMap;
use std::sync::Arc;

use super::{CompileError, Policy, Rule, RuleSource, schema};
use crate::expression::{Expected, Expression};

/// Conditions and policies of one configuration, or of the one before it.
#[derive(Debug, Default)]
pub struct Compiled {
    conditions: HashMap<Box<str>, Expression>,
    /// By content hash.
    policies: HashMap<Arc<str>, Policy>,
}

impl Compiled {
    /// All that these policies hold.
    pub fn of<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let mut compiled = Self::default();
        for policy in policies {
            if compiled.policies.contains_key(&policy.content_hash) {
                continue;
            }
            compiled.policies.insert(Arc::clone(&policy.content_hash), policy.clone());
            for Rule { condition, .. } in policy.rules() {
                compiled.conditions.entry(condition.source().into()).or_insert_with(|| condition.clone());
            }
        }
        compiled
    }

    pub(super) fn condition(&mut self, source: &str) -> Result<Expression, Vec<CompileError>> {
        if let Some(condition) = self.conditions.get(source) {
            return Ok(condition.clone());
        }
        let condition = Expression::compile(source, schema::policy(), Expected::Bool)?;
        self.conditions.insert(source.into(), condition.clone());
        Ok(condition)
    }

    /// The policy of these very rules. The hash only finds it: a policy decides who gets in, so each rule is compared as well.
    pub(super) fn policy(&self, content_hash: &str, sources: &[RuleSource<'_>]) -> Option<Policy> {
        let policy = self.policies.get(content_hash)?;
        let equal = |(rule, source): (&Rule, &RuleSource<'_>)| {
            (rule.name(), rule.effect(), rule.source(), rule.message()) == (source.name, source.effect, source.source, source.message)
        };
        let all = policy.rules().len() == sources.len() && policy.rules().iter().zip(sources).all(equal);
        all.then(|| policy.clone())
    }

    pub(super) fn keep(&mut self, policy: &Policy) {
        self.policies.insert(Arc::clone(&policy.content_hash), policy.clone());
    }
}
