//! Borrowed lists, maps and objects as values of the engine.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use cel_interpreter::ExecutionError;
use cel_interpreter::common::traits::{Container, Indexer, Iterable, Iterator, Sizer};
use cel_interpreter::common::types::{CelInt, CelString, LIST_TYPE, MAP_TYPE, Type};
use cel_interpreter::common::value::{CowVal, Val};
use serde_json::Value as Json;

use super::view::{FieldValue, Fields, json_value};

static OBJECT: Type = Type::new_unspecified_type("object");

type Boxed<'a> = Box<dyn Val + 'a>;

/// Lends out elements that were made once.
struct Lent<'b, 'a>(std::slice::Iter<'b, Boxed<'a>>);

impl<'b, 'v, 'a: 'v> Iterator<'b, 'v> for Lent<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|item| -> &'b (dyn Val + 'v) { item.as_ref() })
    }
}

fn key_text(key: &dyn Val) -> Result<&str, ExecutionError> {
    let text = key.downcast_ref::<CelString>().map(CelString::inner);
    text.ok_or_else(|| ExecutionError::UnexpectedType { got: key.get_type().name().to_owned(), want: "string".to_owned() })
}

fn length(length: usize) -> CelInt {
    CelInt::from(i64::try_from(length).unwrap_or(i64::MAX))
}

/// An object with fixed fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObjectValue<'a>(pub(super) &'a dyn Fields);

impl Val for ObjectValue<'_> {
    fn get_type(&self) -> &Type {
        &OBJECT
    }

    fn cel_type() -> &'static Type {
        &OBJECT
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Boxed<'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for ObjectValue<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = key_text(key)?;
        self.0.field(name).map(|value| CowVal::Owned(value.into_engine())).ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Boxed<'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

#[derive(Debug, Clone, Copy)]
enum Items<'a> {
    Texts(&'a [String]),
    Json(&'a [Json]),
}

/// A list of texts or of JSON values.
#[derive(Debug)]
pub(super) struct ListValue<'a> {
    items: Items<'a>,
    /// Made when something iterates over the list.
    elements: OnceLock<Vec<Boxed<'a>>>,
}

impl<'a> ListValue<'a> {
    pub(super) fn texts(items: &'a [String]) -> Self {
        Self { items: Items::Texts(items), elements: OnceLock::new() }
    }

    pub(super) fn json(items: &'a [Json]) -> Self {
        Self { items: Items::Json(items), elements: OnceLock::new() }
    }

    fn len(&self) -> usize {
        match self.items {
            Items::Texts(items) => items.len(),
            Items::Json(items) => items.len(),
        }
    }

    fn element(&self, index: usize) -> Option<Boxed<'a>> {
        match self.items {
            Items::Texts(items) => items.get(index).map(|text| FieldValue::Text(text).into_engine()),
            Items::Json(items) => items.get(index).map(json_value),
        }
    }

    fn elements(&self) -> &[Boxed<'a>] {
        self.elements.get_or_init(|| (0..self.len()).filter_map(|index| self.element(index)).collect())
    }
}

impl Val for ListValue<'_> {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &LIST_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let Some(other) = other.as_iterable().filter(|_| *other.get_type() == LIST_TYPE) else { return false };
        let mut others = other.iter();
        self.elements().iter().all(|mine| others.next().is_some_and(|theirs| mine.equals(theirs))) && others.next().is_none()
    }

    fn clone_as_boxed<'v>(&self) -> Boxed<'v>
    where
        Self: 'v,
    {
        Box::new(ListValue { items: self.items, elements: OnceLock::new() })
    }
}

impl Container for ListValue<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let text = value.downcast_ref::<CelString>().map(CelString::inner);
        Ok(match (self.items, text) {
            (Items::Texts(items), Some(text)) => items.iter().any(|item| item == text),
            (Items::Texts(_), None) => false,
            (Items::Json(items), Some(text)) => items.iter().any(|item| item.as_str() == Some(text)),
            (Items::Json(_), None) => self.elements().iter().any(|item| item.equals(value)),
        })
    }
}

impl Indexer for ListValue<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let index = key.downcast_ref::<CelInt>().map(|index| *index.inner());
        let index =
            index.ok_or_else(|| ExecutionError::UnexpectedType { got: key.get_type().name().to_owned(), want: "int".to_owned() })?;
        let element = usize::try_from(index).ok().and_then(|index| self.element(index));
        element.map(CowVal::Owned).ok_or(ExecutionError::IndexOutOfBounds(index.into()))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Boxed<'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for ListValue<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Lent(self.elements().iter()))
    }
}

impl Sizer for ListValue<'_> {
    fn size(&self) -> CelInt {
        length(self.len())
    }
}

#[derive(Debug, Clone, Copy)]
enum Entries<'a> {
    Texts(&'a BTreeMap<String, String>),
    Json(&'a serde_json::Map<String, Json>),
}

/// A map from texts to texts or to JSON values.
#[derive(Debug)]
pub(super) struct MapValue<'a> {
    entries: Entries<'a>,
    /// Made when something iterates over the keys.
    keys: OnceLock<Vec<Boxed<'a>>>,
}

impl<'a> MapValue<'a> {
    pub(super) fn texts(entries: &'a BTreeMap<String, String>) -> Self {
        Self { entries: Entries::Texts(entries), keys: OnceLock::new() }
    }

    pub(super) fn json(entries: &'a serde_json::Map<String, Json>) -> Self {
        Self { entries: Entries::Json(entries), keys: OnceLock::new() }
    }

    fn len(&self) -> usize {
        match self.entries {
            Entries::Texts(map) => map.len(),
            Entries::Json(map) => map.len(),
        }
    }

    fn value(&self, key: &str) -> Option<Boxed<'a>> {
        match self.entries {
            Entries::Texts(map) => map.get(key).map(|text| FieldValue::Text(text).into_engine()),
            Entries::Json(map) => map.get(key).map(json_value),
        }
    }

    fn keys(&self) -> &[Boxed<'a>] {
        let boxed = |key: &'a String| -> Boxed<'a> { Box::new(CelString::from(key.as_str())) };
        self.keys.get_or_init(|| match self.entries {
            Entries::Texts(map) => map.keys().map(boxed).collect(),
            Entries::Json(map) => map.keys().map(boxed).collect(),
        })
    }
}

impl Val for MapValue<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let (Some(indexer), Some(sizer)) = (other.as_indexer(), other.as_sizer()) else { return false };
        let same = |key: &Boxed<'_>| -> bool {
            let mine = key.downcast_ref::<CelString>().and_then(|key| self.value(key.inner()));
            mine.is_some_and(|mine| indexer.get(key.as_ref()).is_ok_and(|theirs| mine.equals(theirs.as_ref())))
        };
        *other.get_type() == MAP_TYPE && sizer.size() == self.size() && self.keys().iter().all(same)
    }

    fn clone_as_boxed<'v>(&self) -> Boxed<'v>
    where
        Self: 'v,
    {
        Box::new(MapValue { entries: self.entries, keys: OnceLock::new() })
    }
}

impl Container for MapValue<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let key = key_text(value)?;
        Ok(match self.entries {
            Entries::Texts(map) => map.contains_key(key),
            Entries::Json(map) => map.contains_key(key),
        })
    }
}

impl Indexer for MapValue<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = key_text(key)?;
        self.value(key).map(CowVal::Owned).ok_or_else(|| ExecutionError::no_such_key(key))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Boxed<'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for MapValue<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Lent(self.keys().iter()))
    }
}

impl Sizer for MapValue<'_> {
    fn size(&self) -> CelInt {
        length(self.len())
    }
}
