//! The YAML text as a tree in which every node knows its place. Knows no key of the configuration; the one place that names the YAML crate.
//!
//! `serde` stops at the first error; an operator wants all of them. So the text is read whole, without judging it, and the readers
//! (`super::reader`) walk the tree and collect what they dislike.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy};

/// The largest configuration text, in bytes: tens of thousands of routes.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// A configuration nests about eight levels.
const MAX_DEPTH: usize = 32;
/// Bounds what aliases can blow up.
const MAX_NODES: usize = 2_000_000;

/// Of one object of the API server.
const MAX_OBJECT_NODES: usize = 10_000;

/// Where a node begins: 1-based line and column (in characters), and its bytes in the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    /// Byte range of the scalar in the text, quotes included.
    pub(super) bytes: Option<(usize, usize)>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i128),
    Float,
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys may repeat here.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

/// Text that is no YAML, or more of it than a configuration may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) message: String,
}

impl Kind {
    /// What it is, for "expected text, found a list".
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) => "a number",
            Kind::Float => "a number with a fraction",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// Reads one YAML document. Aliases are resolved; merge keys and several documents are refused.
pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > MAX_BYTES {
        return Err(SyntaxError { place: Place::default(), message: format!("the file is larger than {MAX_BYTES} bytes") });
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 1,
            flow_nesting_limit: MAX_DEPTH,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    };
    match serde_yaml::from_str_with_options::<Located<Node>>(text, options) {
        Ok(Located(node)) => Ok(node),
        Err(error) => Err(syntax_error(&error)),
    }
}

/// The same tree of an object that came as JSON, where nothing has a place. `None` when there is more of it than an object may hold.
pub(super) fn of_json(value: &serde_json::Value) -> Option<Node> {
    json_node(value, MAX_DEPTH, &mut { MAX_OBJECT_NODES })
}

fn json_node(value: &serde_json::Value, depth: usize, left: &mut usize) -> Option<Node> {
    use serde_json::Value;
    *left = left.checked_sub(1)?;
    let depth = depth.checked_sub(1)?;
    let kind = match value {
        Value::Null => Kind::Null,
        Value::Bool(value) => Kind::Bool(*value),
        Value::Number(number) => number.as_i128().map_or(Kind::Float, Kind::Integer),
        Value::String(text) => Kind::Text(text.clone()),
        Value::Array(items) => Kind::List(items.iter().map(|item| json_node(item, depth, left)).collect::<Option<_>>()?),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| {
                Some((Key { text: key.clone(), place: Place::default() }, json_node(value, depth, left)?))
            };
            Kind::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    };
    Some(Node { place: Place::default(), kind })
}

/// The crate's messages can quote the text and spread over lines: only the first line is taken, and no snippet is ever asked for.
fn syntax_error(error: &serde_yaml::Error) -> SyntaxError {
    let place = error.location().map_or(Place::default(), |location| place_of(&location));
    let rendered = error.without_snippet().render();
    let line = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let message = match line {
        line if line.contains("recursion limit exceeded") || line.contains("Depth") => "it nests too deeply",
        line if line.contains("budget breached: Documents") => "it holds more than one document",
        line if line.contains("budget breached") || line.contains("alias") => "it holds too much once its aliases are expanded",
        line => line.rfind(" at line ").and_then(|end| line.get(..end)).unwrap_or(line),
    };
    SyntaxError { place, message: format!("not readable as YAML: {message}") }
}

fn place_of(location: &serde_yaml::Location) -> Place {
    let span = location.span();
    let bytes = match (span.byte_offset(), span.byte_len()) {
        (Some(offset), Some(length)) => usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(length)).ok()),
        _ => None,
    };
    Place {
        line: usize::try_from(location.line()).unwrap_or_default(),
        column: usize::try_from(location.column()).unwrap_or_default(),
        bytes,
    }
}

/// A value that carries its place into itself.
struct Located<T>(T);

impl<'de> Deserialize<'de> for Located<Node> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self(Node { place: place_of(&spanned.defined), kind: spanned.value }))
    }
}

impl<'de> Deserialize<'de> for Located<Key> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self(Key { place: place_of(&spanned.defined), text: spanned.value }))
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Kind, E> {
        Ok(Kind::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Kind, E> {
        Ok(Kind::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: de::Error>(self, _value: f64) -> Result<Kind, E> {
        Ok(Kind::Float)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(Located(node)) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Kind::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(Located(key)) = entries.next_key()? {
            let Located(node) = entries.next_value()?;
            nodes.push((key, node));
        }
        Ok(Kind::Map(nodes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn show(node: &Node) -> String {
        let place = format!("{}:{}", node.place.line, node.place.column);
        match &node.kind {
            Kind::List(items) => format!("{place}[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Kind::Map(entries) => {
                let entry = |(key, node): &(Key, Node)| format!("{}@{}:{}={}", key.text, key.place.line, key.place.column, show(node));
                format!("{place}{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
            Kind::Text(text) => format!("{place}{text:?}"),
            Kind::Integer(number) => format!("{place}#{number}"),
            Kind::Bool(value) => format!("{place}{value}"),
            other => format!("{place}<{}>", other.name()),
        }
    }

    fn check(text: &str, want: &str) {
        assert_eq!(show(&read(text).unwrap()), want, "{text}");
    }

    #[test]
    fn every_node_knows_its_place() {
        check("a: x\nb:\n- 1\n- {c: \"d\"}\n", "1:1{a@1:1=1:4\"x\" b@2:1=3:3[3:3#1 4:3{c@4:4=4:7\"d\"}]}");
        check("a: |\n  one\n  two\nb: ~\nc:\n", "1:1{a@1:1=2:3\"one\\ntwo\\n\" b@4:1=4:4<nothing> c@5:1=5:2<nothing>}");
        check("a: 1\na: 2\n1: 3\ntrue: yes\n", "1:1{a@1:1=1:4#1 a@2:1=2:4#2 1@3:1=3:4#3 true@4:1=4:7\"yes\"}");
        check("a: &x {b: 1}\nc: *x\n", "1:1{a@1:1=1:7{b@1:8=1:11#1} c@2:1=1:7{b@1:8=1:11#1}}");
    }

    fn refused(text: &str, want: &str) {
        let error = read(text).unwrap_err();
        assert_eq!(format!("{}:{} {}", error.place.line, error.place.column, error.message), want);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        refused("a: [1\nb: 2\n", "2:2 not readable as YAML: illegal placement of ':' indicator");
        refused("a: 'x\n", "1:4 not readable as YAML: unclosed quote");
        refused("a: b: secret\n", "1:5 not readable as YAML: mapping values are not allowed in this context");
        refused("a: \"secret\\q\"\n", "1:4 not readable as YAML: while parsing a quoted scalar, found unknown escape character");
        refused("a: 1\n---\nb: 1\n", "2:1 not readable as YAML: it holds more than one document");
        refused("<<: {a: 1}\n", "1:1 not readable as YAML: YAML merge keys are not allowed by configured policy");
        refused("? [a]\n: 1\n", "1:3 not readable as YAML: expected string scalar");
    }

    #[test]
    fn depth_and_size_are_bounded() {
        refused(&"[".repeat(10_000), "1:33 not readable as YAML: it nests too deeply");
        refused(&format!("{}1{}", "{a: ".repeat(100), "}".repeat(100)), "1:129 not readable as YAML: it nests too deeply");
        let block: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        refused(&block, "33:33 not readable as YAML: it nests too deeply");
        let bomb = (1..12).fold(String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"), |text, level| {
            let previous = format!("*a{}", level - 1);
            format!("{text}a{level}: &a{level} [{}]\n", vec![previous; 10].join(", "))
        });
        refused(&bomb, "6:45 not readable as YAML: it holds too much once its aliases are expanded");
        refused(&" ".repeat(MAX_BYTES + 1), "0:0 the file is larger than 16777216 bytes");
    }
}
