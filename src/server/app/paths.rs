//! Looks, before anything is opened, at the places that kubepass writes to and at the credentials that it reads besides the configuration's own:
//! whether others could read them, or put something of theirs in their place. Envoy asks whoever listens at a socket, and a store of
//! yesterday would bring back who was logged out.

use std::path::{Path, PathBuf};

use crate::config::{AuditSink, Config, StoreSettings};
use crate::server::file_modes::{self, Replaceable};

/// A place that others could read or replace, under `strict_file_modes`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}, which `strict_file_modes` forbids", place.display())]
pub struct Unsafe {
    place: PathBuf,
    why: String,
}

/// Warns of what others could do, each place once.
///
/// # Errors
/// The first such place, where the configuration is strict.
pub(super) fn check(config: &Config) -> Result<(), Unsafe> {
    let StoreSettings::Embedded { path: store } = &config.sessions.store;
    let kubeconfig = config.cluster_source.as_ref().and_then(|source| source.kubeconfig.as_deref());
    let secret = [Some(store.as_path()), kubeconfig];
    let mut found: Vec<Unsafe> = secret.into_iter().flatten().filter_map(read_by_others).collect();
    let sinks = config.audit.sinks.iter().map(|AuditSink::File { path }| path.as_path());
    let written = [config.control_plane.socket_dir.as_path(), config.admin.socket.as_path(), store].into_iter();
    for path in written.chain(sinks).chain(kubeconfig) {
        for Replaceable { place, why } in file_modes::replaceable(path).unwrap_or_else(|error| vec![unseen(path, &error)]) {
            if found.iter().all(|known| known.place != place) {
                found.push(Unsafe { place, why });
            }
        }
    }
    if config.strict_file_modes {
        return found.into_iter().next().map_or(Ok(()), Err);
    }
    for Unsafe { place, why } in found {
        tracing::warn!(place = %place.display(), why, "config.place_open_to_others");
    }
    Ok(())
}

/// One that is not there is made private, or is missed where it is read.
fn read_by_others(path: &Path) -> Option<Unsafe> {
    let why = file_modes::exposed(&std::fs::metadata(path).ok()?)?;
    Some(Unsafe { place: path.to_owned(), why })
}

fn unseen(path: &Path, error: &std::io::Error) -> Replaceable {
    Replaceable { place: path.to_owned(), why: format!("the way there cannot be looked at ({error})") }
}
