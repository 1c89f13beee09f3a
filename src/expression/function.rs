//! The engine's environment, shared by every expression: the standard library and the functions of our own. Results are bounded, since
//! an expression may apply a function again and again.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cel_interpreter::common::types::{CelBool, CelInt, CelList, CelString, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE};
use cel_interpreter::common::value::{CowVal, FromVal, Val};
use cel_interpreter::{DeclarationError, Env, ExecutionError};

use super::constant::{NETWORK, Network, PATTERN, Pattern};
use super::work;

/// Names that no source can write; `check` puts them in the place of `matches`, `inCIDR` and `+`, and around what is walked through.
pub(super) const MATCHES: &str = "@matches";
pub(super) const IN_NETWORK: &str = "@inCIDR";
pub(super) const ADD: &str = "@+";
pub(super) const WALK: &str = "@walk";

/// Longest text that a function makes, in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// Longest list that a function makes.
const MAX_LIST: usize = 4096;

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

pub(super) fn environment() -> &'static Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut environment = Env::stdlib();
        // The names are ours alone, so none is declared twice; the tests call each of them.
        let _declared = declare(&mut environment);
        Arc::new(environment)
    });
    &ENVIRONMENT
}

fn declare(environment: &mut Env) -> Result<(), DeclarationError> {
    let text = || vec![STRING_TYPE];
    environment.add_overload(MATCHES, "pattern_matches", vec![STRING_TYPE, PATTERN.to_owned()], matches_pattern)?;
    environment.add_overload(IN_NETWORK, "network_contains", vec![STRING_TYPE, NETWORK.to_owned()], in_network)?;
    environment.add_overload(ADD, "bounded_add", vec![DYN_TYPE, DYN_TYPE], add)?;
    environment.add_overload(WALK, "walk", vec![DYN_TYPE, INT_TYPE], walk)?;
    environment.add_overload(WALK, "walk_inside", vec![DYN_TYPE, INT_TYPE, DYN_TYPE], walk)?;
    environment.add_member_overload("lowerAscii", "string_lower", STRING_TYPE, vec![], lower)?;
    environment.add_member_overload("upperAscii", "string_upper", STRING_TYPE, vec![], upper)?;
    environment.add_member_overload("split", "string_split", STRING_TYPE, text(), split)?;
    environment.add_member_overload("replace", "string_replace", STRING_TYPE, vec![STRING_TYPE, STRING_TYPE], replace)?;
    environment.add_member_overload("join", "list_join", LIST_TYPE, text(), join)
}

/// Gives back what is walked through, when its steps are allowed. Their number and the length of what they look at are known now: of the elements,
/// and of the element of the walk around this one.
fn walk<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let nodes = u64::try_from(*argument::<CelInt>(&arguments, 1, WALK)?.inner()).unwrap_or(u64::MAX);
    let around = arguments.get(2).map_or(0, |element| work_of(element.as_ref()));
    let mut steps = 0;
    if let Some(range) = arguments.first().and_then(|range| range.as_iterable()) {
        let mut items = range.iter();
        while let Some(item) = items.next() {
            steps += work_of(item) + around;
        }
    }
    work::spend(nodes.saturating_mul(steps));
    arguments.into_iter().next().ok_or_else(|| wrong_arguments(WALK))
}

/// To look at a value once.
pub(super) fn work_of(value: &dyn Val) -> u64 {
    let length = || value.as_sizer().and_then(|sizer| usize::try_from(*sizer.size().inner()).ok());
    1 + match value.downcast_ref::<CelString>() {
        Some(text) => work::of_text(text.inner()),
        None => work::of_list(length().unwrap_or_default()),
    }
}

fn matches_pattern<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let pattern: &Pattern = argument(&arguments, 1, MATCHES)?;
    let text = text(&arguments, 0, "matches")?;
    work::spend(work::of_pattern(text, pattern.work));
    Ok(truth(pattern.regex.is_match(text)))
}

fn in_network<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let network: &Network = argument(&arguments, 1, IN_NETWORK)?;
    let address: IpAddr = text(&arguments, 0, "inCIDR")?.parse().map_err(|_| ExecutionError::function_error("inCIDR", "no IP address"))?;
    // An IPv4 client on an IPv6 socket is still an IPv4 client.
    Ok(truth(network.0.contains(&address.to_canonical())))
}

fn add<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (Some(left), Some(right)) = (arguments.first(), arguments.get(1)) else { return Err(wrong_arguments("+")) };
    if let (Some(first), Some(second)) = (left.downcast_ref::<CelString>(), right.downcast_ref::<CelString>()) {
        bounded("+", first.inner().len() + second.inner().len())?;
        return Ok(owned_text([first.inner(), second.inner()].concat()));
    }
    if let (Some(first), Some(second)) = (left.as_iterable(), right.as_iterable()) {
        if *left.get_type() != LIST_TYPE || *right.get_type() != LIST_TYPE {
            return Err(wrong_arguments("+"));
        }
        let mut sum: Vec<Box<dyn Val + 'v>> = Vec::new();
        for mut items in [first.iter(), second.iter()] {
            while let Some(item) = items.next() {
                work::spend(work_of(item));
                if sum.len() >= MAX_LIST {
                    return Err(ExecutionError::function_error("+", "too long"));
                }
                sum.push(item.clone_as_boxed());
            }
        }
        return Ok(CowVal::owned(CelList::from(sum)));
    }
    let adder = left.as_adder().ok_or_else(|| wrong_arguments("+"))?;
    adder.add(right.as_ref()).map(|sum| CowVal::Owned(sum.into_owned()))
}

fn lower<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(owned_text(text(&arguments, 0, "lowerAscii")?.to_ascii_lowercase()))
}

fn upper<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(owned_text(text(&arguments, 0, "upperAscii")?.to_ascii_uppercase()))
}

fn split<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (whole, separator) = (text(&arguments, 0, "split")?, text(&arguments, 1, "split")?);
    let mut parts: Vec<Box<dyn Val + 'v>> = Vec::new();
    for part in whole.split(separator) {
        work::spend(1 + work::of_text(part));
        if parts.len() >= MAX_LIST {
            return Err(ExecutionError::function_error("split", "too long"));
        }
        parts.push(Box::new(CelString::from(part.to_owned())));
    }
    Ok(CowVal::owned(CelList::from(parts)))
}

fn replace<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let (whole, from, to) = (text(&arguments, 0, "replace")?, text(&arguments, 1, "replace")?, text(&arguments, 2, "replace")?);
    let count = whole.matches(from).count();
    work::spend(work::of_text(whole) + work::of_list(count));
    bounded("replace", whole.len() + count * to.len())?;
    Ok(owned_text(whole.replace(from, to)))
}

fn join<'b, 'v>(arguments: Arguments<'b, 'v>) -> Outcome<'b, 'v> {
    let separator = text(&arguments, 1, "join")?;
    let list = arguments.first().and_then(|list| list.as_iterable()).ok_or_else(|| wrong_arguments("join"))?;
    let (mut items, mut joined, mut first) = (list.iter(), String::new(), true);
    while let Some(item) = items.next() {
        let part = item.downcast_ref::<CelString>().ok_or_else(|| wrong_arguments("join"))?.inner();
        work::spend(1);
        bounded("join", joined.len() + separator.len() + part.len())?;
        if !std::mem::take(&mut first) {
            joined.push_str(separator);
        }
        joined.push_str(part);
    }
    Ok(owned_text(joined))
}

fn argument<'a, 'v, T: FromVal<'a, 'v>>(arguments: &'a [CowVal<'_, 'v>], index: usize, name: &str) -> Result<&'a T, ExecutionError> {
    arguments.get(index).and_then(|value| value.downcast_ref::<T>()).ok_or_else(|| wrong_arguments(name))
}

fn text<'a>(arguments: &'a [CowVal<'_, '_>], index: usize, name: &str) -> Result<&'a str, ExecutionError> {
    let value = arguments.get(index).and_then(|value| value.downcast_ref::<CelString>());
    value.map(CelString::inner).ok_or_else(|| wrong_arguments(name))
}

fn truth<'b, 'v>(flag: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(flag))
}

/// To make a text, and to look at it once.
fn owned_text<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    work::spend(1 + work::of_text(&text));
    CowVal::owned(CelString::from(text))
}

fn bounded(function: &str, length: usize) -> Result<(), ExecutionError> {
    if length > MAX_TEXT { Err(ExecutionError::function_error(function, "too long")) } else { Ok(()) }
}

fn wrong_arguments(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, "wrong arguments")
}
