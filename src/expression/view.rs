//! How an expression reads what it is evaluated over: borrowed from its owner, each field only when the expression touches it, with
//! nothing copied, converted or serialized before.

use std::collections::BTreeMap;
use std::fmt::Debug;

use cel_interpreter::common::types::{CelBool, CelDouble, CelDuration, CelInt, CelNull, CelString, CelTimestamp, CelUInt};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::context::VariableResolver;
use serde_json::Value as Json;

use super::borrowed::{ListValue, MapValue, ObjectValue};
use super::constant::Constants;
use super::{function, work};

/// Something with named fields; at the top, the variables themselves.
pub trait Fields: Debug + Send + Sync {
    /// The value of a field. `None` for a name that it does not have.
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>>;
}

/// The value of a field, borrowed where it is not a plain number.
#[derive(Debug, Clone, Copy)]
pub enum FieldValue<'a> {
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// Unix seconds.
    Timestamp(u64),
    /// Seconds.
    Duration(u64),
    TextList(&'a [String]),
    TextMap(&'a BTreeMap<String, String>),
    Json(&'a Json),
    JsonMap(&'a serde_json::Map<String, Json>),
    Object(&'a dyn Fields),
}

impl<'a> FieldValue<'a> {
    pub(super) fn into_engine(self) -> Box<dyn Val + 'a> {
        work::spend(self.work());
        match self {
            Self::Bool(flag) => Box::new(CelBool::from(flag)),
            Self::Int(number) => Box::new(CelInt::from(number)),
            Self::Text(text) => Box::new(CelString::from(text)),
            Self::Timestamp(seconds) => Box::new(timestamp(seconds)),
            Self::Duration(seconds) => Box::new(duration(seconds)),
            Self::TextList(items) => Box::new(ListValue::texts(items)),
            Self::TextMap(map) => Box::new(MapValue::texts(map)),
            Self::Json(json) => json_value(json),
            Self::JsonMap(map) => Box::new(MapValue::json(map)),
            Self::Object(object) => Box::new(ObjectValue(object)),
        }
    }

    fn work(self) -> u64 {
        match self {
            Self::Text(text) => 1 + work::of_text(text),
            Self::TextList(items) => 1 + work::of_list(items.len()),
            // It is counted there.
            Self::Json(_) => 0,
            _ => 1,
        }
    }
}

/// To read a value, and to look at it once.
fn work_of_json(json: &Json) -> u64 {
    1 + match json {
        Json::String(text) => work::of_text(text),
        Json::Array(items) => work::of_list(items.len()),
        _ => 0,
    }
}

pub(super) fn json_value(json: &Json) -> Box<dyn Val + '_> {
    work::spend(work_of_json(json));
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(flag) => Box::new(CelBool::from(*flag)),
        Json::String(text) => Box::new(CelString::from(text.as_str())),
        Json::Array(items) => Box::new(ListValue::json(items)),
        Json::Object(map) => Box::new(MapValue::json(map)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => Box::new(CelInt::from(signed)),
            (None, Some(unsigned)) => Box::new(CelUInt::from(unsigned)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
    }
}

/// The end of year 9999 is the last time that CEL knows.
fn timestamp(seconds: u64) -> CelTimestamp {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(seconds).unwrap_or(LAST).min(LAST);
    CelTimestamp::from(chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default().fixed_offset())
}

/// About 292 years are the longest duration that CEL knows.
fn duration(seconds: u64) -> CelDuration {
    const LONGEST: i64 = i64::MAX / 1_000_000_000;
    let seconds = i64::try_from(seconds).unwrap_or(LONGEST).min(LONGEST);
    CelDuration::from(chrono::Duration::seconds(seconds))
}

/// The name by which the checker has a field of a variable looked up; no source can write it.
pub(super) fn field_of_variable(variable: &str, field: &str) -> String {
    format!("@{variable}.{field}")
}

/// The two in such a name. The engine also asks for one with further fields behind it; those are no field of a variable.
pub(super) fn variable_and_field(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix('@')?.split_once('.')
}

/// The variables and constants of one evaluation.
pub(super) struct Bindings<'a> {
    pub(super) variables: &'a dyn Fields,
    pub(super) constants: &'a Constants,
}

impl Bindings<'_> {
    /// A field named by `field_of_variable`. The engine also asks for such a name with further fields behind it; then there is none.
    fn field(&self, name: &str) -> Option<FieldValue<'_>> {
        let (variable, field) = name.split_once('.')?;
        match self.variables.field(variable)? {
            FieldValue::Object(object) => object.field(field),
            FieldValue::Json(Json::Object(map)) if !field.contains('.') => map.get(field).map(FieldValue::Json),
            _ => None,
        }
    }
}

impl VariableResolver for Bindings<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let Some(own) = variable.strip_prefix('@') else {
            return self.variables.field(variable).map(|value| CowVal::Owned(value.into_engine()));
        };
        match self.field(own) {
            Some(value) => Some(CowVal::Owned(value.into_engine())),
            None => {
                let constant = self.constants.get(variable)?;
                work::spend(function::work_of(constant));
                Some(CowVal::Borrowed(constant))
            }
        }
    }
}

/// Variables that are JSON documents.
#[derive(Debug)]
pub(super) struct JsonVariables<'a>(pub(super) &'a [(&'a str, &'a Json)]);

impl Fields for JsonVariables<'_> {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, json)| FieldValue::Json(json))
    }
}
