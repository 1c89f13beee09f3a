//! All attacks, by what they go against.

mod behind;
mod control_plane;
mod credentials;
mod headers;
mod hop_by_hop;
mod hostile_upstream;
mod hosts;
mod http2;
mod impersonation;
mod leaks;
mod login_attacks;
mod login_steps;
mod logins;
mod logs;
mod methods;
mod names;
mod pages;
mod parts;
mod paths;
mod policy;
mod random;
mod sessions;
mod smuggling;
mod the_check;
mod upgrades;

use super::attack::Attack;

/// In the order in which they are made.
const ALL: &[&[Attack]] = &[
    impersonation::ATTACKS,
    hop_by_hop::ATTACKS,
    headers::ATTACKS,
    credentials::ATTACKS,
    leaks::ATTACKS,
    paths::ATTACKS,
    methods::ATTACKS,
    policy::ATTACKS,
    hosts::ATTACKS,
    smuggling::ATTACKS,
    upgrades::ATTACKS,
    http2::ATTACKS,
    hostile_upstream::ATTACKS,
    sessions::ATTACKS,
    names::ATTACKS,
    logs::ATTACKS,
    control_plane::ATTACKS,
    random::ATTACKS,
    the_check::ATTACKS,
    behind::ATTACKS,
    pages::ATTACKS,
    logins::ATTACKS,
    parts::ATTACKS,
    login_attacks::BROWSERS,
    login_attacks::PAGES,
    login_attacks::PROGRAMS,
    login_attacks::PROVIDERS,
    login_attacks::POMERIUM,
];

pub(super) fn all() -> impl Iterator<Item = Attack> {
    ALL.iter().flat_map(|family| family.iter().copied())
}
