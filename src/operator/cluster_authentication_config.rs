//! `kubepass-server cluster authentication-config ROUTE`: what the API server behind a JWT route has to be given so that it takes the tokens that kubepass
//! signs. Prints only; applying it is for someone who is an administrator of that cluster.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use url::Url;

use crate::config::{Config, Jwt, KubernetesTarget, Method, Route, Target};
use crate::kubernetes::authentication_configuration::{ApiVersion, AuthenticationInput, authentication_configuration, merge};
use crate::server::publisher::load_before_tokens;

use super::route_named;

/// Of a file that is read whole.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What the command line says besides the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub route: String,
    /// `v1` where it is not given and no file is merged.
    pub api_version: Option<ApiVersion>,
    pub discovery_url: Option<String>,
    pub discovery_ca: Option<PathBuf>,
    pub merge: Option<PathBuf>,
}

/// The configuration as YAML, comments first.
///
/// # Errors
/// A text for the operator: a configuration that is not valid, an unknown route, one that impersonates, a file that cannot be kept right.
pub fn run(config: &Path, options: &Options) -> Result<String, String> {
    let snapshot = load_before_tokens(config).map_err(|error| error.to_string())?;
    let route = route_named(&snapshot, &options.route)?;
    let issuer = snapshot.config().public_url.origin();
    let discovery_url = options.discovery_url.as_deref().map(|url| checked_discovery_url(url, issuer)).transpose()?;
    let certificate_authority = options.discovery_ca.as_deref().map(certificates).transpose()?;
    let mut input = input(snapshot.config(), route, issuer)?;
    input.discovery_url = discovery_url.as_deref();
    input.certificate_authority = certificate_authority.as_deref();
    match &options.merge {
        None => Ok(authentication_configuration(&input, options.api_version.unwrap_or(ApiVersion::V1))),
        Some(file) => merge(&input, options.api_version, &read(file)?).map_err(|error| format!("{} {error}", file.display())),
    }
}

/// One entry for all routes that lead to the API server of `route`: a second one with the same issuer would make it refuse the file.
fn input<'a>(config: &'a Config, route: &'a Route, issuer: &'a str) -> Result<AuthenticationInput<'a>, String> {
    let (asked, _) = jwt(route).ok_or_else(|| {
        format!(
            "route {:?} does not sign tokens for its API server; `kubepass-server cluster rbac {}` prints what a route that impersonates needs",
            route.name, route.name
        )
    })?;
    let same_server = |(_, target, _): &(&Route, &KubernetesTarget, &Jwt)| {
        (&target.server.host, target.server.port) == (&asked.server.host, asked.server.port)
    };
    let all = config.routes.iter().filter_map(|route| jwt(route).map(|(target, jwt)| (route.as_ref(), target, jwt))).filter(same_server);
    let mut input = AuthenticationInput { issuer, ..AuthenticationInput::default() };
    for (route, target, jwt) in all {
        input.routes.push(&route.name);
        add(&mut input.audiences, std::iter::once(&jwt.audience));
        input.longest_seconds = input.longest_seconds.max(jwt.lifetime_seconds);
        input.uid |= jwt.uid.is_some();
        add(&mut input.extra_keys, jwt.extra.iter().map(|(key, _)| key));
        add(&mut input.allow_system, &target.allow_system);
    }
    Ok(input)
}

fn jwt(route: &Route) -> Option<(&KubernetesTarget, &Jwt)> {
    match &route.target {
        Target::Kubernetes(target @ KubernetesTarget { method: Method::Jwt(jwt), .. }) => Some((target, jwt)),
        _ => None,
    }
}

fn add<'a>(list: &mut Vec<&'a str>, names: impl IntoIterator<Item = &'a String>) {
    for name in names {
        if !list.contains(&name.as_str()) {
            list.push(name);
        }
    }
}

/// What an API server takes as a `discoveryURL`: the address of the document itself.
fn checked_discovery_url(written: &str, issuer: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("--discovery-url {written:?} {why}"));
    let Ok(url) = Url::parse(written) else { return refuse("is no URL") };
    if url.scheme() != "https" {
        return refuse("is not https; an API server takes nothing else");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return refuse("must not hold a user, a password, a query or a fragment");
    }
    if written.trim_end_matches('/') == issuer || url.path().ends_with('/') {
        return refuse("must name the document itself, for example https://keys.internal/.well-known/openid-configuration");
    }
    Ok(written.to_owned())
}

/// The certificates of a PEM file and nothing else of it: the result is meant to be copied about.
fn certificates(file: &Path) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("{} {why}", file.display()));
    let text = read(file)?;
    let mut pem = String::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) if x509_parser::parse_x509_certificate(&CertificateDer::from(der.clone())).is_ok() => {
                pem.push_str(&certificate_pem(&der));
            }
            Ok((SectionKind::Certificate, _)) => return refuse("holds a certificate that cannot be read"),
            Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => {
                return refuse("holds a private key; only certificates may stand there");
            }
            Ok(_) => {}
            Err(_) => return refuse("is not valid PEM"),
        }
    }
    if pem.is_empty() { refuse("holds no certificate") } else { Ok(pem) }
}

/// RFC 7468: lines of 64 characters.
fn certificate_pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn read(file: &Path) -> Result<String, String> {
    let refuse = |why: String| format!("{} cannot be read: {why}", file.display());
    let length = std::fs::metadata(file).map_err(|error| refuse(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(refuse(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))
}
