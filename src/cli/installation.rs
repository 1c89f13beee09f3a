//! The wire between the CLI and a kubepass installation: JSON over HTTPS, tokens only in the `Authorization` header, no redirects followed.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::{Certificate, Proxy, StatusCode, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::address::{AddressError, InstallationAddress, RouteAddress};
use super::random::sha256_hex;
use super::token_cache::Token;

/// Whom to trust besides the system's roots, and by which way to go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transport {
    /// PEM bundles.
    pub(crate) ca_bundles: Vec<Vec<u8>>,
    /// From the kubeconfig's `proxy-url`; otherwise `HTTPS_PROXY` and `NO_PROXY` count.
    pub(crate) proxy: Option<String>,
}

/// Time for one connection, and for one whole exchange.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// No answer of the protocol comes near this many bytes.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the CA bundle holds no usable certificate: {0}")]
    CaBundle(String),
    #[error("the proxy URL cannot be used: {0}")]
    Proxy(String),
    #[error("cannot set up TLS: {0} (does this machine have CA certificates? otherwise give --ca-file)")]
    Tls(String),
    #[error("cannot reach {server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// The login has ended, or was never valid.
    #[error("the login has ended")]
    LoginEnded,
    #[error("{server} refused: {message}")]
    Refused { server: String, message: String },
    #[error("{server} is no kubepass route: {why}")]
    NoRoute { server: String, why: String },
    #[error("{server} is no cluster but a web page: open it in a browser")]
    NoCluster { server: String },
    #[error("{server} gave an answer that is not understood: {why}")]
    Malformed { server: String, why: String },
    #[error("the route names an address for its logins that cannot be used: {0}")]
    Address(#[from] AddressError),
}

/// `GET https://ROUTE_HOST/.kubepass/config`
#[derive(Deserialize)]
struct RouteConfiguration {
    public_url: String,
    host: String,
    /// Installations from before there were other kinds say nothing.
    #[serde(default)]
    kind: RouteKind,
}

/// What stands behind a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RouteKind {
    #[default]
    Kubernetes,
    Http,
    /// One that this CLI is too old for.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
pub(crate) struct LoginAnswer {
    pub(crate) login_token: Token,
    /// Seconds.
    pub(crate) expires_in: u64,
    pub(crate) user: String,
}

#[derive(Deserialize)]
pub(crate) struct SessionAnswer {
    pub(crate) session_token: Token,
    /// Unix seconds.
    pub(crate) expires_at: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RouteEntry {
    pub(crate) name: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) kind: RouteKind,
}

#[derive(Deserialize)]
struct Routes {
    routes: Vec<RouteEntry>,
}

/// RFC 6749, 5.2.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OAuthError {
    error: String,
    error_description: String,
}

/// The proof that belongs to one browser login.
pub(crate) struct CodeExchange<'a> {
    pub(crate) code: &'a str,
    pub(crate) code_verifier: &'a str,
    pub(crate) redirect_uri: &'a str,
}

/// The clients are made when they are first needed: kubectl calls for a cached token far more often than for a login, and the system's roots take
/// longer to read than all the rest of that call.
#[derive(Debug)]
pub(crate) struct Wire {
    certificates: Vec<Certificate>,
    proxy: Option<Proxy>,
    client: OnceLock<Client>,
    /// For addresses on this machine: a proxy could not reach them.
    direct: OnceLock<Client>,
    authorities: Vec<String>,
}

impl Wire {
    /// # Errors
    /// An unusable CA bundle or proxy.
    pub(crate) fn new(transport: &Transport) -> Result<Self, ProtocolError> {
        let mut certificates = Vec::new();
        for bundle in &transport.ca_bundles {
            let found = Certificate::from_pem_bundle(bundle).map_err(|error| ProtocolError::CaBundle(describe(&error)))?;
            if found.is_empty() {
                return Err(ProtocolError::CaBundle("no \"BEGIN CERTIFICATE\" in it".to_owned()));
            }
            certificates.extend(found);
        }
        let proxy = transport.proxy.as_ref().map(|proxy| Proxy::all(proxy).map_err(|error| ProtocolError::Proxy(describe(&error))));
        let authorities = transport.ca_bundles.iter().flat_map(|bundle| fingerprints(bundle)).collect();
        Ok(Self { certificates, proxy: proxy.transpose()?, client: OnceLock::new(), direct: OnceLock::new(), authorities })
    }

    /// Whom this wire trusts besides the system's roots: a fingerprint of each CA certificate.
    pub(crate) fn authorities(&self) -> &[String] {
        &self.authorities
    }

    /// The installation that a route belongs to.
    ///
    /// # Errors
    /// Also when the answer is for another host, and when a route behind TLS names logins without TLS.
    pub(crate) fn installation_of(&self, route: &RouteAddress) -> Result<InstallationAddress, ProtocolError> {
        self.route(route).map(|(installation, _)| installation)
    }

    /// As [`Self::installation_of`], and that the route is one for kubectl.
    ///
    /// # Errors
    /// Also when it is a web page's.
    pub(crate) fn check_cluster(&self, route: &RouteAddress) -> Result<(), ProtocolError> {
        match self.route(route)? {
            (_, RouteKind::Http) => Err(ProtocolError::NoCluster { server: route.to_string() }),
            (_, RouteKind::Kubernetes | RouteKind::Other) => Ok(()),
        }
    }

    fn route(&self, route: &RouteAddress) -> Result<(InstallationAddress, RouteKind), ProtocolError> {
        let server = route.to_string();
        let response = send(self.client(route.is_plain_http())?.get(route.configuration()), &server)?;
        let no_route = |why: &str| ProtocolError::NoRoute { server: server.clone(), why: why.to_owned() };
        if !response.status().is_success() {
            return Err(no_route(&format!("/.kubepass/config answered {}", response.status().as_u16())));
        }
        let configuration: RouteConfiguration = read(response, &server).map_err(|error| no_route(&error.to_string()))?;
        if !configuration.host.eq_ignore_ascii_case(route.host()) {
            return Err(no_route(&format!("it says that it is {:?}", configuration.host)));
        }
        let installation = InstallationAddress::parse(&configuration.public_url)?;
        if installation.is_plain_http() && !route.is_plain_http() {
            return Err(AddressError::NotHttps(configuration.public_url).into());
        }
        Ok((installation, configuration.kind))
    }

    pub(crate) fn exchange_code(
        &self,
        installation: &InstallationAddress,
        exchange: &CodeExchange<'_>,
    ) -> Result<LoginAnswer, ProtocolError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", exchange.code),
            ("code_verifier", exchange.code_verifier),
            ("redirect_uri", exchange.redirect_uri),
        ];
        self.call(installation, |client| client.post(installation.endpoint("/cli/token")).form(&form))
    }

    /// # Errors
    /// [`ProtocolError::LoginEnded`] when a new login may help.
    pub(crate) fn session_token(
        &self,
        installation: &InstallationAddress,
        login: &Token,
        route: &RouteAddress,
    ) -> Result<SessionAnswer, ProtocolError> {
        let form = [("host", route.host())];
        self.call(installation, |client| client.post(installation.endpoint("/cli/session-token")).bearer_auth(login.expose()).form(&form))
    }

    pub(crate) fn routes(&self, installation: &InstallationAddress, login: &Token) -> Result<Vec<RouteEntry>, ProtocolError> {
        let answer: Routes =
            self.call(installation, |client| client.get(installation.endpoint("/cli/routes")).bearer_auth(login.expose()))?;
        Ok(answer.routes)
    }

    /// Ends the session on the server; one that has ended already is no error.
    pub(crate) fn log_out(&self, installation: &InstallationAddress, login: &Token) -> Result<(), ProtocolError> {
        let server = installation.to_string();
        let client = self.client(installation.is_plain_http())?;
        let response = send(client.post(installation.endpoint("/cli/logout")).bearer_auth(login.expose()), &server)?;
        match refusal(response, &server) {
            Ok(_) | Err(ProtocolError::LoginEnded) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn call<T: DeserializeOwned>(
        &self,
        installation: &InstallationAddress,
        request: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<T, ProtocolError> {
        let server = installation.to_string();
        let response = send(request(self.client(installation.is_plain_http())?), &server)?;
        read(refusal(response, &server)?, &server)
    }

    /// # Errors
    /// No roots at all.
    fn client(&self, is_plain_http: bool) -> Result<&Client, ProtocolError> {
        let client = if is_plain_http { &self.direct } else { &self.client };
        if let Some(client) = client.get() {
            return Ok(client);
        }
        let builder = Client::builder()
            .user_agent(concat!("kubepass/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(EXCHANGE_TIMEOUT)
            .tls_certs_merge(self.certificates.clone());
        let builder = match &self.proxy {
            _ if is_plain_http => builder.no_proxy(),
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder,
        };
        let built = builder.build().map_err(|error| ProtocolError::Tls(describe(&error)))?;
        Ok(client.get_or_init(|| built))
    }
}

/// One for each certificate of a PEM bundle, whatever stands around it.
fn fingerprints(bundle: &[u8]) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(bundle);
    let bodies = text.split(BEGIN).skip(1).map(|rest| rest.split(END).next().unwrap_or(rest));
    bodies.map(|body| sha256_hex(&body.split_whitespace().collect::<String>())).collect()
}

fn send(request: RequestBuilder, server: &str) -> Result<Response, ProtocolError> {
    request
        .header("accept", "application/json")
        .send()
        .map_err(|error| ProtocolError::Unreachable { server: server.to_owned(), cause: describe(&error) })
}

/// The response when it is a success.
fn refusal(response: Response, server: &str) -> Result<Response, ProtocolError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status == StatusCode::UNAUTHORIZED {
        return Err(ProtocolError::LoginEnded);
    }
    let OAuthError { error, error_description } = read(response, server).unwrap_or_default();
    let message = [error_description, error].into_iter().find(|text| !text.is_empty());
    Err(ProtocolError::Refused { server: server.to_owned(), message: message.unwrap_or_else(|| format!("HTTP {}", status.as_u16())) })
}

fn read<T: DeserializeOwned>(response: Response, server: &str) -> Result<T, ProtocolError> {
    use std::io::Read;
    let malformed = |why: String| ProtocolError::Malformed { server: server.to_owned(), why };
    let mut body = Vec::new();
    response.take(MAX_ANSWER_BYTES).read_to_end(&mut body).map_err(|error| malformed(error.to_string()))?;
    // The parser's message would quote the answer, which may hold a token: only the place is told.
    serde_json::from_slice(&body)
        .map_err(|error| malformed(format!("not the expected JSON (line {}, column {})", error.line(), error.column())))
}

/// An error with its causes, without the URL.
fn describe(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    if error.is_timeout() {
        return format!("no answer within {} seconds", EXCHANGE_TIMEOUT.as_secs());
    }
    if text.contains("UnknownIssuer") {
        text.push_str(" (its CA is not known here: give --ca-file or KUBEPASS_CA_FILE)");
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_one_fingerprint_however_it_is_written() {
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n";
        let other = "-----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----";
        let both = format!("# comment\n{other}\r\n{}", one.replace('\n', "\r\n"));
        let (one, other) = (fingerprints(one.as_bytes()), fingerprints(other.as_bytes()));
        assert_eq!(fingerprints(both.as_bytes()), [other, one].concat());
        assert_eq!(fingerprints(b"none"), Vec::<String>::new());
    }
}
