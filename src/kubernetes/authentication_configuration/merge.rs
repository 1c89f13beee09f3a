//! Our entry in a configuration that is there: added, or put in the place of the entry with our issuer. Every other byte stays, comments included.
//!
//! The text is changed by lines, and the result is read again: it must say what the old one said with the one entry changed, or nothing is written.

use std::ops::Range;

use serde_json::Value;

use super::{ApiVersion, AuthenticationInput, COMMENT, FIRST_COMMENT, entry, preamble};

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// As many entries as an API server takes.
const MAX_ENTRIES: usize = 64;
const KIND: &str = "AuthenticationConfiguration";

/// Why an existing configuration cannot be kept right. The texts follow its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("cannot be read as YAML: {0}")]
    Unreadable(String),
    #[error("is no {KIND} but {0}")]
    OtherKind(String),
    #[error("has the apiVersion {0}; known are apiserver.config.k8s.io/v1 and apiserver.config.k8s.io/v1beta1")]
    UnknownVersion(String),
    #[error("has the apiVersion {}, not {}: leave --api-version out to keep it, or change it in the file first", .file.as_str(), .wanted.as_str())]
    OtherVersion { file: ApiVersion, wanted: ApiVersion },
    #[error("has something else than a list under `jwt`")]
    NoList,
    #[error("has no `issuer.url` in entry {0} of `jwt`")]
    NoIssuer(usize),
    #[error("has two entries with the issuer {0}; an API server refuses such a file: remove one of them")]
    SameIssuer(String),
    #[error("has the discoveryURL {url} already, for the issuer {issuer}; an API server takes each once")]
    SameDiscovery { url: String, issuer: String },
    #[error("has {MAX_ENTRIES} entries under `jwt`, and an API server takes no more")]
    TooMany,
    #[error(
        "cannot be changed without touching the rest of it: write `jwt` as a list in block style (one `- issuer:` below the other), without anchors, and try \
         again"
    )]
    Layout,
}

/// `existing` with our entry in it. `wanted` is the version that was asked for, if any; the file keeps its own.
///
/// # Errors
/// When the rest of the file could not be kept, or an API server would refuse the file anyway.
pub fn merge(input: &AuthenticationInput<'_>, wanted: Option<ApiVersion>, existing: &str) -> Result<String, MergeError> {
    let old = read(existing)?;
    let version = version(&old, wanted)?;
    let entries = entries(&old)?;
    check(&entries, input)?;
    let ours = entries.iter().position(|entry| entry.issuer == input.issuer);
    let notes = notes(ours.and_then(|index| entries.get(index)), input);
    let changed = changed(without_preamble(existing), &entry(input), ours, entries.len()).ok_or(MergeError::Layout)?;
    let text = preamble(input, version, &notes) + &changed;
    // Anchors, tags, tabs and what else the lines may have hidden: only what reads as expected is right.
    let expected = expected(old, ours, &entry(input)).ok_or(MergeError::Layout)?;
    if read(&text).is_ok_and(|new| new == expected) { Ok(text) } else { Err(MergeError::Layout) }
}

/// What matters to us of an element of `jwt`.
#[derive(Debug)]
struct Entry<'v> {
    issuer: &'v str,
    discovery_url: Option<&'v str>,
    audiences: Vec<&'v str>,
}

fn read(text: &str) -> Result<Value, MergeError> {
    if text.len() > MAX_BYTES {
        return Err(MergeError::TooLarge);
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_depth: 32, max_nodes: 100_000, max_documents: 1 },
        duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::Error,
        merge_keys: serde_yaml::options::MergeKeyPolicy::Error,
        emit_comments: false,
        with_snippet: false,
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let rendered = error.without_snippet().render();
        MergeError::Unreadable(rendered.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })
}

fn version(file: &Value, wanted: Option<ApiVersion>) -> Result<ApiVersion, MergeError> {
    let text = |key: &str| file.get(key).and_then(Value::as_str);
    if text("kind") != Some(KIND) {
        return Err(MergeError::OtherKind(
            text("kind").map_or_else(|| "something without a `kind`".to_owned(), |kind| format!("{kind:?}")),
        ));
    }
    let written = text("apiVersion").unwrap_or_default();
    let Some(version) = ApiVersion::ALL.into_iter().find(|version| version.as_str() == written) else {
        return Err(MergeError::UnknownVersion(format!("{written:?}")));
    };
    match wanted {
        Some(wanted) if wanted != version => Err(MergeError::OtherVersion { file: version, wanted }),
        _ => Ok(version),
    }
}

fn entries(file: &Value) -> Result<Vec<Entry<'_>>, MergeError> {
    let list = match file.get("jwt") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value.as_array().ok_or(MergeError::NoList)?,
    };
    list.iter().zip(1..).map(|(value, number)| Entry::read(value).ok_or(MergeError::NoIssuer(number))).collect()
}

impl<'v> Entry<'v> {
    fn read(value: &'v Value) -> Option<Self> {
        let issuer = value.get("issuer")?;
        let text = |key: &str| issuer.get(key).and_then(Value::as_str);
        let audiences = issuer.get("audiences").and_then(Value::as_array).map(|all| all.iter().filter_map(Value::as_str).collect());
        Some(Self {
            issuer: text("url")?,
            discovery_url: text("discoveryURL").filter(|url| !url.is_empty()),
            audiences: audiences.unwrap_or_default(),
        })
    }
}

/// What an API server would refuse.
fn check(entries: &[Entry<'_>], input: &AuthenticationInput<'_>) -> Result<(), MergeError> {
    for (index, entry) in entries.iter().enumerate() {
        if entries.iter().skip(index + 1).any(|other| other.issuer == entry.issuer) {
            return Err(MergeError::SameIssuer(entry.issuer.to_owned()));
        }
    }
    let others = || entries.iter().filter(|entry| entry.issuer != input.issuer);
    if let Some(url) = input.discovery_url
        && let Some(other) = others().find(|entry| entry.discovery_url == Some(url))
    {
        return Err(MergeError::SameDiscovery { url: url.to_owned(), issuer: other.issuer.to_owned() });
    }
    if others().count() >= MAX_ENTRIES { Err(MergeError::TooMany) } else { Ok(()) }
}

/// What the replaced entry gave that ours does not.
fn notes(replaced: Option<&Entry<'_>>, input: &AuthenticationInput<'_>) -> Vec<String> {
    let lost = replaced.map(|entry| entry.audiences.iter().filter(|audience| !input.audiences.contains(audience)));
    lost.into_iter()
        .flatten()
        .map(|audience| format!("NOTE: the entry that was replaced also took the audience {}; this one does not.", super::quoted(audience)))
        .collect()
}

/// What the new text must read as.
fn expected(mut old: Value, ours: Option<usize>, entry: &str) -> Option<Value> {
    let Value::Array(entry) = serde_yaml::from_str::<Value>(entry).ok()? else { return None };
    let entry = entry.into_iter().next()?;
    let list = old.as_object_mut()?.entry("jwt").or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    let list = list.as_array_mut()?;
    match ours {
        Some(index) => *list.get_mut(index)? = entry,
        None => list.push(entry),
    }
    Some(old)
}

/// Comments of ours at the head of the file are written anew.
fn without_preamble(text: &str) -> &str {
    if !text.starts_with(FIRST_COMMENT) {
        return text;
    }
    let ours = |line: &&str| line.starts_with(FIRST_COMMENT) || line.starts_with(COMMENT);
    let length = text.split_inclusive('\n').take_while(ours).map(str::len).sum();
    text.get(length..).unwrap_or_default()
}

/// The text with `entry` in the place of entry `ours`, or behind the last one; `None` when the lines do not show `count` entries.
fn changed(text: &str, entry: &str, ours: Option<usize>, count: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let Some(head) = lines.iter().position(|line| line.starts_with("jwt:")) else {
        return (count == 0).then(|| joined(&lines) + "jwt:\n" + entry);
    };
    let rest = lines.get(head)?.strip_prefix("jwt:")?;
    let (value, comment) = rest.split_at(rest.find(" #").unwrap_or(rest.len()));
    if count == 0 {
        let is_empty = matches!(value.trim(), "" | "[]" | "null" | "~");
        let (before, after) = (lines.get(..head)?, lines.get(head + 1..)?);
        return is_empty.then(|| format!("{}jwt:{comment}\n{entry}{}", joined(before), joined(after)));
    }
    if !value.trim().is_empty() {
        return None;
    }
    let list = List::find(&lines, head + 1)?;
    if list.items.len() != count {
        return None;
    }
    let place = match ours {
        Some(index) => list.items.get(index)?.clone(),
        None => list.items.last().map(|last| last.end..last.end)?,
    };
    let indented: String = entry.lines().map(|line| format!("{}{line}\n", " ".repeat(list.indent))).collect();
    Some(joined(lines.get(..place.start)?) + &indented + &joined(lines.get(place.end..)?))
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A list in block style: where its elements stand, by line.
#[derive(Debug)]
struct List {
    indent: usize,
    items: Vec<Range<usize>>,
}

impl List {
    /// The list whose first line is at `from` or later; it ends where something stands further left, or as far left without a dash.
    fn find(lines: &[&str], from: usize) -> Option<Self> {
        let is_item = |line: &str| line.trim_start() == "-" || line.trim_start().starts_with("- ");
        let first = (from..lines.len()).find(|index| lines.get(*index).is_some_and(|line| !is_blank_or_comment(line)))?;
        let indent = lines.get(first).filter(|line| is_item(line)).map(|line| indent_of(line))?;
        let ends = |line: &str| !is_blank_or_comment(line) && (indent_of(line) < indent || (indent_of(line) == indent && !is_item(line)));
        let end = (first..lines.len()).find(|index| lines.get(*index).is_some_and(|line| ends(line))).unwrap_or(lines.len());
        let starts: Vec<usize> =
            (first..end).filter(|index| lines.get(*index).is_some_and(|line| is_item(line) && indent_of(line) == indent)).collect();
        let stops = starts.iter().skip(1).copied().chain([end]);
        // Blank lines, and comments as far left as the dashes, belong to what follows.
        let last_own = |range: Range<usize>| {
            let own = |line: &str| !is_blank_or_comment(line) || (!line.trim().is_empty() && indent_of(line) > indent);
            range.clone().rev().find(|index| lines.get(*index).is_some_and(|line| own(line))).map_or(range.end, |last| last + 1)
        };
        Some(Self { indent, items: starts.iter().zip(stops).map(|(start, stop)| *start..last_own(*start..stop)).collect() })
    }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_blank_or_comment(line: &str) -> bool {
    let text = line.trim_start();
    text.is_empty() || text.starts_with('#')
}
