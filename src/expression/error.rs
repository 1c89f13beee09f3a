//! What can be wrong with an expression: at load with its place, at evaluation with its kind. No message repeats a value, since values are
//! people's claims and end in logs.

use std::fmt;

use cel_interpreter::ExecutionError;
use cel_interpreter::common::ast::operators;

/// A fault found while compiling. Line and column start at 1 within the source; the column counts characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    pub message: String,
    pub line: usize,
    pub column: usize,
    /// What would be right, where that can be guessed.
    pub hint: Option<String>,
}

impl fmt::Display for CompileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (line {}, column {})", self.message, self.line, self.column)?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CompileError {}

/// Why an expression has no value for the given variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// A key that is not in its map, such as a claim that the identity provider did not send.
    #[error("`{0}` is missing")]
    Missing(String),
    #[error("the value is of type {found}, not {wanted}")]
    WrongType { wanted: &'static str, found: &'static str },
    #[error("{0}")]
    Failed(String),
    /// Of it alone, or with what was evaluated before it for the same decision.
    #[error("it takes too much work")]
    TooMuchWork,
    /// The engine broke; never an answer to anything.
    #[error("the expression engine failed")]
    Internal,
}

impl EvaluationError {
    pub(super) fn from_engine(error: ExecutionError) -> Self {
        match error {
            ExecutionError::NoSuchKey(key) => Self::Missing(key.chars().take(64).collect()),
            ExecutionError::NoSuchOverload(overload) => Self::Failed(no_overload(overload.function(), overload.argument_types())),
            ExecutionError::UnexpectedType { got, want } => {
                Self::Failed(format!("a value of type {} stands where {} is needed", readable_type(&got), readable_type(&want)))
            }
            ExecutionError::IndexOutOfBounds(_) => Self::Failed("the index is outside the list".to_owned()),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => Self::Failed("division by zero".to_owned()),
            ExecutionError::Overflow(..) => Self::Failed("the result is out of range".to_owned()),
            ExecutionError::UnsupportedBinaryOperator(..) | ExecutionError::ValuesNotComparable(..) => {
                Self::Failed("the operator does not fit the types of its operands".to_owned())
            }
            ExecutionError::UnsupportedIndex(..) | ExecutionError::UnsupportedKeyType(_) => {
                Self::Failed("a value of this type is no index".to_owned())
            }
            ExecutionError::DuplicateKey(_) => Self::Failed("a map has the same key twice".to_owned()),
            ExecutionError::FunctionError { function, .. } => {
                Self::Failed(format!("{} failed on its argument", readable_function(&function)))
            }
            _ => Self::Failed("the expression could not be evaluated".to_owned()),
        }
    }
}

fn no_overload(function: &str, types: &[String]) -> String {
    let types: Vec<&str> = types.iter().map(|name| readable_type(name)).collect();
    format!("{} does not take ({})", readable_function(function), types.join(", "))
}

fn readable_type(name: &str) -> &str {
    match name {
        "google.protobuf.Timestamp" => "timestamp",
        "google.protobuf.Duration" => "duration",
        "null_type" => "null",
        other => other,
    }
}

fn readable_function(name: &str) -> String {
    let readable = match name {
        operators::CONDITIONAL => "? :",
        operators::INDEX | operators::OPT_INDEX => "[ ]",
        operators::NOT_STRICTLY_FALSE => "the condition",
        "_._" | operators::OPT_SELECT => return "field access".to_owned(),
        _ => name.trim_matches(|part| part == '_' || part == '@'),
    };
    format!("`{readable}`")
}
