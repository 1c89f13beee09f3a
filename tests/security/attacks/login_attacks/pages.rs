//! The pages around a login: framed, posted to from elsewhere, kept in caches, and telling others what they should not.

use reqwest::header::HeaderMap;

use super::stage::{ATTACKER, SESSION, Stage, VICTIM, email, encoded};
use crate::attack::{Attack, Verdict};
use crate::scene::Scene;
use crate::support::browser::{Browser, Page};
use crate::support::world::{PROD_HOST, PUBLIC_HOST};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("login-clickjacking", "RFC 9700 4.16", "every page in a frame of another site", clickjacking),
    Attack::new("login-cross-site-post", "CWE-352", "the victim's own form posted by another site", cross_site_post),
    Attack::new("login-forged-form", "CWE-352", "forms of others, for something else, and changed ones", forged_form),
    Attack::new("login-cross-site-logout", "CWE-352", "a log-out by another site", cross_site_logout),
    Attack::new("login-caches", "RFC 6819 5.1.5.1", "pages, codes and tokens out of caches", caches),
    Attack::new("login-referrer", "RFC 9700 4.2", "codes in what a browser says of where it came from", referrer),
    Attack::new("login-no-click", "RFC 8252 8.6", "links, frames and prefetches in place of the victim's click", no_click),
];

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const PROGRAM: &str = "http://127.0.0.1:45123/callback";

fn ask(stage: &Stage<'_>) -> String {
    stage.at(&format!("/cli/login?redirect_uri={}&code_challenge={CHALLENGE}&code_challenge_method=S256&state=s", encoded(PROGRAM)))
}

/// Every page that someone who is logged in can come to, and those of a login.
fn pages(stage: &Stage<'_>) -> Vec<Page> {
    let mut browser = stage.logged_in(VICTIM);
    let mut pages = vec![browser.open(&stage.at("/")), browser.open(&ask(stage)), browser.open(&stage.at("/nothing"))];
    pages.push(browser.open(&stage.at("/callback?code=x&state=y")));
    pages.push(browser.open(&stage.at("/login?return=//evil.example")));
    pages.push(confirmed(&mut browser, &pages[1], "Let it in"));
    let asked = browser.open(&ask(stage));
    pages.push(confirmed(&mut browser, &asked, "Refuse"));
    browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    let mut fresh = stage.browser();
    fresh.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    pages.push(fresh.open(&stage.at("/login")));
    pages.push(fresh.open(&stage.at("/")));
    pages.push(browser.open(&format!("https://{PROD_HOST}/.kubepass/config")));
    let portal = browser.open(&stage.at("/"));
    let form = portal.form_for("Log out");
    pages.push(browser.submit(&portal, &form, &[]));
    pages
}

/// The answer to a click, of which the redirect to the program is not followed.
fn confirmed(browser: &mut Browser, page: &Page, button: &str) -> Page {
    browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    let form = page.form_for("confirm");
    browser.submit_by(page, &form, &[], button)
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect()
}

fn clickjacking(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-clickjacking");
    for page in pages(&stage) {
        let policies = header(&page.headers, "content-security-policy");
        let [policy] = policies[..] else {
            stage.found(format!("{} has the policies {policies:?}", page.url));
            continue;
        };
        let framed = policy.contains("frame-ancestors 'none'") && header(&page.headers, "x-frame-options") == ["DENY"];
        stage.expect(framed, format!("{} may be framed: {policy}", page.url));
        let scripts = policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("script-src");
        stage.expect(scripts, format!("{} may run scripts: {policy}", page.url));
        let opener = header(&page.headers, "cross-origin-opener-policy") == ["same-origin"];
        stage.expect(opener, format!("{} stays in the hand of who opened it", page.url));
        stage.note(page.status.to_string());
    }
    stage.verdict()
}

/// What a browser says of a form that another site posts, and old browsers that say little; the cookie goes with it as if it were no `SameSite` one.
fn cross_site_post(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-cross-site-post");
    let mut victim = stage.logged_in(VICTIM);
    let cookie = format!("{SESSION}={}", victim.jar.get(SESSION).expect("a session").value);
    let form = victim.open(&ask(&stage)).form_for("confirm").value("form").expect("a sealed form").to_owned();
    let body = format!("form={}&decision=allow", encoded(&form));
    for lines in [
        "sec-fetch-site: cross-site\r\norigin: https://evil.example",
        "sec-fetch-site: cross-site\r\norigin: null",
        "sec-fetch-site: same-site\r\norigin: https://prod.k8s.localhost",
        "sec-fetch-site: none",
        "sec-fetch-site: same-origin\r\norigin: https://evil.example",
        "sec-fetch-site: same-origin\r\nsec-fetch-site: cross-site",
        "origin: https://evil.example",
        "origin: null",
        "origin: https://pass.localhost.evil.example",
        "origin: http://pass.localhost",
        "origin: https://pass.localhost:8443",
        "origin: https://pass.localhost\r\norigin: https://evil.example",
        "origin: https://PROD.k8s.localhost",
    ] {
        for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"] {
            let answer =
                stage.raw(PUBLIC_HOST, &format!("POST /confirm HTTP/1.1\r\ncookie: {cookie}\r\ncontent-type: {kind}\r\n{lines}"), &body);
            stage.note(answer.status.to_string());
            let gave = answer.header("location").is_some_and(|location| location.contains("code="));
            stage.expect(answer.status >= 400 && !gave, format!("{lines:?} {kind}: {} {:?}", answer.status, answer.header("location")));
        }
    }
    for head in [
        format!("GET /confirm?{body} HTTP/1.1\r\ncookie: {cookie}"),
        format!("PUT /confirm HTTP/1.1\r\ncookie: {cookie}\r\ncontent-type: application/x-www-form-urlencoded"),
        format!(
            "GET /confirm HTTP/1.1\r\ncookie: {cookie}\r\nx-http-method-override: POST\r\ncontent-type: application/x-www-form-urlencoded"
        ),
    ] {
        let answer = stage.raw(PUBLIC_HOST, &head, if head.starts_with("GET /confirm?") { "" } else { &body });
        stage.note(answer.status.to_string());
        stage.expect(answer.status >= 400, format!("{head}: {}", answer.status));
    }
    // And the browser itself sends no cookie with another site's post.
    stage.is(&mut victim, Some(VICTIM), "all of it");
    stage.verdict()
}

fn forged_form(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-forged-form");
    let (mut victim, mut attacker) = (stage.logged_in(VICTIM), stage.logged_in(ATTACKER));
    let sealed = |browser: &mut Browser, at: &str, of: &str| browser.open(at).form_for(of).value("form").expect("a form").to_owned();
    let theirs = sealed(&mut attacker, &ask(&stage), "confirm");
    let logout = sealed(&mut victim, &stage.at("/"), "Log out");
    let own = sealed(&mut victim, &ask(&stage), "confirm");
    let cookie = victim.jar.get(SESSION).expect("a session").value.clone();
    let changed = format!("{}{}", &own[..own.len() - 4], if own.ends_with("AAAA") { "BBBB" } else { "AAAA" });
    let cut = own[..own.len() / 2].to_owned();
    for form in [theirs, logout, changed, cut, cookie, String::new(), "{}".to_owned(), format!("{own}&form={own}")] {
        let page = victim.open(&ask(&stage));
        let real = page.form_for("confirm");
        victim.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
        let answer = victim.submit_by(&page, &real, &[("form", &form)], "Let it in");
        victim.stop_at(|_| false);
        stage.refused(&answer, "a form that is not this page's");
    }
    stage.is(&mut victim, Some(VICTIM), "forged forms");
    stage.verdict()
}

fn cross_site_logout(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-cross-site-logout");
    let mut victim = stage.logged_in(VICTIM);
    let cookie = format!("{SESSION}={}", victim.jar.get(SESSION).expect("a session").value);
    let form = victim.open(&stage.at("/")).form_for("Log out").value("form").expect("a sealed form").to_owned();
    let body = format!("form={}", encoded(&form));
    for lines in ["sec-fetch-site: cross-site\r\norigin: https://evil.example", "origin: https://evil.example", "origin: null"] {
        let head = format!("POST /logout HTTP/1.1\r\ncookie: {cookie}\r\ncontent-type: application/x-www-form-urlencoded\r\n{lines}");
        let answer = stage.raw(PUBLIC_HOST, &head, &body);
        stage.note(answer.status.to_string());
        stage.is(&mut victim, Some(VICTIM), lines);
    }
    for head in ["GET /logout HTTP/1.1", "POST /cli/logout HTTP/1.1", "GET /.kubepass/logout HTTP/1.1"] {
        let answer = stage.raw(PUBLIC_HOST, &format!("{head}\r\ncookie: {cookie}"), "");
        stage.note(answer.status.to_string());
        stage.is(&mut victim, Some(VICTIM), head);
    }
    stage.verdict()
}

fn caches(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-caches");
    for page in pages(&stage) {
        let kept = header(&page.headers, "cache-control");
        stage.expect(kept == ["no-store"], format!("{} may be kept: {kept:?}", page.url));
        stage.note(page.status.to_string());
    }
    for (path, body) in
        [("/cli/token", "grant_type=authorization_code"), ("/cli/session-token", "host=prod.k8s.localhost"), ("/cli/routes", "")]
    {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let answer = stage.raw(PUBLIC_HOST, &format!("{method} {path} HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded"), body);
        stage.expect(answer.header("cache-control") == Some("no-store"), format!("{path} may be kept"));
    }
    stage.verdict()
}

fn referrer(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-referrer");
    for page in pages(&stage) {
        let said = header(&page.headers, "referrer-policy");
        stage.expect(said == ["no-referrer"], format!("{} says {said:?}", page.url));
        // Nothing of another site is loaded or linked that could be told.
        let links = page.links();
        let outside = links.iter().find(|link| link.href.contains("://") && !link.href.contains(".localhost"));
        stage.expect(outside.is_none(), format!("{} links to {outside:?}", page.url));
        let loads = ["<img", "<script", "<iframe", "<link", "src=", "@import", "url("].iter().find(|part| page.body.contains(**part));
        stage.expect(loads.is_none(), format!("{} loads something by {loads:?}", page.url));
        // A token stands in no address of the login pages themselves.
        let told = page.hops.iter().find(|hop| hop.url.contains("token=") || hop.url.contains("jwt"));
        stage.expect(told.is_none(), format!("{told:?} has a token in it"));
        stage.note(page.status.to_string());
    }
    stage.verdict()
}

/// The attacker's link in the victim's browser, in every way that needs no click of the victim's.
fn no_click(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "login-no-click");
    let mut victim = stage.logged_in(VICTIM);
    let cookie = format!("{SESSION}={}", victim.jar.get(SESSION).expect("a session").value);
    let asked = ask(&stage);
    let path = asked.strip_prefix(&stage.at("")).expect("a path").to_owned();
    victim.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    for more in ["", "&decision=allow", "&form=&decision=allow", "&prompt=none", "&approval_prompt=auto", "&response_mode=form_post"] {
        let page = victim.open(&format!("{asked}{more}"));
        stage.note(page.status.to_string());
        stage.expect(page.hops.iter().all(|hop| hop.location.is_none()), format!("{more:?} gives a code without a click: {page}"));
    }
    for lines in [
        "sec-fetch-dest: iframe\r\nsec-fetch-site: cross-site",
        "sec-fetch-dest: image",
        "purpose: prefetch\r\nsec-purpose: prefetch;prerender",
        "sec-fetch-mode: no-cors",
        "accept: application/json",
    ] {
        let answer = stage.raw(PUBLIC_HOST, &format!("GET {path} HTTP/1.1\r\ncookie: {cookie}\r\n{lines}"), "");
        stage.note(answer.status.to_string());
        stage.expect(answer.header("location").is_none(), format!("{lines:?} leads to {:?}", answer.header("location")));
    }
    for method in ["POST", "HEAD", "OPTIONS"] {
        let answer = stage.raw(PUBLIC_HOST, &format!("{method} {path} HTTP/1.1\r\ncookie: {cookie}"), "");
        stage.note(answer.status.to_string());
        stage.expect(answer.header("location").is_none(), format!("{method} leads to {:?}", answer.header("location")));
    }
    // The page that asks names who, which program and which port.
    victim.stop_at(|_| false);
    let text = victim.open(&asked).text();
    stage.expect(
        [&email(VICTIM)[..], "45123", "this computer"].iter().all(|part| text.contains(part)),
        format!("the page does not say what it asks: {text}"),
    );
    stage.verdict()
}
