//! Where a browser is sent, whatever an address is made of: what is followed leads, for a browser's own parser of URLs, back to this installation,
//! to the same host, or to a program on the person's own computer. Everything else ends on a page.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{StatusCode, header};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use url::Url;

use super::installation::{Answer, Browser, Installation, PROD, PUBLIC, WIKI};

/// What addresses are made of when they are to look like another's.
const PIECES: [&str; 64] = [
    "http://",
    "https://",
    "HTTP://",
    "http:",
    "http:/",
    "http:\\\\",
    "//",
    "///",
    "/\\",
    "\\\\",
    "/",
    "\\",
    "javascript:",
    "data:text/html,",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.2",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::]",
    "::1",
    "evil.example",
    "127.0.0.1.evil.example",
    "pass.example.com",
    "pass.example.com.evil.example",
    "wiki.example.com",
    "wik\u{456}.example.com",
    "\u{ff11}27.0.0.1",
    "127\u{3002}0.0.1",
    "evil%2eexample",
    "user@",
    "user:pw@",
    "@",
    "@evil.example",
    "%40evil.example",
    ":45123",
    ":80",
    ":0",
    ":65536",
    ":45123@evil.example",
    "/callback",
    "/a/b",
    "/../",
    "/%2e%2e/",
    "/.kubepass/logout",
    "/x/.%2E/.kubepass/start",
    "%2f",
    "%5c",
    "?a=b",
    "/cli/login?state=x",
    "/route/login?",
    "#fragment",
    "#@evil.example",
    "\t",
    "\r\nLocation: https://evil.example",
    "\0",
    " ",
];

fn address() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(select(&PIECES[..]), 0..6).prop_map(|pieces| pieces.concat());
    let program = (select(vec!["127.0.0.1", "[::1]", "localhost"]), select(vec!["", ":45123", ":1024"]), select(&PIECES[..]));
    let program = program.prop_map(|(host, port, piece)| format!("http://{host}{port}{piece}"));
    let path = (select(vec!["/", "/cli/login?", "/route/login?", "/x", "/login"]), select(&PIECES[..]), select(&PIECES[..]));
    prop_oneof![3 => pieces, 2 => program, 2 => path.prop_map(|(start, one, other)| format!("{start}{one}{other}"))]
}

/// Asks for each address; `followed` gives where the browser was sent in the end, if anywhere.
#[track_caller]
fn check(least: usize, followed: impl AsyncFn(&Installation, &mut Browser, &str) -> Option<Url>, is_good: impl Fn(&Url) -> bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (installation, browser) = runtime.block_on(async {
        let installation = Installation::new().await;
        let browser = installation.logged_in().await;
        (installation, browser)
    });
    let sent = AtomicUsize::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: 1_500, ..ProptestConfig::with_source_file("tests/it/web/redirects.rs") });
    let result = runner.run(&address(), |address| {
        if let Some(url) = runtime.block_on(followed(&installation, &mut browser.clone(), &address)) {
            prop_assert!(is_good(&url), "{address:?} leads to {url}");
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(sent.load(Ordering::Relaxed) >= least, "{sent:?} were followed: too few to say anything");
}

/// As a browser reads `Location`; the answer is a page when there is none.
fn location(answer: &Answer, page: &str) -> Option<Url> {
    if let Some(location) = answer.headers.get(header::LOCATION) {
        return Some(Url::parse(page).unwrap().join(location.to_str().unwrap()).unwrap());
    }
    // A session has a few codes at a time only.
    let busy = answer.status == StatusCode::SERVICE_UNAVAILABLE;
    assert!(busy || answer.status.is_client_error() || answer.status == StatusCode::OK, "{answer:?}");
    None
}

fn query(path: &str, pairs: &[(&str, &str)]) -> String {
    format!("{path}?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[test]
fn a_login_ends_on_this_installation() {
    let followed = async |installation: &Installation, browser: &mut Browser, address: &str| {
        let start = browser.get(&query("/login", &[("return", address)])).await;
        let at_provider = location(&start, PUBLIC)?;
        let end = browser.get(installation.idp.authorize(&at_provider).as_str()).await;
        assert!(end.sets_session(), "{address:?}: {}", end.body);
        location(&end, &format!("{PUBLIC}/callback"))
    };
    check(30, followed, |url| origin(url) == PUBLIC && (url.path() == "/" || url.path().ends_with("/login")) && url.fragment().is_none());
}

#[test]
fn a_visit_ends_on_the_host_where_it_began() {
    let followed = async |_: &Installation, browser: &mut Browser, address: &str| {
        let start = browser.get(&query(&format!("{WIKI}/.kubepass/start"), &[("return", address)])).await;
        let at_login = location(&start, WIKI)?;
        assert_eq!((origin(&at_login).as_str(), at_login.path()), (PUBLIC, "/route/login"));
        let code = browser.get(at_login.as_str()).await;
        let back = location(&code, PUBLIC).filter(|_| code.status == StatusCode::SEE_OTHER);
        match back {
            Some(back) => location(&browser.get(back.as_str()).await, back.as_str()),
            None => panic!("{}", code.body),
        }
    };
    check(30, followed, |url| origin(url) == WIKI && url.username().is_empty() && !url.path().starts_with("/.kubepass/"));
}

/// Whatever `route` says, a code goes to a host of web pages of this configuration.
#[test]
fn a_code_goes_to_a_configured_host() {
    let followed = async |_: &Installation, browser: &mut Browser, address: &str| {
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let asked = [("route", address), ("state", "0123456789abcdef"), ("code_challenge", challenge)];
        location(&browser.get(&query("/route/login", &asked)).await, PUBLIC)
    };
    check(0, followed, |url| origin(url) == WIKI && url.path() == "/.kubepass/callback");
}

#[test]
fn a_program_is_one_on_this_computer() {
    let is_program = |url: &Url| {
        let host = matches!(url.host_str(), Some("127.0.0.1" | "[::1]"));
        host && url.scheme() == "http"
            && url.port().is_some_and(|port| port >= 1024)
            && url.username().is_empty()
            && url.fragment().is_none()
    };
    let refused = async |browser: &mut Browser, page: Answer| {
        if page.status != StatusCode::OK {
            return location(&page, PUBLIC);
        }
        let form = page.form();
        location(&browser.post("/confirm", &[("form", &form), ("decision", "deny")]).await, PUBLIC)
    };
    let by_code = async |_: &Installation, browser: &mut Browser, address: &str| {
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let asked = [("redirect_uri", address), ("code_challenge", challenge), ("code_challenge_method", "S256"), ("state", "s")];
        let page = browser.get(&query("/cli/login", &asked)).await;
        refused(browser, page).await
    };
    check(10, by_code, is_program);
    // pomerium-cli is asked first for the address of the login, on the cluster's own host.
    let by_token = async |_: &Installation, browser: &mut Browser, address: &str| {
        let answer = browser.get(&query(&format!("{PROD}/.pomerium/api/v1/login"), &[("pomerium_redirect_uri", address)])).await;
        if answer.status != StatusCode::OK {
            assert!(answer.status.is_client_error(), "{answer:?}");
            return None;
        }
        let page = browser.get(answer.body.trim()).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        // What the page says of the port is what a browser takes for it.
        let url = Url::parse(address).unwrap();
        assert!(page.body.contains(&format!("<strong>{}", url.port().unwrap())), "{address}: {}", page.body);
        Some(url)
    };
    check(10, by_token, is_program);
}
