//! Values that an expression needs and that never change: made once at load and bound as variables that no source can name.

use std::any::Any;
use std::str::FromStr;

use cel_interpreter::common::types::{CelDuration, CelList, CelTimestamp, Type};
use cel_interpreter::common::value::{StaticVal, Val};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

/// Largest compiled pattern.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;
/// Smaller ones count as large as this.
const MIN_PATTERN_BYTES: usize = 4 * 1024;
const BYTES_FOR_A_UNIT: usize = 2 * 1024;
/// What a pattern may keep in memory for each thread that uses it; with less it matches more slowly, not otherwise.
const MAX_CACHE_BYTES: usize = 128 * 1024;

pub(super) static PATTERN: Type = Type::new_unspecified_type("pattern");
pub(super) static NETWORK: Type = Type::new_unspecified_type("network");

/// The constants of one expression; the n-th is the variable `@n`.
#[derive(Debug, Default)]
pub(super) struct Constants(Vec<Box<dyn Val>>);

impl Constants {
    /// Adds a constant and returns the name of its variable.
    pub(super) fn add(&mut self, value: Box<dyn Val>) -> String {
        self.0.push(value);
        format!("@{}", self.0.len() - 1)
    }

    pub(super) fn get(&self, name: &str) -> Option<&dyn Val> {
        let index: usize = name.strip_prefix('@')?.parse().ok()?;
        self.0.get(index).map(Box::as_ref)
    }
}

/// A compiled regular expression.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) regex: Regex,
    /// Units of work for each byte that it is applied to: at worst every part of it is tried at every byte.
    pub(super) work: usize,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        // The library does not say how large a pattern is, only whether it is larger than a limit.
        let mut limit = MIN_PATTERN_BYTES;
        loop {
            match RegexBuilder::new(pattern).size_limit(limit).dfa_size_limit(MAX_CACHE_BYTES).build() {
                Ok(regex) => return Ok(Self { regex, work: limit / BYTES_FOR_A_UNIT }),
                Err(regex::Error::CompiledTooBig(_)) if limit < MAX_PATTERN_BYTES => limit *= 4,
                Err(regex::Error::CompiledTooBig(_)) => {
                    return Err(format!("the pattern is too large (limit {MAX_PATTERN_BYTES} bytes compiled)"));
                }
                // The library draws the pattern with a caret on several lines; its last line says what is wrong.
                Err(other) => return Err(other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()),
            }
        }
    }
}

/// An IP network, such as 10.0.0.0/8 or 2001:db8::/32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network(pub(super) IpNet);

impl Network {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let network = IpNet::from_str(text).map_err(|_| format!("`{text}` is no IP network; write it as 10.0.0.0/8 or 2001:db8::/32"))?;
        if network.addr() != network.network() {
            return Err(format!("`{text}` has bits set beyond its prefix; the network is {}", network.trunc()));
        }
        Ok(Self(network))
    }
}

macro_rules! constant_value {
    ($name:ident, $kind:ident) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                &$kind
            }

            fn cel_type() -> &'static Type {
                &$kind
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}
    };
}

constant_value!(Pattern, PATTERN);
constant_value!(Network, NETWORK);

pub(super) fn list(values: Vec<Box<dyn Val>>) -> Box<dyn Val> {
    Box::new(CelList::from(values))
}

/// A duration such as `1h30m`, `45m`, `-10s`, `1.5h`. Stricter than the engine, which takes `1h 30m` as one hour.
pub(super) fn duration(text: &str) -> Result<Box<dyn Val>, String> {
    const HOW: &str = "write a duration as 8h, 1h30m, 45m or 10s";
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if rest.is_empty() {
        return Err(HOW.to_owned());
    }
    let mut total = chrono::Duration::zero();
    while !rest.is_empty() && rest != "0" {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or(HOW)?;
        let (number, after) = rest.split_at_checked(number_end).ok_or(HOW)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end).ok_or(HOW)?;
        let nanoseconds = match unit {
            "h" => 3_600e9,
            "m" => 60e9,
            "s" => 1e9,
            "ms" => 1e6,
            "d" => return Err("there is no unit for days; write 24h".to_owned()),
            _ => return Err(HOW.to_owned()),
        };
        let amount: f64 = number.parse().map_err(|_| HOW)?;
        let nanoseconds = amount * nanoseconds;
        if nanoseconds > 9.0e18 {
            return Err("the duration is too long".to_owned());
        }
        #[allow(clippy::cast_possible_truncation, reason = "bounded above, and a fraction of a nanosecond is no loss")]
        let part = chrono::Duration::nanoseconds(nanoseconds as i64);
        total = total.checked_add(&part).filter(|sum| sum.num_nanoseconds().is_some()).ok_or("the duration is too long")?;
        rest = after;
    }
    Ok(Box::new(CelDuration::from(if negative { -total } else { total })))
}

/// A point in time as in RFC 3339.
pub(super) fn timestamp(text: &str) -> Result<Box<dyn Val>, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| "write a time as 2026-01-31T08:00:00Z".to_owned())?;
    Ok(Box::new(CelTimestamp::from(time)))
}
