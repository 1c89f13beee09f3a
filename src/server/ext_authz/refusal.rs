//! What a refused client or person gets to read, in the form that they understand. Everything that a client wrote is escaped; nothing is decided here.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::access::return_path::is_return_path;
use crate::access::{AccessRequest, Answer, Form};

/// Where the login of a browser begins on the host of a plain HTTP route.
const START: &str = "/.kubepass/start";
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A refusal as HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    pub(super) location: Option<String>,
}

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

impl Refusal {
    /// The discovery of client-go (`ServerGroupsAndResources`, v0.36) is answered a 403 in plain text: it reads the raw body, so of JSON it shows
    /// "unknown" and of text the text, and discovery is the first that a person whom no rule lets in meets. Other statuses it words itself.
    pub(super) fn of(answer: &Answer, request: &AccessRequest<'_>, public_url: &str) -> Self {
        let status = || answer.status.clone().with_request_id(request.request_id);
        let refusal = |content_type, body| Self { code: answer.status.code, content_type, body, location: None };
        match answer.form {
            Form::Status if answer.status.code == 403 && request.headers.accepts_discovery => refusal(TEXT, status().full_message()),
            Form::Status => refusal(JSON, status().to_json()),
            Form::ApiServerPage => refusal(HTML, api_server_page(request.host, public_url)),
            Form::Page => refusal(HTML, page(answer, request, public_url)),
            Form::Json => refusal(JSON, json(answer, request)),
            Form::LogIn => Self { code: 302, location: Some(to_login(request.path)), ..refusal(TEXT, "log in first\n".to_owned()) },
        }
    }
}

/// A path that is too long or too odd to travel is left out: the login then leads to the host's start page.
fn to_login(path: &str) -> String {
    if is_return_path(path) { format!("{START}?return={}", utf8_percent_encode(path, QUERY)) } else { START.to_owned() }
}

fn json(answer: &Answer, request: &AccessRequest<'_>) -> String {
    let mut text = json!({"error": answer.word, "message": answer.status.message, "request_id": request.request_id}).to_string();
    text.push('\n');
    text
}

fn page(answer: &Answer, request: &AccessRequest<'_>, public_url: &str) -> String {
    let title = match answer.status.code {
        401 => "Log in",
        403 => "Refused",
        _ => "This does not work now",
    };
    // Who is logged in at a provider that the route does not take is offered those that it takes.
    let may_log_in = answer.status.code == 401 || answer.word == "identity_provider";
    let log_in = if may_log_in { format!("<p><a href=\"{START}\">Log in</a></p>") } else { String::new() };
    let (message, request_id, public_url) = (escape(&answer.status.message), escape(request.request_id), escape(public_url));
    document(&format!(
        "<h1>{title}</h1><p>{message}</p>{log_in}\
         <p>Your sessions and the routes that you may use: <a href=\"{public_url}\">{public_url}</a></p><p>Request <code>{request_id}</code></p>"
    ))
}

/// A person opened an API server's address in a browser.
/// Envoy takes the port off the host; every host is served at the port of `public_url`.
fn api_server_page(host: &str, public_url: &str) -> String {
    let port = url::Url::parse(public_url).ok().and_then(|url| url.port()).map(|port| format!(":{port}")).unwrap_or_default();
    let (host, public_url) = (escape(host) + &port, escape(public_url));
    document(&format!(
        "<h1>This is a Kubernetes API server</h1>\
         <p>Use it with kubectl: <code>kubepass kubeconfig https://{host}</code></p>\
         <p>Your sessions and the routes that you may use: <a href=\"{public_url}\">{public_url}</a></p>"
    ))
}

fn document(body: &str) -> String {
    format!("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>kubepass</title></head><body>{body}</body></html>")
}

fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::access::request::{RequestHeaders, RequestTarget};
    use crate::kubernetes::status::{Reason, Status};
    use crate::snapshot::NodeView;

    fn refusal(form: Form, reason: Reason, message: &str, path: &str) -> Refusal {
        let request = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: "id<1>",
            target: RequestTarget::Http("wiki"),
            method: "GET",
            path,
            host: "wiki.example.com",
            sni: "wiki.example.com",
            source_ip: "",
            headers: RequestHeaders::default(),
        };
        Refusal::of(&Answer { word: "word", status: Status::new(reason, message), form }, &request, "https://pass.example.com/")
    }

    #[test]
    fn a_visitor_is_led_to_the_login_and_back() {
        let check = |path: &str, location: &str| {
            let refusal = refusal(Form::LogIn, Reason::Unauthorized, "log in", path);
            assert_eq!((refusal.code, refusal.location.as_deref()), (302, Some(location)), "{path}");
        };
        check("/", "/.kubepass/start?return=%2F");
        check("/a/b?c=d&e=%20f", "/.kubepass/start?return=%2Fa%2Fb%3Fc%3Dd%26e%3D%2520f");
        check("//evil.example", "/.kubepass/start");
        check("/\\evil.example", "/.kubepass/start");
        check("/.kubepass/start", "/.kubepass/start");
        check(&format!("/{}", "a".repeat(2000)), "/.kubepass/start");
    }

    #[test]
    fn pages_hold_texts_and_no_markup_of_others() {
        let refused = refusal(Form::Page, Reason::Forbidden, "ask <script>alert(1)</script> & \"others\"", "/x");
        assert_eq!((refused.code, refused.content_type, refused.location), (403, HTML, None));
        assert!(refused.body.contains("ask &lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;others&quot;"), "{}", refused.body);
        assert!(refused.body.contains("id&lt;1&gt;") && !refused.body.contains("Log in"), "{}", refused.body);
        assert!(refusal(Form::Page, Reason::Unauthorized, "m", "/x").body.contains("href=\"/.kubepass/start\""));
    }

    #[test]
    fn programs_get_json() {
        let refused = refusal(Form::Json, Reason::Unauthorized, "log \"in\"", "/x");
        assert_eq!((refused.code, refused.content_type), (401, JSON));
        let body: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!(body, json!({"error": "word", "message": "log \"in\"", "request_id": "id<1>"}));
        let status: serde_json::Value = serde_json::from_str(&refusal(Form::Status, Reason::Forbidden, "m", "/x").body).unwrap();
        assert_eq!(status["kind"], "Status");
    }
}
