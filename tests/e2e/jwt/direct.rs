//! Tokens brought straight to the API server, as who stole or forged one would.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::support::browser::Browser;
use super::super::support::http;
use super::super::support::idp::{CLIENT_ID, CLIENT_SECRET};
use super::super::support::jwt::{self, Signer};
use super::super::support::pki;
use super::super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_AUDIENCE, STAGING_HOST, World};
use super::{Installation, OTHER_AUDIENCE, OTHER_HOST, TWIN_HOST, WIKI_HOST, header, installation};

#[test]
fn a_token_says_who_it_is_and_leads_back_to_the_session() {
    let installed = installation();
    let world = &installed.world;
    let _logs = world.run.watch();
    let foo = world.person("foo");
    let session_token = foo.session_token(&world.url(TWIN_HOST));
    let token = installed.sent_to(&installed.twin, TWIN_HOST, &session_token);
    assert_eq!(installed.sent_to(&installed.twin, TWIN_HOST, &session_token), token, "made once, used again");

    assert_eq!(jwt::header(&token), header(&world.signer()));
    let claims = jwt::claims(&token);
    let decision =
        world.audit_line("the decision", |line| line["event"] == "decision" && line["route"] == "twin" && line["outcome"] == "allow");
    for (claim, expected) in [
        ("iss", world.url(PUBLIC_HOST).into()),
        ("aud", STAGING_AUDIENCE.into()),
        ("token_use", "upstream".into()),
        ("username", "foo@example.com".into()),
        ("groups", json!(["group1", "group2"])),
        ("kubepass_session", decision["session"].clone()),
        ("kubepass_policy", decision["policy_version"].clone()),
    ] {
        assert_eq!(claims[claim], expected, "{claim}: {claims}");
    }
    let seconds = |claim: &str| claims[claim].as_u64().unwrap_or_else(|| panic!("{claim}: {claims}"));
    assert_eq!(seconds("exp") - seconds("iat"), 300, "{claims}");
    assert!(seconds("nbf") <= seconds("iat") && !claims["jti"].as_str().unwrap_or_default().is_empty(), "{claims}");

    // Another session of the same person at the same identity provider: the same subject, another token.
    let again = world.person("foo").session_token(&world.url(TWIN_HOST));
    let again = jwt::claims(&installed.sent_to(&installed.twin, TWIN_HOST, &again));
    assert_eq!(again["sub"], claims["sub"]);
    assert!(again["jti"] != claims["jti"] && again["kubepass_session"] != claims["kubepass_session"], "{again}");

    // What a thief of this token is, for five minutes: the person, and nobody else.
    let (status, event) = installed.straight("stolen", &token);
    assert_eq!((status, &event["user"]["username"]), (200, &"foo@example.com".into()), "{event}");
    assert_eq!(event["user"]["groups"], json!(["group1", "group2", "system:authenticated"]));
    assert_eq!(event["user"]["extra"]["kubepass.dev/session"][0], decision["session"], "{event}");
}

#[test]
fn the_published_keys_are_public_and_serve_everyone() {
    let installed = installation();
    let world = &installed.world;
    for path in ["/.well-known/openid-configuration", "/.well-known/jwks.json"] {
        let answer = world.client().get(format!("{}{path}", world.url(PUBLIC_HOST))).send().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["cache-control"].to_str().unwrap().contains("public"), "{:?}", answer.headers());
        assert!(!answer.headers().contains_key("set-cookie"), "{:?}", answer.headers());
        let text = answer.text().unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        match path {
            "/.well-known/jwks.json" => {
                let kids: Vec<&Value> = document["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
                assert_eq!(kids, [&json!(world.signer().kid())]);
                assert!(!text.contains("\"d\""), "{text}");
            }
            _ => assert_eq!(document["issuer"], world.url(PUBLIC_HOST), "{text}"),
        }
    }
    // Whoever is not the public host says nothing of them.
    let answer = world.client().get(format!("{}/.well-known/jwks.json", world.url(PROD_HOST))).send().unwrap();
    assert_eq!(answer.status(), 401);
}

#[test]
fn tokens_of_other_kinds_open_nothing() {
    let installed = installation();
    let world = &installed.world;
    let _logs = world.run.watch();
    let foo = world.person("foo");
    let session = foo.session_token(&world.url(STAGING_HOST));
    let login = foo.cached_token("kubepass-login+jwt");
    let other = installed.sent_to(&installed.other, OTHER_HOST, &foo.session_token(&world.url(OTHER_HOST)));
    let assertion = installed.sent_to(&installed.wiki, WIKI_HOST, &foo.session_token(&world.url(WIKI_HOST)));
    let id_token = id_token(world);
    for (name, token, typ, claim, expected) in [
        ("session-token", &session, "kubepass-session+jwt", "token_use", "session"),
        ("login-token", &login, "kubepass-login+jwt", "token_use", "login"),
        ("assertion-token", &assertion, "kubepass-assertion+jwt", "token_use", "assertion"),
        ("id-token", &id_token, "", "iss", world.idp.issuer()),
        ("token-of-another-cluster", &other, "kubepass-upstream+jwt", "aud", OTHER_AUDIENCE),
    ] {
        // It is what it is said to be.
        assert_eq!((jwt::header(token)["typ"].as_str().unwrap_or_default(), &jwt::claims(token)[claim]), (typ, &expected.into()), "{name}");
        check_refused(&installed, name, token);
    }
}

#[test]
fn whatever_is_changed_in_a_token_is_noticed() {
    let installed = installation();
    let world = &installed.world;
    let _logs = world.run.watch();
    let signer = world.signer();
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims = world.upstream_claims("foo@example.com");
        change(&mut claims);
        claims
    };
    let signed = |change: &dyn Fn(&mut Value)| signer.sign(&header(&signer), &claims(change));
    let good = claims(&|_| {});
    let now = good["iat"].as_u64().unwrap();
    let stranger = Signer::from_pem(&pki::key_pair().0);
    let with_kid_of_ours = |alg: &str| json!({"alg": alg, "typ": "kubepass-upstream+jwt", "kid": signer.kid()});
    let public_key = signer.public_key_pem();
    let whole = signed(&|_| {});
    assert_eq!(installed.straight("unchanged", &whole).0, 200, "unchanged it is good");

    for (name, token) in [
        ("changed-claim", jwt::with_claims(&whole, |claims| claims["username"] = json!("admin@example.com"))),
        ("wrong-use", signed(&|claims| claims["token_use"] = json!("assertion"))),
        ("no-use", signed(&|claims| claims["token_use"] = Value::Null)),
        ("wrong-audience", signed(&|claims| claims["aud"] = json!(OTHER_AUDIENCE))),
        ("wrong-issuer", signed(&|claims| claims["iss"] = json!(world.url(PROD_HOST)))),
        ("issuer-with-a-slash", signed(&|claims| claims["iss"] = json!(format!("{}/", world.url(PUBLIC_HOST))))),
        ("wrong-key", stranger.sign(&with_kid_of_ours("ES256"), &good)),
        ("wrong-key-of-its-own-name", stranger.sign(&header(&stranger), &good)),
        ("no-algorithm", format!("{}.", jwt::unsigned(&with_kid_of_ours("none"), &good))),
        ("no-algorithm-but-signed", signer.sign(&with_kid_of_ours("none"), &good)),
        ("hmac-of-the-public-key", jwt::with_hmac(public_key.as_bytes(), &with_kid_of_ours("HS256"), &good)),
        ("hmac-of-the-public-point", jwt::with_hmac(signer.public_key(), &with_kid_of_ours("HS256"), &good)),
        ("expired", signed(&|claims| (claims["iat"], claims["nbf"], claims["exp"]) = (json!(now - 60), json!(now - 60), json!(now - 1)))),
        // The API server allows for clocks that differ by a minute.
        (
            "not-yet-valid",
            signed(&|claims| (claims["iat"], claims["nbf"], claims["exp"]) = (json!(now + 90), json!(now + 90), json!(now + 120))),
        ),
        ("no-end", signed(&|claims| claims["exp"] = Value::Null)),
        // From when it was made, which may be a second after `now`.
        ("too-long-a-life", signed(&|claims| claims["exp"] = json!(claims["iat"].as_u64().unwrap() + 301))),
        ("no-beginning", signed(&|claims| claims["iat"] = Value::Null)),
        // Short by its own account, and good for a thousand hours.
        ("a-beginning-to-come", signed(&|claims| (claims["iat"], claims["exp"]) = (json!(now + 3_600_000), json!(now + 3_600_060)))),
        ("no-validity-begins", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("nbf"))),
        ("no-session", signed(&|claims| _ = claims.as_object_mut().unwrap().remove("kubepass_session"))),
        ("no-name", signed(&|claims| claims["username"] = json!(""))),
        ("name-of-kubernetes", signed(&|claims| claims["username"] = json!("system:admin"))),
        ("group-of-kubernetes", signed(&|claims| claims["groups"] = json!(["group1", "system:masters"]))),
    ] {
        check_refused(&installed, name, &token);
    }
}

/// The API server answers 401 and knows nobody.
#[track_caller]
fn check_refused(installed: &Installation, name: &str, token: &str) {
    let (status, event) = installed.straight(name, token);
    assert_eq!((status, &event["responseStatus"]["code"]), (401, &401.into()), "{name}: {event}");
    assert!(event["user"]["username"].is_null() && event["impersonatedUser"].is_null(), "{name}: {event}");
}

/// What the identity provider says of foo to kubepass, got by the client that kubepass is.
fn id_token(world: &World) -> String {
    let (issuer, redirect, verifier) = (world.idp.issuer(), format!("{}/callback", world.url(PUBLIC_HOST)), "v".repeat(43));
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let mut browser = Browser::new(&world.proxy, &[world.authority.pem()]);
    browser.stop_at(|url| url.path() == "/callback");
    let page = browser.open(&format!(
        "{issuer}/auth?client_id={CLIENT_ID}&response_type=code&scope=openid%20email%20groups&redirect_uri={redirect}&state=s&nonce=n\
         &code_challenge={challenge}&code_challenge_method=S256"
    ));
    let page = world.idp.log_in(&mut browser, page, "foo");
    let code = page.query("code").unwrap_or_else(|| panic!("no code\n{page}"));
    let form = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", &redirect), ("code_verifier", &verifier)];
    let request = http::client(&[]).post(format!("{issuer}/token")).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&form);
    let answer: Value = request.send().unwrap().json().unwrap();
    answer["id_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}
