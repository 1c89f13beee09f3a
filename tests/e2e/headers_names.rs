//! Names that an identity provider may say of someone: what is odd but harmless arrives as it is, whole and in order; what is a name of
//! Kubernetes itself, or none at all, arrives nowhere.

use serde_json::{Map, Value, json};

use super::headers::{check_identity, exchange, person, world};
use super::rows::{ROWS, Row};
use super::support::odd_names::{ODD, ODD_NAME, REFUSED};
use super::support::world::{PUBLIC_HOST, World};

pub(super) fn users() -> Value {
    let mut users = Map::new();
    let mut add = |login: &str, email: &str, groups: Vec<String>| {
        let claims = json!({"email": email, "email_verified": true, "name": login, "groups": groups});
        users.insert(login.to_owned(), claims);
    };
    add("foo", "foo@example.com", texts(&["group1", "group2"]));
    add("odd", ODD_NAME, texts(&ODD));
    add("none", "none@example.com", Vec::new());
    add("sixty-four", "many@example.com", many(64));
    add("sixty-five", "more@example.com", many(65));
    add("wide", "wide@example.com", wide());
    for (login, email, groups) in REFUSED {
        add(login, email, texts(groups));
    }
    users.extend(super::headers_spellings::users());
    Value::Object(users)
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("team-{index}")).collect()
}

/// As many groups as a route sends at most, with long names.
fn wide() -> Vec<String> {
    (0..64).map(|index| format!("{index:0200}")).collect()
}

#[test]
fn names_arrive_as_they_are() {
    let world = world();
    let many = many(64);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for row in ROWS {
        check(&world, row, "none", "none@example.com", &[]);
        check(&world, row, "odd", ODD_NAME, &ODD);
        check(&world, row, "sixty-four", "many@example.com", &many);
    }
}

#[test]
fn one_group_more_than_fits_is_refused_with_the_numbers() {
    let world = world();
    for row in ROWS {
        let (status, text) = ask(&world, row, "sixty-five");
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("65 groups") && text.contains("64 at most"), "{text}");
        nothing_arrived(&world, row, "sixty-five");
    }
}

/// In headers they fit.
#[test]
fn groups_that_do_not_fit_into_a_token_are_refused_and_never_cut_off() {
    let world = world();
    let [by_headers, by_token] = ROWS;
    let wide = wide();
    check(&world, by_headers, "wide", "wide@example.com", &wide.iter().map(String::as_str).collect::<Vec<_>>());
    let (status, text) = ask(&world, by_token, "wide");
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("64 groups") && text.contains("token"), "{text}");
    nothing_arrived(&world, by_token, "wide");
}

#[test]
fn names_of_kubernetes_and_blank_ones_are_refused() {
    let world = world();
    let mut at_login = 0;
    for (login, ..) in REFUSED {
        let page = world.person(login).visit(&format!("{}/login", world.url(PUBLIC_HOST)));
        let logins = world.audit_lines();
        if logins.iter().any(|line| line["event"] == "login" && line["subject"] == *login) {
            for row in ROWS {
                let (status, text) = ask(&world, row, login);
                assert_eq!(status, 403, "{row:?} {login}: {text}");
                assert!(text.contains("your "), "{login}: the refusal must say which name: {text}");
            }
        } else {
            at_login += 1;
            let refused = logins.iter().filter(|line| line["event"] == "login_refused").count();
            assert_eq!(refused, at_login, "{login} was neither let in nor refused: {page:?}");
        }
        ROWS.iter().for_each(|row| nothing_arrived(&world, *row, login));
    }
    println!("{at_login} of {} were refused at login already", REFUSED.len());
    assert!((1..REFUSED.len()).contains(&at_login), "{at_login}");
}

#[track_caller]
fn check(world: &World, row: Row, login: &str, user: &str, groups: &[&str]) {
    let (status, text) = ask(world, row, login);
    assert_eq!(status, 200, "{row:?} {login}: {text}");
    let event = row.cluster(world).audit_find(login, |event| is_of(event, login));
    check_identity(row, &event, &person(row, user, login, groups)).unwrap_or_else(|why| panic!("{login}: {why}"));
}

fn ask(world: &World, row: Row, login: &str) -> (u16, String) {
    let (host, token) = (row.host, world.person(login).session_token(&world.url(row.host)));
    let request =
        format!("GET /version?as={login}. HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    let answer = exchange(world, Some(host), &request).expect("an answer");
    (answer.status, answer.text())
}

fn nothing_arrived(world: &World, row: Row, login: &str) {
    assert!(!row.cluster(world).audit_events().iter().any(|event| is_of(event, login)), "{login} arrived");
}

fn is_of(event: &Value, login: &str) -> bool {
    event["requestURI"].as_str().is_some_and(|uri| uri.contains(&format!("as={login}.")))
}
