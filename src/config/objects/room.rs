//! How much the Routes of one namespace may ask for. Every rule is compiled for every Route that it stands in: without a bound, a few long Policies and
//! many Routes that name them would keep everybody else's changes waiting.

use std::collections::HashMap;

use super::ObjectId;
use crate::config::route::RuleDraft;

/// Bytes of the rules of one Route, those of its Policies among them.
const MAX_RULES: usize = 256 << 10;
/// Of all Routes of a namespace.
const MAX_RULES_OF_NAMESPACE: usize = 8 << 20;
const MAX_ROUTES_OF_NAMESPACE: usize = 5_000;
/// About what a rule without text is worth.
const BYTES_OF_A_RULE: usize = 128;

/// What is taken so far, by namespace. The operator's own is not counted.
#[derive(Debug)]
pub(super) struct Room<'a> {
    operator_namespace: &'a str,
    rules: HashMap<String, usize>,
    routes: HashMap<String, usize>,
}

impl<'a> Room<'a> {
    pub(super) fn new(operator_namespace: &'a str) -> Self {
        Self { operator_namespace, rules: HashMap::new(), routes: HashMap::new() }
    }

    /// For the rules of one more Route.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn take_rules(&mut self, id: &ObjectId, bytes: usize) -> Result<(), String> {
        if bytes > MAX_RULES {
            return Err(format!("the rules of this Route and of its policies are together longer than {} KiB", MAX_RULES >> 10));
        }
        if self.take(id, bytes, |room| &mut room.rules, MAX_RULES_OF_NAMESPACE) {
            return Ok(());
        }
        let (namespace, limit) = (&id.namespace, MAX_RULES_OF_NAMESPACE >> 20);
        Err(format!(
            "the rules of the older Routes of the namespace {namespace}, each with its policies', and of this one are longer than {limit} MiB"
        ))
    }

    /// For one more Route in force.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) fn take_route(&mut self, id: &ObjectId) -> Result<(), String> {
        if self.take(id, 1, |room| &mut room.routes, MAX_ROUTES_OF_NAMESPACE) {
            return Ok(());
        }
        Err(format!("the namespace {} has {MAX_ROUTES_OF_NAMESPACE} older Routes already, which is as many as are taken", id.namespace))
    }

    fn take(&mut self, id: &ObjectId, more: usize, of: impl Fn(&mut Self) -> &mut HashMap<String, usize>, limit: usize) -> bool {
        if id.namespace == self.operator_namespace {
            return true;
        }
        let taken = of(self).entry(id.namespace.clone()).or_default();
        let fits = *taken + more <= limit;
        if fits {
            *taken += more;
        }
        fits
    }
}

pub(super) fn bytes_of(rules: &[RuleDraft]) -> usize {
    rules
        .iter()
        .map(|rule| BYTES_OF_A_RULE + rule.source.value.len() + rule.message.as_ref().map_or(0, |message| message.value.len()))
        .sum()
}
