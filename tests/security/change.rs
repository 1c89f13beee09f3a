//! The installation with another configuration, for as long as an attack needs it.

use std::time::Duration;

use super::scene::Scene;
use super::support::wait::{eventually, eventually_ok};
use super::support::world::World;

/// Files are seen within two seconds; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `act` under `config`, once kubepass has taken it and `in_force` holds, and takes it back afterwards, also when `act` fails.
pub(super) fn with_config<T>(scene: &Scene, config: &str, in_force: impl Fn() -> bool, act: impl FnOnce() -> T) -> T {
    let before = scene.config();
    let back = Back { world: &scene.world, config: &before, version: version(&scene.world) };
    write(&scene.world, config);
    eventually("the changed configuration is in force", PATIENCE, || in_force().then_some(()));
    let result = act();
    drop(back);
    result
}

/// The configuration from before, in force again when it is dropped.
struct Back<'a> {
    world: &'a World,
    config: &'a str,
    version: Vec<String>,
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.world.write_config(self.config);
        if !std::thread::panicking() {
            eventually("the configuration from before is in force", PATIENCE, || (version(self.world) == self.version).then_some(()));
        }
    }
}

fn write(world: &World, config: &str) {
    let before = version(world);
    world.write_config(config);
    eventually_ok("kubepass takes the changed configuration", PATIENCE, || {
        if version(world) == before { Err(world.operator(&["state"]).ok()) } else { Ok(()) }
    });
}

fn version(world: &World) -> Vec<String> {
    world.metric(&["kubepass_config_info{"])
}
