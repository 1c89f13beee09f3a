//! What each command does.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::address::{AddressError, InstallationAddress, RouteAddress};
use super::arguments::{Arguments, Command, K8sCommand, KubeconfigArguments, Options};
use super::caller::Caller;
use super::credential::{CredentialError, Credentials};
use super::installation::{ProtocolError, Transport, Wire};
use super::kubeconfig::{self, Entry, KubeconfigError};
use super::kubeconfig_file;
use super::terminal::{printable, say};
use super::token_cache::{CacheError, CachedLogin, TokenCache};
use crate::kubernetes::exec_credential::{ENVIRONMENT_VARIABLE, ExecCredential, ExecInfo, ExecInfoError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot read the CA file {path}: {source}", path = path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("the cluster's certificate-authority-data is not base64")]
    CaData,
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
    let cache = TokenCache::of_user()?;
    let wire = Wire::new(&transport(options, &info)?)?;
    let session = with_credentials(options, &cache, &wire, |credentials| credentials.session(&route, Caller::current().as_ref()))?;
    let answer = ExecCredential::new(info.api_version, session.session_token.expose(), session.usable_until());
    print_line(&answer.to_json())
}

/// The cluster's own CA and proxy, as kubectl tells them, count for the login pages too: route and login pages are one installation.
fn transport(options: &Options, info: &ExecInfo) -> Result<Transport, CommandError> {
    let mut ca_bundles: Vec<Vec<u8>> = options.ca_file.as_deref().map(read_ca_file).transpose()?.into_iter().collect();
    let cluster = info.cluster.as_ref();
    if let Some(data) = cluster.and_then(|cluster| cluster.certificate_authority_data.as_deref()).filter(|data| !data.is_empty()) {
        ca_bundles.push(STANDARD.decode(data).map_err(|_| CommandError::CaData)?);
    }
    let proxy = cluster.and_then(|cluster| cluster.proxy_url.clone()).filter(|proxy| !proxy.is_empty());
    Ok(Transport { ca_bundles, proxy })
}

fn read_ca_file(path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path).map_err(|source| CommandError::CaFile { path: path.to_owned(), source })
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
    let (cache, wire) = (TokenCache::of_user()?, plain_wire(options)?);
    let (installation, route) = installation_and_route(&wire, url)?;
    let login = with_credentials(options, &cache, &wire, |credentials| credentials.log_in(&installation, route.as_ref()))?;
    say(&format!("Logged in to {installation} as {}.", login.user));
    Ok(())
}

fn plain_wire(options: &Options) -> Result<Wire, CommandError> {
    Ok(Wire::new(&transport(options, &ExecInfo::default())?)?)
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
    let (cache, wire) = (TokenCache::of_user()?, plain_wire(options)?);
    let logins = match url {
        None => cache.logins(),
        Some(url) => cache.login(&cached_installation(&cache, &wire, url)?).into_iter().collect(),
    };
    if logins.is_empty() {
        say("Not logged in.");
    }
    let mut failures = Vec::new();
    for login in logins {
        match end_session(&wire, &login) {
            Ok(()) => say(&format!("Logged out of {}.", login.installation)),
            Err(error) => failures.push(format!("the session at {} may still be open: {error}", login.installation)),
        }
        // Whatever the server says: who logs out wants no token left here.
        cache.forget_installation(&login.installation)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(CommandError::SomeFailed(failures.join("; "))) }
}

/// As the cache knows it, so that logging out works although the route is gone; else as the route says.
fn cached_installation(cache: &TokenCache, wire: &Wire, url: &str) -> Result<InstallationAddress, CommandError> {
    if let Some(session) = RouteAddress::parse(url).ok().and_then(|route| cache.session(&route)) {
        return Ok(InstallationAddress::parse(&session.installation)?);
    }
    match InstallationAddress::parse(url) {
        Ok(installation) if cache.login(&installation).is_some() => Ok(installation),
        _ => Ok(installation_and_route(wire, url)?.0),
    }
}

fn end_session(wire: &Wire, login: &CachedLogin) -> Result<(), CommandError> {
    let installation = InstallationAddress::parse(&login.installation)?;
    Ok(wire.log_out(&installation, &login.login_token)?)
}

/// One line for each route: name and URL, parted by a tab.
fn routes(options: &Options) -> Result<(), CommandError> {
    let (cache, wire) = (TokenCache::of_user()?, plain_wire(options)?);
    let logins = cache.logins();
    if logins.is_empty() {
        return Err(CommandError::NotLoggedIn);
    }
    let mut failures = Vec::new();
    for login in logins {
        let installation = InstallationAddress::parse(&login.installation)?;
        match wire.routes(&installation, &login.login_token) {
            Ok(routes) => {
                for route in routes {
                    print_line(&format!("{}\t{}", printable(&route.name), printable(&route.url)))?;
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
    let ca = options.ca_file.as_deref().map(read_ca_file).transpose()?;
    warn_unless_route(options, &route);
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

/// A typing error is better found here than by kubectl; but the file can be written without a network too.
fn warn_unless_route(options: &Options, route: &RouteAddress) {
    let checked = plain_wire(options).and_then(|wire| Ok(wire.installation_of(route)?));
    if let Err(error) = checked {
        say(&format!("Warning: {error}"));
    }
}

fn print_line(line: &str) -> Result<(), CommandError> {
    writeln!(io::stdout().lock(), "{line}").map_err(CommandError::Output)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
