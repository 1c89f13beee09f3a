//! pomerium-cli's leg of a login where a route asks for it: weaker than our own, for its token stands in an address and nothing ties it to the program that
//! asked. What the README promises of it all the same: no token without the person's click, only to this computer, for this route, for an hour.

use super::browsers::{programs, says_yes};
use super::programs::session_token;
use super::rogue::Rogue;
use super::stage::{Stage, VICTIM, email, encoded};
use crate::attack::{Attack, Verdict};
use crate::scene::{CLUSTERS, Scene};
use crate::support::jwt;
use crate::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "open-redirect-pomerium",
        "pomerium: localhost by name",
        "addresses of others for pomerium-cli's token, and the victim says yes",
        open_redirect,
    ),
    Attack::new(
        "pomerium-leg",
        "pomerium: token in the address",
        "the token without a click, elsewhere, as another kind, and after the end",
        weaker_leg,
    ),
];

const PROGRAM: &str = "http://127.0.0.1:45123";

fn ask(stage: &Stage<'_>, address: &str, host: &str) -> String {
    stage.at(&format!("/pomerium/login?redirect_uri={}&route={host}", encoded(address)))
}

fn open_redirect(scene: &Scene) -> Verdict {
    Rogue::usual(scene);
    let mut stage = Stage::new(scene, "open-redirect-pomerium");
    let mut victim = stage.logged_in(VICTIM);
    for address in programs() {
        let asked = ask(&stage, &address, PROD_HOST);
        says_yes(&mut stage, &mut victim, &asked, &address);
        let path = format!("/.pomerium/api/v1/login?pomerium_redirect_uri={}", encoded(&address));
        let answer = stage.raw(PROD_HOST, &format!("GET {path} HTTP/1.1"), "");
        stage.expect(answer.status >= 400, format!("{address:?} is given an address for a login: {}", answer.text()));
    }
    // One that is a program's is taken: so the refusals say something.
    let answer = stage.raw(PROD_HOST, &format!("GET /.pomerium/api/v1/login?pomerium_redirect_uri={} HTTP/1.1", encoded(PROGRAM)), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    stage.verdict()
}

fn weaker_leg(scene: &Scene) -> Verdict {
    Rogue::usual(scene);
    let mut stage = Stage::new(scene, "pomerium-leg");
    let mut victim = stage.logged_in("left");
    victim.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    let page = victim.open(&ask(&stage, PROGRAM, PROD_HOST));
    stage.expect(page.hops.iter().all(|hop| hop.location.is_none()), format!("a token without a click: {page}"));
    let text = page.text();
    let told = [&*email("left"), "pomerium-cli", PROD_HOST, "45123", "history"].iter().all(|part| text.contains(part));
    stage.expect(told, format!("the page does not say what it asks: {text}"));
    for host in [STAGING_HOST, PUBLIC_HOST, "evil.example"] {
        let page = victim.open(&ask(&stage, PROGRAM, host));
        stage.refused(&page, "a route that does not take pomerium-cli");
    }
    let form = page.form_for("confirm");
    let page = victim.submit_by(&page, &form, &[], "Let it in");
    victim.stop_at(|_| false);
    let token = page.query("pomerium_jwt").unwrap_or_else(|| panic!("no token\n{page}"));
    let claims = jwt::claims(&token);
    let (from, until) = (claims["iat"].as_u64().unwrap_or(0), claims["exp"].as_u64().unwrap_or(u64::MAX));
    stage.expect(until - from <= 3_600, format!("it lives for {} s", until - from));
    let probe =
        |stage: &Stage<'_>| stage.raw(PROD_HOST, &format!("GET /healthz HTTP/1.1\r\nauthorization: Bearer Pomerium-{token}"), "").status;
    assert_eq!(probe(&stage), 200, "it is a good token");
    let [prod, staging] = CLUSTERS;
    for form in [format!("Pomerium-{token}"), token.clone(), format!("Pomerium-Pomerium-{token}")] {
        stage.opens_not(staging, &format!("authorization: Bearer {form}"));
    }
    for lines in ["x-pomerium-authorization: {token}", "authorization: Pomerium {token}", "cookie: _pomerium={token}"] {
        stage.opens_not(prod, &lines.replace("{token}", &token));
    }
    for bearer in [token.clone(), format!("Pomerium-{token}")] {
        let renewed = session_token(&stage, &bearer, PROD_HOST);
        stage.expect(renewed.is_none(), "it passes for a login token");
    }
    scene.world.operator(&["session", "revoke", "--user", &email("left")]).ok();
    let after = probe(&stage);
    stage.expect(after == 401, format!("after the end the probe says {after}"));
    stage.opens_not(prod, &format!("authorization: Bearer Pomerium-{token}"));
    stage.verdict()
}
