//! `Schema`: which variables an expression may use, and of which type each is.

use std::fmt;
use std::sync::Arc;

/// The type of a value, as far as it is known before evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int,
    Double,
    /// CEL's `string`.
    Text,
    Timestamp,
    Duration,
    Null,
    List(Arc<Type>),
    /// Keys are texts.
    Map(Arc<Type>),
    /// Fixed fields, each always there.
    Object(Arc<[(&'static str, Type)]>),
    /// What `.?field` and `[?key]` give.
    Optional(Arc<Type>),
    /// Known at evaluation only, such as a claim.
    Dynamic,
}

impl Type {
    pub fn list(element: Type) -> Self {
        Self::List(Arc::new(element))
    }

    pub fn map(value: Type) -> Self {
        Self::Map(Arc::new(value))
    }

    pub fn object(fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        Self::Object(fields.into_iter().collect())
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Null => "null",
            Self::List(element) => return write!(formatter, "list({element})"),
            Self::Map(_) => "map",
            Self::Object(_) => "object",
            Self::Optional(_) => "optional",
            Self::Dynamic => "any",
        };
        formatter.write_str(name)
    }
}

/// The variables of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    variables: Vec<(&'static str, Type)>,
}

impl Schema {
    pub fn new(variables: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    pub fn variables(&self) -> &[(&'static str, Type)] {
        &self.variables
    }

    pub(super) fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }
}

/// What the result of an expression must be. A result that is known at evaluation only passes here and is checked there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Bool,
    Text,
    TextList,
    TextOrTextList,
}

impl Expected {
    pub(super) fn accepts(self, found: &Type) -> bool {
        let list_of_texts = |kind: &Type| matches!(kind, Type::List(element) if matches!(**element, Type::Text | Type::Dynamic));
        match (self, found) {
            (_, Type::Dynamic) => true,
            (Self::Bool, found) => *found == Type::Bool,
            (Self::Text, found) => *found == Type::Text,
            (Self::TextList, found) => list_of_texts(found),
            (Self::TextOrTextList, found) => *found == Type::Text || list_of_texts(found),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bool => "true or false (bool)",
            Self::Text => "a string",
            Self::TextList => "a list of strings",
            Self::TextOrTextList => "a string or a list of strings",
        })
    }
}
