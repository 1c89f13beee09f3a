//! Who someone is cannot be confused on the way from an identity provider's claims to an API server: random configurations, claims, sessions and
//! requests, asked through the real encoding of both messages, and carried out by an Envoy that does what our resources say.

mod asks;
mod configurations;
mod envoy;
mod judge;
mod words;

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use self::asks::{Ask, Person, log_in};
use self::configurations::{Apart, Installation, PROVIDERS, RouteShape, Shape, shape};
use self::judge::{Arrivals, check_headers};
use self::words::{claims, forged_headers, plain_claims};

/// One configuration, people who log in, and what they ask.
#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    people: Vec<Person>,
    asks: Vec<Ask>,
}

fn case() -> impl Strategy<Value = Case> {
    let people = prop::collection::vec(asks::person(), 1..4);
    (shape(), people, prop::collection::vec(asks::ask(), 4..24)).prop_map(|(shape, people, asks)| Case { shape, people, asks })
}

/// Names defences that are missing in this process, for [`without_a_defence_the_properties_do_not_hold`].
#[cfg(debug_assertions)]
const WITHOUT: &str = "IDENTITIES_WITHOUT";

/// How often so many cases are made at most.
const MOST_RUNS: usize = 4;

/// Runs a property with its seeds kept, and asks for a least number of what it looks for: one that never looks proves nothing.
#[track_caller]
fn hold<S: Strategy>(cases: u32, strategy: S, least: usize, check: impl Fn(S::Value) -> usize) {
    let seen = AtomicUsize::new(0);
    #[cfg_attr(not(debug_assertions), allow(unused_mut, reason = "see below"))]
    let mut config = ProptestConfig { cases, ..ProptestConfig::with_source_file("tests/it/identities.rs") };
    // Release builds have no such switches.
    #[cfg(debug_assertions)]
    if let Some(names) = std::env::var_os(WITHOUT) {
        kubepass::defence::turn_off(names.to_str().unwrap()).unwrap();
        (config.failure_persistence, config.max_shrink_iters) = (None, 0);
    }
    // As chance will have it, some hundred cases may show little: then others are made.
    for _ in 0..MOST_RUNS {
        let result = TestRunner::new(config.clone()).run(&strategy, |value| {
            seen.fetch_add(check(value), Ordering::Relaxed);
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{failure}"));
        if seen.load(Ordering::Relaxed) >= least {
            return;
        }
    }
    let seen = seen.into_inner();
    panic!("{seen} were seen, too few to say anything");
}

/// No leave without a verified identity; what reaches an API server is what `decide` granted and what the claims said, and nothing that the client
/// sent is taken for it; one name at one server is one person's.
#[test]
fn what_reaches_an_api_server_is_what_was_granted() {
    hold(160, case(), 200, |case| {
        let Some(installation) = Installation::of(&case.shape) else { return 0 };
        let sessions = log_in(&installation, &case.people);
        let mut arrivals = Arrivals::default();
        for ask in &case.asks {
            let index = ask.person % case.people.len();
            ask.carry_out(&installation, &case.shape, &case.people[index], sessions[index].as_ref(), &mut arrivals);
        }
        arrivals.count()
    });
}

/// The late mutation alone, as if ext_authz had seen nothing of what it would refuse: an answer for a clean request, carried out on a forged one.
#[test]
fn what_a_client_sends_is_gone_whatever_ext_authz_made_of_it() {
    let forged =
        (shape(), 0..2usize, forged_headers()).prop_filter("a provider that the route takes", |(shape, ..)| shape.apart != Apart::Lists);
    hold(120, forged, 40, |(mut shape, route, forged)| {
        shape.routes[route].rule = "true";
        shape.routes[route].uid = None;
        let Some(installation) = Installation::of(&shape) else { return 0 };
        let people = [Person::plain(0, plain_claims(PROVIDERS[0].2, "ada"))];
        let sessions = log_in(&installation, &people);
        let session = sessions[0].as_ref().unwrap();
        let clean = Ask::plain(0, route);
        let request = clean.request(&installation, Some(session));
        let routed = installation.envoy.route(&request).unwrap();
        let answer = installation.check(&routed, &request.sni, &request.host, "GET", &request.path);
        let granted = installation.envoy.forward(&routed, &answer).expect("a plain request passes");
        let mut request = request;
        request.headers.extend(forged);
        let routed = installation.envoy.route(&request).unwrap();
        // The guard may stop it too.
        let Some(upstream) = installation.envoy.forward(&routed, &answer) else { return 0 };
        check_headers(&request, &upstream, &granted);
        1
    });
}

/// What the mapping makes of claims is what they say, letter by letter, or nothing.
#[test]
fn claims_become_the_names_that_they_are_or_none() {
    let shape = plain_shape(Apart::Domains);
    let installation = Installation::of(&shape).unwrap();
    hold(2_000, (0..2usize, claims()), 100, |(provider, claims)| {
        let name = PROVIDERS[provider].0;
        let mapping = &installation.snapshot.identity_provider(name).unwrap().mapping;
        let Ok(identity) = mapping.map(name, &claims) else { return 0 };
        assert_eq!((identity.principal.idp.as_str(), Some(identity.principal.subject.as_str())), (name, claims["sub"].as_str()));
        assert_eq!(Some(identity.username.as_str()), claims["email"].as_str());
        assert!(claims["email_verified"] == true || claims["email_verified"] == "true", "{claims:?}");
        assert_eq!(identity.email, identity.username);
        assert_eq!(identity.email.matches('@').count(), 1, "{}: whose domain is it", identity.email);
        assert!(identity.email.to_ascii_lowercase().ends_with(&format!("@{}", PROVIDERS[provider].2)), "{}", identity.email);
        assert_eq!(identity.groups.as_slice(), asks::groups_said(&claims).expect("no groups of such a claim"));
        for name in [&identity.username, &identity.principal.subject].into_iter().chain(&identity.groups) {
            judge::check_text(name);
        }
        1
    });
}

/// A claim that was a text and is something else one day makes no name, and no error that lets someone in.
#[test]
fn a_claim_that_turns_into_something_else_makes_no_name() {
    let installation = Installation::of(&plain_shape(Apart::Prefixes)).unwrap();
    let mapping = &installation.snapshot.identity_provider("corp").unwrap().mapping;
    let with = |name: &str, value: Value| {
        let mut claims = plain_claims("example.com", "ada");
        claims.insert(name.to_owned(), value);
        mapping.map("corp", &claims).map_err(|refusal| refusal.word())
    };
    let others =
        [json!(null), json!(true), json!(7), json!(-1.5), json!([]), json!(["ada@example.com"]), json!({}), json!({"ada@example.com": 1})];
    for other in &others {
        for name in ["sub", "email", "email_verified"] {
            let became = with(name, other.clone());
            assert!(became.is_err() || (name == "email_verified" && *other == true), "{name} = {other}: {became:?}");
        }
    }
    for (groups, expected) in [
        (json!(null), Ok(vec![])),
        (json!([]), Ok(vec![])),
        (json!("sre"), Ok(vec!["sre"])),
        (json!(""), Err("group_invalid")),
        (json!(7), Err("groups_failed")),
        (json!(true), Err("groups_failed")),
        (json!({"sre": true}), Err("groups_failed")),
        (json!(["sre", 7]), Err("groups_failed")),
        (json!(["sre", null]), Err("groups_failed")),
        (json!([["sre"]]), Err("groups_failed")),
        (json!([{"name": "sre"}]), Err("groups_failed")),
    ] {
        let became = with("groups", groups.clone()).map(|identity| identity.groups.as_slice().to_vec());
        assert_eq!(became, expected.map(|names| names.into_iter().map(str::to_owned).collect()), "{groups}");
    }
}

/// The same address at two providers is two people wherever both are let in; a configuration that cannot tell them apart is refused.
#[test]
fn the_same_address_at_two_providers_is_two_people() {
    for (apart, same_server) in [(Apart::Prefixes, true), (Apart::Prefixes, false), (Apart::Lists, false)] {
        let shape = Shape { same_server, ..plain_shape(apart) };
        let installation = Installation::of(&shape).unwrap();
        let people = [0, 1].map(|provider| Person::plain(provider, plain_claims("example.com", "ada")));
        let sessions = log_in(&installation, &people);
        let mut arrivals = Arrivals::default();
        for route in 0..2 {
            for (person, session) in people.iter().zip(&sessions) {
                Ask::plain(0, route).carry_out(&installation, &shape, person, session.as_ref(), &mut arrivals);
            }
        }
        assert_eq!(arrivals.count(), if apart == Apart::Lists { 2 } else { 4 });
    }
    let together = Shape { same_server: true, ..plain_shape(Apart::Lists) };
    assert!(Installation::of(&together).is_none(), "two routes of one server, each for one provider, with no prefix");
}

/// The properties can fail: each is run again without a defence that it rests on, and without its second layer where it has one.
#[test]
#[cfg(debug_assertions)]
fn without_a_defence_the_properties_do_not_hold() {
    const ARRIVES: &str = "what_reaches_an_api_server_is_what_was_granted";
    const FORGED: &str = "what_a_client_sends_is_gone_whatever_ext_authz_made_of_it";
    const CLAIMS: &str = "claims_become_the_names_that_they_are_or_none";
    /// One run in three misses the rarest.
    const TRIES: usize = 10;
    let run = |property: &str, without: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("identities::{property}")]).env("RUST_BACKTRACE", "0");
        if let Some(without) = without {
            command.env(WITHOUT, without);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("running 1 test"), "{text}");
        output.status.success()
    };
    let mut unseen = Vec::new();
    for (without, property) in [
        ("late-prefix-strip", FORGED),
        ("late-prefix-strip,impersonation-refusal", ARRIVES),
        ("early-strip", ARRIVES),
        ("cookie-strip", ARRIVES),
        ("source-overwrite", ARRIVES),
        ("credential-overwrite", ARRIVES),
        ("system-names", ARRIVES),
        ("login-names", CLAIMS),
        ("login-names,header-value", ARRIVES),
    ] {
        // One run may not come upon a name that needs the defence.
        if (0..TRIES).all(|_| run(property, Some(without))) {
            unseen.push((without, property));
        }
    }
    assert_eq!(unseen, []);
    assert!(run(CLAIMS, Some("")), "with all of them it holds");
}

/// Two routes to one server: the name that the one makes by its prefix is not taken by the other from somebody who is called so.
#[test]
fn a_name_with_the_prefix_of_another_route_is_not_somebody_s_own() {
    let mut shape = Shape { same_server: true, ..plain_shape(Apart::Domains) };
    (shape.routes[1].username_prefix, shape.routes[1].group_prefix) = ("corp:", "corp:");
    let person = |email: &str, groups: Value| {
        let mut claims = plain_claims("example.com", "ada");
        claims.extend([("email".to_owned(), json!(email)), ("groups".to_owned(), groups)]);
        Person::plain(0, claims)
    };
    let check = |shape: &Shape, route: usize, person: Person, expected: usize| {
        let installation = Installation::of(shape).unwrap();
        let sessions = log_in(&installation, std::slice::from_ref(&person));
        let mut arrivals = Arrivals::default();
        Ask::plain(0, route).carry_out(&installation, shape, &person, sessions[0].as_ref(), &mut arrivals);
        assert_eq!(arrivals.count(), expected, "{person:?} by {:?}", shape.routes[route]);
    };
    check(&shape, 1, person("ada@example.com", json!(["sre"])), 1);
    check(&shape, 0, person("ada@example.com", json!(["sre"])), 1);
    check(&shape, 0, person("corp:ada@example.com", json!([])), 0);
    check(&shape, 0, person("eve@example.com", json!(["corp:sre"])), 0);
    check(&shape, 1, person("corp:ada@example.com", json!(["corp:sre"])), 1);
    // At a server of its own, and without prefixes, it is a name like any other.
    check(&Shape { same_server: false, ..shape.clone() }, 0, person("corp:ada@example.com", json!(["corp:sre"])), 1);
    (shape.routes[1].username_prefix, shape.routes[1].group_prefix) = ("", "");
    check(&shape, 0, person("corp:ada@example.com", json!(["corp:sre"])), 1);
}

fn plain_shape(apart: Apart) -> Shape {
    let route = RouteShape {
        by_token: false,
        username_prefix: "",
        group_prefix: "",
        allow: &["*"],
        uid: None,
        extra: None,
        allow_system: false,
        rule: "true",
    };
    Shape { apart, same_server: false, routes: [route.clone(), route] }
}

/// What a provider says of someone, by claim.
type Claims = Map<String, Value>;
