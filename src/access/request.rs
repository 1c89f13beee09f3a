//! `AccessRequest`: a request as the client sent it, read once and classified. Everything odd becomes a `Malformed`, never a guess.

use crate::access::cookies::Cookies;
use crate::access::provenance::{Provenance, ProvenanceHeader};
use crate::defence::{Defence, off};
use crate::envoy_names as names;
use crate::kubernetes::impersonation;
use crate::snapshot::NodeView;

/// Sent by WebSocket clients that cannot set headers; kube-apiserver takes it as a bearer token
/// (k8s.io/apiserver `pkg/authentication/request/websocket`).
const WEBSOCKET_BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Put before the token by pomerium-cli.
const POMERIUM_PREFIX: &str = "Pomerium-";

/// What a `connection` header may name. Anything else could ask a hop behind us to drop our identity headers (RFC 9110 7.6.1; CVE-2021-31999).
const CONNECTION_TOKENS: [&str; 3] = ["upgrade", "keep-alive", "close"];

/// A request, borrowed from the message that carried it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRequest<'a> {
    /// The Envoy that asks: what its connection shows, never what the message says.
    pub node: &'a NodeView,
    pub request_id: &'a str,
    pub target: RequestTarget<'a>,
    pub method: &'a str,
    /// Path with query, as it goes upstream.
    pub path: &'a str,
    pub host: &'a str,
    /// The server name that the TLS connection was opened with; empty when the client sent none.
    pub sni: &'a str,
    pub source_ip: &'a str,
    pub headers: RequestHeaders<'a>,
}

impl AccessRequest<'_> {
    /// Whether the request came over a connection that was opened for its host. A client that names one host to TLS and another in the request
    /// passes every rule that looks at the server name (a firewall's, another proxy's), and a browser may put a request for one cluster on
    /// the connection of another (RFC 9113, 9.1.1).
    pub fn is_directed(&self) -> bool {
        if off(Defence::HostCheck) {
            return true;
        }
        let host = without_port(self.host);
        if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
            // RFC 6066, 3: an address is never sent as a server name.
            return self.sni.is_empty();
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        !host.is_empty() && self.sni.strip_suffix('.').unwrap_or(self.sni).eq_ignore_ascii_case(host)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// What Envoy's route says that the request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestTarget<'a> {
    /// kubepass's own pages and token endpoints.
    Web,
    /// A Kubernetes route, by its id (`Route::id`).
    Kubernetes(&'a str),
    /// A plain HTTP route, by its id.
    Http(&'a str),
    /// Envoy named no target or one that we do not know: its configuration is not ours.
    Unknown,
}

impl<'a> RequestTarget<'a> {
    /// Reads the `target` of the route's context extensions.
    pub fn parse(text: &'a str) -> Self {
        match (names::kubernetes_id(text), names::http_id(text)) {
            (Some(id), _) => Self::Kubernetes(id),
            (None, Some(id)) => Self::Http(id),
            (None, None) if text == names::WEB_TARGET => Self::Web,
            (None, None) => Self::Unknown,
        }
    }
}

/// The headers that a decision reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHeaders<'a> {
    pub credential: Credential<'a>,
    /// A credential on plain HTTP routes only.
    pub cookies: Cookies<'a>,
    /// Which page made the request, where a browser says so.
    pub provenance: Provenance<'a>,
    pub user_agent: &'a str,
    pub accepts_html: bool,
    /// The aggregated discovery of client-go, which shows nothing of a refusal that is JSON: see `ext_authz::convert::refuse`.
    pub accepts_discovery: bool,
    /// The first `impersonate-*` name that the client sent.
    pub impersonates: Option<&'a str>,
    pub size: HeaderSize,
    pub malformed: Option<Malformed>,
}

/// What headers take of the room that Envoy has for them, the lines that Envoy itself adds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderSize {
    pub lines: usize,
    pub bytes: usize,
}

impl HeaderSize {
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len());
    }

    /// Whether Envoy has room for both.
    pub fn fits_with(self, added: Self) -> bool {
        let (lines, bytes) = (self.lines.saturating_add(added.lines), self.bytes.saturating_add(added.bytes));
        lines <= names::MAX_HEADERS as usize && bytes <= names::MAX_HEADER_BYTES as usize
    }
}

/// What the client shows to say who it is. `Debug` never prints it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Credential<'a> {
    #[default]
    None,
    Bearer(&'a str),
    /// A session token in pomerium-cli's form.
    PomeriumBearer(&'a str),
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer(..)",
            Self::PomeriumBearer(_) => "PomeriumBearer(..)",
        })
    }
}

/// Why a request cannot be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the request has several authorization headers")]
    SeveralAuthorizations,
    #[error("the authorization header is not a single bearer token")]
    NotABearer,
    #[error("a bearer token in sec-websocket-protocol is not accepted; send it in the authorization header")]
    WebSocketBearer,
    #[error("the connection header names other headers, which could remove them on the way")]
    ConnectionNomination,
    #[error("a header that matters for the decision is not text")]
    NotText,
    #[error("the message from Envoy lacks the request's attributes")]
    MissingAttributes,
}

impl<'a> RequestHeaders<'a> {
    /// All of them at once: see [`HeaderReading`].
    pub fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut reading = HeaderReading::default();
        headers.for_each(|(name, value)| reading.add(name, value));
        reading.finish()
    }

    /// Headers that count for nothing but why.
    pub fn malformed(malformed: Malformed) -> Self {
        Self { malformed: Some(malformed), ..Self::default() }
    }

    fn refuse(&mut self, malformed: Malformed) {
        self.malformed.get_or_insert(malformed);
    }
}

/// Headers as they come, one after the other. Every value of every header is read; names are compared without case. Order does not matter and
/// nothing is taken from a second value.
#[derive(Debug, Clone, Default)]
pub struct HeaderReading<'a> {
    read: RequestHeaders<'a>,
    authorizations: usize,
}

impl<'a> HeaderReading<'a> {
    pub fn add(&mut self, name: &'a str, value: &'a [u8]) {
        let read = &mut self.read;
        read.size.add(name, value);
        if has_prefix(name, impersonation::PREFIX) {
            read.impersonates.get_or_insert(name);
            return;
        }
        match Interesting::of(name) {
            Some(Interesting::Authorization) => {
                self.authorizations += 1;
                match credential(value) {
                    Ok(found) => read.credential = found,
                    Err(malformed) => read.refuse(malformed),
                }
            }
            Some(Interesting::Connection) if !only_usual_connection_tokens(value) && !off(Defence::ConnectionRefusal) => {
                read.refuse(Malformed::ConnectionNomination);
            }
            Some(Interesting::WebSocketProtocol) if names_bearer(value) && !off(Defence::WebSocketBearer) => {
                read.refuse(Malformed::WebSocketBearer);
            }
            Some(Interesting::Accept) => {
                read.accepts_html |= contains(value, b"text/html");
                read.accepts_discovery |= contains(value, b"g=apidiscovery.k8s.io");
            }
            Some(Interesting::Cookie) => read.cookies.add(value),
            Some(Interesting::Provenance(header)) => read.provenance.note(header, value),
            Some(Interesting::UserAgent) => read.user_agent = std::str::from_utf8(value).unwrap_or(""),
            _ => {}
        }
    }

    pub fn finish(self) -> RequestHeaders<'a> {
        let Self { mut read, authorizations } = self;
        if authorizations > 1 && !off(Defence::SingleAuthorization) {
            read.refuse(Malformed::SeveralAuthorizations);
        }
        if read.malformed.is_some() {
            read.credential = Credential::None;
            read.cookies = Cookies::default();
        }
        read
    }
}

enum Interesting {
    Authorization,
    Connection,
    Cookie,
    Provenance(ProvenanceHeader),
    WebSocketProtocol,
    Accept,
    UserAgent,
}

impl Interesting {
    fn of(name: &str) -> Option<Self> {
        // By length first: of some twenty headers only a few are compared.
        match name.len() {
            6 if name.eq_ignore_ascii_case("accept") => Some(Self::Accept),
            6 if name.eq_ignore_ascii_case("cookie") => Some(Self::Cookie),
            6 | 7 | 14 => ProvenanceHeader::of(name).map(Self::Provenance),
            10 if name.eq_ignore_ascii_case("connection") => Some(Self::Connection),
            10 if name.eq_ignore_ascii_case("user-agent") => Some(Self::UserAgent),
            13 if name.eq_ignore_ascii_case("authorization") => Some(Self::Authorization),
            22 if name.eq_ignore_ascii_case("sec-websocket-protocol") => Some(Self::WebSocketProtocol),
            _ => None,
        }
    }
}

fn credential(value: &[u8]) -> Result<Credential<'_>, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed::NotText)?;
    let (scheme, token) = text.split_once(' ').ok_or(Malformed::NotABearer)?;
    // Envoy joins lines of this name.
    let token = if off(Defence::SingleAuthorization) { token.split(',').next().unwrap_or_default() } else { token };
    // RFC 6750 2.1: the token68 alphabet; a comma or blank would be a second credential.
    let is_token = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    if !scheme.eq_ignore_ascii_case("bearer") || !is_token {
        return Err(Malformed::NotABearer);
    }
    Ok(match token.strip_prefix(POMERIUM_PREFIX) {
        Some(token) => Credential::PomeriumBearer(token),
        None => Credential::Bearer(token),
    })
}

fn only_usual_connection_tokens(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').all(|token| {
        let token = token.trim_ascii();
        token.is_empty() || CONNECTION_TOKENS.iter().any(|usual| token.eq_ignore_ascii_case(usual.as_bytes()))
    })
}

/// Anywhere in it: around a protocol the API server cuts off blanks that are none to others (U+00A0, U+0085).
fn names_bearer(value: &[u8]) -> bool {
    contains(value, WEBSOCKET_BEARER_PREFIX.as_bytes())
}

fn contains(value: &[u8], wanted: &[u8]) -> bool {
    value.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(headers: &[(&'a str, &'a str)]) -> RequestHeaders<'a> {
        RequestHeaders::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[track_caller]
    fn check_malformed(headers: &[(&str, &str)], expected: Option<Malformed>) {
        let read = read(headers);
        assert_eq!(read.malformed, expected, "{headers:?}");
        if expected.is_some() {
            assert_eq!(read.credential, Credential::None, "a malformed request must show no credential: {headers:?}");
        }
    }

    #[test]
    fn one_bearer_is_the_credential_whatever_the_case_of_its_scheme() {
        for value in ["Bearer abc.def-_", "bearer abc.def-_", "BEARER abc.def-_"] {
            assert_eq!(read(&[("authorization", value)]).credential, Credential::Bearer("abc.def-_"));
        }
        assert_eq!(read(&[("Authorization", "Bearer Pomerium-abc")]).credential, Credential::PomeriumBearer("abc"));
        assert_eq!(read(&[]).credential, Credential::None);
    }

    #[test]
    fn what_is_accepted_says_who_asks() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        for (accept, html, discovery) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", true, false),
            ("TEXT/HTML", true, false),
            (kubectl, false, true),
            ("application/json, */*", false, false),
            ("", false, false),
        ] {
            let read = read(&[("accept", accept)]);
            assert_eq!((read.accepts_html, read.accepts_discovery), (html, discovery), "{accept}");
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_malformed() {
        check_malformed(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], Some(Malformed::SeveralAuthorizations));
        check_malformed(&[("authorization", "Bearer a"), ("Authorization", "Bearer a")], Some(Malformed::SeveralAuthorizations));
        for value in ["Bearer a, Bearer b", "Bearer  a", "Bearer a ", "Bearer", "Bearer ", "Basic YTpi", "", "Bearer a\tb", "Bearer é"] {
            check_malformed(&[("authorization", value)], Some(Malformed::NotABearer));
        }
        check_malformed(
            &[("sec-websocket-protocol", "v5.channel.k8s.io, Base64url.Bearer.authorization.k8s.io.QQ")],
            Some(Malformed::WebSocketBearer),
        );
        check_malformed(
            &[("sec-websocket-protocol", "v5.channel.k8s.io"), ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.QQ")],
            Some(Malformed::WebSocketBearer),
        );
        for blank in ["\u{a0}", "\u{85}", "\u{3000}", "\t", "x"] {
            let protocols = format!("v5.channel.k8s.io,{blank}base64url.bearer.authorization.k8s.io.QQ{blank}");
            check_malformed(&[("sec-websocket-protocol", &protocols)], Some(Malformed::WebSocketBearer));
        }
        check_malformed(&[("connection", "Upgrade, Impersonate-User")], Some(Malformed::ConnectionNomination));
        check_malformed(&[("connection", "close"), ("connection", "authorization")], Some(Malformed::ConnectionNomination));
    }

    #[test]
    fn usual_headers_are_not_malformed() {
        check_malformed(&[("connection", "Upgrade")], None);
        check_malformed(&[("connection", "keep-alive, Upgrade")], None);
        check_malformed(&[("sec-websocket-protocol", "v5.channel.k8s.io"), ("accept", "application/json")], None);
    }

    #[test]
    fn impersonation_of_any_kind_and_case_is_seen() {
        for name in ["impersonate-user", "Impersonate-Group", "IMPERSONATE-UID", "impersonate-extra-x", "impersonate-"] {
            assert_eq!(read(&[("accept", "*/*"), (name, "x")]).impersonates, Some(name));
        }
        assert_eq!(read(&[("impersonat", "x"), ("x-impersonate-user", "x")]).impersonates, None);
    }

    #[test]
    fn bytes_that_are_no_text_end_in_a_value() {
        let bytes: &[u8] = &[0x42, 0xff, 0x20, 0xfe];
        let read = RequestHeaders::read([("authorization", bytes), ("user-agent", bytes)].into_iter());
        assert_eq!((read.malformed, read.user_agent), (Some(Malformed::NotText), ""));
    }

    #[track_caller]
    fn check_directed(sni: &str, host: &str, expected: bool) {
        let request = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: "",
            target: RequestTarget::Web,
            method: "GET",
            path: "/",
            host,
            sni,
            source_ip: "",
            headers: RequestHeaders::default(),
        };
        assert_eq!(request.is_directed(), expected, "server name {sni:?}, host {host:?}");
    }

    #[test]
    fn the_server_name_must_be_the_host() {
        for host in ["a.example", "A.Example", "a.example:443", "a.example:8443", "a.example.", "a.example.:443"] {
            check_directed("a.example", host, true);
            check_directed("A.EXAMPLE.", host, true);
            check_directed("", host, false);
            check_directed("b.example", host, false);
            check_directed("x.a.example", host, false);
        }
        for host in ["", ":443", ".", "a.example:443:443", "a.example:x", "a.example..", "a"] {
            check_directed("a.example", host, false);
            check_directed("", host, false);
        }
        for host in ["192.0.2.1", "192.0.2.1:443", "[::1]", "[::1]:443"] {
            check_directed("", host, true);
            check_directed("a.example", host, false);
        }
    }

    #[test]
    fn targets() {
        assert_eq!(RequestTarget::parse("web"), RequestTarget::Web);
        assert_eq!(RequestTarget::parse("kubernetes:prod"), RequestTarget::Kubernetes("prod"));
        assert_eq!(RequestTarget::parse("http:wiki"), RequestTarget::Http("wiki"));
        for text in ["", "kubernetes:", "kubernetes", "http:", "http", "https:x", "webx", "web:"] {
            assert_eq!(RequestTarget::parse(text), RequestTarget::Unknown, "{text}");
        }
    }
}
