//! Rules compiled and evaluated to a `Verdict` that names the rules that made it.
//!
//! Deny beats allow. A deny rule that cannot be evaluated denies, an allow rule that cannot be evaluated does not match; both are recorded.
//! Nothing matched means deny, and so does a policy without rules. It decides on what it is given only: no clock, no I/O, no session.

mod compiled;
mod input;
mod schema;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::expression::{EvaluationError, Expected, Expression};

pub use crate::expression::{Allowance, CompileError};
pub use compiled::Compiled;
pub use input::{PolicyInput, RequestView, RouteView, UserView};

/// What a rule does when its condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// A rule as it is written.
#[derive(Debug, Clone, Copy)]
pub struct RuleSource<'a> {
    pub name: &'a str,
    pub effect: Effect,
    /// CEL over the variables of `schema`, with a bool as result.
    pub source: &'a str,
    /// What a person is told whom this rule refuses.
    pub message: Option<&'a str>,
}

/// A fault in one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// Index in the given order.
    pub rule: usize,
    pub error: CompileError,
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    name: Arc<str>,
    effect: Effect,
    message: Option<Arc<str>>,
    condition: Expression,
}

impl Rule {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn effect(&self) -> Effect {
        self.effect
    }

    pub fn source(&self) -> &str {
        self.condition.source()
    }

    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

/// A rule is what is written.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, effect, message, condition } = self;
        (name, effect, message, condition.source()) == (&other.name, &other.effect, &other.message, other.condition.source())
    }
}

/// The rules of one route, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    rules: Arc<[Rule]>,
    content_hash: Arc<str>,
}

/// What the rules say about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// The rule that decided; `None` when no rule matched.
    pub rule: Option<Arc<str>>,
    /// What the person is told, where the deciding rule refuses and has a text for it.
    pub message: Option<Arc<str>>,
    /// Rules on the way that could not be evaluated.
    pub errors: Vec<RuleFault>,
}

/// A rule that could not be evaluated, and why; the text repeats no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    pub rule: Arc<str>,
    pub error: String,
}

/// What one rule says about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    pub rule: Arc<str>,
    pub effect: Effect,
    pub result: RuleResult,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleResult {
    Matched,
    NotMatched,
    Error(String),
}

impl Policy {
    /// # Errors
    /// Every fault of every rule.
    pub fn compile(sources: &[RuleSource<'_>]) -> Result<Self, Vec<RuleError>> {
        Self::compile_with(sources, &mut Compiled::default())
    }

    /// The same, with what is compiled already, to which it adds what is new.
    ///
    /// # Errors
    /// Every fault of every rule.
    pub fn compile_with(sources: &[RuleSource<'_>], compiled: &mut Compiled) -> Result<Self, Vec<RuleError>> {
        let content_hash = content_hash(sources);
        if let Some(policy) = compiled.policy(&content_hash, sources) {
            return Ok(policy);
        }
        let (mut rules, mut faults) = (Vec::with_capacity(sources.len()), Vec::new());
        for (index, source) in sources.iter().enumerate() {
            match compiled.condition(source.source) {
                Ok(condition) => {
                    rules.push(Rule { name: source.name.into(), effect: source.effect, message: source.message.map(Arc::from), condition });
                }
                Err(errors) => faults.extend(errors.into_iter().map(|error| RuleError { rule: index, error })),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let policy = Self { rules: rules.into(), content_hash };
        compiled.keep(&policy);
        Ok(policy)
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Sixteen hexadecimal digits of the SHA-256 of the rules: equal rules have equal hashes.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// The first deny rule that matches or cannot be evaluated decides; else the first allow rule that matches.
    pub fn evaluate(&self, input: &PolicyInput<'_>) -> Verdict {
        let mut errors = Vec::new();
        let mut record =
            |rule: &Rule, error: EvaluationError| errors.push(RuleFault { rule: Arc::clone(&rule.name), error: error.to_string() });
        let deny = self.rules_with(Effect::Deny).find(|rule| match rule.condition.evaluate_bool(input) {
            Ok(matched) => matched,
            Err(error) => {
                record(rule, error);
                true
            }
        });
        if let Some(rule) = deny {
            return Verdict { allowed: false, rule: Some(Arc::clone(&rule.name)), message: rule.message.clone(), errors };
        }
        let allow = self.rules_with(Effect::Allow).find(|rule| match rule.condition.evaluate_bool(input) {
            Ok(matched) => matched,
            Err(error) => {
                record(rule, error);
                false
            }
        });
        Verdict { allowed: allow.is_some(), rule: allow.map(|rule| Arc::clone(&rule.name)), message: None, errors }
    }

    /// What every rule says, also those that `evaluate` need not ask.
    pub fn explain(&self, input: &PolicyInput<'_>) -> Vec<RuleTrace> {
        let trace = |rule: &Rule| RuleTrace {
            rule: Arc::clone(&rule.name),
            effect: rule.effect,
            result: match rule.condition.evaluate_bool(input) {
                Ok(true) => RuleResult::Matched,
                Ok(false) => RuleResult::NotMatched,
                Err(error) => RuleResult::Error(error.to_string()),
            },
        };
        self.rules.iter().map(trace).collect()
    }

    fn rules_with(&self, effect: Effect) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.effect == effect)
    }
}

/// Each part with its length before it, so that no two policies have the same text.
fn content_hash(sources: &[RuleSource<'_>]) -> Arc<str> {
    let mut context = digest::Context::new(&digest::SHA256);
    for source in sources {
        for part in [source.name, &source.effect.to_string(), source.source, source.message.unwrap_or_default()] {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
    }
    context.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// CEL over `user` whose value is text or a list of texts (uid, extra).
#[derive(Debug, Clone)]
pub struct UserExpression {
    expression: Expression,
}

impl PartialEq for UserExpression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl UserExpression {
    /// # Errors
    /// Every fault of the source.
    pub fn compile(source: &str) -> Result<Self, Vec<CompileError>> {
        Expression::compile(source, schema::user(), Expected::TextOrTextList).map(|expression| Self { expression })
    }

    pub fn source(&self) -> &str {
        self.expression.source()
    }

    /// The text, or the texts of the list.
    ///
    /// # Errors
    /// Where the expression has no value (a claim that is missing) or one that is no text.
    pub fn evaluate(&self, user: &UserView<'_>) -> Result<Vec<String>, EvaluationError> {
        self.expression.evaluate_texts(&schema::OnlyUser(user))
    }
}
