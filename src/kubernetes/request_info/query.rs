//! The query, as Go's `url.ParseQuery` and the API server's `ListOptions` conversion read it.

use std::borrow::Cow;

use super::Ambiguous;
use super::path::unescape;
use super::selector;

/// Go reads no query at all with more than 10,000 parameters (`urlmaxqueryparams`), so a `watch` in it would vanish. Far below that, and far
/// above what any client sends, nothing is read.
const MAX_PARAMETERS: usize = 5_000;

/// A query whose bytes are checked but which is not yet read.
pub(super) struct Query<'a> {
    raw: &'a str,
}

/// The parameters that change what a request means; of each the first value counts, as in Go.
#[derive(Default)]
pub(super) struct Parameters<'a> {
    pub(super) watch: bool,
    pub(super) follow: bool,
    pub(super) field_selector: Option<Cow<'a, str>>,
    pub(super) label_selector: Option<Cow<'a, str>>,
    /// `limit` or `timeoutSeconds` is not a number: the API server then forgets the whole of `ListOptions` but `watch`.
    undecodable: bool,
}

/// Index into the values while they are read.
const NAMES: [&str; 6] = ["watch", "follow", "fieldSelector", "labelSelector", "limit", "timeoutSeconds"];

impl<'a> Query<'a> {
    pub(super) fn read(raw: &'a str) -> Result<Self, Ambiguous> {
        if raw.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#') { Ok(Self { raw }) } else { Err(Ambiguous::RawCharacter) }
    }

    /// # Errors
    /// What Go drops without a word (semicolons, invalid escapes, too many parameters) or decides by order (one name, two values).
    pub(super) fn parameters(&self) -> Result<Parameters<'a>, Ambiguous> {
        let mut values: [Option<Cow<'a, str>>; NAMES.len()] = Default::default();
        for (count, pair) in self.raw.split('&').enumerate() {
            if count >= MAX_PARAMETERS {
                return Err(Ambiguous::TooManyParameters);
            }
            if pair.contains(';') {
                return Err(Ambiguous::Semicolon);
            }
            let (raw_key, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (unescape_query(raw_key)?, unescape_query(raw_value)?);
            if pair.is_empty() {
                continue;
            }
            let Some((&name, slot)) = NAMES.iter().zip(&mut values).find(|(name, _)| name.as_bytes() == &*key) else { continue };
            let value = into_text(value)?;
            match slot {
                None => *slot = Some(value),
                Some(first) if *first == value => {}
                Some(_) => return Err(Ambiguous::Duplicate(name)),
            }
        }
        let [watch, follow, field_selector, label_selector, limit, timeout_seconds] = values;
        let is_number = |value: &Option<Cow<'_, str>>| value.as_ref().is_none_or(|text| text.parse::<i64>().is_ok());
        Ok(Parameters {
            watch: boolean(watch.as_deref())?,
            follow: boolean(follow.as_deref())?,
            undecodable: !is_number(&limit) || !is_number(&timeout_seconds),
            field_selector,
            label_selector,
        })
    }
}

impl<'a> Parameters<'a> {
    /// The object name that a field selector `metadata.name=NAME` demands, where the API server takes it as the request's name.
    pub(super) fn exact_name(&self) -> Result<Cow<'a, str>, Ambiguous> {
        if self.undecodable {
            return Ok(Cow::Borrowed(""));
        }
        let Some(name) = self.field_selector.as_deref().map(selector::exact_name).transpose()?.flatten() else {
            return Ok(Cow::Borrowed(""));
        };
        // Were the label selector invalid, the API server would lose the name together with the rest of `ListOptions`.
        if !self.label_selector.as_deref().is_none_or(selector::is_label_selector) {
            return Err(Ambiguous::Selector("labelSelector"));
        }
        Ok(Cow::Owned(name))
    }
}

/// `Convert_Slice_string_To_bool`: only absence, `0` and `false` (any case) are false; present without a value is true.
fn boolean(value: Option<&str>) -> Result<bool, Ambiguous> {
    match value {
        None => Ok(false),
        // Go folds Unicode here ("fal\u{17f}e" is false) but not in its fallback.
        Some(text) if !text.is_ascii() => Err(Ambiguous::WatchValue),
        Some(text) => Ok(text != "0" && !text.eq_ignore_ascii_case("false")),
    }
}

/// `url.QueryUnescape`: `+` is a blank.
fn unescape_query(raw: &str) -> Result<Cow<'_, [u8]>, Ambiguous> {
    if !raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(raw.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => unescape(&mut bytes)?,
            b'+' => b' ',
            other => other,
        });
    }
    Ok(Cow::Owned(decoded))
}

fn into_text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Ambiguous> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Ambiguous::NotUtf8),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Ambiguous::NotUtf8),
    }
}
