//! `Value`: the result of an expression as a value of its own.

use std::collections::BTreeMap;

use cel_interpreter::common::types::{
    CelBool, CelDouble, CelDuration, CelInt, CelNull, CelOptional, CelString, CelTimestamp, CelUInt, LIST_TYPE, MAP_TYPE,
};
use cel_interpreter::common::value::Val;

use super::error::EvaluationError;

/// The result of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// # Errors
    /// `WrongType` for a result that has no JSON form (a timestamp, a duration, an object of the schema).
    pub(super) fn from_engine(value: &dyn Val) -> Result<Self, EvaluationError> {
        if let Some(text) = value.downcast_ref::<CelString>() {
            return Ok(Self::Text(text.inner().to_owned()));
        }
        if let Some(flag) = value.downcast_ref::<CelBool>() {
            return Ok(Self::Bool(*flag.inner()));
        }
        if let Some(number) = value.downcast_ref::<CelInt>() {
            return Ok(Self::Int(*number.inner()));
        }
        if let Some(number) = value.downcast_ref::<CelUInt>() {
            return i64::try_from(*number.inner())
                .map(Self::Int)
                .map_err(|_| EvaluationError::Failed("the number is too large".to_owned()));
        }
        if let Some(number) = value.downcast_ref::<CelDouble>() {
            return Ok(Self::Double(*number.inner()));
        }
        if value.downcast_ref::<CelNull>().is_some() {
            return Ok(Self::Null);
        }
        match value.get_type() {
            kind if *kind == LIST_TYPE => list(value).map(Self::List),
            kind if *kind == MAP_TYPE => map(value).map(Self::Map),
            _ => Err(EvaluationError::WrongType { wanted: "a plain value", found: type_name(value) }),
        }
    }

    /// One text, or a list of texts.
    ///
    /// # Errors
    /// `WrongType` for anything else.
    pub fn into_texts(self) -> Result<Vec<String>, EvaluationError> {
        let text = |value: Self| match value {
            Self::Text(text) => Ok(text),
            other => Err(EvaluationError::WrongType { wanted: "string", found: other.type_name() }),
        };
        match self {
            Self::List(items) => items.into_iter().map(text).collect(),
            single => text(single).map(|text| vec![text]),
        }
    }

    /// CEL's name of the value's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }
}

fn list(value: &dyn Val) -> Result<Vec<Value>, EvaluationError> {
    let mut items = value.as_iterable().ok_or(EvaluationError::Internal)?.iter();
    std::iter::from_fn(|| items.next()).map(Value::from_engine).collect()
}

fn map(value: &dyn Val) -> Result<BTreeMap<String, Value>, EvaluationError> {
    let indexer = value.as_indexer().ok_or(EvaluationError::Internal)?;
    let mut keys = value.as_iterable().ok_or(EvaluationError::Internal)?.iter();
    let mut entries = BTreeMap::new();
    while let Some(key) = keys.next() {
        let name = key.downcast_ref::<CelString>().ok_or(EvaluationError::WrongType { wanted: "string", found: type_name(key) })?;
        let entry = indexer.get(key).map_err(EvaluationError::from_engine)?;
        entries.insert(name.inner().to_owned(), Value::from_engine(entry.as_ref())?);
    }
    Ok(entries)
}

/// CEL's name of the type of a value of the engine.
pub(super) fn type_name(value: &dyn Val) -> &'static str {
    if value.downcast_ref::<CelOptional>().is_some() {
        return "optional";
    }
    if value.downcast_ref::<CelTimestamp>().is_some() {
        return "timestamp";
    }
    if value.downcast_ref::<CelDuration>().is_some() {
        return "duration";
    }
    match value.get_type().name() {
        "bool" => "bool",
        "int" => "int",
        "uint" => "uint",
        "double" => "double",
        "string" => "string",
        "list" => "list",
        "map" => "map",
        "null_type" => "null",
        _ => "object",
    }
}
