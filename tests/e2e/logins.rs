//! Log-ins at a real OpenID provider, through Envoy, as a browser sees them: what gives a session, and that everything else gives a page which
//! says what to do, and no session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::shared::own_world;
use super::support::browser::{Browser, Page};
use super::support::idp::{CLIENT_ID, Idp, IdpOptions};
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};

const SESSION: &str = "__Host-kubepass-session";

#[test]
fn log_ins_at_good_and_bad_providers() {
    let mut world = own_world("logins", WorldOptions::default());
    good_answers(&world);
    bad_answers(&world);
    provider_away(&mut world);
    several_providers(&world);
}

fn good_answers(world: &World) {
    let (mut browser, page) = log_in(world, "foo");
    assert!(page.text().contains("foo@example.com") && page.text().contains("group1"), "{page}");
    check_cookies(&browser, &page);
    // The login's own cookie is gone, its address is worth nothing a second time.
    let callback = page.hops.iter().find(|hop| hop.url.contains("/callback?")).expect("the way back").url.clone();
    is_refusal(world, &browser.open(&callback), 400, "no login of this browser", 1);
    // Another browser cannot use it either.
    is_refusal(world, &fresh(world).open(&callback), 400, "no login of this browser", 1);
    log_out(&mut browser, world);

    world.idp.claims_from_userinfo(true);
    let (mut browser, page) = log_in(world, "foo");
    assert!(page.text().contains("group2"), "groups come from the userinfo endpoint\n{page}");
    log_out(&mut browser, world);
    world.idp.behave();

    // A new key between two log-ins, moments after the key set was read.
    world.idp.rotate_keys();
    let (mut browser, page) = log_in(world, "foo");
    assert!(page.text().contains("foo@example.com"), "{page}");
    log_out(&mut browser, world);
}

fn bad_answers(world: &World) {
    let claims = |claims: Value| json!({"id_token": {"claims": claims}});
    for (settings, text) in [
        (claims(json!({"iss": "https://evil.example"})), "wrong issuer"),
        (claims(json!({"aud": "another-client"})), "not made for this client"),
        (claims(json!({"aud": [CLIENT_ID, "another-client"]})), "not made for this client"),
        (claims(json!({"nonce": "another"})), "nonce"),
        (claims(json!({"nonce": null})), "nonce"),
        (claims(json!({"exp": 1_000_000_000})), "expired"),
        (claims(json!({"sub": null})), "token answer"),
        (json!({"id_token": {"sign": "none"}}), "not signed with"),
        (json!({"id_token": {"sign": "unpublished"}}), "does not publish"),
        (json!({"fail": {"token": {"status": 400, "body": {"error": "invalid_client"}}}}), "check `client_id`"),
        (json!({"fail": {"token": {"status": 200, "body": "<html>"}}}), "token answer"),
        (json!({"fail": {"token": {"status": 500, "body": "secret-in-the-body"}}}), "token answer"),
        (json!({"claims_in": "userinfo", "fail": {"userinfo": {"status": 500, "body": {}}}}), "user info"),
        (
            json!({"claims_in": "userinfo", "fail": {"userinfo": {"status": 200, "body": {"sub": "bar", "email": "bar@example.com", "email_verified": true}}}}),
            "user info",
        ),
    ] {
        world.idp.set(&settings);
        let (browser, page) = log_in(world, "foo");
        assert!(page.url.starts_with(&world.url(PUBLIC_HOST)), "{settings}: {page}");
        is_refusal(world, &page, 403, text, 0);
        assert!(browser.jar.get(SESSION).is_none() && !page.text().contains("secret-in-the-body"), "{settings}");
        world.idp.behave();
    }
    let reasons: Vec<_> =
        world.audit_lines().into_iter().filter(|line| line["event"] == "login_refused").map(|line| line["reason"].clone()).collect();
    assert!(reasons.contains(&json!("id_token_issuer")) && reasons.contains(&json!("id_token_algorithm")), "{reasons:?}");

    let person = |verified: Value| json!({"foo": {"email": "foo@example.com", "email_verified": verified, "groups": []}});
    for verified in [json!(false), Value::Null, json!("false")] {
        world.idp.set_users(&person(verified.clone()));
        let (_, page) = log_in(world, "foo");
        is_refusal(world, &page, 403, "cannot be used here", 0);
        assert!(page.text().contains("e-mail address is verified"), "{verified}: {page}");
    }
    world.idp.set_users(&json!({"foo": {"email": "", "email_verified": true}}));
    let (_, page) = log_in(world, "foo");
    is_refusal(world, &page, 403, "cannot be used here", 0);
    world.idp.set_users(&WorldOptions::default().users);

    // The person says no at the provider.
    let mut browser = fresh(world);
    let page = browser.open(&format!("{}/login", world.url(PUBLIC_HOST)));
    let abort = page.link("abort");
    is_refusal(world, &browser.follow(&page, &abort), 403, "access_denied", 0);
}

fn provider_away(world: &mut World) {
    let login = format!("{}/login", world.url(PUBLIC_HOST));
    // Under way when the provider goes: the code cannot be redeemed.
    let mut browser = fresh(world);
    let page = browser.open(&login);
    let page = submit_login(&mut browser, &page, "foo");
    world.idp.set(&json!({"fail": {"token": {"status": 503, "body": "gone"}}}));
    let page = world.idp.log_in(&mut browser, page, "foo");
    is_refusal(world, &page, 403, "token answer", 0);
    world.idp.set(&json!({"fail": {}, "delay_ms": 60_000}));
    let began = Instant::now();
    let page = fresh_with_code(world);
    is_refusal(world, &page, 502, "cannot be reached", 0);
    assert!(began.elapsed() < Duration::from_secs(29), "{:?}", began.elapsed());
    world.idp.stop();
    is_refusal(world, &fresh_with_code(world), 502, "cannot be reached", 0);
    world.idp.start_again();
    let (mut browser, page) = log_in(world, "foo");
    assert!(page.text().contains("foo@example.com"), "{page}");
    log_out(&mut browser, world);
}

fn several_providers(world: &World) {
    let options = IdpOptions {
        name: "partner".to_owned(),
        redirect_uris: vec![format!("{}/callback", world.url(PUBLIC_HOST))],
        users: json!({"pat": {"email": "pat@partner.example", "email_verified": true, "groups": ["group1"]}}),
        ..IdpOptions::default()
    };
    let partner = Idp::start(world.tools(), &world.run, options);
    let entry = format!(
        "- name: partner\n  issuer: {}\n  client_id: {CLIENT_ID}\n  client_secret: {{file: client-secret}}\n  \
         scopes: [openid, email, profile, groups]\n  identity: {{username: claims.email, groups: claims.groups, email_domains: [partner.example]}}\nsessions:",
        partner.issuer()
    );
    let staging = format!("  host: {STAGING_HOST}\n  identity_providers: [partner]\n");
    let text = world
        .config(super::support::world::POLICY)
        .replace("groups: claims.groups}", "groups: claims.groups, email_domains: [example.com]}")
        .replace("sessions:", &entry)
        .replace(&format!("  host: {STAGING_HOST}\n"), &staging);
    world.write_config(&text);
    world.operator(&["check-config"]).ok();
    let login = format!("{}/login", world.url(PUBLIC_HOST));
    let mut browser = fresh(world);
    let page = eventually("the choice", Duration::from_secs(10), || {
        let page = browser.open(&login);
        page.text().contains("Choose").then_some(page)
    });
    let targets: Vec<_> = page.links().into_iter().map(|link| link.text).collect();
    assert_eq!(targets, ["corp", "partner"], "{page}");
    let at_partner = browser.follow(&page, &page.link("partner"));
    assert!(at_partner.url.starts_with(partner.issuer()), "{at_partner}");
    let page = partner.log_in(&mut browser, at_partner, "pat");
    assert!(page.text().contains("pat@partner.example") && page.text().contains("staging"), "{page}");
    log_out(&mut browser, world);

    // A route that lists its own sends there at once, and takes no one from elsewhere.
    let mut browser = fresh(world);
    let page = browser.open(&format!("{login}?route={STAGING_HOST}"));
    assert!(page.url.starts_with(partner.issuer()), "{page}");
    let page = browser.open(&format!("{login}?route={STAGING_HOST}&idp=corp"));
    is_refusal(world, &page, 400, "cannot be used for this login", 0);
    // An answer of one provider is no answer to a login that was begun at the other.
    mixed_up(world, &partner);

    let person = world.person("foo");
    person.set_up(&world.url(PROD_HOST)).ok();
    person.away(true);
    let ca = world.run.file("kubepass/ca.pem").display().to_string();
    let mut login = person.kubepass_command().start(&["login", &world.url(PROD_HOST), "--ca-file", &ca]);
    let url = login.wait_error_line("the login page", |line| line.trim().starts_with("https://"));
    person.browse(|browser| {
        let page = browser.open(url.trim());
        assert!(page.text().contains("Choose"), "{page}");
        let page = browser.follow(&page, &page.link("corp"));
        let page = world.idp.log_in(browser, page, "foo");
        let form = page.form_for("Let it in");
        browser.submit(&page, &form, &[])
    });
    login.finish().ok();
    let refused = person.kubepass(&["k8s", "exec-credential", &world.url(STAGING_HOST), "--ca-file", &ca]).err();
    assert!(refused.contains("takes no log-ins of the identity provider corp") && refused.contains("kubepass login"), "{refused}");
}

/// The mix-up attack: the browser brings the code of another provider than the one that the login was begun at, with the other's name or none.
fn mixed_up(world: &World, partner: &Idp) {
    let login = format!("{}/login", world.url(PUBLIC_HOST));
    let issuer: String = url::form_urlencoded::byte_serialize(partner.issuer().as_bytes()).collect();
    for named in [format!("&iss={issuer}"), String::new()] {
        let mut browser = fresh(world);
        let at_corp = browser.open(&format!("{login}?idp=corp"));
        let start = at_corp.hops.iter().find(|hop| hop.url.starts_with(world.idp.issuer())).expect("the way to corp").url.clone();
        let state = url::Url::parse(&start).unwrap().query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        let at_partner = browser.open(&format!("{login}?idp=partner"));
        browser.stop_at(|url| url.path() == "/callback");
        let answer = partner.log_in(&mut browser, at_partner, "pat");
        browser.stop_at(|_| false);
        let code = answer.query("code").unwrap_or_else(|| panic!("no code\n{answer}"));
        let page = browser.open(&format!("{}/callback?code={code}&state={state}{named}", world.url(PUBLIC_HOST)));
        is_refusal(world, &page, 403, "another issuer", 0);
    }
}

/// A login from the start page of the portal to its end.
fn log_in(world: &World, user: &str) -> (Browser, Page) {
    let mut browser = fresh(world);
    let page = browser.open(&format!("{}/login", world.url(PUBLIC_HOST)));
    let page = world.idp.log_in(&mut browser, page, user);
    assert_eq!(browser.refused_cookies, Vec::<String>::new(), "a browser keeps every cookie");
    (browser, page)
}

fn submit_login(browser: &mut Browser, page: &Page, user: &str) -> Page {
    let form = page.form_with("prompt").unwrap_or_else(|| panic!("no login form\n{page}"));
    browser.submit(page, &form, &[("login", user), ("password", "any")])
}

/// A browser that comes back with a code which the provider never gave: what counts is that the provider does not answer.
fn fresh_with_code(world: &World) -> Page {
    let mut browser = fresh(world);
    browser.stop_at(|url| url.port().is_some());
    let page = browser.open(&format!("{}/login", world.url(PUBLIC_HOST)));
    let Some(state) =
        url::Url::parse(&page.url).unwrap().query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned())
    else {
        return page;
    };
    let issuer: String = url::form_urlencoded::byte_serialize(world.idp.issuer().as_bytes()).collect();
    browser.open(&format!("{}/callback?code=x&state={state}&iss={issuer}", world.url(PUBLIC_HOST)))
}

fn fresh(world: &World) -> Browser {
    Browser::new(&world.proxy, &[world.authority.pem()])
}

fn log_out(browser: &mut Browser, world: &World) {
    let page = browser.open(&format!("{}/", world.url(PUBLIC_HOST)));
    let form = page.form_for("Log out");
    let page = browser.submit(&page, &form, &[]);
    assert!(page.text().contains("Logged out") && browser.jar.get(SESSION).is_none(), "{page}");
    assert_eq!(sessions(world), 0);
}

/// A page with advice, this status and text; and so many sessions.
#[track_caller]
fn is_refusal(world: &World, page: &Page, status: u16, text: &str, sessions: usize) {
    assert_eq!(page.status, status, "{page}");
    let shown = page.text();
    assert!(shown.contains(text), "{text:?} is missing\n{page}");
    let advice =
        ["Start again", "Start the login again", "Log in again", "Try again", "Ask the operator", "ask the operator", "tell the operator"];
    assert!(advice.iter().any(|advice| shown.contains(advice)), "no advice\n{page}");
    assert!(page.header("set-cookie").is_empty() || !page.header("set-cookie").starts_with(SESSION), "{page}");
    assert_eq!(self::sessions(world), sessions, "{page}");
}

fn sessions(world: &World) -> usize {
    world.operator(&["session", "list"]).ok().trim().lines().count() - 1
}

fn check_cookies(browser: &Browser, page: &Page) {
    let cookie = browser.jar.get(SESSION).unwrap_or_else(|| panic!("no session cookie\n{page}"));
    assert!(cookie.secure && cookie.http_only && cookie.path == "/", "{cookie:?}");
    assert!(!page.hops.iter().any(|hop| hop.url.contains("token") && hop.url.contains(PUBLIC_HOST)), "{page}");
}
