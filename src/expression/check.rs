//! The checker: every name is known, every call and operator fits the types that are known before evaluation, and the work is bounded.
//! On the way it replaces what can be made once (patterns, networks, durations, literal lists) by constants.
//!
//! After a fault the node counts as `Dynamic`, so that one mistake is reported once.

mod call;
mod operator;

use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};
use cel_interpreter::common::value::Val;

use super::constant::{self, Constants};
use super::error::CompileError;
use super::function;
use super::schema::{Expected, Schema, Type};
use super::syntax::{Parsed, SourceText};
use super::view;

/// `exists` in `exists` in ... costs the product of the lists' lengths; deeper than this it would hardly ever be allowed (`work`).
const MAX_COMPREHENSIONS: usize = 2;

/// # Errors
/// Every fault, in the order of the source.
pub(super) fn check(parsed: Parsed<'_>, schema: &Schema, expected: Expected) -> Result<(IdedExpr, Constants), Vec<CompileError>> {
    let Parsed { mut root, text } = parsed;
    let mut checker = Checker { schema, text, scope: Vec::new(), constants: Constants::default(), errors: Vec::new() };
    let result = checker.visit(&mut root);
    if !expected.accepts(&result) {
        checker.errors.push(checker.text.error_at_start(format!("the result must be {expected}, but it is of type {result}")));
    }
    if checker.errors.is_empty() {
        return Ok((root, checker.constants));
    }
    checker.errors.sort_by_key(|error| (error.line, error.column));
    Err(checker.errors)
}

struct Checker<'a> {
    schema: &'a Schema,
    text: SourceText<'a>,
    /// Variables of the comprehensions around the current node, the innermost last.
    scope: Vec<(String, Type)>,
    constants: Constants,
    errors: Vec<CompileError>,
}

/// The type of a node, and what stands in its place from now on.
type Checked = (Type, Option<Expr>);

impl Checker<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Type {
        let id = node.id;
        let (kind, replacement) = match &mut node.expr {
            Expr::Literal(literal) => (self.literal(id, literal), None),
            Expr::Ident(name) => (self.variable(id, name), None),
            Expr::Select(select) => self.select(id, select),
            Expr::Call(call) => {
                // The parser leaves room for more.
                call.args.shrink_to_fit();
                self.call_or_operator(id, call)
            }
            Expr::List(list) => self.list(id, list.elements.as_mut_slice(), !list.optional_indices.is_empty()),
            Expr::Map(map) => (self.map(id, map.entries.iter_mut().map(|entry| &mut entry.expr)), None),
            Expr::Comprehension(comprehension) => (self.comprehension(id, comprehension), None),
            Expr::Struct(message) => (self.error(id, format!("there is no type `{}` to create", message.type_name), None), None),
            Expr::Unspecified => (self.error(id, "the expression is not valid CEL", None), None),
        };
        if let Some(replacement) = replacement {
            node.expr = replacement;
        }
        kind
    }

    fn error(&mut self, node: u64, message: impl Into<String>, hint: Option<String>) -> Type {
        self.errors.push(self.text.error(node, message, hint));
        Type::Dynamic
    }

    fn error_at_name(&mut self, node: u64, name: &str, message: impl Into<String>, hint: Option<String>) -> Type {
        self.errors.push(self.text.error_at_name(node, name, message, hint));
        Type::Dynamic
    }

    fn literal(&mut self, id: u64, literal: &LiteralValue) -> Type {
        match literal {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::Double(_) => Type::Double,
            LiteralValue::String(_) => Type::Text,
            LiteralValue::Null => Type::Null,
            LiteralValue::UInt(_) => self.error(id, "there are no unsigned numbers here", Some("write it without `u`".to_owned())),
            LiteralValue::Bytes(_) => self.error(id, "there are no byte strings here", Some("write it without `b`".to_owned())),
        }
    }

    fn variable(&mut self, id: u64, name: &str) -> Type {
        if let Some((_, kind)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return kind.clone();
        }
        if let Some(kind) = self.schema.variable(name) {
            return kind.clone();
        }
        if let Some(plain) = name.strip_prefix('.') {
            return self.error(id, format!("`{plain}` must not begin with a dot"), None);
        }
        let hint = self.variable_hint(name);
        self.error(id, format!("unknown variable `{name}`"), hint)
    }

    /// A variable of a similar name, or a field of that name.
    fn variable_hint(&self, name: &str) -> Option<String> {
        for (variable, kind) in self.schema.variables() {
            if let Type::Object(fields) = kind
                && fields.iter().any(|(field, _)| *field == name)
            {
                return Some(format!("did you mean `{variable}.{name}`?"));
            }
        }
        let variables = self.schema.variables().iter().map(|(known, _)| *known);
        let known: Vec<&str> = variables.chain(self.scope.iter().map(|(known, _)| known.as_str())).collect();
        Some(did_you_mean(name, &known).unwrap_or_else(|| format!("there are {}", listing(&known))))
    }

    fn select(&mut self, id: u64, select: &mut SelectExpr) -> Checked {
        let operand = self.visit(&mut select.operand);
        let field = self.field(id, &operand, &select.field, select.test);
        if select.test {
            return (Type::Bool, None);
        }
        // A field of a variable becomes a variable of its own: one look-up at evaluation, where the engine would try every prefix.
        let own = match (&operand, &select.operand.expr) {
            (Type::Object(_), Expr::Ident(variable)) => Some(Expr::Ident(view::field_of_variable(variable, &select.field))),
            _ => None,
        };
        (field, own)
    }

    fn field(&mut self, id: u64, operand: &Type, name: &str, test: bool) -> Type {
        match operand {
            Type::Dynamic => Type::Dynamic,
            Type::Map(value) => (**value).clone(),
            Type::Optional(inner) => Type::Optional(self.field(id, inner, name, test).into()),
            Type::Object(fields) => match fields.iter().find(|(known, _)| *known == name) {
                Some(_) if test => {
                    let hint = Some("compare it instead, for example with \"\"".to_owned());
                    self.error_at_name(id, name, format!("`{name}` always has a value, so `has` says nothing"), hint)
                }
                Some((_, kind)) => kind.clone(),
                None => {
                    let known: Vec<&str> = fields.iter().map(|(known, _)| *known).collect();
                    let hint = did_you_mean(name, &known).unwrap_or_else(|| format!("there are {}", listing(&known)));
                    self.error_at_name(id, name, format!("unknown field `{name}`"), Some(hint))
                }
            },
            other => self.error_at_name(id, name, format!("a value of type {other} has no fields"), None),
        }
    }

    fn list(&mut self, id: u64, elements: &mut [IdedExpr], optional: bool) -> Checked {
        let mut element = None;
        for node in elements.iter_mut() {
            let kind = self.visit(node);
            self.scalar(node.id, &kind, "an element of a list");
            element = Some(match element {
                None => kind,
                Some(before) => self.join(node.id, before, kind, "the elements of a list have different types"),
            });
        }
        if optional {
            return (self.error(id, "optional elements are not known here", None), None);
        }
        let kind = Type::list(element.unwrap_or(Type::Dynamic));
        let literals: Option<Vec<Box<dyn Val>>> = elements.iter().map(literal_value).collect();
        (kind, literals.map(|literals| Expr::Ident(self.constants.add(constant::list(literals)))))
    }

    fn map<'e>(&mut self, id: u64, entries: impl Iterator<Item = &'e mut EntryExpr>) -> Type {
        let mut value = None;
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else { return self.error(id, "the expression is not valid CEL", None) };
            if entry.optional {
                return self.error(id, "optional entries are not known here", None);
            }
            let key = self.visit(&mut entry.key);
            if !matches!(key, Type::Text | Type::Dynamic) {
                self.error(entry.key.id, format!("the keys of a map are strings, this one is of type {key}"), None);
            }
            let kind = self.visit(&mut entry.value);
            self.scalar(entry.value.id, &kind, "a value of a map");
            value = Some(match value {
                None => kind,
                Some(before) => self.join(entry.value.id, before, kind, "the values of a map have different types"),
            });
        }
        Type::map(value.unwrap_or(Type::Dynamic))
    }

    /// Lists are flat, so that no chain of calls can make one grow beyond bounds.
    fn scalar(&mut self, id: u64, kind: &Type, what: &str) {
        if matches!(kind, Type::List(_) | Type::Map(_) | Type::Object(_) | Type::Optional(_)) {
            self.error(id, format!("{what} must be a plain value, not of type {kind}"), None);
        }
    }

    /// The type of what is one or the other.
    fn join(&mut self, id: u64, first: Type, second: Type, message: &str) -> Type {
        match (first, second) {
            (first, second) if first == second => first,
            (Type::Dynamic, Type::List(_)) | (Type::List(_), Type::Dynamic | Type::List(_)) => Type::list(Type::Dynamic),
            (Type::Dynamic, Type::Map(_)) | (Type::Map(_), Type::Dynamic | Type::Map(_)) => Type::map(Type::Dynamic),
            (Type::Dynamic | Type::Null, _) | (_, Type::Dynamic | Type::Null) => Type::Dynamic,
            (first, second) => self.error(id, format!("{message}: {first} and {second}"), None),
        }
    }

    fn comprehension(&mut self, id: u64, comprehension: &mut ComprehensionExpr) -> Type {
        let range = self.visit(&mut comprehension.iter_range);
        let element = match &range {
            Type::List(element) => (**element).clone(),
            Type::Map(_) => Type::Text,
            Type::Dynamic => Type::Dynamic,
            other => self.error(id, format!("only a list or a map has elements, not a value of type {other}"), None),
        };
        let name = comprehension.iter_var.clone();
        if self.schema.variable(&name).is_some() || self.scope.iter().any(|(known, _)| *known == name) {
            self.error(id, format!("`{name}` is already the name of a variable"), Some("use another name".to_owned()));
        }
        if self.scope.len() >= MAX_COMPREHENSIONS {
            let message = format!("`all`, `exists`, `filter` and `map` may be nested {MAX_COMPREHENSIONS} deep");
            return self.error(id, message, Some("use `x in list`, or split the rule".to_owned()));
        }
        self.scope.push((name, element));
        let kind = self.step(id, comprehension);
        self.scope.pop();
        self.count_work(comprehension);
        kind
    }

    /// Has the work of all steps counted before the first of them.
    fn count_work(&self, comprehension: &mut ComprehensionExpr) {
        let node = |expr| IdedExpr { id: 0, expr };
        let nodes = i64::try_from(nodes(&comprehension.loop_step)).unwrap_or(i64::MAX);
        let mut args = vec![std::mem::take(&mut comprehension.iter_range), node(Expr::Literal(LiteralValue::Int(nodes.into())))];
        args.extend(self.scope.last().map(|(around, _)| node(Expr::Ident(around.clone()))));
        comprehension.iter_range = node(Expr::Call(CallExpr { func_name: function::WALK.to_owned(), target: None, args }));
    }

    /// Checks what the author wrote inside a comprehension; the rest was put around it by the engine's macros.
    fn step(&mut self, id: u64, comprehension: &mut ComprehensionExpr) -> Type {
        let Expr::Call(step) = &mut comprehension.loop_step.expr else { return self.unknown_comprehension(id) };
        match (&comprehension.accu_init.expr, step.func_name.as_str(), step.args.as_mut_slice()) {
            // exists, all
            (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR | operators::LOGICAL_AND, [_, condition])
            // exists_one
            | (Expr::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [condition, _, _]) => {
                self.condition(condition);
                Type::Bool
            }
            // map(x, f)
            (Expr::List(_), operators::ADD, [_, results]) => self.results(id, results),
            // map(x, condition, f), filter(x, condition)
            (Expr::List(_), operators::CONDITIONAL, [condition, appended, _]) => {
                self.condition(condition);
                match &mut appended.expr {
                    Expr::Call(CallExpr { args, .. }) => match args.as_mut_slice() {
                        [_, results] => self.results(id, results),
                        _ => self.unknown_comprehension(id),
                    },
                    _ => self.unknown_comprehension(id),
                }
            }
            _ => self.unknown_comprehension(id),
        }
    }

    fn results(&mut self, id: u64, results: &mut IdedExpr) -> Type {
        let Expr::List(list) = &mut results.expr else { return self.unknown_comprehension(id) };
        let [result] = list.elements.as_mut_slice() else { return self.unknown_comprehension(id) };
        let kind = self.visit(result);
        self.scalar(result.id, &kind, "a result of `map`");
        Type::list(kind)
    }

    fn condition(&mut self, node: &mut IdedExpr) {
        let kind = self.visit(node);
        if !matches!(kind, Type::Bool | Type::Dynamic) {
            self.error(node.id, format!("the condition must be a bool, but it is of type {kind}"), None);
        }
    }

    fn unknown_comprehension(&mut self, id: u64) -> Type {
        self.error(id, "this form of comprehension is not known here", None)
    }
}

/// How many nodes are evaluated at most; what stands inside another comprehension is counted there.
fn nodes(node: &IdedExpr) -> usize {
    1 + match &node.expr {
        Expr::Call(call) => call.target.iter().map(|target| nodes(target)).chain(call.args.iter().map(nodes)).sum(),
        Expr::Select(select) => nodes(&select.operand),
        Expr::List(list) => list.elements.iter().map(nodes).sum(),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_nodes(&entry.expr)).sum(),
        Expr::Comprehension(inner) => nodes(&inner.iter_range),
        Expr::Struct(_) | Expr::Literal(_) | Expr::Ident(_) | Expr::Unspecified => 0,
    }
}

fn entry_nodes(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::MapEntry(entry) => nodes(&entry.key) + nodes(&entry.value),
        EntryExpr::StructField(field) => nodes(&field.value),
    }
}

fn literal_value(node: &IdedExpr) -> Option<Box<dyn Val>> {
    match &node.expr {
        Expr::Literal(literal) => Some(literal.to_val().into_owned()),
        _ => None,
    }
}

/// A known name that is close enough to be a slip of the keyboard.
fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase());
    let (best, distance) = known.iter().map(|candidate| (*candidate, distance(candidate))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 1 + best.len().min(name.len()) / 4).then(|| format!("did you mean `{best}`?"))
}

fn listing(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
