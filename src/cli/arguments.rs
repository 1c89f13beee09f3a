//! The command line of `kubepass`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::browser::Browser;

/// Log in to Kubernetes clusters behind kubepass.
#[derive(Debug, Parser)]
#[command(name = "kubepass", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Trust the certificates in this PEM file as well as the system's; remembered for the address once it has worked.
    #[arg(long, global = true, env = "KUBEPASS_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Open login pages with this program; it gets the URL as its last argument.
    #[arg(long, global = true, env = "KUBEPASS_BROWSER_CMD", value_name = "COMMAND")]
    browser_cmd: Option<String>,
    /// Only print the URL of the login page.
    #[arg(long, global = true)]
    no_browser: bool,
    /// Give up after this time, for example 90s or 5m.
    #[arg(long, global = true, default_value = "3m", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

impl Options {
    pub(crate) fn browser(&self) -> Browser {
        match (self.no_browser, self.browser_cmd.as_deref().map(str::trim)) {
            (true, _) => Browser::None,
            (false, Some(command)) if !command.is_empty() => Browser::Command(command.to_owned()),
            (false, _) => Browser::Default,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What kubectl runs.
    #[command(subcommand)]
    K8s(K8sCommand),
    /// Log in, in the browser.
    Login {
        /// A route (https://prod.k8s.example.com) or the installation's own address.
        url: String,
    },
    /// End the session on the server and forget its tokens.
    Logout {
        /// A route or the installation's own address; all installations when left out.
        url: Option<String>,
    },
    /// List the routes that you may use, in all installations that you are logged in to.
    Routes,
    /// Write cluster, user and context for a route into the kubeconfig.
    Kubeconfig(KubeconfigArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum K8sCommand {
    /// Print an ExecCredential for a route; logs in when needed.
    ExecCredential {
        /// The route, for example https://prod.k8s.example.com.
        url: String,
    },
    /// Forget tokens on this machine; the session on the server goes on (see logout).
    FlushCredentials {
        /// Only what belongs to this route.
        url: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KubeconfigArguments {
    /// The route, for example https://prod.k8s.example.com.
    pub(crate) url: String,
    /// Name of the context, the cluster and the user [default: the route's host].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The file to write [default: as kubectl chooses it: KUBECONFIG, then ~/.kube/config].
    #[arg(long, value_name = "FILE", conflicts_with = "stdout")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Print a kubeconfig with this route alone and write nothing.
    #[arg(long)]
    pub(crate) stdout: bool,
    /// Leave the current context as it is.
    #[arg(long)]
    pub(crate) keep_current_context: bool,
}

/// Longest wait that may be asked for.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Whole seconds, or a number with `s` or `m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).map(Duration::from_secs);
    let in_range = seconds.filter(|seconds| !seconds.is_zero() && *seconds <= MAX_WAIT);
    in_range.ok_or_else(|| "expected a time such as 90s or 5m, at most 24 hours".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, seconds) in
            [("90", Some(90)), ("90s", Some(90)), ("3m", Some(180)), ("0", None), ("-1", None), ("1h", None), ("1441m", None)]
        {
            assert_eq!(parse_duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
        for text in ["18446744073709551615m", "", "m"] {
            parse_duration(text).unwrap_err();
        }
    }

    #[test]
    fn options_may_stand_after_the_command() {
        let arguments = Arguments::parse_from(["kubepass", "k8s", "exec-credential", "https://x", "--no-browser", "--browser-cmd", "x"]);
        assert_eq!(arguments.options.browser(), Browser::None);
        assert!(matches!(arguments.command, Command::K8s(K8sCommand::ExecCredential { url }) if url == "https://x"));
    }
}
