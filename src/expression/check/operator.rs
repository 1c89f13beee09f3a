//! Operators: which types each takes, and what it gives.

use cel_interpreter::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{Checked, Checker};
use crate::expression::function;
use crate::expression::schema::Type;

impl Checker<'_> {
    pub(super) fn call_or_operator(&mut self, id: u64, call: &mut CallExpr) -> Checked {
        let sign = call.func_name.clone();
        let kind = match (sign.as_str(), call.args.as_mut_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, operands) => self.logic(id, &sign, operands),
            (operators::LOGICAL_NOT, operands) => {
                let kind = self.logic(id, &sign, operands);
                // The engine makes the error for a wrong type before it looks at the type; a conditional makes none.
                call.args.extend([false, true].map(truth));
                operators::CONDITIONAL.clone_into(&mut call.func_name);
                kind
            }
            (operators::CONDITIONAL, [condition, first, second]) => self.conditional(id, condition, first, second),
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => self.equality(id, &sign, left, right),
            (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, [left, right]) => {
                self.ordering(id, &sign, left, right)
            }
            (operators::IN, [element, container]) => self.membership(id, element, container),
            (operators::INDEX, [target, index]) => self.index(id, target, index, false),
            (operators::OPT_INDEX | operators::OPT_SELECT, [target, index]) => self.index(id, target, index, true),
            (operators::NEGATE, [operand]) => match self.visit(operand) {
                kind @ (Type::Int | Type::Double | Type::Dynamic) => kind,
                kind => self.does_not_fit(id, "-", &[&kind]),
            },
            (operators::ADD, [left, right]) => {
                let (kind, bounded) = self.addition(id, left, right);
                if bounded {
                    function::ADD.clone_into(&mut call.func_name);
                }
                kind
            }
            (operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO, [left, right]) => {
                self.arithmetic(id, &sign, left, right)
            }
            _ => return self.call(id, call),
        };
        (kind, None)
    }

    fn does_not_fit(&mut self, id: u64, sign: &str, operands: &[&Type]) -> Type {
        let message = match operands {
            [left, right] => format!("`{sign}` does not take {left} and {right}"),
            _ => format!("`{sign}` does not take {}", operands.first().map_or_else(String::new, |kind| kind.to_string())),
        };
        let hint = match operands {
            [Type::Duration, Type::Int] | [Type::Int, Type::Duration] => Some("write the duration as duration(\"8h\")"),
            [Type::Timestamp, Type::Text] | [Type::Text, Type::Timestamp] => Some("write the time as timestamp(\"2026-01-31T08:00:00Z\")"),
            [Type::Duration, Type::Text] | [Type::Text, Type::Duration] => Some("write the duration as duration(\"8h\")"),
            _ => None,
        };
        self.error(id, message, hint.map(str::to_owned))
    }

    fn logic(&mut self, id: u64, sign: &str, operands: &mut [IdedExpr]) -> Type {
        for operand in operands {
            let kind = self.visit(operand);
            if !matches!(kind, Type::Bool | Type::Dynamic) {
                let sign = printed(sign);
                self.error(id, format!("`{sign}` takes bool values, but one is of type {kind}"), None);
            }
        }
        Type::Bool
    }

    fn conditional(&mut self, id: u64, condition: &mut IdedExpr, first: &mut IdedExpr, second: &mut IdedExpr) -> Type {
        self.condition(condition);
        let (first, second) = (self.visit(first), self.visit(second));
        self.join(id, first, second, "both results of `? :` must be of one type")
    }

    fn equality(&mut self, id: u64, sign: &str, left: &mut IdedExpr, right: &mut IdedExpr) -> Type {
        let (left, right) = (self.visit(left), self.visit(right));
        for kind in [&left, &right] {
            if matches!(kind, Type::List(_) | Type::Map(_) | Type::Object(_) | Type::Optional(_)) {
                let hint = match kind {
                    Type::List(_) => "use `x in list`, `size(list)`, `list.all(...)` or `list.exists(...)`",
                    Type::Optional(_) => "use `.orValue(...)` first",
                    _ => "compare its fields",
                };
                self.error(id, format!("`{}` does not compare a value of type {kind}", printed(sign)), Some(hint.to_owned()));
                return Type::Bool;
            }
        }
        if !comparable(&left, &right) {
            self.does_not_fit(id, printed(sign), &[&left, &right]);
        }
        Type::Bool
    }

    fn ordering(&mut self, id: u64, sign: &str, left: &mut IdedExpr, right: &mut IdedExpr) -> Type {
        let (left, right) = (self.visit(left), self.visit(right));
        let ordered =
            |kind: &Type| matches!(kind, Type::Int | Type::Double | Type::Text | Type::Timestamp | Type::Duration | Type::Dynamic);
        if !(ordered(&left) && ordered(&right) && comparable(&left, &right)) {
            self.does_not_fit(id, printed(sign), &[&left, &right]);
        }
        Type::Bool
    }

    fn membership(&mut self, id: u64, element: &mut IdedExpr, container: &mut IdedExpr) -> Type {
        let (element, container) = (self.visit(element), self.visit(container));
        let (fits, hint) = match &container {
            Type::Dynamic => (true, None),
            Type::List(kind) => (is_scalar(&element) && comparable(&element, kind), None),
            Type::Map(_) => (matches!(element, Type::Text | Type::Dynamic), None),
            Type::Text => (false, Some("use text.contains(...) to look inside a string")),
            _ => (false, None),
        };
        if !fits {
            let message = format!("`in` does not look for {element} in {container}");
            self.error(id, message, hint.map(str::to_owned));
        }
        Type::Bool
    }

    fn index(&mut self, id: u64, target: &mut IdedExpr, index: &mut IdedExpr, optional: bool) -> Type {
        let (target, index) = (self.visit(target), self.visit(index));
        let (target, optional) = match target {
            Type::Optional(inner) => ((*inner).clone(), true),
            plain => (plain, optional),
        };
        let value = match (&target, &index) {
            (Type::Map(value), Type::Text | Type::Dynamic) => (**value).clone(),
            (Type::List(element), Type::Int | Type::Dynamic) => (**element).clone(),
            (Type::Dynamic, Type::Text | Type::Int | Type::Dynamic) => Type::Dynamic,
            (Type::Object(_), _) => self.error(id, "the fields of an object are written as object.field", None),
            (Type::List(_) | Type::Map(_) | Type::Dynamic, kind) => {
                self.error(id, format!("a value of type {kind} is no index here"), None)
            }
            (kind, _) => self.error(id, format!("a value of type {kind} has no elements"), None),
        };
        if optional { Type::Optional(value.into()) } else { value }
    }

    /// The type of a sum, and whether it may grow (texts and lists do).
    fn addition(&mut self, id: u64, left: &mut IdedExpr, right: &mut IdedExpr) -> (Type, bool) {
        let (left, right) = (self.visit(left), self.visit(right));
        match (&left, &right) {
            (Type::Int, Type::Int) | (Type::Double, Type::Double) | (Type::Duration, Type::Duration) => (left, false),
            (Type::Timestamp, Type::Duration) | (Type::Duration, Type::Timestamp) => (Type::Timestamp, false),
            (Type::Text, Type::Text) => (Type::Text, true),
            (Type::List(_), Type::List(_)) if left == right => (left, true),
            (Type::List(_), Type::List(_) | Type::Dynamic) | (Type::Dynamic, Type::List(_)) => (Type::list(Type::Dynamic), true),
            (Type::Dynamic, other) | (other, Type::Dynamic) if is_scalar(other) => (Type::Dynamic, true),
            _ => (self.does_not_fit(id, "+", &[&left, &right]), false),
        }
    }

    fn arithmetic(&mut self, id: u64, sign: &str, left: &mut IdedExpr, right: &mut IdedExpr) -> Type {
        let (left, right) = (self.visit(left), self.visit(right));
        let number = |kind: &Type| matches!(kind, Type::Int | Type::Double | Type::Dynamic);
        match (sign, &left, &right) {
            (operators::MODULO, Type::Double, _) | (operators::MODULO, _, Type::Double) => self.does_not_fit(id, "%", &[&left, &right]),
            (operators::SUBSTRACT, Type::Timestamp, Type::Timestamp) => Type::Duration,
            (operators::SUBSTRACT, Type::Timestamp | Type::Duration, Type::Duration) => left,
            (operators::SUBSTRACT, Type::Timestamp | Type::Duration, Type::Dynamic) => Type::Dynamic,
            (_, Type::Dynamic, kind) | (_, kind, Type::Dynamic) if number(kind) => Type::Dynamic,
            (_, Type::Int, Type::Int) | (_, Type::Double, Type::Double) => left,
            _ => self.does_not_fit(id, printed(sign), &[&left, &right]),
        }
    }
}

fn truth(flag: bool) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Boolean(flag.into())) }
}

/// A single value, which can be compared and be an element of a list.
pub(super) fn is_scalar(kind: &Type) -> bool {
    !matches!(kind, Type::List(_) | Type::Map(_) | Type::Object(_) | Type::Optional(_))
}

/// Whether two values of these types can be equal at all.
pub(super) fn comparable(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Dynamic, other) | (other, Type::Dynamic) => is_scalar(other),
        (Type::Int | Type::Double, Type::Int | Type::Double) => true,
        (left, right) => left == right && is_scalar(left),
    }
}

fn printed(sign: &str) -> &str {
    sign.trim_matches('_')
}
