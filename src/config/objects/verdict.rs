//! What became of one object, as plain data: the one source of its status, of the log and of the audit trail.

use std::sync::Arc;

use super::granted::Lack;
use super::{Object, ObjectId};
use crate::config::error::{ConfigError, ConfigErrors};
use crate::config::model::Route;

/// Bytes of a message; the API server takes 32 KiB.
const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// Of one object.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub id: ObjectId,
    pub uid: String,
    /// The generation that was judged.
    pub generation: i64,
    /// Why it is not accepted.
    pub refused: Option<Refusal>,
    /// What is wrong with what it refers to.
    pub unresolved: Option<Refusal>,
    /// Of a Route only.
    pub in_force: Option<InForce>,
}

/// What became of all objects, at one time.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Counts the configurations that were put in force: a route with an earlier number is older.
    pub number: u64,
    /// `Snapshot::version` of that configuration.
    pub version: String,
    pub verdicts: Vec<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word for programs.
    pub reason: &'static str,
    /// For people, as the configuration file's mistakes read; several lines for several mistakes.
    pub message: String,
}

/// The route that an object makes.
#[derive(Debug, Clone)]
pub enum InForce {
    No,
    /// As the object says now.
    Current(Arc<Route>),
    /// As the object said when it was last good.
    Previous(Arc<Route>),
}

impl Verdict {
    pub(super) fn of(object: &Object) -> Self {
        Self {
            id: object.id.clone(),
            uid: object.uid.clone(),
            generation: object.generation,
            refused: None,
            unresolved: None,
            in_force: None,
        }
    }

    /// Takes in mistakes: those about what the object refers to, and the others.
    pub(super) fn with_errors(mut self, errors: &ConfigErrors, lack: Option<Lack>) -> Self {
        let (references, others): (Vec<&ConfigError>, Vec<&ConfigError>) =
            errors.0.iter().partition(|error| is_about_reference(&error.path));
        if !others.is_empty() {
            self.refused = Some(Refusal::new("Invalid", text(&others)));
        }
        if !references.is_empty() {
            let reason = match lack {
                Some(Lack::NotPermitted) => "RefNotPermitted",
                Some(Lack::NotThere) => "RefNotFound",
                None => "InvalidRef",
            };
            self.unresolved = Some(Refusal::new(reason, text(&references)));
        }
        self
    }

    pub(super) fn refused(mut self, reason: &'static str, message: String) -> Self {
        let before = self.refused.take().map(|refusal| format!("\n{}", refusal.message)).unwrap_or_default();
        self.refused = Some(Refusal::new(reason, message + &before));
        self
    }

    /// Every mistake, as it reads in the log.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.refused.iter().chain(&self.unresolved).map(|refusal| refusal.message.as_str())
    }
}

impl Refusal {
    fn new(reason: &'static str, mut message: String) -> Self {
        if message.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
            message.truncate(end);
            message.push_str("...");
        }
        Self { reason, message }
    }
}

impl InForce {
    pub fn route(&self) -> Option<&Arc<Route>> {
        match self {
            Self::No => None,
            Self::Current(route) | Self::Previous(route) => Some(route),
        }
    }
}

fn text(errors: &[&ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Whether a mistake is about what an object refers to rather than about what it says.
fn is_about_reference(path: &str) -> bool {
    matches!(path, "spec.kubernetes.ca" | "spec.http.ca" | "spec.kubernetes.impersonate.token")
        || path.starts_with("spec.certificates[")
        || path.starts_with("spec.nodes[")
        || path.starts_with("spec.gateways[")
        || path.starts_with("spec.policies[")
}
