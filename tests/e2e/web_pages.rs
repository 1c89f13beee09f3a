//! Web pages behind kubepass: people log in with their browsers, and upstreams that verify the signed header say who came and what reached them.

use std::io::Read as _;
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::{Value, json};

use super::support::browser::Page;
use super::support::kubectl::Kubectl;
use super::support::person::Person;
use super::support::raw::{Answer, Connection};
use super::support::run::Run;
use super::support::site::{CLUSTER_HOST, DOCS_HOST, SYSTEM_ROOTS_HOST, Site, WIKI_HOST, WRONG_CA_HOST, WRONG_NAME_HOST};
use super::support::tools::Tools;
use super::support::world::server_binary;

const COOKIE: &str = "__Host-kubepass-route";

/// The shared installation; it ends with the test binary.
fn site() -> MutexGuard<'static, Site> {
    static SITE: OnceLock<Mutex<Site>> = OnceLock::new();
    let site = SITE.get_or_init(|| Mutex::new(Site::start(Tools::ensure(), Run::new("site"))));
    site.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn people_log_in_with_their_browsers_and_the_upstream_knows_who_came() {
    let site = site();
    let foo = site.person("foo");
    let page = foo.visit("https://wiki.localhost/Start?a=b%20c&d=/e");
    assert_eq!((page.status, page.url.as_str()), (200, "https://wiki.localhost/Start?a=b%20c&d=/e"), "{page}");
    let led = ask(&site, WIKI_HOST, "GET", "/Start?a=b%20c&d=/e", &[("accept", "text/html")]);
    assert_eq!((led.status, led.header("location")), (302, Some("/.kubepass/start?return=%2FStart%3Fa%3Db%2520c%26d%3D%2Fe")));
    let seen = shown(&page);
    assert_eq!(seen["url"], "/Start?a=b%20c&d=/e");
    let claims = &seen["claims"];
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://pass.localhost"), &json!("https://wiki.localhost")));
    assert_eq!((&claims["email"], &claims["username"]), (&json!("foo@example.com"), &json!("foo@example.com")));
    assert_eq!((&claims["groups"], &claims["token_use"]), (&json!(["group1", "group2"]), &json!("assertion")));
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 300, "{claims}");
    nothing_of_ours(&seen);
    assert_eq!(seen["headers"]["cookie"], Value::Null);

    // Again: no login, and the upstream's own cookie with it.
    let page = foo.visit("https://wiki.localhost/");
    assert_eq!(page.hops.len(), 1, "{page}");
    assert_eq!(shown(&page)["headers"]["cookie"], "app=1");
    nothing_of_ours(&shown(&page));
    // Another host: the session is known, so the identity provider is not asked, and the upstream there has a token of its own.
    let page = foo.visit("https://docs.localhost/x");
    assert!(page.status == 200 && page.hops.iter().all(|hop| !hop.url.starts_with(site.idp.issuer())), "{page}");
    let seen = shown(&page);
    assert_eq!((&seen["claims"]["aud"], &seen["headers"]["x-kubepass-jwt-assertion"]), (&json!("docs-audience"), &Value::Null));
    assert_ne!(foo.browse(|browser| browser.jar.cookies.iter().filter(|cookie| cookie.name == COOKIE).count()), 0);

    the_trail_tells_it(&site, claims["kubepass_session"].as_str().unwrap());
    the_policy_holds(&site, &foo);
    what_ends_a_session_ends_it_here(&site, &foo);
}

/// As of clusters: see `own_envoy`.
#[test]
fn what_kubepass_configures_for_web_pages_has_no_findings() {
    let site = site();
    let socket = format!("unix:{}", site.run.file("kubepass/run/envoy-admin.sock").display());
    let said = Kubectl::command(&server_binary(), &site.run.dir("operator")).run(&["check-envoy", &socket]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("http:wiki@") && said.stdout.contains("http:docs@"), "{}", said.stdout);
}

fn the_trail_tells_it(site: &Site, session: &str) {
    let issued = site.audit_line("the cookie", |line| line["event"] == "token_issued" && line["route"] == "wiki");
    assert_eq!((&issued["client"], &issued["session"], &issued["user"]), (&json!("browser"), &json!(session), &json!("foo@example.com")));
    let decision = site.audit_line("the decision", |line| line["event"] == "decision" && line["path"] == "/" && line["route"] == "wiki");
    assert_eq!((&decision["outcome"], &decision["rule"], &decision["session"]), (&json!("allow"), &json!("staff"), &json!(session)));
    assert_eq!((&decision["upstream_user"], &decision["kubernetes"]), (&json!("foo@example.com"), &Value::Null));
    let id = decision["request_id"].clone();
    let completion = site.audit_line("the completion", |line| line["event"] == "completion" && line["request_id"] == id);
    assert_eq!((&completion["route"], &completion["status"]), (&json!("wiki"), &json!(200)));
    let text = std::fs::read_to_string(site.run.file("kubepass/audit.jsonl")).unwrap();
    assert!(!text.contains("eyJ") && !text.contains(COOKIE), "the trail holds a credential");
}

fn the_policy_holds(site: &Site, foo: &Person) {
    let bar = site.person("bar");
    assert_eq!(bar.visit("https://wiki.localhost/").status, 200);
    let before = site.wiki.arrivals().len();
    for path in ["/admin", "/%61dmin", "/x/../admin", "//admin"] {
        let page = bar.visit(&format!("https://wiki.localhost{path}"));
        assert_eq!(page.status, 403, "{path}: {page}");
        assert!(page.text().contains("ask <the> admins"), "{path}: {page}");
    }
    let eve = site.person("eve");
    let page = eve.visit("https://wiki.localhost/");
    assert!(page.status == 403 && page.text().contains("no policy rule of this route allows it"), "{page}");
    assert_eq!(site.wiki.arrivals().len(), before, "nothing of this reached the upstream");
    assert_eq!(foo.visit("https://wiki.localhost/admin").status, 200);
    let cookie = cookie_of(foo, WIKI_HOST);
    let own = format!("https://{WIKI_HOST}");
    let refused = ask(site, WIKI_HOST, "DELETE", "/x", &[("cookie", &cookie), ("origin", &own)]);
    assert_eq!((refused.status, refused.header("content-type")), (403, Some("application/json")), "{}", refused.text());
}

fn what_ends_a_session_ends_it_here(site: &Site, foo: &Person) {
    let cookie = cookie_of(foo, WIKI_HOST);
    assert_eq!(ask(site, WIKI_HOST, "GET", "/", &[("cookie", &cookie)]).status, 200);
    // The host's own log-out forgets its cookie and leads to the portal; there the session ends.
    let portal = foo.visit("https://wiki.localhost/.kubepass/logout");
    assert!(portal.url.starts_with("https://pass.localhost/") && portal.text().contains("foo@example.com"), "{portal}");
    assert!(portal.links().iter().any(|link| link.href == "https://docs.localhost/"), "{portal}");
    let form = portal.form_for("logout");
    let ended = foo.browse(|browser| browser.submit(&portal, &form, &[]));
    assert!(ended.text().contains("Logged out"), "{ended}");
    let before = site.wiki.arrivals().len();
    let refused = ask(site, WIKI_HOST, "GET", "/", &[("cookie", &cookie)]);
    assert!(refused.status == 401 && refused.text().contains("session_ended"), "{}", refused.text());
    let led = ask(site, WIKI_HOST, "GET", "/", &[("cookie", &cookie), ("accept", "text/html")]);
    assert_eq!((led.status, led.header("location")), (302, Some("/.kubepass/start?return=%2F")));
    assert_eq!(site.wiki.arrivals().len(), before);
}

#[test]
fn a_cookie_is_worth_nothing_to_other_pages_and_at_other_hosts() {
    let site = site();
    let foo = site.person("foo");
    assert_eq!(foo.visit("https://wiki.localhost/").status, 200);
    let cookie = cookie_of(&foo, WIKI_HOST);
    let before = site.wiki.arrivals().len();
    let with = |method: &str, more: &[(&str, &str)]| ask(&site, WIKI_HOST, method, "/x", &[&[("cookie", cookie.as_str())], more].concat());
    for origin in ["https://evil.example", "https://docs.localhost", "https://evil.wiki.localhost", "http://wiki.localhost", "null"] {
        assert_eq!(with("POST", &[("origin", origin)]).status, 403, "{origin}");
        assert_eq!(with("GET", &[("origin", origin)]).status, 403, "{origin}");
        assert_eq!(web_socket(&site, WIKI_HOST, &[("cookie", &cookie), ("origin", origin)]).0.status, 403, "{origin}");
    }
    assert_eq!(with("POST", &[]).status, 403);
    assert_eq!(web_socket(&site, WIKI_HOST, &[("cookie", &cookie)]).0.status, 403);
    for (site_of, mode, destination) in [
        ("cross-site", "no-cors", "image"),
        ("same-site", "no-cors", "script"),
        ("same-site", "navigate", "iframe"),
        ("cross-site", "cors", "empty"),
    ] {
        let headers = [("sec-fetch-site", site_of), ("sec-fetch-mode", mode), ("sec-fetch-dest", destination)];
        assert_eq!(with("GET", &headers).status, 403, "{headers:?}");
    }
    // A form of a neighbour's page, as a browser sends it.
    let refused = with("POST", &[("origin", "https://docs.localhost"), ("sec-fetch-site", "same-site"), ("accept", "text/html")]);
    assert!(refused.status == 403 && refused.text().contains("page of another origin"), "{}", refused.text());
    assert_eq!(site.wiki.arrivals().len(), before, "nothing of this reached the upstream");

    let own = format!("https://{WIKI_HOST}");
    assert_eq!(with("POST", &[("origin", &own)]).status, 200);
    let (upgraded, greeting) = web_socket(&site, WIKI_HOST, &[("cookie", &cookie), ("origin", &own)]);
    assert_eq!((upgraded.status, greeting.as_str()), (101, "hello foo@example.com"));

    let docs = site.docs.arrivals().len();
    assert_eq!(ask(&site, DOCS_HOST, "GET", "/", &[("cookie", &cookie)]).status, 401, "another host");
    let session = foo.browse(|browser| browser.jar.get("__Host-kubepass-session").unwrap().value.clone());
    for forged in [format!("__Host-kubepass-session={session}"), format!("{COOKIE}={session}"), format!("{cookie}; {cookie}")] {
        assert_eq!(ask(&site, WIKI_HOST, "GET", "/", &[("cookie", &forged)]).status, 401, "{forged}");
    }
    let cluster = ask(&site, CLUSTER_HOST, "GET", "/version", &[("cookie", &cookie)]);
    assert!(cluster.status == 401 && cluster.text().contains("\"kind\":\"Status\""), "clusters take no cookie: {}", cluster.text());
    // No WebSocket where the route has none, whoever asks.
    let visit = foo.visit("https://docs.localhost/");
    assert_eq!(visit.status, 200, "{visit}");
    let docs_cookie = cookie_of(&foo, DOCS_HOST);
    let refused = web_socket(&site, DOCS_HOST, &[("cookie", &docs_cookie), ("origin", "https://docs.localhost")]).0;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(site.docs.arrivals().len(), docs + 1);
}

#[test]
fn nothing_that_a_client_forges_reaches_the_upstream() {
    let site = site();
    let foo = site.person("foo");
    assert_eq!(foo.visit("https://docs.localhost/").status, 200);
    let cookie = cookie_of(&foo, DOCS_HOST);
    let forged = [
        ("x-identity", "eyJ.forged.x"),
        ("X-Identity", "eyJ.forged.x"),
        ("X.Identity", "eyJ.forged.x"),
        ("x~identity", "eyJ.forged.x"),
        ("x-rewrite-url", "/forged.x"),
        ("x-http-method-override", "FORGED.X"),
        ("x-kubepass-assertion", "eyJ.forged.x"),
        ("x-kubepass-cookie", "forged=1"),
        ("x-kubepass-authorization", "Bearer forged"),
        ("x-forwarded-user", "root"),
        ("x-forwarded-for", "203.0.113.9"),
        ("proxy-authorization", "Bearer forged"),
        ("cookie", "mine=1"),
    ];
    let answer = ask(&site, DOCS_HOST, "GET", "/forged", &[&[("cookie", cookie.as_str())], &forged[..]].concat());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&seen["claims"]["email"], &seen["headers"]["cookie"]), (&json!("foo@example.com"), &json!("mine=1")));
    assert!(
        !seen.to_string().contains("forged.x") && !seen.to_string().contains("forged=1") && !seen.to_string().contains("203.0.113.9"),
        "{seen}"
    );
    let times =
        |name: &str| seen["names"].as_array().unwrap().iter().filter(|seen| seen.as_str().unwrap().eq_ignore_ascii_case(name)).count();
    assert_eq!((times("x-identity"), times("cookie")), (1, 1));
    nothing_of_ours(&seen);
    // Cookies arrive whole or not at all.
    for (bytes, fits) in [(20_000, true), (28_000, true), (40_000, false)] {
        let before = site.docs.arrivals().len();
        let large = format!("{cookie}; large={}", "x".repeat(bytes));
        let answer = ask(&site, DOCS_HOST, "GET", "/large", &[("cookie", &large)]);
        let arrived = site.docs.arrivals().split_off(before);
        let whole = arrived.iter().all(|line| line["headers"]["cookie"].as_str().map(str::len) == Some(bytes + "large=".len()));
        assert!((answer.status == 200) == fits && arrived.len() == usize::from(fits) && whole, "{bytes}: {} {arrived:?}", answer.status);
    }
    // Nor does a login path of ours lead there, or a name of ours in another spelling.
    let before = site.docs.arrivals().len();
    for path in ["/.kubepass/", "/.kubepass/x", "/.kubepass/callback?code=x&state=0123456789abcdef"] {
        assert!(ask(&site, DOCS_HOST, "GET", path, &[("cookie", &cookie)]).status >= 400, "{path}");
    }
    assert_eq!(ask(&site, DOCS_HOST, "GET", "/x", &[("cookie", &cookie), ("x_identity", "forged")]).status, 400);
    assert_eq!(site.docs.arrivals().len(), before);
}

#[test]
fn programs_come_with_a_session_token_and_upstreams_are_verified() {
    let site = site();
    let foo = site.person("foo");
    let bearer = |host: &str| format!("Bearer {}", foo.session_token(&format!("https://{host}")));
    let wiki = bearer(WIKI_HOST);
    for method in ["GET", "POST"] {
        let answer = ask(&site, WIKI_HOST, method, "/api", &[("authorization", &wiki)]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(seen["claims"]["username"], "foo@example.com");
        nothing_of_ours(&seen);
    }
    assert_eq!(ask(&site, DOCS_HOST, "GET", "/", &[("authorization", &wiki)]).status, 401, "a token of another route");
    let (wiki_before, docs_before) = (site.wiki.arrivals().len(), site.docs.arrivals().len());
    let nobody = ask(&site, WIKI_HOST, "GET", "/", &[]);
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, Some("Bearer realm=\"kubepass\"")));
    assert!(nobody.text().contains("\"error\":\"no_credential\""), "{}", nobody.text());
    assert_eq!(ask(&site, WIKI_HOST, "GET", "/", &[("authorization", "Basic Zm9vOmJhcg==")]).status, 400);
    assert_eq!(ask(&site, CLUSTER_HOST, "GET", "/version", &[("authorization", &wiki)]).status, 401);
    for host in [WRONG_CA_HOST, WRONG_NAME_HOST, SYSTEM_ROOTS_HOST] {
        let answer = ask(&site, host, "GET", "/", &[("authorization", &bearer(host))]);
        assert!(
            answer.status == 503 && answer.text().contains("the server behind this address cannot be reached"),
            "{host}: {}",
            answer.text()
        );
    }
    assert_eq!((site.wiki.arrivals().len(), site.docs.arrivals().len()), (wiki_before, docs_before));
    assert_eq!(ask(&site, DOCS_HOST, "GET", "/", &[("authorization", &bearer(DOCS_HOST))]).status, 200);

    let routes = foo.kubepass(&["routes"]).ok();
    assert!(
        routes.contains("wiki\thttps://wiki.localhost\tweb page\n") && routes.contains("prod\thttps://prod.k8s.localhost\n"),
        "{routes}"
    );
    let refused = foo.set_up("https://wiki.localhost").err();
    assert!(refused.contains("is no cluster but a web page"), "{refused}");
}

/// What the upstream says that it got.
fn shown(page: &Page) -> Value {
    serde_json::from_str(&page.body).unwrap_or_else(|error| panic!("{error}: {page}"))
}

/// Neither cookies nor tokens of ours, and no name that only we use.
fn nothing_of_ours(seen: &Value) {
    let headers = seen["headers"].as_object().unwrap();
    for (name, value) in headers {
        let value = value.to_string();
        assert!(!value.contains("__Host-kubepass") && !value.contains("Bearer "), "{name}: {value}");
        let is_identity = matches!(name.as_str(), "x-kubepass-jwt-assertion" | "x-identity");
        assert!(is_identity || !(name.starts_with("x-kubepass") || name.starts_with("impersonate") || name == "authorization"), "{name}");
    }
    assert_eq!(headers["audit-id"].as_str().map(str::len), Some(36), "the id that joins the upstream's log with our trail");
}

fn cookie_of(person: &Person, host: &str) -> String {
    person.browse(|browser| {
        let cookie = browser.jar.cookies.iter().find(|cookie| cookie.name == COOKIE && cookie.host == host);
        let cookie = cookie.unwrap_or_else(|| panic!("no cookie of {host}"));
        assert!(cookie.secure && cookie.http_only && !cookie.subdomains);
        format!("{}={}", cookie.name, cookie.value)
    })
}

fn ask(site: &Site, host: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut connection = Connection::open(site.port, host, site.authority.pem());
    connection.request(method, path, &[&[("host", host), ("connection", "close"), ("content-length", "0")], headers].concat());
    connection.answer().unwrap_or_else(|| panic!("no answer: {method} {host}{path}"))
}

/// The answer, and what comes after a 101.
fn web_socket(site: &Site, host: &str, headers: &[(&str, &str)]) -> (Answer, String) {
    let mut connection = Connection::open(site.port, host, site.authority.pem());
    let upgrade = [
        ("host", host),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    connection.request("GET", "/socket", &[&upgrade, headers].concat());
    let answer = connection.answer().expect("an answer");
    let mut greeting = Vec::new();
    if answer.status == 101 {
        let _ = connection.stream().read_to_end(&mut greeting);
    }
    (answer, String::from_utf8_lossy(greeting.get(2..).unwrap_or_default()).into_owned())
}
