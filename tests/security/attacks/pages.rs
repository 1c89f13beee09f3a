//! Cookies of web pages: at other hosts, on clusters, in what pages of others ask, and on the way to upstreams. The attacks add two hosts of web pages to
//! the installation for as long as they last.

use super::super::attack::{Attack, Verdict};
use super::super::change::with_config;
use super::super::recorder::{Arrived, Recorder};
use super::super::scene::{DOCS_HOST, LEDGER_HOST, RECORDER_HOST, Scene, WIKI_HOST};
use super::super::support::raw::{Answer, Connection};
use super::super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST};
use super::login_steps::{CHALLENGE, VERIFIER, login_token_for};

const COOKIE: &str = "__Host-kubepass-route";

/// The installation's web pages, both served by one recorder, and the cookie of a person at the first.
struct Pages<'s> {
    scene: &'s Scene,
    upstream: Recorder,
    cookie: String,
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("cookie-of-another-host", "session replay between routes", "the cookie of one web page's host at another", |scene| {
        with_pages(scene, |pages| pages.nothing_of(&[pages.ask(DOCS_HOST, "GET", "/other-host", &[])]))
    }),
    Attack::new(
        "cookie-on-a-cluster",
        "pods' pages that act as their visitors",
        "the cookie of a web page's host on Kubernetes routes",
        |scene| {
            with_pages(scene, |pages| {
                let hosts = [RECORDER_HOST, LEDGER_HOST, PROD_HOST, STAGING_HOST];
                let answers = hosts.map(|host| (host, pages.ask(host, "GET", "/version?attack=cookie-on-a-cluster-0.", &[])));
                // Their upstreams answer 200 to whoever gets there.
                let through = answers.iter().filter(|(_, answer)| answer.status == 200);
                Verdict::of(&through.map(|(host, _)| format!("{host} took the cookie")).collect::<Vec<_>>(), "401")
            })
        },
    ),
    Attack::new("cross-site-requests", "CSRF", "what pages of others have a browser send, with the person's cookie", |scene| {
        with_pages(scene, |pages| {
            let own = format!("https://{WIKI_HOST}");
            let from = |site: &str, origin: &str| [("sec-fetch-site", site.to_owned()), ("origin", origin.to_owned())];
            let answers = [
                pages.ask_with(WIKI_HOST, "POST", "/cross-site", &from("cross-site", "https://evil.example")),
                pages.ask_with(WIKI_HOST, "DELETE", "/cross-site", &from("same-site", &format!("https://{DOCS_HOST}"))),
                pages.ask(WIKI_HOST, "GET", "/cross-site", &[("origin", "https://evil.example")]),
                pages.ask(WIKI_HOST, "POST", "/cross-site", &[]),
            ];
            let control = pages.ask(WIKI_HOST, "POST", "/control", &[("origin", &own)]);
            assert_eq!(control.status, 200, "its own pages may: {}", control.text());
            pages.nothing_of(&answers)
        })
    }),
    Attack::new(
        "cookies-of-ours-upstream",
        "upstreams that collect sessions",
        "our own cookies, however they are written, beside the upstream's",
        |scene| {
            with_pages(scene, |pages| {
                for cookies in
                    [pages.cookie.clone(), format!("a=b; {}; c=d", pages.cookie), format!("{}; \"x={}\"", pages.cookie, pages.cookie)]
                {
                    let request = format!("GET /cookies HTTP/1.1\r\nhost: {WIKI_HOST}\r\ncookie: {cookies}\r\nconnection: close\r\n\r\n");
                    pages.connect(WIKI_HOST).send(request.as_bytes()).answer();
                }
                let head = |arrived: &Arrived| String::from_utf8_lossy(&arrived.head).to_ascii_lowercase();
                let arrived = pages.upstream.arrived(0).into_iter().filter(|arrived| arrived.target == "/cookies");
                let shown: Vec<String> =
                    arrived.filter(|arrived| head(arrived).contains("__host-kubepass")).map(|arrived| head(&arrived)).collect();
                Verdict::of(&shown, "left out")
            })
        },
    ),
    Attack::new(
        "code-of-a-host-as-a-login",
        "a code for less taken for one of more",
        "the code that leads back to a web page's host, redeemed for a login token",
        |scene| {
            with_pages(scene, |_| {
                let callback = format!("https://{WIKI_HOST}/.kubepass/callback");
                let start = format!(
                    "{}/route/login?route={WIKI_HOST}&state=0123456789abcdef&code_challenge={CHALLENGE}",
                    scene.world.url(PUBLIC_HOST)
                );
                let stop = callback.clone();
                let page = scene.person("foo").browse(|browser| {
                    browser.stop_at(move |url| url.as_str().starts_with(&stop));
                    let page = browser.open(&start);
                    browser.stop_at(|_| false);
                    page
                });
                let code = page.query("code").unwrap_or_else(|| panic!("no code: {page}"));
                match login_token_for(scene, &code, VERIFIER, &callback) {
                    Some(_) => Verdict::GotThrough("it gave a login token".to_owned()),
                    None => Verdict::Held("invalid_grant".to_owned()),
                }
            })
        },
    ),
];

fn with_pages(scene: &Scene, act: impl FnOnce(&Pages<'_>) -> Verdict) -> Verdict {
    let upstream = Recorder::start(&scene.world.authority.server(&["127.0.0.1"]));
    let route = |name: &str, host: &str| {
        let url = upstream.url();
        format!(
            "- name: {name}\n  host: {host}\n  http: {{upstream: \"{url}\", ca: {{file: ca.pem}}}}\n  \
             policy:\n  - {{name: staff, allow: user.email.endsWith(\"@example.com\")}}\n"
        )
    };
    let config = scene.config().replace("\naudit:", &format!("\n{}{}audit:", route("wiki", WIKI_HOST), route("docs", DOCS_HOST)));
    let connect = |host: &str| Connection::open(scene.world.port, host, scene.world.authority.pem());
    let is_served = |host: &str| {
        let answer = connect(host).request("GET", "/", &[("host", host), ("accept", "application/json")]).answer();
        answer.is_some_and(|answer| answer.status == 401)
    };
    with_config(
        scene,
        &config,
        || is_served(WIKI_HOST) && is_served(DOCS_HOST),
        || {
            let foo = scene.person("foo");
            let page = foo.visit(&format!("https://{WIKI_HOST}/"));
            assert_eq!(page.status, 200, "{page}");
            let cookie = foo.browse(|browser| {
                let found = browser.jar.cookies.iter().find(|cookie| cookie.name == COOKIE && cookie.host == WIKI_HOST);
                found.map(|cookie| cookie.value.clone()).expect("a cookie")
            });
            act(&Pages { scene, cookie: format!("{COOKIE}={cookie}"), upstream })
        },
    )
}

impl Pages<'_> {
    fn connect(&self, host: &str) -> Connection {
        Connection::open(self.scene.world.port, host, self.scene.world.authority.pem())
    }

    /// With the cookie of the first host.
    fn ask(&self, host: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let usual = [("host", host), ("connection", "close"), ("content-length", "0"), ("cookie", self.cookie.as_str())];
        let mut connection = self.connect(host);
        connection.request(method, path, &[&usual[..], headers].concat());
        connection.answer().expect("an answer")
    }

    fn ask_with(&self, host: &str, method: &str, path: &str, headers: &[(&str, String)]) -> Answer {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.ask(host, method, path, &headers)
    }

    /// Nothing but the login and what is allowed came to the upstream.
    fn nothing_of(&self, answers: &[Answer]) -> Verdict {
        let arrived = self.upstream.arrived(0).into_iter().filter(|arrived| !matches!(arrived.target.as_str(), "/" | "/control"));
        let findings: Vec<String> = arrived.map(|arrived| format!("{} {} came to the upstream", arrived.method, arrived.target)).collect();
        let ends: Vec<String> = answers.iter().map(|answer| answer.status.to_string()).collect();
        Verdict::of(&findings, ends.join(", "))
    }
}
