//! Logins taken apart into their steps, so that one person's steps can be put into another's.

use serde_json::Value;

use super::super::scene::Scene;
use super::super::support::browser::{Browser, Page};
use super::super::support::world::PUBLIC_HOST;

/// The pair of RFC 7636, appendix B.
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

pub(super) fn browser(scene: &Scene) -> Browser {
    Browser::new(&scene.world.proxy, &[scene.world.authority.pem()])
}

/// Goes through a login at the identity provider up to its answer, which does not reach kubepass: the page's URL is the one that the browser
/// would open next.
pub(super) fn answer_of(scene: &Scene, browser: &mut Browser, login: &str) -> Page {
    let callback = format!("{}/callback", scene.world.url(PUBLIC_HOST));
    browser.stop_at(move |url| url.as_str().starts_with(&callback));
    let page = browser.open(&format!("{}/login", scene.world.url(PUBLIC_HOST)));
    let page = scene.world.idp.log_in(browser, page, login);
    browser.stop_at(|_| false);
    assert!(page.query("code").is_some(), "no answer with a code: {page}");
    page
}

/// Begins a login and leaves it at the identity provider.
pub(super) fn begin(scene: &Scene, browser: &mut Browser) {
    let issuer = scene.world.idp.issuer().to_owned();
    browser.stop_at(move |url| url.as_str().starts_with(&issuer));
    let page = browser.open(&format!("{}/login", scene.world.url(PUBLIC_HOST)));
    browser.stop_at(|_| false);
    assert!(page.url.starts_with(scene.world.idp.issuer()), "{page}");
}

/// A whole login; the portal then says who it is.
pub(super) fn logged_in(scene: &Scene, login: &str) -> Browser {
    let mut browser = browser(scene);
    let page = browser.open(&format!("{}/login", scene.world.url(PUBLIC_HOST)));
    let page = scene.world.idp.log_in(&mut browser, page, login);
    assert!(page.text().contains(&format!("{login}@example.com")), "{page}");
    browser
}

/// Whether the browser is logged in as that person.
pub(super) fn is(scene: &Scene, browser: &mut Browser, login: &str) -> bool {
    browser.open(&format!("{}/", scene.world.url(PUBLIC_HOST))).text().contains(&format!("{login}@example.com"))
}

/// What `POST /cli/token` gives for a code.
pub(super) fn login_token_for(scene: &Scene, code: &str, verifier: &str, redirect_uri: &str) -> Option<String> {
    let form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier), ("redirect_uri", redirect_uri)];
    let answer = scene.world.client().post(format!("{}/cli/token", scene.world.url(PUBLIC_HOST))).form(&form).send().expect("an answer");
    let body: Value = answer.json().unwrap_or_default();
    body["login_token"].as_str().map(str::to_owned)
}

/// Whose a login token is, by the routes' own word: `None` when it opens nothing.
pub(super) fn works(scene: &Scene, login_token: &str, host: &str) -> bool {
    let request = scene.world.client().post(format!("{}/cli/session-token", scene.world.url(PUBLIC_HOST)));
    request.bearer_auth(login_token).form(&[("host", host)]).send().expect("an answer").status().is_success()
}
