//! `up` and `serve`: the control plane, with an Envoy that it starts or without, until a signal or the failure of a part.

use std::path::Path;

use crate::server::app::{App, Options, WhichEnvoy};
use crate::server::lifecycle;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A text for the operator: why it does not start, or which part failed.
pub fn run(config: &Path, envoy: WhichEnvoy) -> Result<(), String> {
    #[cfg(debug_assertions)]
    turn_defences_off()?;
    // Another provider can only be there in a test process; any will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Two at least: who waits for a disk that hangs must not hold up everybody else.
    let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(|error| error.to_string())?;
    let options = Options { config: config.to_owned(), envoy };
    runtime.block_on(async {
        let app = App::start(&options).await.map_err(|error| error.to_string())?;
        let stop = async {
            match lifecycle::stop_signal().await {
                Ok(signal) => tracing::info!(signal, "draining"),
                Err(error) => tracing::error!(%error, "signals cannot be received; draining"),
            }
        };
        app.run_until(stop).await.map_err(|failure| failure.to_string())
    })
}

/// For the security suite, which shows by it what gets through without a defence. No release build has it.
#[cfg(debug_assertions)]
fn turn_defences_off() -> Result<(), String> {
    const VARIABLE: &str = "KUBEPASS_TEST_DEFENCES_OFF";
    let Some(names) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let off = crate::defence::turn_off(&names.to_string_lossy()).map_err(|error| format!("{VARIABLE}: {error}"))?;
    if !off.is_empty() {
        tracing::error!(?off, "DEFENCES ARE TURNED OFF: whoever reaches this kubepass may be anybody; it is for its own tests alone");
    }
    Ok(())
}
