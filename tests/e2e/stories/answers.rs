//! What people read when something is refused: kubepass's own answers, Envoy's, and a page for a browser.

use serde_json::Value;

use super::super::rows::{ROWS, Row, for_each_row};
use super::super::shared::world;
use super::super::support::kubectl::Kubectl;
use super::super::support::raw::Connection;
use super::super::support::world::{PROD_HOST, PUBLIC_HOST, World};

#[test]
fn kubectl_shows_why_and_a_request_id_that_the_trail_knows() {
    let world = world();
    let _logs = world.run.watch();
    for_each_row(&world, why_and_a_request_id);
}

fn why_and_a_request_id(world: &World, row: Row) {
    // 401: kubectl says that one must log in, whatever else stands in the answer.
    let ca = world.run.file("kubepass/ca.pem").display().to_string();
    let server = world.url(row.host);
    let home = world.run.dir(&format!("stranger-{}", row.route));
    let stranger = Kubectl::new(&world.tools().kubectl(), &world.run.file("no-kubeconfig"), &home).env("HTTPS_PROXY", &world.proxy.url());
    let output = stranger.run(&["--server", &server, "--certificate-authority", &ca, "--token", "none-of-yours", "get", "pods"]);
    let error = output.err();
    assert!(error.contains("You must be logged in to the server"), "{error}");
    let line = world.audit_line("the refused token", |line| {
        let agent = line["user_agent"].as_str().unwrap_or_default();
        line["event"] == "decision" && line["route"] == row.route && line["reason"] == "token_invalid" && agent.starts_with("kubectl/")
    });
    assert_eq!(line["outcome"], "challenge");

    // 403: the rule's message and the id.
    let foo = world.person("foo");
    foo.set_up(&server).ok();
    let error = foo.kubectl(&["get", "secrets"]).err();
    let start = "Error from server (Forbidden): secrets is forbidden: User \"foo@example.com\" cannot list resource \"secrets\" in API group \
                 \"\" in the namespace \"default\": denied by policy: ask the SRE on call (request id ";
    let line = error.lines().find_map(|line| line.strip_prefix(start)?.strip_suffix(')'));
    let id = line.unwrap_or_else(|| panic!("{error}")).to_owned();
    let line = world.audit_line("the refusal", |line| line["request_id"] == id.as_str() && line["event"] == "decision");
    assert_eq!((&line["reason"], &line["rule"], &line["user"]), (&"policy_denied".into(), &"no-secrets".into(), &"foo@example.com".into()));
    assert!(row.cluster(world).audit_events().iter().all(|event| event["auditID"] != id.as_str()), "it reached the API server");

    let error = foo.kubectl(&["get", "pods", "--as", "admin"]).err();
    assert!(error.contains("kubepass does not let clients impersonate"), "{error}");

    // Someone whom no rule lets in is told so by name, though kubectl gets no further than its own discovery.
    let eve = world.person("eve");
    eve.set_up(&server).ok();
    let error = eve.kubectl(&["get", "pods"]).err();
    let refused = error.lines().find(|line| line.starts_with("Error from server (Forbidden): ")).unwrap_or_else(|| panic!("{error}"));
    assert!(refused.contains("User \"eve@evil.example\"") && refused.contains("no policy rule of this route allows it"), "{error}");
    assert!(refused.contains("request id "), "{error}");
}

#[test]
fn a_browser_on_a_kubernetes_host_gets_a_page() {
    let world = world();
    let _logs = world.run.watch();
    let foo = world.person("foo");
    for (Row { host, .. }, path) in ROWS.iter().flat_map(|row| ["", "/", "/api/v1/namespaces/default/pods"].map(|path| (row, path))) {
        let page = foo.browse(|browser| browser.open(&format!("{}{path}", world.url(host))));
        assert_eq!((page.status, page.header("content-type")), (401, "text/html; charset=utf-8"), "{page}");
        let text = page.text();
        assert!(text.contains(&format!("kubepass kubeconfig https://{host}")), "{text}");
        assert!(page.link(PUBLIC_HOST).href.starts_with(&world.url(PUBLIC_HOST)), "{page}");
        assert!(page.header("content-security-policy").contains("default-src 'none'"), "{page}");
    }
}

/// One request that Envoy answers by itself.
struct Case {
    what: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    /// Over HTTP/1.1: code, reason and a part of the message.
    status: u16,
    reason: &'static str,
    message: &'static str,
    /// Over HTTP/2: the same answer, or a stream that is reset without one.
    reset: bool,
}

/// What Envoy refuses before kubepass is asked. The last column is the list of what HTTP/2 clients get no sentence for.
fn cases() -> Vec<Case> {
    let case = |what, path, headers, (status, reason, message), reset| Case { what, path, headers, status, reason, message, reset };
    let long = "x".repeat(70_000);
    let many: Vec<(&str, String)> = (0..320).map(|_| ("x-many", "1".to_owned())).collect();
    let malformed = (400, "BadRequest", "the request is malformed or its path can be read in two ways");
    let too_large = (431, "BadRequest", "the request's headers are too large or too many");
    vec![
        case("an escaped slash", "/api/v1/namespaces/a%2Fb/pods", vec![], malformed, false),
        case("an escaped backslash", "/api/v1/namespaces/a%5Cb/pods", vec![], malformed, false),
        case("an underscore in a header's name", "/api", vec![("impersonate_user", "admin".to_owned())], malformed, true),
        case("a header of 70 kB", "/api", vec![("x-long", long)], too_large, true),
        case("320 headers", "/api", many, too_large, true),
    ]
}

#[test]
fn envoys_own_answers_are_statuses() {
    let world = world();
    let _logs = world.run.watch();
    let client = world.client();
    let before = world.prod.audit_events().len();
    for case in cases() {
        let mut headers = vec![("host", PROD_HOST), ("user-agent", "test")];
        headers.extend(case.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let answer = open(&world).request("GET", case.path, &headers).answer().unwrap_or_else(|| panic!("{}: no answer", case.what));
        assert_eq!(answer.status, case.status, "{}: {}", case.what, answer.text());
        assert_status(case.what, &answer.body, answer.header("content-type"), &case);

        let mut request = client.get(format!("{}{}", world.url(PROD_HOST), case.path));
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        match request.send() {
            Ok(answer) => {
                assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, case.status), "{}", case.what);
                assert!(!case.reset, "{}: HTTP/2 has an answer now", case.what);
                let content_type = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
                assert_status(case.what, &answer.bytes().unwrap(), content_type.as_deref(), &case);
            }
            // Only this stream: the connection goes on with the next case.
            Err(error) => assert!(case.reset && format!("{error:?}").contains("kind: Reset("), "{}: {error:?}", case.what),
        }
    }
    // A protocol that is neither WebSocket nor SPDY/3.1.
    let upgrade = [("host", PROD_HOST), ("connection", "upgrade"), ("upgrade", "h2c-or-whatever")];
    let answer = open(&world).request("GET", "/api", &upgrade).answer().unwrap();
    let status: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &status["reason"]), (403, &"Forbidden".into()), "{status}");
    assert!(status["message"].as_str().unwrap().contains("websocket and SPDY/3.1 are"), "{status}");
    assert_eq!(world.prod.audit_events().len(), before, "nothing of it reached the API server");
}

fn open(world: &World) -> Connection {
    Connection::open(world.port, PROD_HOST, world.authority.pem())
}

fn assert_status(what: &str, body: &[u8], content_type: Option<&str>, case: &Case) {
    assert_eq!(content_type, Some("application/json"), "{what}");
    let status: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(body)));
    assert_eq!((&status["kind"], &status["apiVersion"], &status["status"]), (&"Status".into(), &"v1".into(), &"Failure".into()), "{what}");
    assert_eq!((&status["code"], &status["reason"]), (&case.status.into(), &case.reason.into()), "{what}: {status}");
    assert!(status["message"].as_str().unwrap().contains(case.message), "{what}: {status}");
}
