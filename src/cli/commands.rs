//! What each command does.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::address::{AddressError, InstallationAddress, RouteAddress};
use super::arguments::{Arguments, Command, K8sCommand, KubeconfigArguments, Options};
use super::caller::Caller;
use super::credential::{CredentialError, Credentials};
use super::installation::{ProtocolError, RouteKind, Transport, Wire};
use super::kubeconfig::{self, Entry, KubeconfigError};
use super::kubeconfig_file;
use super::terminal::{printable, say};
use super::token_cache::{CacheError, CachedLogin, TokenCache};
use super::trust::{Told, TrustError};
use crate::kubernetes::exec_credential::{ENVIRONMENT_VARIABLE, ExecCredential, ExecInfo, ExecInfoError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    ExecInfo(#[from] ExecInfoError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("not logged in; run: kubepass login URL")]
    NotLoggedIn,
    #[error("{0}")]
    SomeFailed(String),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let options = &arguments.options;
    match &arguments.command {
        Command::K8s(K8sCommand::ExecCredential { url }) => exec_credential(options, url),
        Command::K8s(K8sCommand::FlushCredentials { url }) => flush_credentials(url.as_deref()),
        Command::Login { url } => log_in(options, url),
        Command::Logout { url } => log_out(options, url.as_deref()),
        Command::Routes => routes(options),
        Command::Kubeconfig(arguments) => write_kubeconfig(options, arguments),
    }
}

fn exec_credential(options: &Options, url: &str) -> Result<(), CommandError> {
    let info = ExecInfo::parse(std::env::var(ENVIRONMENT_VARIABLE).ok().as_deref())?;
    let route = RouteAddress::parse(url)?;
    let (cache, told) = (TokenCache::of_user()?, Told::new(options.ca_file.as_deref(), &info)?);
    let wire = Wire::new(&told.transport(&cache, &route.to_string()))?;
    let session = with_credentials(options, &cache, &wire, |credentials| credentials.session(&route, Caller::current().as_ref()))?;
    remember(&told, &cache, Some(&route), &session.installation)?;
    let answer = ExecCredential::new(info.api_version, session.session_token.expose(), session.usable_until());
    print_line(&answer.to_json())
}

/// To be called when the installation has vouched for the route: a route alone must not choose the CA of an installation.
fn remember(told: &Told, cache: &TokenCache, route: Option<&RouteAddress>, installation: &str) -> Result<(), CacheError> {
    told.remember(cache, installation)?;
    route.map_or(Ok(()), |route| told.remember(cache, &route.to_string()))
}

fn with_credentials<T>(
    options: &Options,
    cache: &TokenCache,
    wire: &Wire,
    act: impl FnOnce(&Credentials<'_>) -> Result<T, CredentialError>,
) -> Result<T, CommandError> {
    let browser = options.browser();
    let open = |url: &str| browser.open(url);
    Ok(act(&Credentials { cache, wire, open: &open, timeout: options.timeout, clock: &unix_now })?)
}

fn flush_credentials(url: Option<&str>) -> Result<(), CommandError> {
    let cache = TokenCache::of_user()?;
    let Some(url) = url else {
        return Ok(cache.forget_all()?);
    };
    let route = RouteAddress::parse(url)?;
    if let Some(session) = cache.session(&route) {
        cache.forget_installation(&session.installation)?;
    }
    Ok(cache.forget_route(&route)?)
}

fn log_in(options: &Options, url: &str) -> Result<(), CommandError> {
    let (cache, told) = (TokenCache::of_user()?, told(options)?);
    let wire = Wire::new(&told.transport(&cache, &InstallationAddress::parse(url)?.to_string()))?;
    let (installation, route) = installation_and_route(&wire, url)?;
    let login = with_credentials(options, &cache, &wire, |credentials| credentials.log_in(&installation, route.as_ref()))?;
    Ok(remember(&told, &cache, route.as_ref(), &login.installation)?)
}

fn told(options: &Options) -> Result<Told, TrustError> {
    Told::new(options.ca_file.as_deref(), &ExecInfo::default())
}

/// A URL that is no route is taken for the installation's own address, since it is the user who gave it.
fn installation_and_route(wire: &Wire, url: &str) -> Result<(InstallationAddress, Option<RouteAddress>), CommandError> {
    if let Ok(route) = RouteAddress::parse(url) {
        match wire.installation_of(&route) {
            Ok(installation) => return Ok((installation, Some(route))),
            Err(ProtocolError::NoRoute { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((InstallationAddress::parse(url)?, None))
}

fn log_out(options: &Options, url: Option<&str>) -> Result<(), CommandError> {
    let (cache, told) = (TokenCache::of_user()?, told(options)?);
    let logins = match url {
        None => cache.logins(),
        Some(url) => cache.login(&cached_installation(&cache, &told, url)?).into_iter().collect(),
    };
    if logins.is_empty() {
        say("Not logged in.");
    }
    let mut failures = Vec::new();
    for login in logins {
        match end_session(&cache, &told, &login) {
            Ok(()) => say(&format!("Logged out of {}.", login.installation)),
            // Without the login token nobody could end the session later.
            Err(error) => failures.push(format!(
                "the session at {} may still be open, so its login is kept here: {error} (to forget it all the same: kubepass k8s flush-credentials)",
                login.installation
            )),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(CommandError::SomeFailed(failures.join("; "))) }
}

/// As the cache knows it, so that logging out works although the route is gone; else as the route says.
fn cached_installation(cache: &TokenCache, told: &Told, url: &str) -> Result<InstallationAddress, CommandError> {
    if let Some(session) = RouteAddress::parse(url).ok().and_then(|route| cache.session(&route)) {
        return Ok(InstallationAddress::parse(&session.installation)?);
    }
    let address = InstallationAddress::parse(url)?;
    if cache.login(&address).is_some() {
        return Ok(address);
    }
    Ok(installation_and_route(&Wire::new(&told.transport(cache, &address.to_string()))?, url)?.0)
}

fn end_session(cache: &TokenCache, told: &Told, login: &CachedLogin) -> Result<(), CommandError> {
    let installation = InstallationAddress::parse(&login.installation)?;
    Wire::new(&told.transport(cache, &login.installation))?.log_out(&installation, &login.login_token)?;
    Ok(cache.forget_installation(&login.installation)?)
}

/// One line for each route: name and URL, and of what is for a browser that it is; parted by tabs.
fn routes(options: &Options) -> Result<(), CommandError> {
    let (cache, told) = (TokenCache::of_user()?, told(options)?);
    let logins = cache.logins();
    if logins.is_empty() {
        return Err(CommandError::NotLoggedIn);
    }
    let mut failures = Vec::new();
    for login in logins {
        let installation = InstallationAddress::parse(&login.installation)?;
        let wire = Wire::new(&told.transport(&cache, &login.installation));
        match wire.and_then(|wire| wire.routes(&installation, &login.login_token)) {
            Ok(routes) => {
                for route in routes {
                    let kind = if route.kind == RouteKind::Http { "\tweb page" } else { "" };
                    print_line(&format!("{}\t{}{kind}", printable(&route.name), printable(&route.url)))?;
                }
            }
            Err(ProtocolError::LoginEnded) => failures.push(format!("the login has ended; run: kubepass login {installation}")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(CommandError::SomeFailed(failures.join("; "))) }
}

fn write_kubeconfig(options: &Options, arguments: &KubeconfigArguments) -> Result<(), CommandError> {
    let route = RouteAddress::parse(&arguments.url)?;
    let ca = kubeconfig_ca(&TokenCache::of_user()?, &told(options)?, &route)?;
    let name = arguments.name.clone().unwrap_or_else(|| route.host().to_owned());
    let entry = Entry {
        name: &name,
        server: &route.to_string(),
        certificate_authority_data: ca.map(|pem| STANDARD.encode(pem)),
        command: kubeconfig_file::plugin_command(),
        set_current_context: !arguments.keep_current_context,
    };
    if arguments.stdout {
        let text = kubeconfig::merge(None, &entry)?;
        return io::stdout().lock().write_all(text.as_bytes()).map_err(CommandError::Output);
    }
    let path = match &arguments.kubeconfig {
        Some(path) => path.clone(),
        None => kubeconfig_file::default_path()?,
    };
    kubeconfig_file::update(&path, &entry)?;
    say(&format!("Wrote context {name:?} to {}.", path.display()));
    Ok(())
}

/// The CA that kubectl needs for the route: the one that was given, or the remembered one where the system's roots do not do. Warns when the
/// route does not answer as one: a typing error is better found here than by kubectl; but the file can be written without a network too.
fn kubeconfig_ca(cache: &TokenCache, told: &Told, route: &RouteAddress) -> Result<Option<Vec<u8>>, CommandError> {
    let joined = |transport: Transport| (!transport.ca_bundles.is_empty()).then(|| transport.ca_bundles.join(&b"\n"[..]));
    let (as_told, remembered) = (told.transport_as_told(), told.transport(cache, &route.to_string()));
    let answer = Wire::new(&as_told)?.check_cluster(route);
    if answer.is_err() && as_told.ca_bundles.is_empty() && Wire::new(&remembered)?.check_cluster(route).is_ok() {
        return Ok(joined(remembered));
    }
    match answer {
        Err(error @ (ProtocolError::NoCluster { .. } | ProtocolError::Tls(_))) => return Err(error.into()),
        Ok(()) => told.remember(cache, &route.to_string())?,
        Err(error) => say(&format!("Warning: {error}")),
    }
    Ok(joined(as_told))
}

fn print_line(line: &str) -> Result<(), CommandError> {
    writeln!(io::stdout().lock(), "{line}").map_err(CommandError::Output)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
