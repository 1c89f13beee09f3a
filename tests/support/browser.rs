//! A scripted browser: it follows redirects step by step and remembers them, keeps cookies as a browser does, reads forms and submits
//! them, and enforces the `form-action` of a page's Content-Security-Policy. It runs no scripts.
//!
//! Names are resolved by the harness's [`Proxy`](super::proxy::Proxy); only the given authorities are trusted. Plain http goes out directly.

use std::sync::Arc;

use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::{HeaderMap, SET_COOKIE};
use url::Url;

use super::html::{self, Form, Link};
use super::http;
use super::jar::{self, Jar, Origin};
use super::proxy::Proxy;

/// More redirects than this are taken for a loop, as browsers do.
const MAX_HOPS: usize = 20;

/// One request and how it was answered.
#[derive(Clone, Debug)]
pub struct Hop {
    pub method: String,
    pub url: String,
    pub status: u16,
    /// Where a redirect led, made absolute.
    pub location: Option<String>,
}

/// What the browser shows.
#[derive(Clone, Debug)]
pub struct Page {
    pub url: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    /// All requests that led here, this one last.
    pub hops: Vec<Hop>,
}

impl Page {
    pub fn text(&self) -> String {
        html::text(&self.body)
    }

    pub fn title(&self) -> String {
        html::title(&self.body)
    }

    pub fn forms(&self) -> Vec<Form> {
        html::forms(&self.body)
    }

    pub fn links(&self) -> Vec<Link> {
        html::links(&self.body)
    }

    /// The only form of the page.
    pub fn form(&self) -> Form {
        let mut forms = self.forms();
        assert_eq!(forms.len(), 1, "one form is expected on {}\n{self}", self.url);
        forms.remove(0)
    }

    /// The first form that has a field of that name.
    pub fn form_with(&self, field: &str) -> Option<Form> {
        self.forms().into_iter().find(|form| form.value(field).is_some())
    }

    /// The first form whose action, id, button label or button value contains `text`.
    pub fn form_for(&self, text: &str) -> Form {
        let has = |form: &Form| {
            let buttons = form.buttons.iter().any(|(_, value, label)| label.contains(text) || value.contains(text));
            form.action.contains(text) || form.id.contains(text) || buttons
        };
        self.forms().into_iter().find(has).unwrap_or_else(|| panic!("no form for {text:?}\n{self}"))
    }

    /// The first link whose text or target contains `text`.
    pub fn link(&self, text: &str) -> Link {
        let has = |link: &Link| link.text.contains(text) || link.href.contains(text);
        self.links().into_iter().find(has).unwrap_or_else(|| panic!("no link for {text:?}\n{self}"))
    }

    /// A header's value, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A parameter of the URL's query.
    pub fn query(&self, name: &str) -> Option<String> {
        let url = Url::parse(&self.url).expect("the URL of a page");
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl std::fmt::Display for Page {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for hop in &self.hops {
            writeln!(out, "  {} {} -> {}", hop.method, hop.url, hop.status)?;
        }
        write!(out, "{}", self.text())
    }
}

/// One person's browser.
pub struct Browser {
    client: Client,
    pub jar: Jar,
    /// A redirect to a URL for which this holds is not followed; the page's URL is then that of the redirect. Status and body are those of
    /// the redirect.
    stop: Arc<dyn Fn(&Url) -> bool + Send + Sync>,
    /// Cookies that were refused, and why.
    pub refused_cookies: Vec<String>,
}

impl Browser {
    pub fn new(proxy: &Proxy, authorities: &[&str]) -> Self {
        let proxy = reqwest::Proxy::https(proxy.url()).expect("the proxy's URL");
        let client = http::builder(authorities).proxy(proxy).user_agent("Mozilla/5.0 (scripted)").build().expect("a client");
        Self { client, jar: Jar::default(), stop: Arc::new(|_| false), refused_cookies: Vec::new() }
    }

    /// Redirects to such URLs are where the browser stops, for targets that nobody listens on.
    pub fn stop_at(&mut self, stop: impl Fn(&Url) -> bool + Send + Sync + 'static) {
        self.stop = Arc::new(stop);
    }

    /// As a person who types the address.
    pub fn open(&mut self, url: &str) -> Page {
        let url = Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        self.go(Method::GET, url, None, None, &[])
    }

    pub fn follow(&mut self, page: &Page, link: &Link) -> Page {
        let from = Url::parse(&page.url).expect("the URL of a page");
        let url = from.join(&link.href).unwrap_or_else(|error| panic!("{}: {error}", link.href));
        self.go(Method::GET, url, None, Some(&from), &[])
    }

    /// Submits a form with some of its fields set, by its first button.
    pub fn submit(&mut self, page: &Page, form: &Form, values: &[(&str, &str)]) -> Page {
        let button = form.buttons.first().map(|(name, value, _)| (name.clone(), value.clone()));
        self.send(page, form, values, button)
    }

    /// The same by the button with that label or value.
    pub fn submit_by(&mut self, page: &Page, form: &Form, values: &[(&str, &str)], button: &str) -> Page {
        let found = form.buttons.iter().find(|(_, value, label)| label == button || value == button);
        let (name, value, _) = found.unwrap_or_else(|| panic!("no button {button:?}\n{page}")).clone();
        self.send(page, form, values, Some((name, value)))
    }

    fn send(&mut self, page: &Page, form: &Form, values: &[(&str, &str)], button: Option<(String, String)>) -> Page {
        let from = Url::parse(&page.url).expect("the URL of a page");
        let mut url = from.join(&form.action).unwrap_or_else(|error| panic!("{}: {error}", form.action));
        let mut fields = form.fields.clone();
        for (name, value) in values {
            fields.retain(|(field, _)| field != name);
            fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        fields.extend(button.filter(|(name, _)| !name.is_empty()));
        let allowed = form_action(page);
        if form.method == "POST" {
            return self.go(Method::POST, url, Some(fields), Some(&from), &allowed);
        }
        url.query_pairs_mut().clear().extend_pairs(&fields);
        self.go(Method::GET, url, None, Some(&from), &allowed)
    }

    /// Requests and follows redirects. `allowed`: sources of `form-action`; a browser holds redirects after a form to them as well.
    fn go(&mut self, method: Method, url: Url, fields: Option<Vec<(String, String)>>, from: Option<&Url>, allowed: &[String]) -> Page {
        let (mut method, mut url, mut fields) = (method, url, fields);
        let mut cross_site = from.is_some_and(|from| !jar::same_site(from, &url));
        let mut same_origin = from.is_some_and(|from| from.origin() == url.origin());
        let mut hops = Vec::new();
        loop {
            let permitted = allowed.is_empty() || from.is_some_and(|from| allowed.iter().any(|source| permits(source, from, &url)));
            assert!(permitted, "form-action {allowed:?} forbids {url}; hops: {hops:?}");
            let request = self.request(&method, &url, fields.as_deref(), from, (cross_site, same_origin));
            let response = request.send().unwrap_or_else(|error| panic!("{method} {url}: {error:?}\nhops: {hops:?}"));
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            self.keep_cookies(&url, &headers);
            let location = headers.get("location").and_then(|value| value.to_str().ok()).and_then(|value| url.join(value).ok());
            let location = location.filter(|_| (300..400).contains(&status));
            hops.push(Hop { method: method.to_string(), url: url.to_string(), status, location: location.as_ref().map(Url::to_string) });
            let next = location.filter(|next| !(self.stop)(next));
            let Some(next) = next else {
                let shown = hops.last().and_then(|hop| hop.location.clone()).unwrap_or_else(|| url.to_string());
                return Page { url: shown, status, headers, body: response.text().unwrap_or_default(), hops };
            };
            assert!(hops.len() < MAX_HOPS, "too many redirects: {hops:?}");
            cross_site |= !jar::same_site(&url, &next);
            same_origin &= url.origin() == next.origin();
            if !matches!(status, 307 | 308) {
                (method, fields) = (Method::GET, None);
            }
            url = next;
        }
    }

    fn request(
        &self,
        method: &Method,
        url: &Url,
        fields: Option<&[(String, String)]>,
        from: Option<&Url>,
        (cross_site, same_origin): (bool, bool),
    ) -> RequestBuilder {
        let mut request = self.client.request(method.clone(), url.clone()).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let origin = match (cross_site, method == Method::POST) {
            (false, _) => Origin::SameSite,
            (true, false) => Origin::CrossSiteNavigation,
            (true, true) => Origin::CrossSitePost,
        };
        let site = if from.is_none() {
            "none"
        } else if cross_site {
            "cross-site"
        } else if same_origin {
            "same-origin"
        } else {
            "same-site"
        };
        request = request.header("sec-fetch-site", site).header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
        if let Some(cookies) = self.jar.header(url, origin) {
            request = request.header("cookie", cookies);
        }
        if let (&Method::POST, Some(from)) = (method, from) {
            request = request.header("origin", from.origin().ascii_serialization());
        }
        match fields {
            Some(fields) => request.form(fields),
            None => request,
        }
    }

    fn keep_cookies(&mut self, url: &Url, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            let line = String::from_utf8_lossy(line.as_bytes()).into_owned();
            if let Err(why) = self.jar.set(url, &line) {
                self.refused_cookies.push(why);
            }
        }
    }
}

/// The sources of `form-action`; empty when the page does not restrict it.
fn form_action(page: &Page) -> Vec<String> {
    let policies = page.headers.get_all("content-security-policy").iter().filter_map(|value| value.to_str().ok());
    let directives = policies.flat_map(|policy| policy.split(';')).map(str::trim);
    let sources = directives.filter_map(|directive| directive.strip_prefix("form-action ")).flat_map(str::split_whitespace);
    sources.map(str::to_owned).collect()
}

fn permits(source: &str, from: &Url, to: &Url) -> bool {
    match source {
        "'self'" => from.origin() == to.origin(),
        "'none'" => false,
        "*" => matches!(to.scheme(), "http" | "https"),
        scheme if scheme.ends_with(':') => to.scheme() == scheme.trim_end_matches(':'),
        origin => any_port(origin, to) || Url::parse(origin).is_ok_and(|origin| origin.origin() == to.origin()),
    }
}

/// `http://127.0.0.1:*`
fn any_port(source: &str, to: &Url) -> bool {
    source.strip_suffix(":*").is_some_and(|start| format!("{}://{}", to.scheme(), to.host_str().unwrap_or_default()) == start)
}
