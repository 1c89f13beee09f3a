//! Conditions that need no engine: texts compared with each other, looked for in lists, and what `&&`, `||` and `!` make of that. Most rules are
//! nothing else, and the engine makes a value on the heap for each step of them.
//!
//! It decides nothing that the engine would decide otherwise: a form that is not here, a value that is missing and one of another type are all
//! "not plain", and then the engine is asked, from the beginning.

use cel_interpreter::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use cel_interpreter::common::types::CelString;
use cel_interpreter::common::value::Val;

use super::constant::Constants;
use super::view::{FieldValue, Fields, variable_and_field};
use super::work;

#[cfg(test)]
mod tests;

/// A checked expression with a bool as its value.
#[derive(Debug)]
pub(super) enum Condition {
    Always(bool),
    Flag(Field),
    Not(Box<Self>),
    Both(Box<[Self; 2]>),
    Either(Box<[Self; 2]>),
    Equal(Text, Text),
    Contains(Text, Text),
    StartsWith(Text, Text),
    EndsWith(Text, Text),
    /// In a list of literals.
    OneOf(Text, Box<[Box<str>]>),
    /// In a list that is a field.
    Member(Text, Field),
    /// For an element of a list that is a field.
    Exists(Field, Box<Step>),
    /// For each of them.
    All(Field, Box<Step>),
}

/// What is asked of each element.
#[derive(Debug)]
pub(super) struct Step {
    condition: Condition,
    nodes: u64,
}

#[derive(Debug)]
pub(super) enum Text {
    Literal(Box<str>),
    Field(Field),
    /// An entry of a map that is a field.
    Entry(Field, Box<str>),
    /// Of the list that is being looked through.
    Element,
}

#[derive(Debug)]
pub(super) struct Field {
    variable: Box<str>,
    name: Box<str>,
}

impl Condition {
    /// `None` for a form that is not plain. `root` is as `check` leaves it.
    pub(super) fn of(root: &IdedExpr, constants: &Constants) -> Option<Self> {
        Reading { constants, element: None }.condition(root)
    }

    /// `None` when a value is not there, not of the type that it must have, or not to be had by the work that is allowed.
    pub(super) fn holds(&self, variables: &dyn Fields) -> Option<bool> {
        self.holds_for(variables, None)
    }

    fn holds_for(&self, variables: &dyn Fields, element: Option<&str>) -> Option<bool> {
        let holds = |condition: &Self| condition.holds_for(variables, element);
        Some(match self {
            Self::Always(value) => *value,
            Self::Flag(field) => field.flag(variables)?,
            Self::Not(inner) => !holds(inner)?,
            Self::Both(both) => {
                let [first, second] = &**both;
                holds(first)? && holds(second)?
            }
            Self::Either(either) => {
                let [first, second] = &**either;
                holds(first)? || holds(second)?
            }
            Self::Equal(left, right) => left.read(variables, element)? == right.read(variables, element)?,
            Self::Contains(text, part) => text.read(variables, element)?.contains(part.read(variables, element)?),
            Self::StartsWith(text, start) => text.read(variables, element)?.starts_with(start.read(variables, element)?),
            Self::EndsWith(text, end) => text.read(variables, element)?.ends_with(end.read(variables, element)?),
            Self::OneOf(text, literals) => {
                let text = text.read(variables, element)?;
                literals.iter().any(|literal| **literal == *text)
            }
            Self::Member(text, list) => {
                let text = text.read(variables, element)?;
                let items = list.texts(variables)?;
                work::take(work::of_list(items.len())).then(|| items.iter().any(|item| item == text))?
            }
            Self::Exists(list, step) => find(list.texts(variables)?, step, variables, true)?,
            Self::All(list, step) => !find(list.texts(variables)?, step, variables, false)?,
        })
    }
}

/// Whether the condition is `wanted` for one of the texts.
fn find(texts: &[String], step: &Step, variables: &dyn Fields, wanted: bool) -> Option<bool> {
    // A step is some ten times quicker than the engine's.
    if !work::take(work::of_list(texts.len()).saturating_mul(step.nodes)) {
        return None;
    }
    for text in texts {
        if step.condition.holds_for(variables, Some(text))? == wanted {
            return Some(true);
        }
    }
    Some(false)
}

impl Text {
    fn read<'a>(&'a self, variables: &'a dyn Fields, element: Option<&'a str>) -> Option<&'a str> {
        let text = match self {
            Self::Literal(text) => return Some(text),
            Self::Element => element?,
            Self::Field(field) => match field.read(variables)? {
                FieldValue::Text(text) => text,
                _ => return None,
            },
            Self::Entry(map, key) => match map.read(variables)? {
                FieldValue::TextMap(map) => map.get(&**key)?,
                FieldValue::JsonMap(map) => map.get(&**key)?.as_str()?,
                _ => return None,
            },
        };
        let work = work::of_text(text);
        (work == 0 || work::take(work)).then_some(text)
    }
}

impl Field {
    fn read<'a>(&self, variables: &'a dyn Fields) -> Option<FieldValue<'a>> {
        match variables.field(&self.variable)? {
            FieldValue::Object(object) => object.field(&self.name),
            _ => None,
        }
    }

    fn flag(&self, variables: &dyn Fields) -> Option<bool> {
        match self.read(variables)? {
            FieldValue::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    fn texts<'a>(&self, variables: &'a dyn Fields) -> Option<&'a [String]> {
        match self.read(variables)? {
            FieldValue::TextList(texts) => Some(texts),
            _ => None,
        }
    }
}

/// From the engine's tree, as `check` leaves it.
#[derive(Clone, Copy)]
struct Reading<'a> {
    constants: &'a Constants,
    /// The name of the element of the list that is being looked through.
    element: Option<&'a str>,
}

impl<'a> Reading<'a> {
    fn condition(self, node: &'a IdedExpr) -> Option<Condition> {
        match &node.expr {
            Expr::Literal(LiteralValue::Boolean(value)) => Some(Condition::Always(*value.inner())),
            Expr::Ident(name) => field(name).map(Condition::Flag),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            _ => None,
        }
    }

    fn call(self, call: &'a CallExpr) -> Option<Condition> {
        let function = call.func_name.as_str();
        if let Some(target) = &call.target {
            let [argument] = call.args.as_slice() else { return None };
            let make = match function {
                "contains" => Condition::Contains,
                "startsWith" => Condition::StartsWith,
                "endsWith" => Condition::EndsWith,
                _ => return None,
            };
            return Some(make(self.text(target)?, self.text(argument)?));
        }
        match (function, call.args.as_slice()) {
            (operators::LOGICAL_AND, [first, second]) => Some(Condition::Both(self.pair(first, second)?)),
            (operators::LOGICAL_OR, [first, second]) => Some(Condition::Either(self.pair(first, second)?)),
            // What `check` makes of `!`.
            (operators::CONDITIONAL, [condition, first, second]) => match (self.condition(first)?, self.condition(second)?) {
                (Condition::Always(false), Condition::Always(true)) => Some(Condition::Not(Box::new(self.condition(condition)?))),
                _ => None,
            },
            (operators::EQUALS, [left, right]) => Some(Condition::Equal(self.text(left)?, self.text(right)?)),
            (operators::NOT_EQUALS, [left, right]) => Some(Condition::Not(Box::new(Condition::Equal(self.text(left)?, self.text(right)?)))),
            (operators::IN, [element, list]) => self.membership(self.text(element)?, list),
            _ => None,
        }
    }

    fn pair(self, first: &'a IdedExpr, second: &'a IdedExpr) -> Option<Box<[Condition; 2]>> {
        Some(Box::new([self.condition(first)?, self.condition(second)?]))
    }

    fn membership(self, text: Text, list: &IdedExpr) -> Option<Condition> {
        let Expr::Ident(name) = &list.expr else { return None };
        match field(name) {
            Some(field) => Some(Condition::Member(text, field)),
            None => self.constants.get(name).and_then(literals).map(|literals| Condition::OneOf(text, literals)),
        }
    }

    /// `exists` and `all`, one inside another excepted.
    fn comprehension(self, comprehension: &'a ComprehensionExpr) -> Option<Condition> {
        let (Expr::Call(walk), Expr::Literal(LiteralValue::Boolean(start)), Expr::Call(step)) =
            (&comprehension.iter_range.expr, &comprehension.accu_init.expr, &comprehension.loop_step.expr)
        else {
            return None;
        };
        let [IdedExpr { expr: Expr::Ident(list), .. }, IdedExpr { expr: Expr::Literal(LiteralValue::Int(nodes)), .. }] =
            walk.args.as_slice()
        else {
            return None;
        };
        let make = match (*start.inner(), step.func_name.as_str()) {
            (false, operators::LOGICAL_OR) => Condition::Exists,
            (true, operators::LOGICAL_AND) => Condition::All,
            _ => return None,
        };
        let ([_, condition], None) = (step.args.as_slice(), self.element) else { return None };
        let condition = Self { element: Some(&comprehension.iter_var), ..self }.condition(condition)?;
        let nodes = u64::try_from(*nodes.inner()).ok()?;
        Some(make(field(list)?, Box::new(Step { condition, nodes })))
    }

    fn text(self, node: &IdedExpr) -> Option<Text> {
        match &node.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(Text::Literal(text.inner().into())),
            Expr::Ident(name) if self.element == Some(name) => Some(Text::Element),
            Expr::Ident(name) => field(name).map(Text::Field),
            Expr::Select(select) if !select.test => match &select.operand.expr {
                Expr::Ident(map) => Some(Text::Entry(field(map)?, select.field.as_str().into())),
                _ => None,
            },
            _ => None,
        }
    }
}

fn field(name: &str) -> Option<Field> {
    variable_and_field(name).map(|(variable, name)| Field { variable: variable.into(), name: name.into() })
}

/// The texts of a list of literal texts.
fn literals(list: &dyn Val) -> Option<Box<[Box<str>]>> {
    let mut items = list.as_iterable()?.iter();
    std::iter::from_fn(|| items.next()).map(|item| Some(item.downcast_ref::<CelString>()?.inner().into())).collect()
}
