//! How much work the expressions of one decision may take, all together. A rule may be written by whoever may write Routes of one namespace, and a
//! request of any other waits while it is evaluated: so none may take for ever.
//!
//! Work is counted, in units of about 100 ns, by what is looked through; no clock is read, so that a request that was allowed once is not
//! refused when the machine is busy.

use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::resume_unwind;

/// About a tenth of a second.
const UNITS: u64 = 1_000_000;

thread_local! {
    /// `None` while nothing is evaluated.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// While it lives, all that is evaluated in this thread shares what may be spent.
#[derive(Debug)]
pub struct Allowance {
    is_outermost: bool,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

/// What unwinds the engine, which has no other way to be stopped: its loops go on after an error.
#[derive(Debug)]
pub(super) struct Spent;

impl Allowance {
    /// A new one; or, inside of another, a share of that.
    #[must_use]
    pub fn begin() -> Self {
        let is_outermost = LEFT.get().is_none();
        if is_outermost {
            LEFT.set(Some(UNITS));
        }
        Self { is_outermost, thread: PhantomData }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if self.is_outermost {
            LEFT.set(None);
        }
    }
}

pub(super) fn is_spent() -> bool {
    LEFT.get() == Some(0)
}

/// Whether that much is allowed still; it is taken.
pub(super) fn take(units: u64) -> bool {
    let Some(left) = LEFT.get() else { return true };
    let left = left.saturating_sub(units);
    LEFT.set(Some(left));
    left > 0
}

/// For what the engine calls: ends the evaluation when that much is not allowed.
pub(super) fn spend(units: u64) {
    if !take(units) {
        resume_unwind(Box::new(Spent));
    }
}

/// To look at a text once or twice.
pub(super) fn of_text(text: &str) -> u64 {
    units(text.len(), 64)
}

/// To look for something in a list, or to make its elements.
pub(super) fn of_list(length: usize) -> u64 {
    units(length, 8)
}

/// To apply a pattern to a text, with so many units for each byte.
pub(super) fn of_pattern(text: &str, for_a_byte: usize) -> u64 {
    units(text.len().saturating_mul(for_a_byte), 1)
}

fn units(count: usize, in_a_unit: u64) -> u64 {
    u64::try_from(count).map_or(u64::MAX, |count| count / in_a_unit)
}
