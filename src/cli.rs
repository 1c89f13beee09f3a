//! The user commands of `kubepass`: log in, be kubectl's credential plugin, write a kubeconfig.
//!
//! Standard output holds only what a program reads (an `ExecCredential`, a kubeconfig, a list of routes); everything for people goes to
//! standard error. Tokens are never printed but in an `ExecCredential`.

mod address;
mod arguments;
mod browser;
mod caller;
mod commands;
mod credential;
mod installation;
mod kubeconfig;
mod kubeconfig_file;
mod login;
mod loopback;
mod private_file;
mod random;
mod terminal;
mod token_cache;
mod trust;

use std::process::ExitCode;

use clap::Parser;

pub use token_cache::understood as understood_cache_file;

/// Runs the command that the process' arguments name.
pub fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    // Fails only when one is installed already, which is as good.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match commands::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(&format!("kubepass: {error}"));
            ExitCode::FAILURE
        }
    }
}
