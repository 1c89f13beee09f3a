//! Kubernetes' own names in every spelling, held against what the API server itself makes of them: asked directly it says which name it reads from a
//! header, and through kubepass a name arrives as exactly that name, or not at all when it is one of Kubernetes.

use serde_json::{Map, Value, json};

use super::headers::{exchange, world};
use super::rows::{ROWS, Row};
use super::support::raw::{Answer, Connection};
use super::support::world::{PUBLIC_HOST, World};

const SPELLINGS: [&str; 36] = [
    "system:masters",
    "System:masters",
    "SYSTEM:MASTERS",
    "sYstem:masters",
    " system:masters",
    "system:masters ",
    "\tsystem:masters",
    "\u{a0}system:masters",
    "\u{2003}system:masters",
    "\u{feff}system:masters",
    "\u{200b}system:masters",
    "system:\u{200b}masters",
    "sys\u{ad}tem:masters",
    "\u{202e}system:masters",
    "system :masters",
    "system: masters",
    "system::masters",
    "system",
    "system:",
    "\u{455}ystem:masters",
    "\u{ff53}ystem:masters",
    "sy\u{17f}tem:masters",
    "system\u{ff1a}masters",
    "system\u{2236}masters",
    "system%3amasters",
    "%73ystem:masters",
    "other,system:masters",
    "system:masters,other",
    "\"system:masters\"",
    "xsystem:masters",
    "system:serviceaccount:kube-system:default",
    "system:anonymous",
    "system:masters\r\n",
    "a%0d%0aimpersonate-group: system:masters",
    "a\r\nimpersonate-group: system:masters",
    "system:masters\0",
];

#[derive(Clone, Copy, Debug)]
enum What {
    User,
    Group,
}

/// For the identity provider: one person who has the name, and one who is in such a group.
pub(super) fn users() -> Map<String, Value> {
    let user = |(index, name): (usize, &&str)| {
        let of = |email: &str, groups: &[&str]| json!({"email": email, "email_verified": true, "name": "s", "groups": groups});
        [(login(What::User, index), of(name, &[])), (login(What::Group, index), of(&format!("s{index}@example.com"), &[name]))]
    };
    SPELLINGS.iter().enumerate().flat_map(user).collect()
}

fn login(what: What, index: usize) -> String {
    format!("{}-{index}", if matches!(what, What::User) { "spelt" } else { "grouped" })
}

#[test]
fn a_name_is_to_the_api_server_what_it_is_to_us() {
    let world = world();
    let admin = admin_token(&world);
    let (mut passed, mut refused, mut findings) = (0, 0, Vec::new());
    for (index, name) in SPELLINGS.iter().enumerate() {
        for what in [What::User, What::Group] {
            let read = read_by_the_api_server(&world, &admin, what, name);
            let arrived = through_kubepass(&world, what, index);
            match (&read, arrived.as_slice()) {
                (_, []) => refused += 1,
                (Some(read), arrived) if read == name && arrived.iter().all(|name| name == read) && !is_of_kubernetes(read) => passed += 1,
                (read, arrived) => {
                    findings.push(format!("{what:?} {name:?}: the API server reads {read:?}, through kubepass come {arrived:?}"))
                }
            }
        }
    }
    assert_eq!(findings, Vec::<String>::new());
    println!("{passed} arrive as they are, {refused} are refused");
    assert!(passed >= 15 && refused >= 20, "{passed} {refused}");
}

/// What Kubernetes keeps for itself, and in other letters what a reader takes for it.
fn is_of_kubernetes(name: &str) -> bool {
    name.trim().to_lowercase().starts_with("system:")
}

/// The name that the API server itself reads from an impersonation header; none when it takes no such header, or cannot be sent one.
fn read_by_the_api_server(world: &World, admin: &str, what: What, name: &str) -> Option<String> {
    if name.contains(['\r', '\n', '\0']) {
        return None;
    }
    let lines = match what {
        What::User => format!("impersonate-user: {name}"),
        What::Group => format!("impersonate-user: probe\r\nimpersonate-group: {name}"),
    };
    let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let request = format!(
        "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {admin}\r\n{lines}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::open(world.prod.port(), "127.0.0.1", world.prod.ca_pem());
    connection.send(request.as_bytes());
    let answer = connection.answer().filter(|answer| answer.status == 201)?;
    let review: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
    let user = &review["status"]["userInfo"];
    let own = |group: &&Value| *group != "system:authenticated";
    match what {
        What::User => user["username"].as_str().map(str::to_owned),
        What::Group => user["groups"].as_array()?.iter().find(own).and_then(Value::as_str).map(str::to_owned),
    }
}

/// The name under which requests of that person arrived at each API server; none when kubepass let nothing through.
fn through_kubepass(world: &World, what: What, index: usize) -> Vec<String> {
    let login = login(what, index);
    let person = world.person(&login);
    person.visit(&format!("{}/login", world.url(PUBLIC_HOST)));
    if person.browse(|browser| browser.jar.get("__Host-kubepass-session").is_none()) {
        return Vec::new();
    }
    let ask = |row: Row| -> Answer {
        let (host, token) = (row.host, person.session_token(&world.url(row.host)));
        let request = format!(
            "GET /version?spelling={login}. HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        exchange(world, Some(host), &request).expect("an answer")
    };
    let arrived = ROWS.iter().filter_map(|row| {
        let answer = ask(*row);
        let is_of = |event: &Value| event["requestURI"].as_str().is_some_and(|uri| uri.contains(&format!("spelling={login}.")));
        if answer.status != 200 {
            assert_eq!(answer.status, 403, "{login}: {}", answer.text());
            assert!(!row.cluster(world).audit_events().iter().any(is_of), "{login} was refused and arrived");
            return None;
        }
        let event = row.cluster(world).audit_find(&login, is_of);
        let user = row.served(&event).unwrap_or_else(|why| panic!("{why}"));
        let own = |group: &&Value| *group != "system:authenticated";
        let group = || user["groups"].as_array().unwrap().iter().find(own).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(if matches!(what, What::User) { user["username"].as_str().unwrap().to_owned() } else { group() })
    });
    arrived.collect()
}

/// Of someone who may impersonate anybody.
fn admin_token(world: &World) -> String {
    world.prod.create_service_account("default", "spellings");
    let bound = ["create", "clusterrolebinding", "spellings", "--clusterrole=cluster-admin", "--serviceaccount=default:spellings"];
    world.prod.kubectl_admin(&bound).ok();
    world.prod.create_token("default", "spellings")
}
