//! `routes[].http`: a web server behind a route, and how it learns who the user is.

use url::Url;

use super::certificate;
use super::error::At;
use super::kubernetes_target::plain_host;
use super::model::{HttpTarget, HttpTls, ServerAddress};
use super::names::{host_fault, quote};
use super::reader::{Item, Reading};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use super::service::origin;

pub(super) const DEFAULT_IDENTITY_HEADER: &str = "x-kubepass-jwt-assertion";
const MAX_HEADER_BYTES: usize = 64;
const MAX_AUDIENCE_BYTES: usize = 256;

/// Headers that mean something to Envoy, to HTTP itself or to the identity of other routes.
const TAKEN_HEADERS: [&str; 26] = [
    "accept",
    "accept-encoding",
    "audit-id",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-request-id",
];
/// `x-kubepass-` is ours, but for the header's own default name: what stands there is removed from requests before they are judged.
const TAKEN_PREFIXES: [&str; 7] = ["impersonate-", "sec-", "x-envoy-", "x-forwarded-", "x-original-", "x-real-", "x-kubepass-"];

#[derive(Debug)]
pub(super) struct HttpDraft {
    pub(super) upstream: Option<At<String>>,
    ca: Option<At<Reference>>,
    server_name: Option<At<String>>,
    identity_header: Option<At<String>>,
    pub(super) audience: Option<At<String>>,
    websocket: bool,
}

impl HttpDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let upstream = section.required("upstream", reading).and_then(|item| item.text(reading));
        let ca = section.optional("ca").map(|item| reference::read_public(&item, reading));
        let server_name = section.optional("server_name").and_then(|item| item.text(reading));
        let identity_header = section.optional("identity_header").and_then(|item| item.text(reading));
        let audience = section.optional("audience").and_then(|item| item.text(reading));
        let websocket = section.optional("websocket").and_then(|item| item.boolean(reading));
        section.finish(reading);
        let ca = match ca {
            Some(written) => written,
            None => upstream.as_ref().filter(|url| is_https(url)).map(|url| reference::system_roots(&url.spot, reading)),
        };
        Some(Self { upstream, ca, server_name, identity_header, audience, websocket: websocket.unwrap_or(false) })
    }

    pub(super) fn ca(&self) -> Option<&Reference> {
        self.ca.as_ref().map(|ca| &ca.value)
    }

    /// `host` is the route's.
    pub(super) fn resolve(&self, host: Option<&str>, resolving: &mut Resolving<'_>) -> Option<HttpTarget> {
        let upstream = self.resolve_upstream(resolving);
        let tls = self.resolve_tls(resolving);
        let identity_header = self.resolve_identity_header(resolving);
        let audience = match &self.audience {
            Some(audience) => resolve_audience(audience, resolving),
            None => host.map(default_audience),
        };
        Some(HttpTarget {
            upstream: upstream?,
            tls: tls?,
            identity_header: identity_header?,
            audience: audience?,
            websocket: self.websocket,
        })
    }

    fn resolve_upstream(&self, resolving: &mut Resolving<'_>) -> Option<ServerAddress> {
        const HINT: &str = "write the server's address, for example http://10.0.0.9:8080 or https://wiki.internal";
        let (url, host) = origin(self.upstream.as_ref()?, &["https", "http"], HINT, resolving)?;
        let host = plain_host(&url).filter(|_| !host.is_empty())?;
        let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
        if !is_address(&host)
            && let Some(fault) = host_fault(&host)
            && let Some(written) = &self.upstream
        {
            resolving.faults.add_with_hint(&written.spot, format!("the host {} {fault}", quote(&host)), HINT);
            return None;
        }
        if let Some(name) = &self.server_name
            && !is_address(&name.value)
            && let Some(fault) = host_fault(&name.value)
        {
            resolving.faults.add(&name.spot, format!("{} {fault}", quote(&name.value)));
            return None;
        }
        let server_name = self.server_name.as_ref().map_or_else(|| host.clone(), |name| name.value.clone());
        Some(ServerAddress { host, port: url.port_or_known_default()?, server_name })
    }

    /// The inner `None` for an upstream without TLS.
    fn resolve_tls(&self, resolving: &mut Resolving<'_>) -> Option<Option<HttpTls>> {
        let upstream = self.upstream.as_ref()?;
        if is_https(upstream) {
            let ca_pem = certificate::resolve_bundle(self.ca.as_ref()?, resolving)?;
            return Some(Some(HttpTls { ca_pem }));
        }
        let ca = self.ca.as_ref().map(|ca| ("ca", &ca.spot));
        let name = self.server_name.as_ref().map(|name| ("server_name", &name.spot));
        for (key, spot) in ca.into_iter().chain(name) {
            let hint = "write the upstream's address with https://, or leave the key out";
            resolving.faults.add_with_hint(spot, format!("`{key}` is for TLS, and the upstream is reached without"), hint);
        }
        Some(None)
    }

    fn resolve_identity_header(&self, resolving: &mut Resolving<'_>) -> Option<String> {
        let Some(written) = &self.identity_header else { return Some(DEFAULT_IDENTITY_HEADER.to_owned()) };
        let name = written.value.to_ascii_lowercase();
        let is_name =
            !name.is_empty() && name.len() <= MAX_HEADER_BYTES && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_taken = name != DEFAULT_IDENTITY_HEADER
            && (TAKEN_HEADERS.contains(&name.as_str()) || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        if is_name && !is_taken {
            return Some(name);
        }
        let fault = if is_name { "is a header with another meaning" } else { "is not a header's name" };
        let hint = "letters, digits and `-`, for example X-Kubepass-Jwt-Assertion";
        resolving.faults.add_with_hint(&written.spot, format!("{} {fault}", quote(&written.value)), hint);
        None
    }
}

/// What an upstream expects in `aud` unless the configuration says otherwise.
pub(super) fn default_audience(host: &str) -> String {
    format!("https://{host}")
}

fn is_https(upstream: &At<String>) -> bool {
    Url::parse(&upstream.value).is_ok_and(|url| url.scheme() == "https")
}

fn resolve_audience(audience: &At<String>, resolving: &mut Resolving<'_>) -> Option<String> {
    let text = &audience.value;
    let valid = !text.is_empty() && text.len() <= MAX_AUDIENCE_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !valid {
        let hint = format!("at most {MAX_AUDIENCE_BYTES} visible ASCII characters, for example https://wiki.example.com");
        resolving.faults.add_with_hint(&audience.spot, format!("{} cannot be an audience", quote(text)), hint);
        return None;
    }
    Some(text.clone())
}
