//! Located errors, and the list that collects them. Never holds the value of a secret.

use std::fmt;

use super::tree::Place;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file, as the operator named it.
    pub file: String,
    /// 1-based; 0 when the mistake has no place in the text.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// For example `routes[1].kubernetes.server`; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, where that can be said.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file)?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(formatter, ": {}", self.path)?;
        }
        write!(formatter, ": {}", self.message)?;
        self.hint.iter().try_for_each(|hint| write!(formatter, "\n    {hint}"))
    }
}

/// Every mistake that was found, in the order of the text. Never empty when returned as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// A place in the text together with the path of keys that leads to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) path: String,
}

/// A value that knows where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

/// Collects mistakes; reading goes on after each.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    file: String,
    errors: Vec<ConfigError>,
}

impl Faults {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), errors: Vec::new() }
    }

    pub(super) fn add(&mut self, spot: &Spot, message: impl Into<String>) {
        self.push(spot, message.into(), None);
    }

    pub(super) fn add_with_hint(&mut self, spot: &Spot, message: impl Into<String>, hint: impl Into<String>) {
        self.push(spot, message.into(), Some(hint.into()));
    }

    fn push(&mut self, spot: &Spot, message: String, hint: Option<String>) {
        let Place { line, column, .. } = spot.place;
        self.errors.push(ConfigError { file: self.file.clone(), line, column, path: spot.path.clone(), message, hint });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.errors.sort_by_key(|error| (error.line, error.column));
        self.errors.dedup();
        ConfigErrors(self.errors)
    }
}
