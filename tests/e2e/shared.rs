//! One installation for all stories that do not change it. It ends with the test binary.

use std::sync::{Mutex, MutexGuard, OnceLock};

use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::{Method, World, WorldOptions};

/// The shared installation, with one cluster for each method ([`super::rows`]). Stories that change its configuration start their own instead.
pub(super) fn world() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| Mutex::new(own_world("e2e", WorldOptions { staging: Method::Jwt, ..WorldOptions::default() })));
    // A story that failed left the installation as it was: the others still tell something.
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A story's own installation.
pub(super) fn own_world(name: &str, options: WorldOptions) -> World {
    World::start(Tools::ensure(), Run::new(name), options)
}
