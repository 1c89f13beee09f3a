//! `kubepass-server check-config FILE`: everything that `up` would refuse, said at once, without starting anything.

use std::io::Write;
use std::path::Path;

use crate::server::publisher::{LoadError, load_once};
use crate::snapshot::Snapshot;

/// The configuration is valid.
pub const GOOD: u8 = 0;
/// It has mistakes, or a file that it names cannot be read.
pub const BAD: u8 = 1;
/// The configuration file itself cannot be read.
pub const UNREADABLE: u8 = 2;

/// Checks the file with all that it names; writes one line to `out` when it is good, every mistake to `err` when it is not. Returns the
/// exit code.
pub fn check_config(file: &Path, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match load_once(file) {
        Ok(snapshot) => {
            // Nobody reads a closed pipe; the exit code still tells.
            let _ = writeln!(out, "{}", summary(file, &snapshot));
            GOOD
        }
        Err(error) => {
            let _ = writeln!(err, "{error}");
            if let LoadError::Invalid(errors) = &error {
                let _ = writeln!(err, "{}: {} mistake(s) found", file.display(), errors.0.len());
                return BAD;
            }
            UNREADABLE
        }
    }
}

fn summary(file: &Path, snapshot: &Snapshot) -> String {
    let config = snapshot.config();
    let certificates: usize = config.listeners.iter().map(|listener| listener.certificates.len()).sum();
    format!(
        "{}: good: {} listener(s), {certificates} certificate(s), {} identity provider(s), {} route(s), version {}",
        file.display(),
        config.listeners.len(),
        config.identity_providers.len(),
        config.routes.len(),
        snapshot.version()
    )
}
