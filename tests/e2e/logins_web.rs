//! What the web pages of an installation show to strangers, and that neither they nor a confused host name lead around the decision that every
//! Kubernetes request goes through: the API server's own audit log says what reached it.

use serde_json::Value;

use super::shared::{own_world, world};
use super::support::raw::{Answer, Connection};
use super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};

/// Each answer of the web part has these, once.
const HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("strict-transport-security", "max-age=31536000"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

#[test]
fn every_answer_is_hardened() {
    let world = world();
    for (method, host, path, status) in [
        ("GET", PUBLIC_HOST, "/", 200),
        ("GET", PUBLIC_HOST, "/login", 303),
        ("GET", PUBLIC_HOST, "/login?return=https://evil.example", 400),
        ("GET", PUBLIC_HOST, "/login?return=//evil.example", 400),
        ("GET", PUBLIC_HOST, "/callback?code=x&state=y", 400),
        ("GET", PUBLIC_HOST, "/callback", 400),
        ("GET", PUBLIC_HOST, "/nothing", 404),
        ("POST", PUBLIC_HOST, "/", 405),
        ("POST", PUBLIC_HOST, "/logout", 400),
        ("POST", PUBLIC_HOST, "/confirm", 400),
        ("GET", PUBLIC_HOST, "/cli/login?redirect_uri=http://evil.example/", 400),
        ("POST", PUBLIC_HOST, "/cli/token", 400),
        ("POST", PUBLIC_HOST, "/cli/session-token", 401),
        ("POST", PUBLIC_HOST, "/cli/logout", 401),
        ("GET", PUBLIC_HOST, "/cli/routes", 401),
        ("GET", PUBLIC_HOST, "/api/v1/pods", 404),
        ("GET", PROD_HOST, "/.kubepass/config", 200),
        ("POST", PROD_HOST, "/.kubepass/config", 405),
        ("GET", PROD_HOST, "/.kubepass/", 404),
        ("GET", PROD_HOST, "/.kubepass/login", 404),
        ("POST", PROD_HOST, "/.kubepass/cli/token", 404),
    ] {
        let what = format!("{method} {host}{path}");
        let answer = ask(&world, host, method, path, &[("host", host)]);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        for (name, value) in HEADERS {
            let found: Vec<_> = answer.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str()).collect();
            assert_eq!(found, [*value], "{what}: {name}");
        }
        let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{what}: no policy"));
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{what}: {policy}"
        );
        for line in answer.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value) {
            let whole = ["__Host-", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"].iter().all(|part| line.contains(part));
            assert!(whole && !line.contains("Domain"), "{what}: {line}");
        }
        assert!(
            !answer.text().contains("evil.example\"") && answer.header("server").is_none_or(|server| !server.contains("envoy")),
            "{what}"
        );
    }
}

/// An installation of their own: such requests leave odd lines in the audit trail.
#[test]
fn neither_hosts_nor_paths_lead_around_the_decision() {
    let world = own_world("strangers", WorldOptions::default());
    the_host_header_decides_and_nothing_else(&world);
    the_open_prefix_leads_nowhere(&world);
}

/// One certificate serves all hosts, so a client may ask any host on a connection to any other.
fn the_host_header_decides_and_nothing_else(world: &World) {
    let before = (world.prod.audit_events().len(), world.staging.audit_events().len());
    for connected_to in [PUBLIC_HOST, PROD_HOST, STAGING_HOST] {
        // The login pages are on the public host alone.
        for path in [
            "/",
            "/login",
            "/callback?code=x&state=y",
            "/cli/login",
            "/cli/routes",
            "/pomerium/login",
            "/healthz",
            "/livez",
            "/api/v1/namespaces",
        ] {
            let answer = ask(world, connected_to, "GET", path, &[("host", PROD_HOST)]);
            // 421: not even the connection of another host is taken.
            let status = if connected_to == PROD_HOST { 401 } else { 421 };
            refused_as_kubernetes(&answer, status, &format!("{connected_to} {path}"));
        }
        for (host, status) in [
            ("PASS.localhost", 404),
            ("pass.localhost:443", 404),
            ("pass.localhost.", 404),
            ("unknown.localhost", 404),
            ("127.0.0.1", 404),
            ("", 404),
        ] {
            let answer = ask(world, connected_to, "GET", "/api/v1/namespaces", &[("host", host)]);
            assert!(answer.status == status || answer.status == 400 || answer.status == 421, "{connected_to} {host:?}: {}", answer.status);
        }
        let twice = ask(world, connected_to, "GET", "/api/v1/namespaces", &[("host", PUBLIC_HOST), ("host", PROD_HOST)]);
        assert!((400..500).contains(&twice.status), "{}", twice.status);
        for name in ["x-forwarded-host", "x-original-host", "forwarded", "x-envoy-original-host"] {
            let answer = ask(world, PROD_HOST, "GET", "/.kubepass/config", &[("host", PROD_HOST), (name, STAGING_HOST)]);
            assert_eq!(answer.json()["route"], "prod", "{name}");
        }
        // Absolute form: the target's authority is the host (RFC 9112, 3.2.2).
        let target = format!("https://{PROD_HOST}/login");
        let answer = ask(world, connected_to, "GET", &target, &[("host", PUBLIC_HOST)]);
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    nothing_arrived(world, before);
}

/// The prefix `/.kubepass/` needs no credential: no path may use it to get anywhere else.
fn the_open_prefix_leads_nowhere(world: &World) {
    let before = (world.prod.audit_events().len(), world.staging.audit_events().len());
    for path in [
        "/.kubepass/../api/v1/namespaces",
        "/.kubepass/%2e%2e/api/v1/namespaces",
        "/.kubepass/%2E%2E%2Fapi/v1/namespaces",
        "/.kubepass/..%2fapi/v1/namespaces",
        "/.kubepass/..%5capi/v1/namespaces",
        "/.kubepass/..\\api/v1/namespaces",
        "/.kubepass//../api/v1/namespaces",
        "/.kubepass/./../api/v1/namespaces",
        "/.kubepass/..;/api/v1/namespaces",
        "/.kubepass/config/../../api/v1/namespaces",
        "/x/../.kubepass/../api/v1/namespaces",
        "//.kubepass/../api/v1/namespaces",
        "/.kubepass/../login",
        "/.kubepass/%2e%2e/cli/routes",
        "/.kubepass",
        "/.kubepassx/config",
        "/.Kubepass/config",
        "/%2ekubepass/config",
        "/.kubepass%2fconfig",
        "/.pomerium/api/v1/routes",
        "/.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:45123",
        "/api/v1/namespaces?/.kubepass/",
        "/api/v1/namespaces#/.kubepass/",
        "/.kubepass/?/../api/v1/namespaces",
    ] {
        for bearer in [None, Some("Bearer Pomerium-junk"), Some("Bearer junk")] {
            let mut headers = vec![("host", PROD_HOST)];
            headers.extend(bearer.map(|bearer| ("authorization", bearer)));
            let answer = ask(world, PROD_HOST, "GET", path, &headers);
            let body = answer.text();
            assert!((400..500).contains(&answer.status) || body.contains("\"public_url\""), "{path}: {} {body}", answer.status);
            assert!(!body.contains("NamespaceList") && !body.contains("<form"), "{path}: {body}");
        }
    }
    // A body, an upgrade and other methods do not open it either.
    for headers in [
        &[
            ("host", PROD_HOST),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ][..],
        &[("host", PROD_HOST), ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")][..],
        &[("host", PROD_HOST), ("x-envoy-original-path", "/api/v1/namespaces"), ("x-original-url", "/api/v1/namespaces")][..],
        &[("host", PROD_HOST), ("x-http-method-override", "DELETE")][..],
    ] {
        let answer = ask(world, PROD_HOST, "GET", "/.kubepass/config", headers);
        assert!(answer.status != 101 && !answer.text().contains("NamespaceList"), "{headers:?}: {}", answer.status);
    }
    nothing_arrived(world, before);
}

#[test]
fn a_browsers_cookie_opens_no_cluster() {
    let world = world();
    let person = world.person("foo");
    let page = person.visit(&format!("{}/login", world.url(PUBLIC_HOST)));
    assert!(page.text().contains("foo@example.com"), "{page}");
    let cookie = person.browse(|browser| browser.jar.get("__Host-kubepass-session").expect("a session").clone());
    let before = (world.prod.audit_events().len(), world.staging.audit_events().len());
    let line = format!("{}={}", cookie.name, cookie.value);
    for headers in [
        vec![("host", PROD_HOST), ("cookie", line.as_str())],
        vec![("host", PROD_HOST), ("cookie", line.as_str()), ("authorization", "Bearer ")],
    ] {
        let answer = ask(&world, PROD_HOST, "GET", "/api/v1/namespaces", &headers);
        assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
    }
    let bearer = format!("Bearer {}", cookie.value);
    assert_eq!(ask(&world, PROD_HOST, "GET", "/api/v1/namespaces", &[("host", PROD_HOST), ("authorization", &bearer)]).status, 401);
    // And a browser is told where to go, without a login being started for it.
    let page = person.visit(&format!("{}/", world.url(PROD_HOST)));
    assert!(page.status == 401 && page.text().contains("Kubernetes API server") && page.header("set-cookie").is_empty(), "{page}");
    nothing_arrived(&world, before);
}

fn refused_as_kubernetes(answer: &Answer, status: u16, what: &str) {
    assert_eq!((answer.status, answer.json()["kind"].as_str()), (status, Some("Status")), "{what}: {}", answer.text());
}

/// Nothing came to an API server in the name of kubepass's service account.
fn nothing_arrived(world: &World, before: (usize, usize)) {
    let ours = |event: &Value| event["user"]["username"].as_str().is_some_and(|name| name.ends_with(":kubepass:kubepass"));
    let arrived: Vec<Value> = world
        .prod
        .audit_events()
        .into_iter()
        .skip(before.0)
        .chain(world.staging.audit_events().into_iter().skip(before.1))
        .filter(ours)
        .collect();
    assert_eq!(arrived, Vec::<Value>::new());
}

fn ask(world: &World, connect_to: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut connection = Connection::open(world.port, connect_to, world.authority.pem());
    connection.request(method, path, &[headers, &[("connection", "close")]].concat());
    connection.answer().unwrap_or_else(|| Answer { status: 499, headers: Vec::new(), body: Vec::new() })
}

trait Json {
    fn json(&self) -> Value;
}

impl Json for Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}
