//! The verbs of `kubepass-server`: parse the command line, call one function, choose the exit code.

pub mod bootstrap;
pub mod check_config;
pub mod check_envoy;
pub mod cluster_authentication_config;
pub mod cluster_rbac;
pub mod cluster_source_rbac;
pub mod keys;
pub mod policy_explain;
pub mod session;
pub mod up;
pub mod xds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Route;
use crate::kubernetes::authentication_configuration::ApiVersion;
use crate::server::app::WhichEnvoy;
use crate::server::cluster_source::crds;
use crate::server::telemetry::{self, LogFormat};
use crate::server::{clock, own_process, publisher};
use crate::snapshot::Snapshot;
use crate::token::SigningAlgorithm;
use crate::xds::bootstrap::NodeName;
use crate::xds::resource::TypeUrl;

/// Identity-aware access proxy for Kubernetes API servers.
#[derive(Debug, Parser)]
#[command(name = "kubepass-server", version, about, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the control plane and an Envoy that it starts and supervises.
    Up(UpArgs),
    /// Run the control plane alone; Envoys that others start connect to it (see `bootstrap`).
    Serve(ServeArgs),
    /// Check a configuration: exit code 0 good, 1 bad, 2 unreadable.
    CheckConfig {
        /// Otherwise that of `--config`.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Judge the configuration of an Envoy that you wrote yourself: exit code 0 nothing found, 1 findings, 2 unreadable.
    CheckEnvoy {
        /// A bootstrap or a saved `/config_dump?include_eds`, or a running Envoy's admin interface: `http://127.0.0.1:PORT`, `unix:PATH`.
        #[arg(value_name = "FILE|URL")]
        source: String,
    },
    /// Print kubepass's custom resource definitions: `kubepass-server crds | kubectl apply -f -`.
    Crds,
    /// Print what an Envoy that you run yourself starts from: beside kubepass, or elsewhere over mutual TLS.
    Bootstrap(BootstrapArgs),
    /// What to apply on a cluster.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// The key pairs with which tokens for API servers and plain HTTP routes are signed.
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Ask the policy.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// The sessions of a running kubepass.
    #[command(subcommand)]
    Session(SessionVerb),
    /// What Envoys have of the configuration, and what they are given.
    #[command(subcommand)]
    Xds(XdsVerb),
    /// What a running kubepass has in force: configuration, Envoy, identity providers, audit trail.
    State(RunningArg),
}

#[derive(Debug, Clone, Args)]
struct ConfigArg {
    /// The configuration file.
    #[arg(long, env = "KUBEPASS_CONFIG", default_value = "/etc/kubepass/kubepass.yaml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Clone, Args)]
struct RunningArg {
    #[command(flatten)]
    config: ConfigArg,
    /// The admin socket; otherwise the one that the configuration names.
    #[arg(long, env = "KUBEPASS_ADMIN_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl AuthenticationConfigArgs {
    fn of_route(self, route: String) -> cluster_authentication_config::Options {
        let api_version = self.api_version.map(|version| match version {
            ApiVersionArg::V1 => ApiVersion::V1,
            ApiVersionArg::V1beta1 => ApiVersion::V1beta1,
        });
        let Self { discovery_url, discovery_ca, merge, .. } = self;
        cluster_authentication_config::Options { route, api_version, discovery_url, discovery_ca, merge }
    }
}

impl From<RunningArg> for session::Running {
    fn from(RunningArg { config, socket }: RunningArg) -> Self {
        Self { config: config.config, socket }
    }
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The Envoy binary; otherwise `envoy` on PATH.
    #[arg(long, env = "KUBEPASS_ENVOY", value_name = "FILE")]
    envoy: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct BootstrapArgs {
    /// The Envoy's name, one of `nodes` where the configuration has them: lower-case letters, digits and `-`.
    #[arg(long, value_name = "NAME")]
    node: NodeName,
    /// The folder of sockets; otherwise the one that the configuration names.
    #[arg(long, value_name = "DIR")]
    socket_dir: Option<PathBuf>,
    /// Where the Envoy reaches kubepass; otherwise `control_plane.tls.host`. The certificate must carry it.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Where the Envoy has its `tls.crt` and `tls.key`, and the CA of kubepass's certificate, `ca.crt`.
    #[arg(long, value_name = "DIR", default_value = "/etc/kubepass/node")]
    tls_dir: PathBuf,
    /// A folder for the Envoy's admin socket.
    #[arg(long, value_name = "DIR", default_value = "/run/kubepass-envoy")]
    run_dir: PathBuf,
    /// Write `bootstrap.yaml` into this folder, with two files by which the Envoy follows renewed certificates; it reads all three there.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct LogArgs {
    #[arg(long, env = "KUBEPASS_LOG_FORMAT", value_enum, default_value = "human")]
    log_format: LogFormat,
    /// What to log, for example `info` or `kubepass=debug`.
    #[arg(long, env = "KUBEPASS_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum ClusterVerb {
    /// Print the service account and the permissions that kubepass needs on the cluster of a route, and the token command.
    Rbac {
        route: String,
        /// Constrained impersonation (KEP-5284; Kubernetes 1.36 and later): caps what a stolen token can do.
        #[arg(long)]
        constrained: bool,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Print the service account and the permissions that kubepass needs on the API server of `cluster_source`, no more.
    SourceRbac {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Print what the API server of a route that signs tokens (`jwt`) needs: its `--authentication-config`.
    AuthenticationConfig {
        route: String,
        #[command(flatten)]
        options: AuthenticationConfigArgs,
        #[command(flatten)]
        config: ConfigArg,
    },
}

#[derive(Debug, Args)]
struct AuthenticationConfigArgs {
    /// `v1` for Kubernetes 1.34 and later, `v1beta1` from 1.30; otherwise that of the merged file, or v1.
    #[arg(long, value_enum, value_name = "VERSION")]
    api_version: Option<ApiVersionArg>,
    /// Where the API server finds the discovery document, when not at `public_url`: see `keys publish`.
    #[arg(long, value_name = "URL")]
    discovery_url: Option<String>,
    /// CA certificates (PEM) for the server of the discovery document and the keys; otherwise the API server's machine must trust it.
    #[arg(long, value_name = "FILE")]
    discovery_ca: Option<PathBuf>,
    /// An `AuthenticationConfiguration` that the API server has already: print it with kubepass added, or with kubepass's entry replaced.
    #[arg(long, value_name = "FILE")]
    merge: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ApiVersionArg {
    V1,
    V1beta1,
}

#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Write a new private key to a new file (0600).
    Generate {
        file: PathBuf,
        /// ES256, ES384, RS256 or PS256.
        #[arg(long, default_value = "ES256")]
        algorithm: SigningAlgorithm,
    },
    /// Print the published keys: which one signs, which wait, which leave. Asks the kubepass that runs; otherwise reads its store.
    List(RunningArg),
    /// Write discovery document and JWKS as static files, for an HTTPS server that API servers reach.
    Publish {
        /// The root of that server.
        folder: PathBuf,
        /// How API servers reach it; otherwise `public_url`.
        #[arg(long, value_name = "URL")]
        base_url: Option<String>,
        #[command(flatten)]
        running: RunningArg,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Print the decision on a request and, rule by rule, why.
    Explain {
        #[arg(long)]
        route: String,
        #[arg(long)]
        user: String,
        /// Otherwise the user's name, when it looks like an address.
        #[arg(long)]
        email: Option<String>,
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// `get pods -n web`, `exec web-0 -n web`, `delete deployment/web`, or a path such as `/api/v1/pods`.
        #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "REQUEST")]
        request: Vec<String>,
        #[command(flatten)]
        config: ConfigArg,
    },
}

#[derive(Debug, Subcommand)]
enum XdsVerb {
    /// The connected Envoys: for each type what it should have and has, how long it took, and why not.
    Status(RunningArg),
    /// What a configuration file would change for Envoys, and whether open connections would drain.
    Diff {
        /// The new configuration; the one in force is that of `--config`.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// What an Envoy is given by a running kubepass, as JSON in the form of Envoy's config dump, without secrets.
    Dump {
        /// A node of the configuration, or the id of a connected Envoy; where the configuration has no nodes, all are given the same.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Only this type.
        #[arg(long = "type", value_name = "TYPE", value_parser = TypeUrl::ALL.map(TypeUrl::short_name))]
        kind: Option<String>,
        /// Only resources whose names contain this.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        running: RunningArg,
    },
}

#[derive(Debug, Subcommand)]
enum SessionVerb {
    /// Print the live sessions.
    List {
        /// Only those of this user.
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        running: RunningArg,
    },
    /// End sessions: refused at the next request.
    Revoke {
        /// A session's id.
        #[arg(required_unless_present = "user")]
        id: Option<String>,
        /// All sessions of this user.
        #[arg(long, conflicts_with = "id")]
        user: Option<String>,
        #[command(flatten)]
        running: RunningArg,
    },
}

/// Runs the verb that the command line names.
pub fn main() -> ExitCode {
    if let Err(error) = own_process::keep_memory_private() {
        return complain(&format!("core files cannot be forbidden: {error}"));
    }
    match CommandLine::parse().verb {
        Verb::Up(args) => run(&args.config, WhichEnvoy::Managed(args.envoy), &args.log),
        Verb::Serve(args) => run(&args.config, WhichEnvoy::Others, &args.log),
        Verb::CheckConfig { file, config } => {
            let file = file.unwrap_or(config.config);
            ExitCode::from(check_config::check_config(&file, &mut std::io::stdout(), &mut std::io::stderr()))
        }
        Verb::CheckEnvoy { source } => ExitCode::from(check_envoy::check_envoy(&source, &mut std::io::stdout(), &mut std::io::stderr())),
        Verb::Bootstrap(BootstrapArgs { node, socket_dir, host, tls_dir, run_dir, write, config }) => {
            let options = bootstrap::Options { node, socket_dir, host, tls_dir, run_dir, write };
            print(bootstrap::run(&config.config, &options))
        }
        Verb::Crds => print(crds::yaml()),
        Verb::Cluster(ClusterVerb::Rbac { route, constrained, config }) => print(cluster_rbac::run(&config.config, &route, constrained)),
        Verb::Cluster(ClusterVerb::SourceRbac { config }) => print(cluster_source_rbac::run(&config.config)),
        Verb::Keys(KeysVerb::Generate { file, algorithm }) => print(keys::generate(&file, algorithm)),
        Verb::Keys(KeysVerb::List(running)) => print(keys::list(&running.into())),
        Verb::Keys(KeysVerb::Publish { folder, base_url, running }) => print(keys::publish(&running.into(), &folder, base_url.as_deref())),
        Verb::Cluster(ClusterVerb::AuthenticationConfig { route, options, config }) => {
            print(cluster_authentication_config::run(&config.config, &options.of_route(route)))
        }
        Verb::Policy(PolicyVerb::Explain { route, user, email, groups, request, config }) => {
            print(explain(&config.config, &route, &user, email.as_deref(), &groups, &request))
        }
        Verb::Session(SessionVerb::List { user, running }) => print(session::list(&running.into(), user.as_deref())),
        Verb::Session(SessionVerb::Revoke { id, user, running }) => print(session::revoke(&running.into(), id.as_deref(), user.as_deref())),
        Verb::Xds(XdsVerb::Status(running)) => print(xds::status(&running.into())),
        Verb::Xds(XdsVerb::Diff { file, config }) => print(xds::diff(&config.config, &file)),
        Verb::Xds(XdsVerb::Dump { node, kind, name, running }) => print(xds::dump(&running.into(), xds::Wanted { node, kind, name })),
        Verb::State(running) => print(session::state(&running.into())),
    }
}

fn explain(config: &Path, route: &str, user: &str, email: Option<&str>, groups: &[String], request: &[String]) -> Result<String, String> {
    let snapshot = publisher::load_before_tokens(config).map_err(|error| error.to_string())?;
    // One quoted argument or several: both are what a person would write.
    let words: Vec<&str> = request.iter().flat_map(|argument| argument.split_whitespace()).collect();
    let question = policy_explain::Question {
        route,
        user,
        email,
        groups,
        claims: serde_json::Map::new(),
        idp: None,
        source_ip: "127.0.0.1",
        session_age: 0,
        words: &words,
    };
    policy_explain::explain(&snapshot, &question, clock::unix_now()).map(|explanation| explanation.text)
}

fn run(config: &ConfigArg, envoy: WhichEnvoy, log: &LogArgs) -> ExitCode {
    if let Err(error) = telemetry::install(log.log_format, &log.log) {
        return complain(&error);
    }
    match up::run(&config.config, envoy) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The route that a verb is about.
///
/// # Errors
/// A text that names the routes that there are.
fn route_named<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Route, String> {
    snapshot.route(name).map(AsRef::as_ref).ok_or_else(|| {
        let mut names: Vec<&str> = snapshot.config().routes.iter().map(|route| route.name.as_str()).collect();
        names.sort_unstable();
        format!("there is no route {name:?}; there are: {}", names.join(", "))
    })
}

#[expect(clippy::print_stdout, reason = "the verb's result is its output")]
fn print(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error),
    }
}

#[expect(clippy::print_stderr, reason = "a command line tells what went wrong on standard error")]
fn complain(error: &str) -> ExitCode {
    eprintln!("kubepass-server: {error}");
    ExitCode::FAILURE
}
