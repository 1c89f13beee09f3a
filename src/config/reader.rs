//! Typed reading of the tree: each reader takes what fits, notes what does not with its place, and goes on. Knows no key itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{At, Faults, Spot};
use super::names::{quote, suggestion};
use super::reference::{Noted, Reference, Sensitivity};
use super::tree::{Key, Kind, Node};

/// What reading leaves behind besides values: the mistakes, and the references that were met.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) faults: Faults,
    origin: Origin,
    references: BTreeMap<Reference, Noted>,
}

/// Where what is read was written, which decides what it may refer to.
#[derive(Debug)]
enum Origin {
    /// The folder of a configuration file, where relative paths begin.
    Folder(PathBuf),
    /// The namespace of an object of the API server.
    Namespace(String),
}

impl Reading {
    /// `file` names the configuration file in messages; its folder is where relative paths begin.
    pub(super) fn new(file: &str) -> Self {
        let folder = Path::new(file).parent().map(Path::to_path_buf).unwrap_or_default();
        Self { faults: Faults::new(file), origin: Origin::Folder(folder), references: BTreeMap::new() }
    }

    /// `object` names it in messages, in the place of a file.
    pub(super) fn of_object(object: &str, namespace: &str) -> Self {
        Self { faults: Faults::new(object), origin: Origin::Namespace(namespace.to_owned()), references: BTreeMap::new() }
    }

    /// Where relative paths begin. An object has none, and nothing in one is read as a path.
    pub(super) fn folder(&self) -> &Path {
        match &self.origin {
            Origin::Folder(folder) => folder,
            Origin::Namespace(_) => Path::new(""),
        }
    }

    /// Of the object that is read; `None` for a file.
    pub(super) fn namespace(&self) -> Option<&str> {
        match &self.origin {
            Origin::Folder(_) => None,
            Origin::Namespace(namespace) => Some(namespace),
        }
    }

    pub(super) fn note_reference(&mut self, reference: &Reference, sensitivity: Sensitivity) {
        let noted = self.references.entry(reference.clone()).or_insert(Noted { sensitivity, uses: 0 });
        *noted = Noted { sensitivity: sensitivity.max(noted.sensitivity), uses: noted.uses + 1 };
    }

    pub(super) fn into_parts(self) -> (Faults, BTreeMap<Reference, Noted>) {
        (self.faults, self.references)
    }
}

/// A node and the path that leads to it.
#[derive(Debug, Clone)]
pub(super) struct Item<'t> {
    node: &'t Node,
    path: String,
}

impl<'t> Item<'t> {
    pub(super) fn root(node: &'t Node) -> Self {
        Self { node, path: String::new() }
    }

    /// The root of a tree that is itself a part of something.
    pub(super) fn below(node: &'t Node, path: &str) -> Self {
        Self { node, path: path.to_owned() }
    }

    pub(super) fn spot(&self) -> Spot {
        Spot { place: self.node.place, path: self.path.clone() }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    pub(super) fn text(&self, reading: &mut Reading) -> Option<At<String>> {
        match &self.node.kind {
            Kind::Text(text) => Some(At { value: text.clone(), spot: self.spot() }),
            Kind::Bool(_) | Kind::Integer(_) | Kind::Float => {
                let message = format!("must be text, but YAML reads it as {}", self.node.kind.name());
                reading.faults.add_with_hint(&self.spot(), message, "put it in quotes");
                None
            }
            _ => self.wrong_kind("text", reading),
        }
    }

    pub(super) fn boolean(&self, reading: &mut Reading) -> Option<bool> {
        match &self.node.kind {
            Kind::Bool(value) => Some(*value),
            _ => self.wrong_kind("true or false", reading),
        }
    }

    /// A whole number between two bounds, both included.
    pub(super) fn count(&self, lowest: usize, highest: usize, reading: &mut Reading) -> Option<usize> {
        let Kind::Integer(number) = self.node.kind else {
            return self.wrong_kind("a whole number", reading);
        };
        let count = usize::try_from(number).ok().filter(|count| (lowest..=highest).contains(count));
        if count.is_none() {
            reading.faults.add(&self.spot(), format!("must be between {lowest} and {highest}, found {number}"));
        }
        count
    }

    /// Seconds, written as `90s`, `30m`, `12h`, `7d` or a sequence such as `1h30m`.
    pub(super) fn duration(&self, lowest: u64, highest: u64, reading: &mut Reading) -> Option<u64> {
        const HINT: &str = "write a number with a unit: 90s, 30m, 12h, 7d or 1h30m";
        let text = match &self.node.kind {
            Kind::Text(text) => text,
            Kind::Integer(_) => {
                reading.faults.add_with_hint(&self.spot(), "is a duration without a unit", HINT);
                return None;
            }
            _ => return self.wrong_kind("a duration", reading),
        };
        let Some(seconds) = seconds(text) else {
            reading.faults.add_with_hint(&self.spot(), format!("{} is not a duration", quote(text)), HINT);
            return None;
        };
        if !(lowest..=highest).contains(&seconds) {
            let message = format!("must be between {} and {}", in_words(lowest), in_words(highest));
            reading.faults.add(&self.spot(), message);
            return None;
        }
        Some(seconds)
    }

    pub(super) fn items(&self, reading: &mut Reading) -> Option<Vec<Item<'t>>> {
        match &self.node.kind {
            Kind::List(nodes) => {
                Some(nodes.iter().enumerate().map(|(index, node)| Item { node, path: format!("{}[{index}]", self.path) }).collect())
            }
            _ => self.wrong_kind("a list", reading),
        }
    }

    /// The readable items of a list; what is wrong with the others is noted.
    pub(super) fn list<T>(&self, reading: &mut Reading, mut read: impl FnMut(&Item<'t>, &mut Reading) -> Option<T>) -> Option<Vec<T>> {
        let items = self.items(reading)?;
        Some(items.iter().filter_map(|item| read(item, reading)).collect())
    }

    /// As `list`, for lists that mean nothing when empty; `if_empty` says so.
    pub(super) fn filled_list<T>(
        &self,
        if_empty: &str,
        reading: &mut Reading,
        read: impl FnMut(&Item<'t>, &mut Reading) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(&self.node.kind, Kind::List(nodes) if nodes.is_empty()) {
            reading.faults.add(&self.spot(), format!("is empty: {if_empty}"));
            return None;
        }
        self.list(reading, read)
    }

    pub(super) fn text_list(&self, reading: &mut Reading) -> Option<Vec<At<String>>> {
        self.list(reading, |item, reading| item.text(reading))
    }

    pub(super) fn section(&self, reading: &mut Reading) -> Option<Section<'t>> {
        match &self.node.kind {
            Kind::Map(entries) => Some(Section { spot: self.spot(), entries, known: Vec::new() }),
            _ => self.wrong_kind("a mapping", reading),
        }
    }

    /// A mapping whose keys the operator chooses.
    pub(super) fn pairs(&self, reading: &mut Reading) -> Option<Vec<(At<String>, Item<'t>)>> {
        let Kind::Map(entries) = &self.node.kind else {
            return self.wrong_kind("a mapping", reading);
        };
        report_duplicates(&self.spot(), entries, reading);
        let pair = |(key, node): &'t (Key, Node)| {
            let path = join(&self.path, &key.text);
            let name = At { value: key.text.clone(), spot: Spot { place: key.place, path: path.clone() } };
            (name, Item { node, path })
        };
        Some(entries.iter().map(pair).collect())
    }

    fn wrong_kind<T>(&self, wanted: &str, reading: &mut Reading) -> Option<T> {
        reading.faults.add(&self.spot(), format!("must be {wanted}, found {}", self.node.kind.name()));
        None
    }
}

/// A mapping whose keys are fixed. `finish` must follow the last key.
#[derive(Debug)]
pub(super) struct Section<'t> {
    spot: Spot,
    entries: &'t [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    pub(super) fn spot(&self) -> &Spot {
        &self.spot
    }

    pub(super) fn optional(&mut self, key: &'static str) -> Option<Item<'t>> {
        self.known.push(key);
        let (_, node) = self.entries.iter().find(|(found, _)| found.text == key)?;
        Some(Item { node, path: join(&self.spot.path, key) })
    }

    pub(super) fn required(&mut self, key: &'static str, reading: &mut Reading) -> Option<Item<'t>> {
        let item = self.optional(key);
        if item.is_none() {
            reading.faults.add(&self.spot, format!("the key `{key}` is missing"));
        }
        item
    }

    /// Refuses keys that nobody asked for, and keys given twice.
    pub(super) fn finish(self, reading: &mut Reading) {
        report_duplicates(&self.spot, self.entries, reading);
        for (key, _) in self.entries {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let spot = Spot { place: key.place, path: self.spot.path.clone() };
            let hint = match suggestion(&key.text, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("keys that may stand here: {}", self.known.join(", ")),
            };
            reading.faults.add_with_hint(&spot, format!("unknown key {}", quote(&key.text)), hint);
        }
    }
}

fn report_duplicates(spot: &Spot, entries: &[(Key, Node)], reading: &mut Reading) {
    for (index, (key, _)) in entries.iter().enumerate() {
        if let Some((first, _)) = entries.iter().take(index).find(|(earlier, _)| earlier.text == key.text) {
            let spot = Spot { place: key.place, path: spot.path.clone() };
            reading.faults.add(&spot, format!("the key {} is given twice, first in line {}", quote(&key.text), first.place.line));
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = match after.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return None,
        };
        if unit >= last_unit {
            return None;
        }
        last_unit = unit;
        total = number.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(total)?;
        rest = after.get(1..)?;
    }
    (last_unit != u64::MAX).then_some(total)
}

fn in_words(seconds: u64) -> String {
    match seconds {
        s if s >= 86400 && s % 86400 == 0 => format!("{}d", s / 86400),
        s if s >= 3600 && s % 3600 == 0 => format!("{}h", s / 3600),
        s if s >= 60 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<u64>) {
        assert_eq!(seconds(text), want, "{text}");
    }

    #[test]
    fn durations_need_units_and_order() {
        check("90s", Some(90));
        check("30m", Some(1800));
        check("1h30m", Some(5400));
        check("7d", Some(604_800));
        check("0s", Some(0));
        for wrong in ["", "5", "h", "1.5h", "30m1h", "1h1h", "-1h", "1 h", "1H", "99999999999999999999d", "9999999999999999d", "1ü"] {
            check(wrong, None);
        }
    }
}
