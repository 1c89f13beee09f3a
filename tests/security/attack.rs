//! An attack, and how it ended.

use super::scene::Scene;

/// One row of the table, with all variants of the attack in it.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// The advisory or finding that it comes from.
    pub(super) source: &'static str,
    /// What is sent, in a few words.
    pub(super) sent: &'static str,
    /// A panic counts as got through: an attack that could not be made shows nothing.
    pub(super) run: fn(&Scene) -> Verdict,
    /// Left to `long`.
    pub(super) long: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// How it ended for the attacker.
    Held(String),
    /// What reached the upstream, by its own account.
    GotThrough(String),
}

impl Attack {
    pub(super) const fn new(name: &'static str, source: &'static str, sent: &'static str, run: fn(&Scene) -> Verdict) -> Self {
        Self { name, source, sent, run, long: false }
    }
}

impl Verdict {
    /// Held unless there are findings.
    pub(super) fn of(findings: &[String], how: impl Into<String>) -> Self {
        if findings.is_empty() { Self::Held(how.into()) } else { Self::GotThrough(findings.join("; ")) }
    }
}
