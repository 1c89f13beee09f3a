//! Where a browser may be sent: back to a page of this installation, or to a program that listens on the user's own machine (RFC 8252, 7.3).
//! Both are allow-lists over the text itself, so that no two URL parsers can disagree. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::access::return_path::is_return_path;
use crate::defence::{Defence, off};

/// The longest redirect URI of a client, in bytes.
const MAX_REDIRECT_BYTES: usize = 256;
/// The longest way back, in bytes: it travels in a cookie.
const MAX_RETURN_BYTES: usize = 1500;
/// Below are the ports that only the machine's administrator may listen on: no user's program waits there.
const FIRST_USER_PORT: u16 = 1024;
/// Addresses alone. Who else listens at a name (`localhost` is two addresses, and a browser tries the other one first), and what a resolver makes
/// of it, the program that waits for the code does not decide (RFC 8252, 8.3). pomerium-cli and ours name the address that they listen at.
const LOOPBACK_HOSTS: [&str; 2] = ["127.0.0.1", "[::1]"];
/// Pages that a login may lead back to; the query, where there is one, is checked by the page itself.
const RETURN_PAGES: [&str; 3] = ["/cli/login?", "/pomerium/login?", "/route/login?"];

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `http://127.0.0.1:PORT/path` or `http://[::1]:PORT/path`: no query, no fragment, no user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoopbackUri {
    text: String,
    /// Bytes of `text` that are scheme, host and port.
    origin: usize,
    port: u16,
}

/// Why a client's redirect URI is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RedirectRefusal {
    #[error("the redirect URI is longer than {MAX_REDIRECT_BYTES} bytes")]
    TooLong,
    #[error("the redirect URI does not begin with http://127.0.0.1:PORT or http://[::1]:PORT")]
    NotLoopback,
    #[error("the redirect URI has no port from {FIRST_USER_PORT} to 65535")]
    Port,
    #[error("the redirect URI's path has a character outside letters, digits and `-._~/`, or it has a query or a fragment")]
    Path,
}

impl LoopbackUri {
    /// # Errors
    /// The first rule that the text breaks.
    pub(super) fn parse(text: &str) -> Result<Self, RedirectRefusal> {
        if off(Defence::RedirectCheck) {
            return Ok(Self { text: text.to_owned(), origin: text.len(), port: 0 });
        }
        if text.len() > MAX_REDIRECT_BYTES {
            return Err(RedirectRefusal::TooLong);
        }
        let rest = text.strip_prefix("http://").ok_or(RedirectRefusal::NotLoopback)?;
        let after_host =
            LOOPBACK_HOSTS.iter().find_map(|host| rest.strip_prefix(host)?.strip_prefix(':')).ok_or(RedirectRefusal::NotLoopback)?;
        let digits = after_host.bytes().take_while(u8::is_ascii_digit).count();
        let (port, path) = after_host.split_at_checked(digits).ok_or(RedirectRefusal::Port)?;
        if port.starts_with('0') {
            return Err(RedirectRefusal::Port);
        }
        let port: u16 = port.parse().map_err(|_| RedirectRefusal::Port)?;
        if port < FIRST_USER_PORT {
            return Err(RedirectRefusal::Port);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        if !(path.is_empty() || path.starts_with('/')) || !path.bytes().all(allowed) {
            return Err(RedirectRefusal::Path);
        }
        Ok(Self { text: text.to_owned(), origin: text.len() - path.len(), port })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What `form-action` must name so that a browser follows the redirect after a form. CSP's grammar has no IPv6 address, so there the scheme
    /// stands alone.
    pub(super) fn csp_source(&self) -> String {
        let origin = self.text.get(..self.origin).unwrap_or_default();
        if origin.contains('[') { "http:".to_owned() } else { origin.to_owned() }
    }

    /// The URI with a query of these pairs.
    pub(super) fn with_query(&self, pairs: &[(&str, &str)]) -> String {
        let mut text = self.text.clone();
        if text.len() == self.origin {
            text.push('/');
        }
        text.push('?');
        text.push_str(&query(pairs));
        text
    }
}

/// Where a login leads: the portal, or a page that a client's request opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReturnPath(String);

impl ReturnPath {
    pub(super) fn portal() -> Self {
        Self("/".to_owned())
    }

    /// `None` for every text that is not `/` or one of our own client pages with a query of plain URL characters.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/?=&%+:[]".contains(&byte);
        let known = text == "/" || RETURN_PAGES.iter().any(|page| text.starts_with(page));
        let is_ours = known && text.len() <= MAX_RETURN_BYTES && text.bytes().all(plain);
        (is_ours || off(Defence::RedirectCheck)).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose login this is, as sessions and the audit trail name it.
    pub(super) fn client(&self) -> &'static str {
        match self.0.as_str() {
            path if path.starts_with("/cli/") => "kubepass",
            path if path.starts_with("/pomerium/") => "pomerium-cli",
            _ => "browser",
        }
    }
}

/// Where a login on a plain HTTP route leads: a path of that very host, with its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutePath(String);

impl RoutePath {
    /// `None` for every text that [`is_return_path`] does not take.
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_return_path(text).then(|| Self(text.to_owned()))
    }

    pub(super) fn start() -> Self {
        Self("/".to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// `key=value&...`, everything outside RFC 3986's unreserved characters encoded.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| format!("{}={}", utf8_percent_encode(key, QUERY), utf8_percent_encode(value, QUERY));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<u16, RedirectRefusal>) {
        assert_eq!(LoopbackUri::parse(text).map(|uri| uri.port()), expected, "{text}");
    }

    #[test]
    fn loopback_with_a_port_of_a_user_is_followed() {
        for text in ["http://127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000/callback", "http://[::1]:8000/a/b-c_d.e~f"] {
            check(text, Ok(8000));
        }
        check("http://127.0.0.1:1024/", Ok(1024));
        check("http://127.0.0.1:65535/", Ok(65535));
    }

    #[test]
    fn everything_else_is_not_followed() {
        use RedirectRefusal::{NotLoopback, Path, Port, TooLong};
        for text in [
            "",
            "/",
            "//127.0.0.1:8000/",
            "https://127.0.0.1:8000/",
            "HTTP://127.0.0.1:8000/",
            " http://127.0.0.1:8000/",
            "http:127.0.0.1:8000/",
            "http:/127.0.0.1:8000/",
            "http:\\\\127.0.0.1:8000/",
            "javascript://127.0.0.1:8000/%0aalert(1)",
            "http://evil.example/",
            "http://evil.example:8000/",
            "http://localhost.evil.example:8000/",
            "http://127.0.0.1.evil.example:8000/",
            "http://127.0.0.1@evil.example:8000/",
            "http://user@127.0.0.1:8000/",
            "http://user:pw@127.0.0.1:8000/",
            "http://127.0.0.1\\@evil.example:8000/",
            "http://0.0.0.0:8000/",
            "http://127.0.0.2:8000/",
            "http://127.1:8000/",
            "http://2130706433:8000/",
            "http://0x7f.1:8000/",
            "http://localhost:8000/",
            "http://localhost:8000/callback",
            "http://LOCALHOST:8000/",
            "http://localhost./:8000/",
            "http://[::ffff:127.0.0.1]:8000/",
            "http://[0:0:0:0:0:0:0:1]:8000/",
            "http://::1:8000/",
            "http://127.0.0.1/",
            "http://127.0.0.1",
            "http://１２７.0.0.1:8000/",
        ] {
            check(text, Err(NotLoopback));
        }
        for text in [
            "http://127.0.0.1:/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:1023/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:08000/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:99999999999/",
            "http://127.0.0.1:-8000/",
            "http://127.0.0.1:+8000/",
        ] {
            check(text, Err(Port));
        }
        for text in [
            "http://127.0.0.1:8000@evil.example/",
            "http://127.0.0.1:8000evil.example/",
            "http://127.0.0.1:8000.evil.example/",
            "http://127.0.0.1:8000\\evil.example/",
            "http://127.0.0.1:8000/\\evil.example/",
            "http://127.0.0.1:8000/?a=b",
            "http://127.0.0.1:8000?a=b",
            "http://127.0.0.1:8000/#f",
            "http://127.0.0.1:8000#f",
            "http://127.0.0.1:8000/%2e",
            "http://127.0.0.1:8000/a b",
            "http://127.0.0.1:8000/a\r\nSet-Cookie:x",
            "http://127.0.0.1:8000/a;b",
            "http://127.0.0.1:8000/é",
        ] {
            check(text, Err(Path));
        }
        check(&format!("http://127.0.0.1:8000/{}", "a".repeat(300)), Err(TooLong));
    }

    #[test]
    fn query_is_encoded() {
        let bare = LoopbackUri::parse("http://127.0.0.1:8000").unwrap();
        assert_eq!(
            bare.with_query(&[("code", "a&b=c"), ("state", "x y\r\n#")]),
            "http://127.0.0.1:8000/?code=a%26b%3Dc&state=x%20y%0D%0A%23"
        );
        let path = LoopbackUri::parse("http://[::1]:8000/cb").unwrap();
        assert_eq!(path.with_query(&[("a", "b")]), "http://[::1]:8000/cb?a=b");
        assert_eq!(path.csp_source(), "http:");
        assert_eq!(LoopbackUri::parse("http://127.0.0.1:8000/cb").unwrap().csp_source(), "http://127.0.0.1:8000");
    }

    #[test]
    fn a_login_leads_back_to_our_own_pages_only() {
        for (text, client) in [
            ("/", "browser"),
            ("/cli/login?state=a%20b", "kubepass"),
            ("/pomerium/login?route=x", "pomerium-cli"),
            ("/route/login?route=x&state=y", "browser"),
        ] {
            assert_eq!(ReturnPath::parse(text).map(|path| path.client()), Some(client), "{text}");
        }
        for text in [
            "",
            "//evil.example/",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example/",
            "/x",
            "/logout",
            "/login?return=/",
            "/callback?code=x",
            "/cli/login",
            "/cli/token?x",
            "/cli/login?a=\r\nLocation: https://evil.example",
            "/cli/login?a=<b>",
            "/cli/login?a=\\",
            "/../cli/login?x",
            " /",
            "/ ",
            "/cli/login?é",
        ] {
            assert_eq!(ReturnPath::parse(text), None, "{text}");
        }
        assert_eq!(ReturnPath::parse(&format!("/cli/login?{}", "a".repeat(1500))), None);
    }
}
