//! Getting into somebody's login, or somebody into one's own: answers, codes and forms of one login in the place of another's. The identity provider
//! demands no PKCE here, so that what kubepass itself does is seen.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::super::attack::{Attack, Verdict};
use super::super::change::with_config;
use super::super::scene::{RECORDER_HOST, Scene};
use super::super::support::browser::{Browser, Page};
use super::super::support::idp::CLIENT_ID;
use super::super::support::world::PUBLIC_HOST;
use super::login_steps::{CHALLENGE, VERIFIER, answer_of, begin, browser, is, logged_in, login_token_for, works};

/// What another program of the attacker's is told.
const OTHER_VERIFIER: &str = "another-verifier-of-another-program-of-forty-three";
const REDIRECT: &str = "http://127.0.0.1:65001/callback";

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "login-csrf",
        "OAuth 2.0 BCP, RFC 9700, 4.7",
        "the answer of the attacker's own login, opened in the victim's browser",
        |scene| {
            without_pkce_at_the_provider(scene, || {
                let answer = answer_of(scene, &mut browser(scene), "mallory");
                let mut victim = browser(scene);
                begin(scene, &mut victim);
                let page = victim.open(&answer.url);
                in_session(scene, &mut victim, "mallory", &page, "the victim works in the attacker's session")
            })
        },
    ),
    Attack::new("code-injection", "OAuth 2.0 BCP, RFC 9700, 4.5", "a stolen code of the victim in the attacker's own login", |scene| {
        without_pkce_at_the_provider(scene, || {
            let stolen = answer_of(scene, &mut browser(scene), "foo").query("code").expect("a code");
            let mut attacker = browser(scene);
            let own = answer_of(scene, &mut attacker, "mallory");
            let injected = own.url.replace(&encoded(&own.query("code").expect("a code")), &encoded(&stolen));
            let page = attacker.open(&injected);
            in_session(scene, &mut attacker, "foo", &page, "the attacker is in the victim's session")
        })
    }),
    Attack::new(
        "provider-mix-up",
        "RFC 9207",
        "an answer of one identity provider to a login that was begun at a hostile one",
        provider_mix_up,
    ),
    Attack::new("code-interception", "RFC 7636, 1", "a code of the command line, redeemed by another program", |scene| {
        let mut victim = logged_in(scene, "foo");
        let code = confirmed(scene, &mut victim, REDIRECT).query("code").expect("a code");
        match login_token_for(scene, &code, OTHER_VERIFIER, REDIRECT) {
            Some(token) if works(scene, &token, RECORDER_HOST) => Verdict::GotThrough("another program has a login token".to_owned()),
            _ => Verdict::Held("invalid_grant".to_owned()),
        }
    }),
    Attack::new(
        "form-of-another-session",
        "CSRF; clickjacking",
        "the attacker's confirmation, sent by the victim's browser from another page",
        |scene| {
            let mut attacker = logged_in(scene, "mallory");
            let asked = attacker.open(&cli_login(scene, REDIRECT));
            let form = asked.form_with("form").expect("a confirmation").value("form").expect("sealed").to_owned();
            let victim = logged_in(scene, "foo");
            let confirm = url::Url::parse(&format!("{}/confirm", scene.world.url(PUBLIC_HOST))).expect("a URL");
            let cookies = victim.jar.header(&confirm, super::super::support::jar::Origin::SameSite).expect("cookies");
            // Another host of the same site: its pages' requests carry the cookies.
            let request = scene.world.client().post(confirm).header("cookie", cookies).header("origin", "https://evil.localhost");
            let request = request.header("sec-fetch-site", "same-site").form(&[("form", form.as_str()), ("decision", "allow")]);
            let answer = request.send().expect("an answer");
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            let code = url::Url::parse(&location)
                .ok()
                .and_then(|url| url.query_pairs().find(|(key, _)| key == "code").map(|(_, code)| code.into_owned()));
            match code.and_then(|code| login_token_for(scene, &code, VERIFIER, REDIRECT)) {
                Some(token) if works(scene, &token, RECORDER_HOST) => {
                    Verdict::GotThrough("the attacker has the victim's login token".to_owned())
                }
                _ => Verdict::Held(answer.status().to_string()),
            }
        },
    ),
    Attack::new("code-to-another-site", "open redirects", "a confirmation that leads to a site of the attacker's", |scene| {
        let mut victim = logged_in(scene, "foo");
        let elsewhere = "https://evil.example/callback";
        let asked = victim.open(&cli_login(scene, elsewhere));
        let Some(form) = asked.form_with("form") else { return Verdict::Held(asked.status.to_string()) };
        // What the page's own policy says of forms is left out: the attacker may have the victim use an old browser.
        let sealed = form.value("form").expect("sealed").to_owned();
        let confirm = url::Url::parse(&format!("{}/confirm", scene.world.url(PUBLIC_HOST))).expect("a URL");
        let cookies = victim.jar.header(&confirm, super::super::support::jar::Origin::SameSite).expect("cookies");
        let request = scene.world.client().post(confirm).header("cookie", cookies).header("origin", scene.world.url(PUBLIC_HOST));
        let answer = request.form(&[("form", sealed.as_str()), ("decision", "allow")]).send().expect("an answer");
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if location.starts_with(elsewhere) {
            Verdict::GotThrough(format!("led to {elsewhere} with a code"))
        } else {
            Verdict::Held(answer.status().to_string())
        }
    }),
];

/// The hostile provider leads its victim to the honest one; kubepass must not bring it the honest one's code.
fn provider_mix_up(scene: &Scene) -> Verdict {
    let hostile = HostileProvider::start();
    let provider = format!(
        "\n- name: hostile\n  issuer: {}\n  client_id: {CLIENT_ID}\n  client_secret: {{file: client-secret}}\n  scopes: [openid, email]\n  \
         identity: {{username: claims.email, email_domains: [hostile.example]}}\nsessions:",
        hostile.issuer
    );
    // Users of two providers must be apart.
    let config = scene.config().replace("groups: claims.groups}", "groups: claims.groups, email_domains: [example.com]}");
    let config = config.replace("\nsessions:", &provider);
    with_config(
        scene,
        &config,
        || true,
        || {
            let mut victim = browser(scene);
            let issuer = hostile.issuer.clone();
            victim.stop_at(move |url| url.as_str().starts_with(&issuer));
            let begun = victim.open(&format!("{}/login?idp=hostile", scene.world.url(PUBLIC_HOST)));
            let asked = url::Url::parse(&begun.url).expect("a URL");
            let honest = format!("{}/auth?{}", scene.world.idp.issuer().trim_end_matches('/'), asked.query().expect("a query"));
            let callback = format!("{}/callback", scene.world.url(PUBLIC_HOST));
            victim.stop_at(move |url| url.as_str().starts_with(&callback));
            let page = victim.open(&honest);
            let page = scene.world.idp.log_in(&mut victim, page, "foo");
            victim.stop_at(|_| false);
            let code = page.query("code").unwrap_or_else(|| panic!("no code: {page}"));
            let answer = victim.open(&page.url);
            if hostile.was_told(&code) {
                Verdict::GotThrough("the hostile provider has the code".to_owned())
            } else {
                Verdict::Held(answer.status.to_string())
            }
        },
    )
}

/// Says where it is, and keeps what it is told.
struct HostileProvider {
    issuer: String,
    told: Arc<Mutex<String>>,
}

impl HostileProvider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("bound"));
        let told = Arc::new(Mutex::new(String::new()));
        let discovery = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"), "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        });
        let keep = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut bytes) = (stream.expect("a connection"), vec![0; 16 << 10]);
                // Small requests: head and body come at once, or the body right after.
                let mut text = String::new();
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    text.push_str(&String::from_utf8_lossy(&bytes[..read]));
                    if !text.starts_with("POST") && text.contains("\r\n\r\n") || text.contains("code=") {
                        break;
                    }
                }
                let body = if text.contains("/jwks") { json!({"keys": []}).to_string() } else { discovery.to_string() };
                keep.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { issuer, told }
    }

    fn was_told(&self, code: &str) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).contains(code)
    }
}

/// The provider as one that leaves PKCE to its clients.
fn without_pkce_at_the_provider(scene: &Scene, act: impl FnOnce() -> Verdict) -> Verdict {
    scene.world.idp.set(&json!({"pkce_required": false}));
    let verdict = act();
    scene.world.idp.set(&json!({"pkce_required": true}));
    verdict
}

fn in_session(scene: &Scene, browser: &mut Browser, login: &str, page: &Page, what: &str) -> Verdict {
    if is(scene, browser, login) { Verdict::GotThrough(what.to_owned()) } else { Verdict::Held(page.status.to_string()) }
}

fn cli_login(scene: &Scene, redirect_uri: &str) -> String {
    let query =
        [("redirect_uri", redirect_uri), ("code_challenge", CHALLENGE), ("code_challenge_method", "S256"), ("state", "of-a-program")];
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{}/cli/login?{query}", scene.world.url(PUBLIC_HOST))
}

/// The person's click; the page that the browser is led to.
fn confirmed(scene: &Scene, browser: &mut Browser, redirect_uri: &str) -> Page {
    let to = redirect_uri.to_owned();
    let page = browser.open(&cli_login(scene, redirect_uri));
    browser.stop_at(move |url| url.as_str().starts_with(&to));
    let form = page.form_with("form").unwrap_or_else(|| panic!("no confirmation: {page}"));
    let page = browser.submit_by(&page, &form, &[], "allow");
    browser.stop_at(|_| false);
    page
}

/// As it stands in a URL.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
