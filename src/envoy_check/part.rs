//! One place in the document: its value, its path, and where findings on it go. Reads Envoy's JSON as Envoy does (`snake_case` or
//! `camelCase`, null as absent), and answers carefully where a value has an unexpected shape.

use std::cell::RefCell;

use serde_json::Value;

use super::{Finding, Kind};

/// Longer documents than this many findings tell nothing more.
const MAX_FINDINGS: usize = 1000;

/// Collects what is found.
#[derive(Debug, Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    /// Most serious first, then in the order of the document; each only once.
    pub(super) fn into_sorted(self) -> Vec<Finding> {
        let mut all: Vec<Finding> = Vec::new();
        for finding in self.0.into_inner() {
            if !all.iter().any(|other| other.at == finding.at && other.code == finding.code && other.why == finding.why) {
                all.push(finding);
            }
        }
        all.sort_by_key(|finding| finding.kind);
        all
    }
}

#[derive(Debug, Clone)]
pub(super) struct Part<'a> {
    value: Option<&'a Value>,
    path: String,
    findings: &'a Findings,
}

impl<'a> Part<'a> {
    pub(super) fn root(value: &'a Value, findings: &'a Findings) -> Self {
        Self { value: Some(value).filter(|value| !value.is_null()), path: String::new(), findings }
    }

    /// The part at a field of a message, there or not.
    pub(super) fn field(&self, name: &str) -> Self {
        let camel = camel_case(name);
        let snake = self.child(name, name);
        if camel == name {
            return snake;
        }
        let camel = self.child(&camel, &camel);
        match (snake.is_there(), camel.is_there()) {
            (true, true) => {
                snake.not_understood("the field is given twice, in both spellings.");
                snake
            }
            (false, true) => camel,
            _ => snake,
        }
    }

    /// `a.b.c`: a field of a field.
    pub(super) fn path(&self, names: &str) -> Self {
        names.split('.').fold(self.clone(), |part, name| part.field(name))
    }

    /// The part behind a key of a map, spelt exactly so.
    pub(super) fn entry(&self, key: &str) -> Self {
        self.child(key, &format!("[{key:?}]"))
    }

    fn child(&self, key: &str, shown: &str) -> Self {
        let value = self.value.and_then(|value| value.get(key)).filter(|value| !value.is_null());
        let dot = if self.path.is_empty() || shown.starts_with('[') { "" } else { "." };
        Self { value, path: format!("{}{dot}{shown}", self.path), findings: self.findings }
    }

    /// The items of a list; what is no list is a finding.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = match self.value {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.not_understood("this should be a list.");
                return Vec::new();
            }
        };
        let item = |(index, value)| Self { value: Some(value), path: format!("{}[{index}]", self.path), findings: self.findings };
        items.iter().enumerate().map(item).collect()
    }

    /// The entries of a map; what is no map is a finding.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        match self.value {
            None => Vec::new(),
            Some(Value::Object(map)) => map.keys().map(|key| (key.as_str(), self.entry(key))).collect(),
            Some(_) => {
                self.not_understood("this should be a map.");
                Vec::new()
            }
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.value.is_some()
    }

    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    /// For what must be switched on: only a plain `true` is.
    pub(super) fn is_true(&self) -> bool {
        self.value == Some(&Value::Bool(true))
    }

    /// For what must be switched off: anything but a plain `false` may be on.
    pub(super) fn may_be_true(&self) -> bool {
        self.value.is_some_and(|value| value != &Value::Bool(false))
    }

    /// Seconds of a duration; none when there is none, or it cannot be read.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.text()?.strip_suffix('s')?.parse().ok().filter(|seconds: &f64| seconds.is_finite())
    }

    pub(super) fn number(&self) -> Option<u64> {
        match self.value? {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        }
    }

    /// Whether an enum has one of these values, by name or number.
    pub(super) fn is_one_of(&self, values: &[(&str, u64)]) -> bool {
        let (text, number) = (self.text(), self.value.and_then(Value::as_u64));
        values.iter().any(|(name, value)| text == Some(*name) || number == Some(*value))
    }

    /// Every field that is there must be one of these.
    pub(super) fn only(&self, known: &[&str]) {
        let Some(Value::Object(map)) = self.value else {
            if self.is_there() {
                self.not_understood("this should be a message with fields.");
            }
            return;
        };
        for key in map.keys().filter(|key| *key != "@type") {
            if !known.iter().any(|name| name == key || camel_case(name) == *key) {
                self.child(key, key).not_understood("this field is not known here, and may switch off what protects.");
            }
        }
    }

    /// The message's type, without the words before it.
    pub(super) fn type_name(&self) -> Option<&'a str> {
        let name = self.value?.get("@type")?.as_str()?;
        Some(name.rsplit('/').next().unwrap_or(name))
    }

    /// The `typed_config` of an extension, when it has the wanted type.
    pub(super) fn typed(&self, wanted: &str) -> Option<Self> {
        let config = self.field("typed_config");
        (config.type_name() == Some(wanted)).then_some(config)
    }

    /// An extension of a type that is not known here.
    pub(super) fn unknown_extension(&self, what: &str) {
        let config = self.field("typed_config");
        let why = match config.type_name() {
            Some(name) if name.ends_with(".TypedStruct") => {
                format!("{what} is wrapped in a TypedStruct, which hides what it is and does.")
            }
            Some(name) => format!("{what} of the type {name} is not known to this check, and may undo what the others do."),
            None => format!("{what} has no `typed_config` with a type that could be judged."),
        };
        self.report(
            Kind::NotUnderstood,
            "not-understood",
            &why,
            "the typed message as in envoy/own.yaml, or take it out of this filter chain",
        );
    }

    pub(super) fn not_understood(&self, why: &str) {
        self.report(Kind::NotUnderstood, "not-understood", why, "take it out, or write it as in envoy/own.yaml");
    }

    /// Somebody could get in by this.
    pub(super) fn is_unsafe(&self, code: &'static str, why: &str, instead: &str) {
        self.report(Kind::Unsafe, code, why, instead);
    }

    pub(super) fn breaks(&self, code: &'static str, why: &str, instead: &str) {
        self.report(Kind::Breaks, code, why, instead);
    }

    pub(super) fn report(&self, kind: Kind, code: &'static str, why: &str, instead: &str) {
        let at = if self.path.is_empty() { "(the document)".to_owned() } else { self.path.clone() };
        let finding = Finding { at, kind, code, why: why.to_owned(), instead: instead.to_owned() };
        let mut findings = self.findings.0.borrow_mut();
        if findings.len() < MAX_FINDINGS {
            findings.push(finding);
        }
    }
}

/// `failure_mode_allow` as `failureModeAllow`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut text, part| {
        let mut letters = part.chars();
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        text.push_str(letters.as_str());
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_in_both_spellings_and_never_in_two() {
        let findings = Findings::default();
        let document = json!({"oneField": {"inner_field": 1}, "two_words": true, "twoWords": false, "none": null});
        let root = Part::root(&document, &findings);
        assert_eq!(root.path("one_field.inner_field").number(), Some(1));
        assert_eq!(root.path("one_field.inner_field").path, "oneField.inner_field");
        assert!(root.field("two_words").is_true());
        assert!(!root.field("none").is_there() && !root.field("other").is_there());
        root.only(&["one_field", "two_words"]);
        let found: Vec<String> = findings.into_sorted().into_iter().map(|finding| finding.at).collect();
        assert_eq!(found, ["two_words", "none"]);
    }

    #[test]
    fn switches_and_durations_are_read_carefully() {
        let findings = Findings::default();
        let check = |value: Value, on: bool, maybe: bool, seconds: Option<f64>| {
            let part = Part { value: Some(&value), path: String::new(), findings: &findings };
            assert_eq!((part.is_true(), part.may_be_true(), part.seconds()), (on, maybe, seconds), "{value}");
        };
        check(json!(true), true, true, None);
        check(json!(false), false, false, None);
        check(json!("yes"), false, true, None);
        check(json!(0), false, true, None);
        check(json!("0s"), false, true, Some(0.0));
        check(json!("0.25s"), false, true, Some(0.25));
        check(json!("infs"), false, true, None);
    }
}
