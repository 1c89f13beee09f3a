//! `Groups`: names in the order in which the identity provider gave them, each once.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Group names in order, no name twice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>")]
pub struct Groups(Vec<String>);

impl Groups {
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Compares byte by byte, as Kubernetes does.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|group| group == name)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, String> {
        self.0.iter()
    }
}

impl From<Vec<String>> for Groups {
    /// A later repetition of a name is dropped.
    fn from(mut names: Vec<String>) -> Self {
        let mut seen = HashSet::with_capacity(names.len());
        names.retain(|name| seen.insert(name.clone()));
        Self(names)
    }
}

impl FromIterator<String> for Groups {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self::from(names.into_iter().collect::<Vec<_>>())
    }
}

impl<'a> IntoIterator for &'a Groups {
    type Item = &'a String;
    type IntoIter = std::slice::Iter<'a, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn order_stays_and_repetitions_go() {
        let groups: Groups = ["b", "a", "b", "B", "a"].map(str::to_owned).into_iter().collect();
        assert_eq!(groups.as_slice(), ["b", "a", "B"]);
        assert!(groups.contains("B") && !groups.contains("A"));
        assert_eq!(serde_json::from_str::<Groups>(r#"["b","a","b","B"]"#).unwrap(), groups);
        assert_eq!(serde_json::to_string(&groups).unwrap(), r#"["b","a","B"]"#);
    }
}
