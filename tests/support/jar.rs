//! Cookies as a browser keeps them (RFC 6265bis): host and path rules, `Secure`, the `__Host-` and `__Secure-` prefixes, `SameSite`.
//! Ports do not separate cookies. Expiry is honoured only where it removes a cookie.

use url::{Host, Url};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    pub name: String,
    pub value: String,
    pub host: String,
    /// Set by a `Domain` attribute: subdomains get it too.
    pub subdomains: bool,
    pub path: String,
    pub secure: bool,
    pub http_only: bool,
    pub same_site: SameSite,
}

/// The cookies of one browser.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    pub cookies: Vec<Cookie>,
}

/// From where a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    SameSite,
    /// A link or redirect from another site: a top-level GET.
    CrossSiteNavigation,
    /// A form of another site that posts.
    CrossSitePost,
}

impl Jar {
    /// Takes a `Set-Cookie` line. A line that a browser would refuse is an error that says why.
    pub fn set(&mut self, from: &Url, line: &str) -> Result<(), String> {
        let (cookie, gone) = parse(from, line)?;
        self.cookies.retain(|old| (&old.name, &old.host, &old.path) != (&cookie.name, &cookie.host, &cookie.path));
        if !gone {
            self.cookies.push(cookie);
        }
        Ok(())
    }

    /// The `Cookie` header for a request, if any cookie goes with it.
    pub fn header(&self, to: &Url, origin: Origin) -> Option<String> {
        let mut sent: Vec<&Cookie> = self.cookies.iter().filter(|cookie| cookie.goes(to, origin)).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    pub fn get(&self, name: &str) -> Option<&Cookie> {
        self.cookies.iter().find(|cookie| cookie.name == name)
    }

    pub fn clear(&mut self) {
        self.cookies.clear();
    }
}

impl Cookie {
    fn goes(&self, to: &Url, origin: Origin) -> bool {
        let host = to.host_str().unwrap_or_default();
        let host_fits = host == self.host || (self.subdomains && host.ends_with(&format!(".{}", self.host)));
        let path_fits =
            to.path().strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'));
        let site_fits = match origin {
            Origin::SameSite => true,
            Origin::CrossSiteNavigation => self.same_site != SameSite::Strict,
            Origin::CrossSitePost => self.same_site == SameSite::None,
        };
        host_fits && path_fits && site_fits && (!self.secure || to.scheme() == "https")
    }
}

/// Whether two URLs are of one site: same scheme and registrable domain, here the last two labels.
pub fn same_site(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && site(one) == site(other)
}

fn site(url: &Url) -> String {
    match url.host() {
        Some(Host::Domain(name)) => {
            let labels: Vec<&str> = name.rsplit('.').take(2).collect();
            labels.join(".")
        }
        Some(address) => address.to_string(),
        None => String::new(),
    }
}

fn parse(from: &Url, line: &str) -> Result<(Cookie, bool), String> {
    let mut parts = line.split(';').map(str::trim);
    let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).ok_or_else(|| format!("no name and value: {line}"))?;
    let host = from.host_str().unwrap_or_default().to_owned();
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = if folder.is_empty() { "/" } else { folder }.to_owned();
    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
    let mut cookie = Cookie { name, value, host, subdomains: false, path, secure: false, http_only: false, same_site: SameSite::Lax };
    let (mut gone, mut path_given) = (false, false);
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key.to_ascii_lowercase().as_str() {
            "secure" => cookie.secure = true,
            "httponly" => cookie.http_only = true,
            "path" if value.starts_with('/') => (cookie.path, path_given) = (value.to_owned(), true),
            "domain" if !value.is_empty() => (cookie.host, cookie.subdomains) = (value.trim_start_matches('.').to_ascii_lowercase(), true),
            "max-age" => gone = value.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
            "expires" => gone = value.contains("1970"),
            "samesite" => cookie.same_site = same_site_value(value)?,
            _ => {}
        }
    }
    check(from, &cookie, path_given)?;
    Ok((cookie, gone))
}

fn same_site_value(value: &str) -> Result<SameSite, String> {
    match value.to_ascii_lowercase().as_str() {
        "strict" => Ok(SameSite::Strict),
        "lax" => Ok(SameSite::Lax),
        "none" => Ok(SameSite::None),
        _ => Err(format!("SameSite={value}")),
    }
}

fn check(from: &Url, cookie: &Cookie, path_given: bool) -> Result<(), String> {
    let host = from.host_str().unwrap_or_default();
    let refuse = |why: &str| Err(format!("cookie {} of {host}: {why}", cookie.name));
    if cookie.subdomains && host != cookie.host && !host.ends_with(&format!(".{}", cookie.host)) {
        return refuse("its domain is another one");
    }
    if cookie.secure && from.scheme() != "https" {
        return refuse("Secure, but set over http");
    }
    if cookie.same_site == SameSite::None && !cookie.secure {
        return refuse("SameSite=None without Secure");
    }
    if (cookie.name.starts_with("__Host-") || cookie.name.starts_with("__Secure-")) && !cookie.secure {
        return refuse("its prefix demands Secure");
    }
    if cookie.name.starts_with("__Host-") && (cookie.subdomains || !path_given || cookie.path != "/") {
        return refuse("__Host- demands Path=/ and no Domain");
    }
    Ok(())
}
