//! The pages that people see: plain HTML, one inline style, no script, nothing from elsewhere. What is shown comes as values; nothing is decided here.

mod html;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

pub use html::Html;

/// A page under way to a browser.
#[derive(Debug)]
pub struct Page {
    status: StatusCode,
    title: &'static str,
    body: Html,
    /// Where a form of this page may lead besides this host: `form-action` also judges the redirects that follow.
    form_target: Option<String>,
}

/// A way to log in that the login page offers.
#[derive(Debug)]
pub struct LoginChoice {
    pub provider: String,
    pub href: String,
}

/// A route as the portal shows it.
#[derive(Debug)]
pub enum PortalRoute {
    Cluster { name: String, url: String },
    Page { name: String, url: String },
}

/// What the portal shows to a user who is logged in.
#[derive(Debug)]
pub struct Portal {
    pub user: String,
    pub provider: String,
    pub groups: Vec<String>,
    /// Minutes until the session ends.
    pub minutes_left: u64,
    pub routes: Vec<PortalRoute>,
    /// Sealed; binds the log-out form to the session.
    pub logout_form: String,
}

/// What a user is asked before a program on their machine gets a credential.
#[derive(Debug)]
pub struct Confirmation {
    pub user: String,
    pub client: &'static str,
    /// Name and host; `None` where the credential is not for one route.
    pub route: Option<(String, String)>,
    pub port: u16,
    /// Sealed: what is asked for, bound to the session.
    pub form: String,
    pub form_target: String,
    /// Whether the credential itself travels in the redirect.
    pub token_in_url: bool,
}

impl Page {
    fn new(status: StatusCode, title: &'static str, body: Html) -> Self {
        Self { status, title, body, form_target: None }
    }

    pub fn login(choices: &[LoginChoice]) -> Self {
        let mut body = Html::new().raw("<h1>Log in</h1><p>Choose where you have an account.</p><ul class=choices>");
        for choice in choices {
            body = body.raw("<li><a href=\"").text(&choice.href).raw("\">").text(&choice.provider).raw("</a></li>");
        }
        Self::new(StatusCode::OK, "Log in", body.raw("</ul>"))
    }

    /// The portal for a browser without a session.
    pub fn welcome() -> Self {
        let body = Html::new().raw(
            "<h1>kubepass</h1><p>You are not logged in.</p><p><a class=button href=\"/login\">Log in</a></p>\
             <p>kubectl logs you in by itself: run any command with a kubeconfig that <code>kubepass kubeconfig</code> wrote.</p>",
        );
        Self::new(StatusCode::OK, "kubepass", body)
    }

    pub fn portal(portal: &Portal) -> Self {
        let mut body = Html::new().raw("<h1>kubepass</h1><p>You are <strong>").text(&portal.user).raw("</strong>, logged in at <strong>");
        body = body
            .text(&portal.provider)
            .raw("</strong>. The session ends in ")
            .text(&duration(portal.minutes_left))
            .raw(".</p><h2>Groups</h2>");
        if portal.groups.is_empty() {
            body = body.raw("<p>None.</p>");
        } else {
            body = body.raw("<ul>");
            for group in &portal.groups {
                body = body.raw("<li><code>").text(group).raw("</code></li>");
            }
            body = body.raw("</ul>");
        }
        body = portal_routes(body, &portal.routes);
        body = body.raw("<form method=post action=\"/logout\"><input type=hidden name=form value=\"").text(&portal.logout_form);
        Self::new(StatusCode::OK, "kubepass", body.raw("\"><button>Log out</button></form>"))
    }

    pub fn confirm(confirmation: &Confirmation) -> Self {
        let mut body =
            Html::new().raw("<h1>Let this computer in?</h1><p>A program on <strong>this computer</strong> (").text(confirmation.client);
        body = body.raw(", waiting on port <strong>").text(&confirmation.port.to_string()).raw("</strong>) wants to act as <strong>");
        body = body.text(&confirmation.user).raw("</strong>");
        body = match &confirmation.route {
            Some((name, host)) if confirmation.token_in_url => {
                body.raw(" on the cluster <strong>").text(name).raw("</strong> (<code>").text(host).raw("</code>).</p>")
            }
            Some((name, host)) => body
                .raw(", now for the cluster <strong>")
                .text(name)
                .raw("</strong> (<code>")
                .text(host)
                .raw("</code>) and later for every cluster that you may use.</p>"),
            None => body.raw(", for every cluster that you may use.</p>"),
        };
        body = body.raw("<p>Go on only if you have just started kubectl or <code>kubepass</code> yourself, on this computer.</p>");
        if confirmation.token_in_url {
            body = body.raw(
                "<p>The credential travels in the address that your browser opens and stays in its history for up to an hour's use.</p>",
            );
        }
        body = body.raw("<form method=post action=\"/confirm\"><input type=hidden name=form value=\"").text(&confirmation.form).raw("\">");
        body = body.raw(
            "<button name=decision value=allow>Let it in</button> <button class=quiet name=decision value=deny>Refuse</button></form>",
        );
        let mut page = Self::new(StatusCode::OK, "Let this computer in?", body);
        page.form_target = Some(confirmation.form_target.clone());
        page
    }

    pub fn logged_out() -> Self {
        let body = Html::new().raw(
            "<h1>Logged out</h1><p>The session has ended, for kubectl as well. The session at your identity provider goes on.</p>\
             <p><a class=button href=\"/login\">Log in</a></p>",
        );
        Self::new(StatusCode::OK, "Logged out", body)
    }

    pub fn refused() -> Self {
        let body = Html::new()
            .raw("<h1>Refused</h1><p>The program got nothing. You can close this window, and stop the program that still waits.</p>");
        Self::new(StatusCode::OK, "Refused", body)
    }

    /// What went wrong, and what to do about it.
    pub fn error(status: StatusCode, title: &'static str, text: &str, advice: &str, request_id: &str) -> Self {
        let body = Html::new()
            .raw("<h1>")
            .raw(title)
            .raw("</h1><p>")
            .text(text)
            .raw("</p><p>")
            .text(advice)
            .raw("</p><p><a href=\"/\">To the start</a></p>");
        let body = body.raw("<p class=small>Request <code>").text(request_id).raw("</code></p>");
        Self::new(status, title, body)
    }

    fn document(&self) -> String {
        document(self.title, &self.body)
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let policy = content_security_policy(self.form_target.as_deref());
        let mut response = (self.status, self.document()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

fn portal_routes(body: Html, routes: &[PortalRoute]) -> Html {
    let mut clusters = Html::new();
    let mut pages = Html::new();
    for route in routes {
        match route {
            PortalRoute::Cluster { name, url } => {
                clusters = clusters.raw("<h3>").text(name).raw("</h3><pre>kubepass kubeconfig ").text(url).raw("</pre>");
            }
            PortalRoute::Page { name, url } => {
                pages = pages.raw("<li><a href=\"").text(url).raw("/\">").text(name).raw("</a></li>");
            }
        }
    }
    let has = |wanted: fn(&PortalRoute) -> bool| routes.iter().any(wanted);
    let mut body = body.raw("<h2>Clusters</h2>").join(&clusters);
    if !has(|route| matches!(route, PortalRoute::Cluster { .. })) {
        body = body.raw("<p>None that takes log-ins of this identity provider.</p>");
    }
    if has(|route| matches!(route, PortalRoute::Page { .. })) {
        body = body.raw("<h2>Pages</h2><ul class=choices>").join(&pages).raw("</ul>");
    }
    body
}

fn document(title: &'static str, body: &Html) -> String {
    let head =
        Html::new().raw("<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">");
    let head = head.raw("<title>").raw(title).raw("</title><style>").raw(html::STYLE).raw("</style></head><body><main>");
    head.join(body).raw("</main></body></html>").into_text()
}

/// `form_target`: an origin, besides this host, to which a form's answer may redirect.
pub fn content_security_policy(form_target: Option<&str>) -> String {
    let target = form_target.map(|target| format!(" {target}")).unwrap_or_default();
    let style = html::style_hash();
    format!("default-src 'none'; style-src 'sha256-{style}'; form-action 'self'{target}; frame-ancestors 'none'; base-uri 'none'")
}

/// On every answer of the web part, pages and JSON alike.
pub fn security_headers() -> [(HeaderName, &'static str); 7] {
    [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ]
}

/// Adds [`security_headers`], and a policy that allows nothing where a page has not set its own. What everyone may keep says so itself.
pub fn harden(headers: &mut HeaderMap) {
    for (name, value) in security_headers() {
        let value = HeaderValue::from_static(value);
        if name == header::CACHE_CONTROL {
            headers.entry(name).or_insert(value);
        } else {
            headers.insert(name, value);
        }
    }
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
}

fn duration(minutes: u64) -> String {
    match (minutes / 60, minutes % 60) {
        (0, 1) => "1 minute".to_owned(),
        (0, minutes) => format!("{minutes} minutes"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests;
