//! Attacks on log-ins: an attacker who wants to be somebody else, to have somebody be the attacker, or to be told what is for somebody else. What the
//! attacker holds in the end is tried where it would count: at the login pages, and at the real API servers.

mod browsers;
mod pages;
mod pomerium;
mod programs;
mod providers;
mod rogue;
mod stage;

use crate::attack::Attack;

pub(super) const BROWSERS: &[Attack] = browsers::ATTACKS;
pub(super) const PAGES: &[Attack] = pages::ATTACKS;
pub(super) const PROGRAMS: &[Attack] = programs::ATTACKS;
/// The last: from here on the installation has other identity providers besides.
pub(super) const PROVIDERS: &[Attack] = providers::ATTACKS;
pub(super) const POMERIUM: &[Attack] = pomerium::ATTACKS;
