//! The engine's parser, and its messages put into words for people.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel_interpreter::common::ast::{IdedExpr, SourceInfo};
use cel_interpreter::{ParseError, ParseErrors};

use super::error::CompileError;
use super::function;
use super::scan::{fault, place};

/// A syntax tree and where each node of it was written.
#[derive(Debug)]
pub(super) struct Parsed<'s> {
    pub(super) root: IdedExpr,
    pub(super) text: SourceText<'s>,
}

/// The source with the places of the nodes.
#[derive(Debug)]
pub(super) struct SourceText<'s> {
    source: &'s str,
    places: SourceInfo,
}

impl SourceText<'_> {
    /// An error at the token of a node: an operator, a name, a literal.
    pub(super) fn error(&self, node: u64, message: impl Into<String>, hint: Option<String>) -> CompileError {
        self.error_at(self.offset(node), message, hint)
    }

    /// An error at the name of a call or of a field, whose node stands at its `(` or `.`.
    pub(super) fn error_at_name(&self, node: u64, name: &str, message: impl Into<String>, hint: Option<String>) -> CompileError {
        let offset = self.offset(node);
        let (before, after) = (self.source.get(..offset).unwrap_or_default(), self.source.get(offset..).unwrap_or_default());
        let offset =
            if before.trim_end().ends_with(name) { before.trim_end().len() - name.len() } else { offset + after.find(name).unwrap_or(0) };
        self.error_at(offset, message, hint)
    }

    /// An error about the expression as a whole.
    pub(super) fn error_at_start(&self, message: String) -> CompileError {
        self.error_at(self.source.len() - self.source.trim_start().len(), message, None)
    }

    fn error_at(&self, offset: usize, message: impl Into<String>, hint: Option<String>) -> CompileError {
        let (line, column) = place(self.source, offset);
        CompileError { message: message.into(), line, column, hint }
    }

    fn offset(&self, node: u64) -> usize {
        self.places.offset_for(node).map_or(0, |(start, _)| start as usize)
    }
}

/// # Errors
/// The first fault: later ones mostly follow from it.
pub(super) fn parse(source: &str) -> Result<Parsed<'_>, CompileError> {
    let parse = || function::environment().parser().parse_with_source_info(source);
    match catch_unwind(AssertUnwindSafe(parse)) {
        Ok(Ok((root, places))) => Ok(Parsed { root, text: SourceText { source, places } }),
        Ok(Err(ParseErrors { errors })) => Err(errors.first().map_or_else(|| not_understood(source), |error| readable(source, error))),
        Err(_) => Err(not_understood(source)),
    }
}

fn not_understood(source: &str) -> CompileError {
    fault(source, 0, "the expression is not valid CEL", None)
}

fn readable(source: &str, error: &ParseError) -> CompileError {
    let (line, column) = (usize::try_from(error.pos.0).unwrap_or(1).max(1), usize::try_from(error.pos.1).unwrap_or(1).max(1));
    let (message, hint) = words(&error.msg);
    let at_end = message == ENDS_EARLY;
    let (line, column) = if at_end { place(source, source.trim_end().len()) } else { (line, column) };
    CompileError { message, line, column, hint: hint.map(str::to_owned) }
}

const ENDS_EARLY: &str = "the expression ends too early";
const UNKNOWN_ESCAPE: &str = "this text has an escape sequence that is not known";
const ESCAPE_HINT: &str = "write a backslash as \\\\, or use r\"...\"";

/// The parser lists every token that it would have taken; the one that it met is what a reader needs.
fn words(message: &str) -> (String, Option<&'static str>) {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let met = |prefix: &str| message.strip_prefix(prefix).map(|rest| rest.split(" expecting ").next().unwrap_or(rest).trim_matches('\''));
    if message.contains("'<EOF>'") {
        return (ENDS_EARLY.to_owned(), None);
    }
    if let Some(input) = met("mismatched input ").or_else(|| met("extraneous input ")) {
        return (format!("`{input}` is not expected here"), None);
    }
    if let Some(input) = met("no viable alternative at input ") {
        return (format!("`{input}` cannot be understood here"), None);
    }
    if let Some(input) = met("token recognition error at: ") {
        if input.contains('\\') {
            return (UNKNOWN_ESCAPE.to_owned(), Some(ESCAPE_HINT));
        }
        return (format!("`{input}` is not part of this language"), None);
    }
    if let Some(rest) = message.strip_prefix("missing ") {
        return (format!("missing {}", rest.replace('\'', "`")), None);
    }
    if let Some(word) = message.strip_prefix("reserved identifier: ") {
        return (format!("`{word}` is a reserved word"), None);
    }
    if message.starts_with("invalid int literal") || message.starts_with("invalid double literal") {
        return ("this number cannot be represented".to_owned(), None);
    }
    if message.starts_with("invalid string literal") {
        return (UNKNOWN_ESCAPE.to_owned(), Some(ESCAPE_HINT));
    }
    match message {
        "argument must be a simple name" => {
            ("the first argument must be a plain name".to_owned(), Some("for example list.exists(x, x == 1)"))
        }
        "invalid argument to has() macro" => ("`has` needs a field".to_owned(), Some("for example has(user.claims.department)")),
        _ if message.starts_with("Incomplete `ExprContext`") => {
            ("this `? :` is not complete".to_owned(), Some("condition ? value : value"))
        }
        _ if message.starts_with("Incomplete") || message.starts_with("No `") => (ENDS_EARLY.to_owned(), None),
        other => (other.to_owned(), None),
    }
}
