//! Identity providers that attack: tokens that they did not sign, for others, from another time; people who are another provider's; answers without end;
//! and a code of the honest one that is led to them.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use super::rogue::Rogue;
use super::stage::{HONEST, Stage, VICTIM, encoded, value};
use crate::attack::{Attack, Verdict};
use crate::scene::Scene;
use crate::support::browser::Browser;
use crate::support::fake_idp::{Behaviour, Endpoint, FakeIdp, Signing};
use crate::support::world::{PROD_HOST, PUBLIC_HOST};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("id-token-alg-none", "RFC 8725 2.1", "ID tokens without a signature", |scene| {
        signings(scene, "id-token-alg-none", &[Signing::None, Signing::NoneWithSignature])
    }),
    Attack::new("id-token-hmac", "RFC 8725 2.1", "HS256 with the client's secret and with the public key", |scene| {
        signings(scene, "id-token-hmac", &[Signing::Hs256, Signing::Hs256OfPublicKey])
    }),
    Attack::new("id-token-foreign-key", "RFC 8725 3.3", "another's key under the right name, and claims that were changed", |scene| {
        signings(scene, "id-token-foreign-key", &[Signing::ForeignKey, Signing::UnknownKey, Signing::Tampered])
    }),
    Attack::new("id-token-own-key", "RFC 8725 3.10", "keys in the token's own header (jwk, jku, x5u)", |scene| {
        signings(scene, "id-token-own-key", &[Signing::OwnKeyInHeader, Signing::OwnKeyByAddress])
    }),
    Attack::new("id-token-two-keys", "RFC 7515 4", "two names of keys in one header, two keys of one name, critical extensions", two_keys),
    Attack::new("id-token-audience", "OpenID Connect Core 3.1.3.7", "tokens for other clients, for several, for none", audience),
    Attack::new("id-token-time", "OpenID Connect Core 3.1.3.7", "tokens of the past and of the future", time),
    Attack::new("provider-for-another", "CVE-2026-40574", "another provider's issuer, people, addresses with two domains", for_another),
    Attack::new(
        "provider-kubernetes-names",
        "an identity provider as administrator",
        "users and groups of Kubernetes itself",
        kubernetes_names,
    ),
    Attack::new("provider-many-groups", "header bomb by groups", "10,000 groups", many_groups),
    Attack::new("provider-huge-answers", "RFC 6819 5.1", "answers without end", huge_answers),
    Attack::new("provider-slow-answers", "RFC 6819 5.1", "answers that do not come, and others' log-ins meanwhile", slow_answers),
    Attack::new("provider-redirects", "RFC 9700 4.11", "redirects of its endpoints, in circles and to ours", redirects),
    Attack::new(
        "provider-discovery",
        "OpenID Connect Discovery 7.2",
        "a discovery document of another, and endpoints that are no pages",
        discovery,
    ),
    Attack::new("provider-keys", "RFC 8725 3.3", "a megabyte of keys", keys),
    Attack::new("provider-mix-up-discovery", "RFC 9700 4.4", "the honest one's authorization endpoint in the other's discovery", mix_up),
    Attack::new("provider-mix-up-callback", "RFC 9207", "one provider's code under the other's state", mix_up_callback),
    Attack::new("provider-hostile-text", "CWE-79", "scripts and headers in what a provider says", hostile_text),
];

type Change = Box<dyn FnOnce(&mut Behaviour)>;

/// Log-ins at the rogue, each with one thing wrong: none gives a session. At the end it is right once, and its own person is let in.
fn refused_all(scene: &Scene, name: &'static str, changes: Vec<(String, Change)>) -> Verdict {
    let mut stage = Stage::new(scene, name);
    for (what, change) in changes {
        let rogue = Rogue::usual(scene);
        rogue.idp.set(change);
        let mut browser = stage.browser();
        let page = rogue.log_in(&stage, &mut browser);
        stage.refused(&page, &what);
        let who = stage.whose(&mut browser);
        stage.expect(who.is_none(), format!("{what} makes {who:?}"));
    }
    own_person(&mut stage, &Rogue::usual(scene));
    stage.verdict()
}

/// What is no attack: without it a refusal would say nothing.
fn own_person(stage: &mut Stage<'_>, rogue: &Rogue) -> Browser {
    let mut browser = stage.browser();
    let page = rogue.log_in(stage, &mut browser);
    assert_eq!(stage.whose(&mut browser), Some(rogue.own_email()), "{page}");
    browser
}

fn signings(scene: &Scene, name: &'static str, signings: &[Signing]) -> Verdict {
    let change = |signing: &Signing| -> (String, Change) {
        let signing = *signing;
        (format!("{signing:?}"), Box::new(move |behaviour: &mut Behaviour| behaviour.signing = signing))
    };
    refused_all(scene, name, signings.iter().map(change).collect())
}

fn claim(name: &'static str, value: Value) -> (String, Change) {
    (
        format!("{name}: {}", shortened(&value)),
        Box::new(move |behaviour: &mut Behaviour| drop(behaviour.id_token.insert(name.to_owned(), value))),
    )
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs()
}

fn two_keys(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "id-token-two-keys");
    for signing in [Signing::TwoKeyIds, Signing::CriticalExtension] {
        let rogue = Rogue::usual(scene);
        rogue.idp.set(|behaviour| behaviour.signing = signing);
        let page = rogue.log_in(&stage, &mut stage.browser());
        stage.refused(&page, &format!("{signing:?}"));
    }
    let liar = Rogue::liar(scene, |_| {});
    let foreign = liar.idp.foreign_key();
    liar.idp.set(|behaviour| behaviour.more_keys = vec![foreign]);
    for signing in [Signing::ForeignKey, Signing::Es256] {
        liar.idp.set(|behaviour| behaviour.signing = signing);
        let mut browser = stage.browser();
        let page = liar.log_in(&stage, &mut browser);
        // Where discovery came before the second key, the right one is the only one.
        let who = stage.whose(&mut browser);
        stage.note(page.status.to_string());
        stage.expect(who.is_none() || signing == Signing::Es256, format!("{signing:?} with a key of the same name makes {who:?}"));
    }
    stage.verdict()
}

fn audience(scene: &Scene) -> Verdict {
    let audiences =
        [json!("another"), json!([]), Value::Null, json!(["kubepass", "another"]), json!("Kubepass"), json!(7), json!({"kubepass": 1})];
    let mut changes: Vec<_> = audiences.into_iter().map(|audience| claim("aud", audience)).collect();
    changes.push(claim("azp", json!("another")));
    refused_all(scene, "id-token-audience", changes)
}

fn time(scene: &Scene) -> Verdict {
    let later = json!(now() + 7_200);
    let mut changes = vec![claim("nbf", later.clone()), claim("iat", later), claim("nbf", json!("soon"))];
    changes.extend([json!(now() - 3_600), json!(0), json!(-1), Value::Null].map(|time| claim("exp", time)));
    refused_all(scene, "id-token-time", changes)
}

fn for_another(scene: &Scene) -> Verdict {
    let mut changes =
        vec![claim("iss", json!(scene.world.idp.issuer())), claim("iss", json!("https://evil.example")), claim("iss", Value::Null)];
    for email in [
        "foo@example.com",
        "FOO@EXAMPLE.COM",
        "foo@example.com@rogue.example",
        "foo@rogue.example@example.com",
        "foo@example.com\0@rogue.example",
        "foo@example.com,ada@rogue.example",
        "\"foo@example.com\"@rogue.example",
        "foo@example.com ",
        "foo@example.com\u{200b}",
        "foo@rogue.example.example.com",
        "foo@sub.rogue.example",
        "@rogue.example",
        "foo",
        "",
    ] {
        changes.push(claim("email", json!(email)));
    }
    for email in [json!(["foo@example.com"]), json!({"foo@example.com": true}), Value::Null, json!(7), json!(true)] {
        changes.push(claim("email", email));
    }
    for verified in [json!(false), json!("false"), Value::Null, json!(1), json!(["true"])] {
        changes.push(claim("email_verified", verified));
    }
    for subject in [json!(""), json!(7), Value::Null, json!(["foo"]), json!("foo\0")] {
        changes.push(claim("sub", subject));
    }
    refused_all(scene, "provider-for-another", changes)
}

/// These are names that the login may take and no route does.
fn kubernetes_names(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-kubernetes-names");
    let names = [
        ("email", json!("system:admin@rogue.example")),
        ("email", json!("SYSTEM:admin@rogue.example")),
        ("email", json!("kubepass:admin@rogue.example")),
        ("groups", json!(["system:masters"])),
        ("groups", json!(["System:Masters"])),
        ("groups", json!("system:masters")),
        ("groups", json!(["staff", "system:authenticated"])),
        ("groups", json!(["kubepass:admins"])),
        ("groups", json!(["a,system:masters"])),
    ];
    for (name, value) in names {
        let rogue = Rogue::usual(scene);
        let (what, change) = claim(name, value);
        rogue.idp.set(change);
        let mut browser = stage.browser();
        let page = rogue.log_in(&stage, &mut browser);
        stage.note(page.status.to_string());
        if stage.whose(&mut browser).is_some() {
            let token = super::programs::token_of(&stage, &mut browser, PROD_HOST);
            token.iter().for_each(|token| stage.opens_nothing(token));
            stage.expect(token.is_some(), format!("{what}: someone who is logged in has no token to try"));
        }
    }
    stage.verdict()
}

fn many_groups(scene: &Scene) -> Verdict {
    let groups = |count: usize, start: &str| json!((0..count).map(|number| format!("{start}{number}")).collect::<Vec<_>>());
    let changes =
        vec![claim("groups", groups(10_000, "group-")), claim("groups", groups(1_025, "")), claim("groups", json!("g".repeat(100_000)))];
    refused_all(scene, "provider-many-groups", changes)
}

fn huge_answers(scene: &Scene) -> Verdict {
    let mut changes: Vec<(String, Change)> = Vec::new();
    for endpoint in [Endpoint::Huge, Endpoint::HugeWithoutLength] {
        changes.push((format!("a token answer {endpoint:?}"), Box::new(move |behaviour: &mut Behaviour| behaviour.token = endpoint)));
        let user_info = move |behaviour: &mut Behaviour| {
            behaviour.id_token.insert("groups".to_owned(), Value::Null);
            behaviour.user_info = endpoint;
        };
        changes.push((format!("user info {endpoint:?}"), Box::new(user_info)));
    }
    refused_all(scene, "provider-huge-answers", changes)
}

/// More strangers than may wait, each at an answer that never comes; then the victim logs in where they always do.
fn slow_answers(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-slow-answers");
    let rogue = Rogue::usual(scene);
    own_person(&mut stage, &rogue);
    rogue.idp.set(|behaviour| behaviour.token = Endpoint::Drip);
    let pages: Vec<u16> = thread::scope(|scope| {
        let strangers: Vec<_> = (0..70)
            .map(|_| {
                let (mut browser, rogue) = (stage.browser(), rogue.clone());
                let at = stage.at(&format!("/login?idp={}", rogue.name));
                scope.spawn(move || {
                    browser.stop_at(|url| url.path() == "/authorize");
                    let page = browser.open(&at);
                    browser.stop_at(|_| false);
                    browser.open(rogue.idp.authorize(&Url::parse(&page.url).unwrap()).as_str()).status
                })
            })
            .collect();
        let before = rogue.idp.requests("token");
        let waiting = Instant::now() + Duration::from_secs(20);
        while rogue.idp.requests("token") < before + 40 && Instant::now() < waiting {
            thread::sleep(Duration::from_millis(10));
        }
        let began = Instant::now();
        let mut victim = stage.browser();
        let back = stage.way_back(&mut victim, VICTIM);
        victim.open(back.as_str());
        stage.is(&mut victim, Some(VICTIM), "a login beside a provider that does not answer");
        let took = began.elapsed();
        stage.expect(took < Duration::from_secs(8), format!("the victim's login took {took:?}"));
        strangers.into_iter().map(|stranger| stranger.join().unwrap_or(0)).collect()
    });
    for status in pages {
        stage.note(status.to_string());
        stage.expect((500..600).contains(&status), format!("a login without an answer ended with {status}"));
    }
    stage.verdict()
}

fn redirects(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-redirects");
    let to_user_info = |behaviour: &mut Behaviour| {
        behaviour.id_token.insert("groups".to_owned(), Value::Null);
        behaviour.user_info = Endpoint::Redirect;
    };
    for (what, change) in [
        ("token", Box::new(|behaviour: &mut Behaviour| behaviour.token = Endpoint::Redirect) as Change),
        ("userinfo", Box::new(to_user_info)),
    ] {
        let rogue = Rogue::usual(scene);
        rogue.idp.set(change);
        let before = rogue.idp.requests(what);
        let mut browser = stage.browser();
        let page = rogue.log_in(&stage, &mut browser);
        stage.refused(&page, what);
        let asked = rogue.idp.requests(what) - before;
        stage.expect(asked == 1, format!("{what} was asked {asked} times"));
    }
    for endpoint in ["discovery", "keys"] {
        let liar = Rogue::liar(scene, |idp| {
            idp.set(|behaviour| match endpoint {
                "discovery" => behaviour.discovery = Endpoint::Redirect,
                _ => behaviour.keys = Endpoint::Redirect,
            });
        });
        let page = liar.log_in(&stage, &mut stage.browser());
        stage.refused(&page, endpoint);
    }
    stage.verdict()
}

fn discovery(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-discovery");
    type Lie = Box<dyn FnOnce(&FakeIdp)>;
    let lie = |change: Change| -> Lie { Box::new(move |idp: &FakeIdp| idp.set(change)) };
    let member = |name: &'static str, value: Value| -> Lie {
        Box::new(move |idp: &FakeIdp| idp.set(|behaviour| drop(behaviour.discovery_members.insert(name.to_owned(), value))))
    };
    let named = |name: fn(&str) -> String| -> Lie {
        Box::new(move |idp: &FakeIdp| {
            let issuer = name(idp.issuer());
            idp.set(|behaviour| behaviour.discovery_issuer = Some(issuer));
        })
    };
    let honest = scene.world.idp.issuer().to_owned();
    // Each is a provider of its own: a failure is remembered for a while.
    for (what, lie) in [
        ("the honest one's issuer", lie(Box::new(move |behaviour: &mut Behaviour| behaviour.discovery_issuer = Some(honest)))),
        ("another issuer", named(|_| "https://evil.example".to_owned())),
        ("its issuer and more", named(|own| format!("{own}.evil.example"))),
        ("its issuer's other spelling", named(str::to_ascii_uppercase)),
        ("no issuer", member("issuer", Value::Null)),
        ("a script for a page", member("authorization_endpoint", json!("javascript:alert(1)"))),
        ("a file for a page", member("authorization_endpoint", json!("file:///etc/passwd"))),
        ("data for a page", member("authorization_endpoint", json!("data:text/html,x"))),
        ("a list for a page", member("authorization_endpoint", json!(["https://evil.example"]))),
        ("no token endpoint", member("token_endpoint", Value::Null)),
        ("no keys", member("jwks_uri", Value::Null)),
        ("keys that are a file", member("jwks_uri", json!("file:///etc/passwd"))),
        ("no JSON", lie(Box::new(|behaviour: &mut Behaviour| behaviour.discovery = Endpoint::NotJson))),
        ("an error", lie(Box::new(|behaviour: &mut Behaviour| behaviour.discovery = Endpoint::Error500))),
        ("a document without end", lie(Box::new(|behaviour: &mut Behaviour| behaviour.discovery = Endpoint::HugeWithoutLength))),
    ] {
        let liar = Rogue::liar(scene, lie);
        let mut browser = stage.browser();
        let page = liar.log_in(&stage, &mut browser);
        stage.refused(&page, what);
        let sent = page.hops.iter().any(|hop| hop.location.is_some());
        stage.expect(!sent, format!("{what}: the browser was sent on: {page}"));
    }
    stage.verdict()
}

fn keys(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-keys");
    let wide = json!({"kty": "RSA", "use": "sig", "kid": "key-1-rsa", "e": "AQAB", "n": "q".repeat(400_000)});
    let curve =
        |n: usize| json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": format!("k{n}"), "x": "q".repeat(43), "y": "q".repeat(43)});
    let many: Vec<Value> = std::iter::once(wide).chain((0..4_000).map(curve)).collect();
    let twice = [many.clone(), many.clone()].concat();
    let liar = Rogue::liar(scene, move |idp| idp.set(|behaviour| behaviour.more_keys = twice));
    let page = liar.log_in(&stage, &mut stage.browser());
    stage.refused(&page, "more than a megabyte of keys");
    // Just below that the right key is found among them, in bounded time, and a wide one of the same name makes no guess.
    let liar = Rogue::liar(scene, move |idp| idp.set(|behaviour| behaviour.more_keys = many));
    let began = Instant::now();
    own_person(&mut stage, &liar);
    liar.idp.set(|behaviour| behaviour.signing = Signing::Rs256);
    let page = liar.log_in(&stage, &mut stage.browser());
    stage.refused(&page, "a wide key of the right one's name");
    stage.expect(began.elapsed() < Duration::from_secs(10), format!("it took {:?}", began.elapsed()));
    stage.verdict()
}

/// The victim begins at the liar, is led to the honest provider, and the honest provider's code comes back to a login of the liar's.
fn mix_up(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-mix-up-discovery");
    let honest = format!("{}/auth", scene.world.idp.issuer());
    let liar = Rogue::liar(scene, |idp| {
        idp.set(|behaviour| drop(behaviour.discovery_members.insert("authorization_endpoint".to_owned(), json!(honest))))
    });
    let mut victim = stage.browser();
    let at_provider = stage.begin(&mut victim, &format!("/login?idp={}", liar.name));
    assert!(at_provider.as_str().starts_with(scene.world.idp.issuer()), "{at_provider}");
    let back = stage.agree(&mut victim, &at_provider, VICTIM);
    let page = victim.open(back.as_str());
    stage.refused(&page, "the honest provider's code in a login of the other");
    stage.is(&mut victim, None, "a mix-up");
    stage.expect(liar.idp.asked().is_empty(), format!("the liar was given {:?}", liar.idp.asked()));
    // Were it to have the code all the same: in a login of the attacker's own it is worth nothing.
    let mut attacker = stage.browser();
    let own = stage.begin(&mut attacker, HONEST);
    let issuer = encoded(scene.world.idp.issuer());
    let page =
        attacker.open(&stage.at(&format!("/callback?code={}&state={}&iss={issuer}", value(&back, "code"), encoded(&value(&own, "state")))));
    stage.refused(&page, "a code of a mix-up");
    stage.is(&mut attacker, None, "a code of a mix-up");
    stage.verdict()
}

fn mix_up_callback(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-mix-up-callback");
    let rogue = Rogue::usual(scene);
    let (theirs, honest) = (encoded(rogue.idp.issuer()), encoded(scene.world.idp.issuer()));
    for issuer in [
        format!("&iss={theirs}"),
        String::new(),
        format!("&iss={honest}"),
        format!("&iss={honest}&iss={theirs}"),
        format!("&iss={honest}/"),
    ] {
        let mut browser = stage.browser();
        let at_honest = stage.begin(&mut browser, HONEST);
        browser.stop_at(|url| url.path() == "/authorize");
        let page = browser.open(&stage.at("/login?idp=rogue"));
        browser.stop_at(|_| false);
        let code = value(&rogue.idp.authorize(&Url::parse(&page.url).unwrap()), "code");
        let page = browser.open(&stage.at(&format!("/callback?code={code}&state={}{issuer}", encoded(&value(&at_honest, "state")))));
        stage.refused(&page, &format!("the rogue's code under the honest one's state, {issuer}"));
        let who = stage.whose(&mut browser);
        stage.expect(who.is_none(), format!("{issuer}: {who:?}"));
    }
    stage.verdict()
}

fn hostile_text(scene: &Scene) -> Verdict {
    let mut stage = Stage::new(scene, "provider-hostile-text");
    let rogue = Rogue::usual(scene);
    for text in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "a\r\nSet-Cookie: __Host-kubepass-session=x",
        "</p><form action=https://evil.example>",
        "\u{202e}evil",
        &"x".repeat(20_000),
    ] {
        let mut browser = stage.browser();
        browser.stop_at(|url| url.path() == "/authorize");
        let page = browser.open(&stage.at("/login?idp=rogue"));
        browser.stop_at(|_| false);
        let back = rogue.idp.refuse(&Url::parse(&page.url).unwrap(), text, text);
        let page = browser.open(back.as_str());
        stage.refused(&page, "a refusal of the provider's");
        let plain = ["<script", "<img", "<form", "\u{202e}"].iter().all(|part| !page.body.contains(part));
        stage.expect(plain && page.body.len() < 20_000, format!("{text:.40} stands in the page"));
        stage.expect(browser.jar.get(super::stage::SESSION).is_none(), "a cookie was planted");
    }
    let own = rogue.own_email();
    let name = format!("<b>x</b>{}", &own[3..]);
    rogue.idp.set(|behaviour| drop(behaviour.id_token.insert("email".to_owned(), json!(name))));
    let mut browser = stage.browser();
    rogue.log_in(&stage, &mut browser);
    browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
    let portal = browser.open(&stage.at("/"));
    stage.expect(!portal.body.contains("<b>x"), "a name is read as HTML");
    stage.verdict()
}
