//! Addresses that the CLI talks to: a route (where kubectl sends its requests) and an installation (where its user logs in).
//!
//! A session token is asked for the host that the user named, never for the one that a server named: otherwise a hostile host could have
//! itself handed another cluster's token.

use std::fmt;

use url::{Host, Url};

/// A route's address, as it stands in the kubeconfig: scheme, host, port; nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteAddress {
    url: Url,
}

/// Where the login pages are: `public_url` of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstallationAddress {
    url: Url,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("{0:?} is not a URL; expected one like https://prod.k8s.example.com")]
    NotAUrl(String),
    #[error("{0:?} must begin with https:// (plain http:// only to 127.0.0.1)")]
    NotHttps(String),
    /// Not shown: it may hold a password.
    #[error("the URL must hold no user name, password, query or fragment")]
    Superfluous,
    #[error("{0:?} must be the address of the cluster alone, without a path")]
    Path(String),
}

impl RouteAddress {
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let url = parse(text)?;
        if url.path() != "/" {
            return Err(AddressError::Path(text.to_owned()));
        }
        Ok(Self { url })
    }

    /// Lower case, without port: the audience of a session token.
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    pub(crate) fn is_plain_http(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// Where a route tells its installation.
    pub(crate) fn configuration(&self) -> String {
        format!("{self}/.kubepass/config")
    }
}

impl InstallationAddress {
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        Ok(Self { url: parse(text)? })
    }

    pub(crate) fn is_plain_http(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// `path` begins with a slash.
    pub(crate) fn endpoint(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for RouteAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Display for InstallationAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

/// Plain HTTP only to this machine itself, by address: names can be made to point elsewhere.
fn parse(text: &str) -> Result<Url, AddressError> {
    let url = Url::parse(text.trim()).map_err(|_| AddressError::NotAUrl(text.to_owned()))?;
    let is_loopback = matches!(url.host(), Some(Host::Ipv4(address)) if address == std::net::Ipv4Addr::LOCALHOST);
    match url.scheme() {
        "https" if url.host().is_some() => {}
        "http" if is_loopback => {}
        "http" | "https" => return Err(AddressError::NotHttps(text.to_owned())),
        _ => return Err(AddressError::NotAUrl(text.to_owned())),
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(AddressError::Superfluous);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn routes() {
        let route = RouteAddress::parse("https://Prod.K8s.Example.com:443/").unwrap();
        assert_eq!((route.host(), route.to_string().as_str()), ("prod.k8s.example.com", "https://prod.k8s.example.com"));
        let route = RouteAddress::parse("https://prod.example.com:6443").unwrap();
        assert_eq!((route.host(), route.configuration().as_str()), ("prod.example.com", "https://prod.example.com:6443/.kubepass/config"));
        RouteAddress::parse("http://127.0.0.1:8080").unwrap();
        for text in [
            "prod.example.com",
            "http://prod.example.com",
            "http://localhost:1",
            "http://127.0.0.1.example.com",
            "http://127.0.0.2",
            "ftp://x",
            "https://u@x",
            "https://u:p@x",
            "https://x/?a",
            "https://x/#a",
            "https://x/api",
            "",
        ] {
            RouteAddress::parse(text).unwrap_err();
        }
    }

    #[test]
    fn installations() {
        let installation = InstallationAddress::parse("https://pass.example.com/").unwrap();
        assert_eq!(installation.endpoint("/cli/token"), "https://pass.example.com/cli/token");
        InstallationAddress::parse("http://pass.example.com").unwrap_err();
        InstallationAddress::parse("javascript:alert(1)").unwrap_err();
    }
}
