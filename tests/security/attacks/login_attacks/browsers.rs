//! The login in a browser: planted, fixed, replayed, injected, mixed up with another, led astray.

use std::thread;

use url::Url;

use super::stage::{ATTACKER, HONEST, SESSION, Stage, VICTIM, email, encoded, value};
use crate::attack::{Attack, Verdict};
use crate::scene::Scene;
use crate::support::browser::Browser;
use crate::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("login-planted", "RFC 9700 4.7", "the attacker's callback in the victim's browser", login_csrf),
    Attack::new("session-fixation", "CWE-384", "a session cookie from before the login", session_fixation),
    Attack::new("login-code-replay", "RFC 6749 10.5, 4.1.2", "a callback's address once more, elsewhere, and twice at once", code_replay),
    Attack::new("login-code-injection", "RFC 9700 4.5", "the victim's code in the attacker's login", code_injection),
    Attack::new("login-state-reuse", "RFC 9700 4.7", "a second code under a state that was used", state_reuse),
    Attack::new("login-nonce-reuse", "OpenID Connect Core 15.5.2", "an ID token with the nonce of an earlier login", nonce_reuse),
    Attack::new("login-cookie-tossing", "RFC 6265 8.6", "cookies of other hosts beside ours, by every spelling", cookie_tossing),
    Attack::new(
        "login-cookie-elsewhere",
        "pomerium: a cookie is a credential",
        "the session cookie at the clusters' hosts",
        cookie_elsewhere,
    ),
    Attack::new("open-redirect-return", "RFC 9700 4.11", "addresses of others as the way back", open_redirect_return),
    Attack::new(
        "open-redirect-program",
        "RFC 9700 4.1, RFC 8252 8.3",
        "addresses of others as the program's, and the victim says yes",
        open_redirect_program,
    ),
];

/// A victim with no login under way, with one, and one who is logged in.
fn login_csrf(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-planted");
    let planted = |stage: &Stage<'_>| stage.way_back(&mut stage.browser(), ATTACKER);
    let mut fresh = stage.browser();
    let page = fresh.open(planted(&stage).as_str());
    stage.refused(&page, "a planted callback");
    stage.is(&mut fresh, None, "a planted callback");

    let mut waiting = stage.browser();
    let own = stage.begin(&mut waiting, HONEST);
    let theirs = planted(&stage);
    let page = waiting.open(theirs.as_str());
    stage.refused(&page, "a planted callback beside a login under way");
    stage.is(&mut waiting, None, "a planted callback beside a login under way");
    let page = waiting.open(&callback(&stage, &value(&planted(&stage), "code"), &value(&own, "state")));
    stage.refused(&page, "a planted code under the victim's own state");
    stage.is(&mut waiting, None, "a planted code under the victim's own state");

    let mut inside = stage.logged_in(VICTIM);
    let page = inside.open(planted(&stage).as_str());
    stage.refused(&page, "a planted callback at someone who is logged in");
    stage.is(&mut inside, Some(VICTIM), "a planted callback");
    stage.verdict()
}

fn session_fixation(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "session-fixation");
    let mut attacker = stage.logged_in(ATTACKER);
    let fixed = attacker.jar.get(SESSION).expect("a session").clone();
    let invented = crate::support::jar::Cookie { value: "A".repeat(fixed.value.len()), ..fixed.clone() };
    for planted in [fixed, invented] {
        let mut victim = stage.browser();
        victim.jar.cookies.push(planted.clone());
        let back = stage.way_back(&mut victim, VICTIM);
        victim.open(back.as_str());
        stage.is(&mut victim, Some(VICTIM), "a login over a planted cookie");
        stage.expect(victim.jar.get(SESSION).is_some_and(|cookie| cookie.value != planted.value), "the planted cookie was filled");
        // What the attacker knows is what it was before.
        stage.is(&mut attacker, Some(ATTACKER), "somebody else's login over the attacker's cookie");
        let mut knows = stage.browser();
        knows.jar.cookies.push(planted);
        let who = stage.whose(&mut knows);
        stage.expect(who != Some(email(VICTIM)), "the planted cookie opens the victim's session");
    }
    stage.verdict()
}

fn code_replay(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-code-replay");
    let mut victim = stage.browser();
    let back = stage.way_back(&mut victim, VICTIM);
    let before = victim.jar.clone();
    victim.open(back.as_str());
    stage.is(&mut victim, Some(VICTIM), "the login itself");
    // Another browser; the same one; one that has even the login's own cookie.
    for mut browser in [stage.browser(), stage.browser_with(&victim.jar), stage.browser_with(&before)] {
        browser.jar.cookies.retain(|cookie| cookie.name != SESSION);
        let page = browser.open(back.as_str());
        stage.refused(&page, "a callback once more");
        stage.is(&mut browser, None, "a callback once more");
    }
    // Two at once.
    let mut victim = stage.browser();
    let back = stage.way_back(&mut victim, VICTIM);
    let browsers = [0, 1].map(|_| stage.browser_with(&victim.jar));
    let sessions: usize = thread::scope(|scope| {
        let opening = browsers.map(|mut browser| {
            let back = back.as_str();
            scope.spawn(move || {
                browser.open(back);
                usize::from(browser.jar.get(SESSION).is_some())
            })
        });
        opening.into_iter().map(|thread| thread.join().expect("a browser")).sum()
    });
    stage.expect(sessions <= 1, "one code gave two sessions");
    stage.verdict()
}

fn code_injection(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-code-injection");
    for _ in 0..2 {
        let stolen = value(&stage.way_back(&mut stage.browser(), VICTIM), "code");
        let mut attacker = stage.browser();
        let own = stage.begin(&mut attacker, HONEST);
        let page = attacker.open(&callback(&stage, &stolen, &value(&own, "state")));
        stage.refused(&page, "a stolen code in a login of the attacker's");
        stage.is(&mut attacker, None, "a stolen code");
        stage.opens_nothing(&stolen);
    }
    stage.verdict()
}

fn state_reuse(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-state-reuse");
    let mut victim = stage.browser();
    let at_provider = stage.begin(&mut victim, HONEST);
    let (before, state) = (victim.jar.clone(), value(&at_provider, "state"));
    let back = stage.agree(&mut victim, &at_provider, VICTIM);
    // The first use fails; then even the right code is worth nothing under it.
    let page = victim.open(&callback(&stage, "invented", &state));
    stage.refused(&page, "an invented code");
    let mut again = stage.browser_with(&before);
    let page = again.open(back.as_str());
    stage.refused(&page, "the right code under a state that was used");
    stage.is(&mut again, None, "a state that was used");
    // States that were never given.
    let (id, secret) = state.split_once('.').expect("an id and a secret");
    for state in
        [format!("{id}.{}", "A".repeat(secret.len())), format!("{id}."), id.to_owned(), format!("{state}x"), state.to_ascii_uppercase()]
    {
        let mut browser = stage.browser_with(&before);
        let page = browser.open(&callback(&stage, "invented", &state));
        stage.refused(&page, "a state that was never given");
    }
    stage.verdict()
}

fn nonce_reuse(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-nonce-reuse");
    let earlier = value(&stage.begin(&mut stage.browser(), HONEST), "nonce");
    for nonce in [serde_json::json!(earlier), serde_json::json!(""), serde_json::Value::Null, serde_json::json!([earlier])] {
        let mut browser = stage.browser();
        let back = stage.way_back(&mut browser, VICTIM);
        scene.world.idp.set(&serde_json::json!({"id_token": {"claims": {"nonce": nonce}}}));
        let page = browser.open(back.as_str());
        scene.world.idp.behave();
        stage.refused(&page, "an ID token with another login's nonce");
        stage.is(&mut browser, None, "another login's nonce");
    }
    stage.verdict()
}

/// Other hosts of the domain can set cookies for it, but none that begin with `__Host-`; what they can set must not stand for one.
fn cookie_tossing(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-cookie-tossing");
    let (victim, attacker) = (stage.logged_in(VICTIM), stage.logged_in(ATTACKER));
    let own = format!("{SESSION}={}", victim.jar.get(SESSION).expect("a session").value);
    let theirs = attacker.jar.get(SESSION).expect("a session").value.clone();
    let mut waiting = stage.browser();
    stage.begin(&mut waiting, HONEST);
    let login = waiting.jar.cookies.iter().find(|cookie| cookie.name.starts_with("__Host-kubepass-login-")).expect("a login").clone();
    for (line, who) in [
        // Beside the victim's own.
        (format!("__host-kubepass-session={theirs}; {own}"), Some(VICTIM)),
        (format!("__Host-Kubepass-Session={theirs}; {own}"), Some(VICTIM)),
        (format!("kubepass-session={theirs}; {own}"), Some(VICTIM)),
        (format!("__Secure-kubepass-session={theirs}; {own}"), Some(VICTIM)),
        (format!("\u{a0}{SESSION}={theirs}; {own}"), Some(VICTIM)),
        (format!("{SESSION}\u{a0}={theirs}; {own}"), Some(VICTIM)),
        (format!("x={SESSION}={theirs}; {own}"), Some(VICTIM)),
        (format!("={SESSION}={theirs}; {own}"), Some(VICTIM)),
        (format!("$Version=1; {own}; x=\"; {SESSION}={theirs}\""), None),
        // Two of the name, in either order: a browser has one.
        (format!("{own}; {SESSION}={theirs}"), None),
        (format!("{SESSION}={theirs}; {own}"), None),
        (format!("{own}\r\ncookie: {SESSION}={theirs}"), None),
        // Values of one cookie under the name of another.
        (format!("{SESSION}={}", login.value), None),
        (format!("{}={theirs}", login.name), None),
        (format!("__Host-kubepass-route={theirs}"), None),
        (format!("{SESSION}={theirs}x"), None),
        (format!("{SESSION}=\"{theirs}\""), None),
    ] {
        let answer = stage.raw(PUBLIC_HOST, &format!("GET / HTTP/1.1\r\ncookie: {line}"), "");
        let text = crate::support::html::text(&answer.text());
        let named = [VICTIM, ATTACKER].into_iter().find(|login| text.contains(&format!("You are {}", email(login))));
        stage.note(answer.status.to_string());
        stage.expect(named != Some(ATTACKER), format!("{line:?} makes the victim {named:?}"));
        stage.expect(named == who || answer.status >= 400, format!("{line:?} makes of the victim {named:?}, not {who:?}"));
    }
    stage.verdict()
}

fn cookie_elsewhere(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-cookie-elsewhere");
    let victim = stage.logged_in(VICTIM);
    let value = victim.jar.get(SESSION).expect("a session").value.clone();
    let names = [SESSION, "__Host-kubepass-route", "_pomerium", "kubepass"];
    for target in crate::scene::CLUSTERS {
        for name in names {
            stage.opens_not(target, &format!("cookie: {name}={value}"));
        }
        stage.opens_not(target, &format!("cookie: {SESSION}={value}\r\nauthorization: Bearer "));
        stage.opens_not(target, &format!("x-pomerium-authorization: {value}"));
    }
    stage.opens_nothing(&value);
    for host in [PROD_HOST, STAGING_HOST] {
        for path in ["/", "/login", "/.kubepass/start", "/.kubepass/callback?code=a&state=b", "/confirm"] {
            let answer = stage.raw(host, &format!("GET {path} HTTP/1.1\r\ncookie: {SESSION}={value}"), "");
            stage.expect(answer.status >= 400, format!("{host}{path} answers {}", answer.status));
        }
    }
    stage.verdict()
}

/// Addresses that look like one thing to one reader and like another to a browser.
const ELSEWHERE: [&str; 34] = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/\t/evil.example/",
    "https:evil.example",
    "https:/evil.example",
    "https:\\\\evil.example",
    "https://pass.localhost@evil.example/",
    "https://pass.localhost:pw@evil.example/",
    "https://pass.localhost.evil.example/",
    "https://evil.example/pass.localhost",
    "https://evil.example#pass.localhost",
    "https://evil.example?pass.localhost/",
    "https://[::1]/",
    "https://[::ffff:203.0.113.9]/",
    "http://2130706433/",
    "/cli/login?x\\@evil.example",
    "/cli/login?x#//evil.example",
    "/cli/login?x\r\nLocation: https://evil.example/",
    "/%0d%0aLocation:%20https://evil.example/",
    "/%2f%2fevil.example/",
    "/..//evil.example/",
    "/.//evil.example/",
    "/%5cevil.example/",
    "javascript:alert(1)",
    "data:text/html,x",
    "\u{ff0f}\u{ff0f}evil.example",
    "https://pas\u{455}.localhost/",
    "https://pass\u{3002}localhost/",
    " https://evil.example/",
    "\0https://evil.example/",
    "@evil.example",
];

fn open_redirect_return(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "open-redirect-return");
    for address in ELSEWHERE {
        let mut browser = stage.browser();
        browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
        let page = browser.open(&stage.at(&format!("{HONEST}&return={}", encoded(address))));
        browser.stop_at(|_| false);
        stage.note(page.status.to_string());
        if page.status < 400 {
            // It was taken: where does the login end?
            let back = stage.agree(&mut browser, &Url::parse(&page.url).unwrap(), VICTIM);
            browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
            let end = browser.open(back.as_str());
            leads_away(&mut stage, &end.url, &["pass.localhost"], address);
        }
        let raw = stage.raw(PUBLIC_HOST, &format!("GET /login?return={} HTTP/1.1", encoded(address)), "");
        let split = raw.headers.iter().any(|(name, value)| name == "location" && value.contains("evil"));
        stage.expect(!split, format!("{address:?} stands in the answer's location"));
    }
    stage.verdict()
}

fn leads_away(stage: &mut Stage<'_>, url: &str, hosts: &[&str], address: &str) {
    let host = Url::parse(url).unwrap().host_str().map(str::to_owned).unwrap_or_default();
    stage.expect(hosts.contains(&host.as_str()), format!("{address:?} leads to {url}"));
}

/// Programs listen here; addresses that are no program's on this computer.
pub(super) fn programs() -> Vec<String> {
    let more = [
        "http://127.0.0.1:45123@evil.example/",
        "http://127.0.0.1:45123\\@evil.example/",
        "http://127.0.0.1:45123#@evil.example/",
        "http://127.0.0.1:45123?@evil.example/",
        "http://127.0.0.1.evil.example:45123/",
        "http://localhost:45123/",
        "http://localhost.evil.example:45123/",
        "http://localhost@evil.example:45123/",
        "http://evil.example:45123/127.0.0.1",
        "http://127.0.0.1%2eevil.example:45123/",
        "http://127.0.0.1:45123.evil.example/",
        "http://[::1]@evil.example:45123/",
        "http://[::1].evil.example:45123/",
        "http://[::ffff:203.0.113.9]:45123/",
        "http://0.0.0.0:45123/",
        "http://127.0.0.2:45123/",
        "http://127.1:45123/",
        "http://0x7f000001:45123/",
        "http://\u{ff11}27.0.0.1:45123/",
        "http://127\u{3002}0.0.1:45123/",
        "http://127.0.0.1:80/",
        "http://127.0.0.1/",
        "https://127.0.0.1:45123/",
        "custom-scheme://callback",
        "http://prod.k8s.localhost:45123/",
        "http://127.0.0.1:45123/\r\nLocation: https://evil.example/",
        "http://127.0.0.1:45123/?next=https://evil.example/",
    ];
    ELSEWHERE.iter().chain(&more).map(|address| (*address).to_owned()).collect()
}

const ON_THIS_COMPUTER: [&str; 2] = ["127.0.0.1", "[::1]"];

/// The victim is logged in and clicks whatever there is to click.
pub(super) fn says_yes(stage: &mut Stage<'_>, victim: &mut Browser, asked: &str, address: &str) {
    victim.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    let mut page = victim.open(asked);
    let form = page.forms().into_iter().find(|form| form.action.contains("confirm"));
    if let Some(form) = form {
        page = victim.submit_by(&page, &form, &[], "Let it in");
    }
    victim.stop_at(|_| false);
    stage.note(page.status.to_string());
    if page.status < 400 {
        leads_away(stage, &page.url, &[&ON_THIS_COMPUTER[..], &[PUBLIC_HOST]].concat(), address);
        let port = Url::parse(&page.url).unwrap().port();
        let at_program = page.url.starts_with("http://");
        stage.expect(!at_program || port.is_some_and(|port| port >= 1024), format!("{address:?} leads to {}", page.url));
    }
}

fn open_redirect_program(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "open-redirect-program");
    let mut victim = stage.logged_in(VICTIM);
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    for address in programs() {
        let asked = stage
            .at(&format!("/cli/login?redirect_uri={}&code_challenge={challenge}&code_challenge_method=S256&state=s", encoded(&address)));
        says_yes(&mut stage, &mut victim, &asked, &address);
        // Given twice, one of them good.
        let twice = format!("{asked}&redirect_uri={}", encoded("http://127.0.0.1:45123/callback"));
        says_yes(&mut stage, &mut victim, &twice, &address);
    }
    stage.verdict()
}

/// The honest provider names itself in each answer, so an attacker's address does too.
fn callback(stage: &Stage<'_>, code: &str, state: &str) -> String {
    let issuer = encoded(stage.scene.world.idp.issuer());
    stage.at(&format!("/callback?code={}&state={}&iss={issuer}", encoded(code), encoded(state)))
}
