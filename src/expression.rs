//! The CEL engine behind one door: compile, check against a schema, evaluate. The only place that names the engine's crate.
//!
//! The engine has no type checker and no limits of its own, so both stand here, before anything is evaluated:
//! `scan` (size, nesting, chain lengths) -> `syntax` (the engine's parser, with messages for people) -> `check` (names, types, calls; also
//! replaces literal patterns, networks, durations and lists by constants that are made once). What is left at evaluation are values:
//! they are borrowed from their owner through [`Fields`] and read only when the expression touches them. Conditions of the usual forms are
//! evaluated without the engine, to the same end: `plain`. What cannot be bounded before evaluation is counted while it goes on: `work`.
//!
//! Knows no domain: which variables there are is said by the [`Schema`] that the caller gives. Must not do I/O and reads no clock; time is
//! a variable like any other.

mod borrowed;
mod check;
mod constant;
mod error;
mod function;
mod plain;
mod scan;
mod schema;
mod syntax;

mod value;
mod view;
mod work;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel_interpreter::common::ast::IdedExpr;
use cel_interpreter::common::value::CowVal;
use cel_interpreter::common::{types::CelBool, value::Val};
use cel_interpreter::{Context, Value as EngineValue};

pub use error::{CompileError, EvaluationError};
pub use schema::{Expected, Schema, Type};
pub use value::Value;
pub use view::{FieldValue, Fields};
pub use work::Allowance;

use constant::Constants;
use plain::Condition;
use view::{Bindings, JsonVariables};
use work::Spent;

/// A checked expression. Evaluating it cannot meet an unknown name, a bad pattern or an unbounded amount of work: what takes more than an
/// [`Allowance`] has no value.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Arc<str>,
    root: Arc<IdedExpr>,
    constants: Arc<Constants>,
    /// For a bool: the same once more, where it needs no engine.
    plain: Option<Arc<Condition>>,
}

impl Expression {
    /// Compiles `source` against the variables of `schema`; the result must be able to be what `expected` says.
    ///
    /// # Errors
    /// Every fault that was found, in the order of the source, each with its place in it.
    pub fn compile(source: &str, schema: &Schema, expected: Expected) -> Result<Self, Vec<CompileError>> {
        scan::scan(source).map_err(|fault| vec![fault])?;
        let compile = || {
            let parsed = syntax::parse(source).map_err(|fault| vec![fault])?;
            let (root, constants) = check::check(parsed, schema, expected)?;
            let plain = (expected == Expected::Bool).then(|| Condition::of(&root, &constants)).flatten().map(Arc::new);
            Ok((root, constants, plain))
        };
        let (root, constants, plain) = with_compile_stack(source, compile)?;
        Ok(Self { source: source.into(), root: Arc::new(root), constants: Arc::new(constants), plain })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates to a bool; `variables` holds the values of the schema's variables.
    ///
    /// # Errors
    /// Where the expression has no value (a missing key, a division by zero, ...) or its value is no bool.
    pub fn evaluate_bool(&self, variables: &dyn Fields) -> Result<bool, EvaluationError> {
        let _allowance = Allowance::begin();
        match self.plain.as_ref().and_then(|plain| plain.holds(variables)) {
            Some(value) => Ok(value),
            None => self.evaluate_by_engine(variables),
        }
    }

    fn evaluate_by_engine(&self, variables: &dyn Fields) -> Result<bool, EvaluationError> {
        self.with_result(variables, |value| {
            let found = value.downcast_ref::<CelBool>().map(|flag| *flag.inner());
            found.ok_or_else(|| EvaluationError::WrongType { wanted: "bool", found: value::type_name(value) })
        })
    }

    /// Evaluates to a value of its own.
    ///
    /// # Errors
    /// Where the expression has no value.
    pub fn evaluate(&self, variables: &dyn Fields) -> Result<Value, EvaluationError> {
        self.with_result(variables, Value::from_engine)
    }

    /// Evaluates over JSON documents, one for each variable. For paths that need not be fast.
    ///
    /// # Errors
    /// Where the expression has no value.
    pub fn evaluate_json(&self, variables: &[(&str, &serde_json::Value)]) -> Result<Value, EvaluationError> {
        self.evaluate(&JsonVariables(variables))
    }

    /// Evaluates to one text or a list of texts.
    ///
    /// # Errors
    /// Where the expression has no value, or one of another type.
    pub fn evaluate_texts(&self, variables: &dyn Fields) -> Result<Vec<String>, EvaluationError> {
        self.evaluate(variables)?.into_texts()
    }

    fn with_result<T>(
        &self,
        variables: &dyn Fields,
        read: impl FnOnce(&dyn Val) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let evaluate = || {
            let bindings = Bindings { variables, constants: &self.constants };
            let mut context = Context::with_env(Arc::clone(function::environment()));
            context.set_variable_resolver(&bindings);
            let result: Result<CowVal<'_, '_>, _> = EngineValue::resolve_val(&self.root, &context);
            read(result.map_err(EvaluationError::from_engine)?.as_ref())
        };
        let _allowance = Allowance::begin();
        if work::is_spent() {
            return Err(EvaluationError::TooMuchWork);
        }
        // The engine has no known panic left; a decision must be total even if one turns up.
        catch_unwind(AssertUnwindSafe(evaluate))
            .unwrap_or_else(|why| Err(if why.is::<Spent>() { EvaluationError::TooMuchWork } else { EvaluationError::Internal }))
    }
}

/// The parser takes up to 200 KiB of stack for each bracket (debug builds), too much for the thread of a caller.
const COMPILE_STACK: usize = 16 * 1024 * 1024;

fn with_compile_stack<T: Send>(
    source: &str,
    compile: impl FnOnce() -> Result<T, Vec<CompileError>> + Send,
) -> Result<T, Vec<CompileError>> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("compile-expression".to_owned()).stack_size(COMPILE_STACK).spawn_scoped(scope, compile);
        let result = thread.ok().and_then(|thread| thread.join().ok());
        result.unwrap_or_else(|| Err(vec![scan::fault(source, 0, "the expression could not be compiled", None)]))
    })
}
