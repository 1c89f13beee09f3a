//! Functions: which there are, what each takes and gives, and what is made once at load from their literal arguments.

use cel_interpreter::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel_interpreter::common::value::Val;
use cel_interpreter::{Context, Value as EngineValue};

use super::{Checked, Checker, did_you_mean};
use crate::expression::constant::{self, Network, Pattern};
use crate::expression::function;
use crate::expression::schema::Type;

/// Every function with an example; a name that is not here is unknown.
const FUNCTIONS: &[(&str, &str)] = &[
    ("all", "list.all(x, condition)"),
    ("bool", "bool(value)"),
    ("contains", "text.contains(\"part\")"),
    ("double", "double(value)"),
    ("duration", "duration(\"8h\")"),
    ("endsWith", "text.endsWith(\"end\")"),
    ("exists", "list.exists(x, condition)"),
    ("exists_one", "list.exists_one(x, condition)"),
    ("filter", "list.filter(x, condition)"),
    ("getDate", "time.getDate()"),
    ("getDayOfMonth", "time.getDayOfMonth()"),
    ("getDayOfWeek", "time.getDayOfWeek(\"Europe/Berlin\")"),
    ("getDayOfYear", "time.getDayOfYear()"),
    ("getFullYear", "time.getFullYear()"),
    ("getHours", "time.getHours(\"Europe/Berlin\")"),
    ("getMilliseconds", "time.getMilliseconds()"),
    ("getMinutes", "time.getMinutes()"),
    ("getMonth", "time.getMonth()"),
    ("getSeconds", "time.getSeconds()"),
    ("has", "has(user.claims.department)"),
    ("hasValue", "map.?key.hasValue()"),
    ("inCIDR", "inCIDR(address, \"10.0.0.0/8\")"),
    ("int", "int(value)"),
    ("join", "list.join(\",\")"),
    ("lowerAscii", "text.lowerAscii()"),
    ("map", "list.map(x, result)"),
    ("matches", "text.matches(\"^pattern$\")"),
    ("orValue", "map.?key.orValue(\"\")"),
    ("replace", "text.replace(\"from\", \"to\")"),
    ("size", "size(list)"),
    ("split", "text.split(\",\")"),
    ("startsWith", "text.startsWith(\"start\")"),
    ("string", "string(value)"),
    ("timestamp", "timestamp(\"2026-01-31T08:00:00Z\")"),
    ("upperAscii", "text.upperAscii()"),
    ("value", "map.?key.value()"),
];

type Parse = fn(&str) -> Result<Box<dyn Val>, String>;

const MACROS: &[&str] = &["all", "exists", "exists_one", "filter", "has", "map"];

impl Checker<'_> {
    pub(super) fn call(&mut self, id: u64, call: &mut CallExpr) -> Checked {
        let name = call.func_name.clone();
        let Some((_, example)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            return (self.unknown_function(id, &name), None);
        };
        let target = call.target.as_mut().map(|target| self.visit(target));
        if MACROS.contains(&name.as_str()) {
            // The engine replaces a macro that is called rightly; its arguments would only be unknown names here.
            let hint = Some(format!("write {example}"));
            return (self.error_at_name(id, &name, format!("`{name}` is not called rightly"), hint), None);
        }
        let arguments: Vec<Type> = call.args.iter_mut().map(|argument| self.visit(argument)).collect();
        match (name.as_str(), &target, arguments.as_slice()) {
            ("matches", Some(text), [_]) | ("matches", None, [text, _]) if is(text, &Type::Text) => (Type::Bool, self.pattern(id, call)),
            ("inCIDR", None, [address, _]) if is(address, &Type::Text) => (Type::Bool, self.network(id, call)),
            ("duration" | "timestamp", None, [Type::Text]) => self.time_literal(id, &name, call),
            ("timestamp", None, [Type::Int | Type::Dynamic]) => (Type::Timestamp, None),
            (_, Some(Type::Timestamp), [Type::Text]) if name.starts_with("get") => {
                self.time_zone(&name, call);
                (Type::Int, None)
            }
            _ => match result(&name, target.as_ref(), &arguments) {
                Some(kind) => (kind, None),
                None => (self.wrong_call(id, &name, example, target.as_ref(), &arguments), None),
            },
        }
    }

    fn unknown_function(&mut self, id: u64, name: &str) -> Type {
        let known: Vec<&str> = FUNCTIONS.iter().map(|(known, _)| *known).collect();
        let hint = match name {
            "lower" | "toLowerCase" | "lowercase" => Some("did you mean `lowerAscii`?".to_owned()),
            "upper" | "toUpperCase" | "uppercase" => Some("did you mean `upperAscii`?".to_owned()),
            "any" | "some" => Some("did you mean `exists`?".to_owned()),
            "len" | "length" | "count" => Some("did you mean `size`?".to_owned()),
            "match" | "regex" => Some("did you mean `matches`?".to_owned()),
            "cidr" | "ip" | "isInCIDR" | "inNetwork" => Some("did you mean `inCIDR`?".to_owned()),
            "now" => Some("the time of the request is a variable".to_owned()),
            _ => did_you_mean(name, &known),
        };
        self.error_at_name(id, name, format!("unknown function `{name}`"), hint)
    }

    fn wrong_call(&mut self, id: u64, name: &str, example: &str, target: Option<&Type>, arguments: &[Type]) -> Type {
        let given: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let given = given.join(", ");
        let message = match target {
            Some(target) => format!("`{name}` cannot be called as {target}.{name}({given})"),
            None => format!("`{name}` cannot be called as {name}({given})"),
        };
        self.error_at_name(id, name, message, Some(format!("write {example}")))
    }

    /// `text.matches("...")`: the pattern is compiled now, since the engine would compile it at each evaluation.
    fn pattern(&mut self, id: u64, call: &mut CallExpr) -> Option<Expr> {
        let pattern = call.args.last()?;
        let Some(text) = literal_text(pattern) else {
            let message = "the pattern of `matches` must be a literal string, so that it can be checked and compiled once";
            self.error_at_name(id, "matches", message, None);
            return None;
        };
        match Pattern::new(text) {
            Ok(compiled) => Some(self.with_constant(function::MATCHES, call, Box::new(compiled))),
            Err(message) => {
                self.error(pattern.id, format!("the pattern is not valid: {message}"), None);
                None
            }
        }
    }

    fn network(&mut self, id: u64, call: &mut CallExpr) -> Option<Expr> {
        let network = call.args.last()?;
        let Some(text) = literal_text(network) else {
            self.error_at_name(id, "inCIDR", "the network of `inCIDR` must be a literal string", None);
            return None;
        };
        match Network::new(text) {
            Ok(network) => Some(self.with_constant(function::IN_NETWORK, call, Box::new(network))),
            Err(message) => {
                self.error(network.id, message, None);
                None
            }
        }
    }

    /// A call of our own function, with the text that was its target or first argument and a constant.
    fn with_constant(&mut self, function: &str, call: &mut CallExpr, value: Box<dyn Val>) -> Expr {
        let text = match call.target.take() {
            Some(target) => *target,
            None => call.args.first_mut().map(std::mem::take).unwrap_or_default(),
        };
        let constant = IdedExpr { id: 0, expr: Expr::Ident(self.constants.add(value)) };
        Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args: vec![text, constant] })
    }

    fn time_literal(&mut self, id: u64, name: &str, call: &CallExpr) -> Checked {
        let (kind, parse): (Type, Parse) = match name {
            "duration" => (Type::Duration, constant::duration),
            _ => (Type::Timestamp, constant::timestamp),
        };
        let Some((argument, text)) = call.args.first().and_then(|argument| Some((argument, literal_text(argument)?))) else {
            return (self.error_at_name(id, name, format!("the argument of `{name}` must be a literal string"), None), None);
        };
        match parse(text) {
            Ok(value) => (kind, Some(Expr::Ident(self.constants.add(value)))),
            Err(how) => {
                self.error(argument.id, format!("this is no {name}"), Some(how));
                (kind, None)
            }
        }
    }

    /// Asks the engine whether it knows the time zone, with any time.
    fn time_zone(&mut self, name: &str, call: &CallExpr) {
        let Some(zone) = call.args.first() else { return };
        if literal_text(zone).is_none() {
            self.error(zone.id, "the time zone must be a literal string", None);
            return;
        }
        let zero = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(0.into())) };
        let epoch = Expr::Call(CallExpr { func_name: "timestamp".to_owned(), target: None, args: vec![zero] });
        let target = Some(Box::new(IdedExpr { id: 0, expr: epoch }));
        let trial = Expr::Call(CallExpr { func_name: name.to_owned(), target, args: vec![zone.clone()] });
        let context = Context::with_env(function::environment().clone());
        if EngineValue::resolve_val(&IdedExpr { id: 0, expr: trial }, &context).is_err() {
            let hint = "write a name as Europe/Berlin or an offset as +02:00".to_owned();
            self.error(zone.id, "this is no time zone", Some(hint));
        }
    }
}

/// The type of the result, or `None` when the function does not take these types.
fn result(name: &str, target: Option<&Type>, arguments: &[Type]) -> Option<Type> {
    let text = |kind: &Type| is(kind, &Type::Text);
    let list_of_texts = |kind: &Type| match kind {
        Type::List(element) => text(element),
        other => *other == Type::Dynamic,
    };
    let sized = |kind: &Type| matches!(kind, Type::Text | Type::List(_) | Type::Map(_) | Type::Dynamic);
    let number_or_text = |kind: &Type| matches!(kind, Type::Int | Type::Double | Type::Text | Type::Dynamic);
    let found = match (name, target, arguments) {
        ("contains" | "startsWith" | "endsWith", Some(target), [part]) if text(target) && text(part) => Type::Bool,
        ("lowerAscii" | "upperAscii", Some(target), []) if text(target) => Type::Text,
        ("replace", Some(target), [from, to]) if text(target) && text(from) && text(to) => Type::Text,
        ("split", Some(target), [separator]) if text(target) && text(separator) => Type::list(Type::Text),
        ("join", Some(target), [separator]) if list_of_texts(target) && text(separator) => Type::Text,
        ("size", None, [value]) | ("size", Some(value), []) if sized(value) => Type::Int,
        ("string", None, [value]) if !matches!(value, Type::List(_) | Type::Map(_) | Type::Object(_) | Type::Optional(_) | Type::Null) => {
            Type::Text
        }
        ("int", None, [value]) if number_or_text(value) || *value == Type::Timestamp => Type::Int,
        ("double", None, [value]) if number_or_text(value) => Type::Double,
        ("bool", None, [Type::Bool | Type::Text | Type::Dynamic]) => Type::Bool,
        ("getHours" | "getMinutes" | "getSeconds" | "getMilliseconds", Some(Type::Duration), []) => Type::Int,
        (getter, Some(Type::Timestamp), []) if getter.starts_with("get") => Type::Int,
        ("hasValue", Some(Type::Optional(_)), []) => Type::Bool,
        ("value", Some(Type::Optional(inner)), []) => (**inner).clone(),
        ("orValue", Some(Type::Optional(inner)), [other]) if **inner == Type::Dynamic || **inner == *other => match other {
            Type::List(_) => Type::list(Type::Dynamic),
            Type::Map(_) => Type::map(Type::Dynamic),
            _ => (**inner).clone(),
        },
        _ => return None,
    };
    Some(found)
}

fn is(found: &Type, wanted: &Type) -> bool {
    found == wanted || *found == Type::Dynamic
}

fn literal_text(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}
