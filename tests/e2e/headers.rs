//! Forged and malformed requests, byte by byte, from someone who is logged in and may be let through. What became of each is read in the API
//! servers' own audit logs: nothing arrives that should not, and nothing under another identity.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rows::{ROWS, Row};
use super::support::cluster::Cluster;
use super::support::header_attacks::{ATTACKS, Attack, HEADERS, Verdict};
use super::support::raw::{Answer, Connection};
use super::support::raw_http2::Http2;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{Method, POLICY, PROD_HOST, PUBLIC_HOST, STAGING_AUDIENCE, World, WorldOptions};

/// An installation that sends a uid and an extra value as well, with people of odd names.
pub(super) fn world() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        let options = WorldOptions {
            users: super::headers_names::users(),
            staging: Method::Jwt,
            policy: "\n  - {name: all, allow: \"true\"}\n".to_owned(),
            ..WorldOptions::default()
        };
        let policy = options.policy.clone();
        let mut world = World::prepare(Tools::ensure(), Run::new("headers"), options);
        let prod = "token: {file: prod-token}, uid: user.claims.sub, extra: {example.com/team: user.idp, team: user.idp}";
        let staging = format!("audience: {STAGING_AUDIENCE}, uid: user.claims.sub, extra: {{example.com/team: user.idp}}");
        let config = world.config(&policy).replace("token: {file: prod-token}", prod);
        let config = config.replace(&format!("audience: {STAGING_AUDIENCE}"), &staging);
        assert!(config.contains(prod) && config.contains(&staging) && !config.contains(POLICY));
        world.write_config(&config);
        world.permit("prod", &world.prod);
        world.start_kubepass();
        world.trust("staging", &world.staging);
        Mutex::new(world)
    });
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the API server must say of a request that a person may send.
pub(super) fn person(row: Row, user: &str, uid: &str, groups: &[&str]) -> Value {
    let groups: Vec<&str> = groups.iter().copied().chain(["system:authenticated"]).collect();
    let mut extra = json!({"example.com/team": ["corp"]});
    if row.method == Method::Impersonate {
        // Structured authentication takes keys with a domain only.
        extra["team"] = json!(["corp"]);
    }
    json!({"username": user, "uid": uid, "groups": groups, "extra": extra})
}

/// The API server's word on whom it served, and that this came the way of the route.
pub(super) fn check_identity(row: Row, event: &Value, expected: &Value) -> Result<(), String> {
    let mut served = row.served(event)?.clone();
    if row.method == Method::Jwt {
        let extra = served["extra"].as_object_mut().ok_or("no extra values")?;
        for key in ["kubepass.dev/session", "kubepass.dev/policy"] {
            extra.remove(key).ok_or_else(|| format!("no {key}"))?;
        }
        // What the API server adds by itself: the token's own id.
        extra.remove("authentication.kubernetes.io/credential-id");
    }
    if served == *expected { Ok(()) } else { Err(format!("sent for {served}, expected {expected}")) }
}

#[test]
fn nothing_forged_reaches_an_api_server() {
    let world = world();
    for row in ROWS {
        forged(&world, row);
    }
}

fn forged(world: &World, row: Row) {
    let (host, other) = (row.host, row.other().host);
    let person = world.person("foo");
    let token = person.session_token(&world.url(host));
    let other_token = person.session_token(&world.url(other));
    let text = |template: &str, name: &str| {
        let at = format!("/version?attack={}.", named(row, name));
        let pairs = [
            ("{at}", at.as_str()),
            ("{host}", host),
            ("{other}", other),
            ("{HOST}", &host.to_ascii_uppercase()),
            ("{public}", PUBLIC_HOST),
            ("{name}", name),
        ];
        let text = pairs.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value));
        text.replace("{token}", &token).replace("{other token}", &other_token)
    };
    let mut answers: HashMap<String, Option<Answer>> = HashMap::new();
    for (name, lines, _) in HEADERS {
        let request = format!("GET {{at}} HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {{token}}\r\n{lines}\r\n\r\n");
        answers.insert(named(row, name), exchange(world, Some(host), &text(&request, name)));
    }
    for attack in ATTACKS {
        let name = match attack.server_name {
            "" => None,
            name => Some(text(name, attack.name)),
        };
        answers.insert(named(row, attack.name), exchange(world, name.as_deref(), &text(attack.request, attack.name)));
    }
    let probe = "GET {at} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n";
    let last = exchange(world, Some(host), &text(probe, "last")).expect("an answer");
    row.cluster(world).audit_by_id(last.header("audit-id").expect("an audit id"));

    let verdicts = HEADERS.iter().map(|(name, _, verdict)| (*name, *verdict));
    let verdicts = verdicts.chain(ATTACKS.iter().map(|Attack { name, verdict, .. }| (*name, *verdict)));
    let findings = judge(world, row, verdicts.map(|(name, verdict)| (named(row, name), verdict)), &answers);
    assert!(findings.is_empty(), "{row:?}: {} findings:\n{}", findings.len(), findings.join("\n"));
    let smuggled = both(world).into_iter().filter(|event| event["requestURI"].as_str().is_some_and(|uri| uri.contains("smuggled")));
    assert_eq!(smuggled.count(), 0, "a smuggled request arrived");
}

/// The same header lines over HTTP/2, where names and values can be sent at all.
#[test]
fn nothing_forged_reaches_an_api_server_over_http2() {
    let world = world();
    for row in ROWS {
        forged_over_http2(&world, row);
    }
}

fn forged_over_http2(world: &World, row: Row) {
    let token = world.person("foo").session_token(&world.url(row.host));
    let client = world.client();
    let mut answers: HashMap<String, Option<Answer>> = HashMap::new();
    let mut verdicts = Vec::new();
    for (name, lines, verdict) in HEADERS {
        let name = format!("h2-{}", named(row, name));
        let lines: Option<Vec<(reqwest::header::HeaderName, reqwest::header::HeaderValue)>> = lines
            .split("\r\n")
            .map(|line| {
                line.split_once(": ").and_then(|(name, value)| Some((name.parse().ok()?, value.replace("{token}", &token).parse().ok()?)))
            })
            .collect();
        let hop_by_hop = ["connection", "proxy-connection", "upgrade", "transfer-encoding", "te", "host", "keep-alive"];
        let Some(lines) = lines.filter(|lines| !lines.iter().any(|(name, _)| hop_by_hop.contains(&name.as_str()))) else { continue };
        let mut headers = reqwest::header::HeaderMap::new();
        headers.append("authorization", format!("Bearer {token}").parse().unwrap());
        lines.into_iter().for_each(|(name, value)| _ = headers.append(name, value));
        let answer = client.get(format!("{}/version?attack={name}.", world.url(row.host))).headers(headers).send().ok();
        let answer = answer.map(|answer| {
            assert_eq!(answer.version(), reqwest::Version::HTTP_2);
            let headers =
                answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned())).collect();
            Answer { status: answer.status().as_u16(), headers, body: Vec::new() }
        });
        answers.insert(name.clone(), answer);
        verdicts.push((name, *verdict));
    }
    assert!(verdicts.len() > 30, "only {} could be sent", verdicts.len());
    let findings = judge(world, row, verdicts.into_iter(), &answers);
    assert!(findings.is_empty(), "{row:?}: {} findings:\n{}", findings.len(), findings.join("\n"));
}

/// HTTP/2 carries what HTTP/1.1 cannot: a query with bytes that are no text, which Envoy tells ext_authz otherwise than it sends it, and methods in
/// small letters, which are others to a rule and the same to some servers.
#[test]
fn over_http2_what_is_judged_is_what_arrives() {
    let world = world();
    for row in ROWS {
        let token = world.person("foo").session_token(&world.url(row.host));
        let mut answers: HashMap<String, Option<Answer>> = HashMap::new();
        for (name, method, end, expected) in
            [("bytes", "GET", &b"\xff"[..], 400), ("small", "get", b"", 400), ("capitals", "Get", b"", 400), ("plain", "GET", b"", 200)]
        {
            let name = format!("judged-{}", named(row, name));
            let path = [format!("/version?attack={name}.").as_bytes(), end].concat();
            let bearer = format!("Bearer {token}");
            let fields: [(&str, &[u8]); 5] = [
                (":method", method.as_bytes()),
                (":scheme", b"https"),
                (":authority", row.host.as_bytes()),
                (":path", &path),
                ("authorization", bearer.as_bytes()),
            ];
            let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
            let mut connection = Http2::open(world.port, row.host, world.authority.pem());
            let stream = connection.request(&fields, true);
            let answer = connection.answer(stream).expect("an answer");
            assert_eq!(answer.status, expected, "{name}: {}", answer.text());
            answers.insert(name, Some(answer));
        }
        let plain = format!("judged-{}", named(row, "plain"));
        let arrived = |events: &[Value]| answers.keys().filter(|name| !of(events, name).is_empty()).cloned().collect::<Vec<_>>();
        let events =
            eventually("the plain one's event", Duration::from_secs(10), || Some(both(&world)).filter(|all| !of(all, &plain).is_empty()));
        assert_eq!(arrived(&events), [plain]);
    }
}

/// An attack's name in what the API servers log.
fn named(row: Row, attack: &str) -> String {
    format!("{}-{attack}", row.route)
}

/// While nobody answers the check, nobody passes; afterwards everybody does again.
#[test]
fn nothing_passes_while_ext_authz_hangs() {
    let mut world = world();
    let token = world.person("foo").session_token(&world.url(PROD_HOST));
    let request = |name: &str| {
        format!("GET /version?attack={name}. HTTP/1.1\r\nhost: {PROD_HOST}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n")
    };
    let server = world.server().id();
    let signal = |name: &str| {
        let status = std::process::Command::new("kill").args(["-s", name, &server.to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("STOP");
    let hanging = exchange(&world, Some(PROD_HOST), &request("hanging"));
    signal("CONT");
    let hanging = hanging.expect("an answer");
    let status: Value = serde_json::from_slice(&hanging.body).unwrap_or_else(|_| panic!("{}", hanging.text()));
    assert_eq!((hanging.status, &status["kind"], &status["reason"]), (503, &json!("Status"), &json!("ServiceUnavailable")), "{status}");
    assert!(status["message"].as_str().unwrap().contains("nothing was sent to the API server"), "{status}");
    let after = eventually("an answer after the stop", Duration::from_secs(10), || {
        exchange(&world, Some(PROD_HOST), &request("recovered")).filter(|answer| answer.status == 200)
    });
    world.prod.audit_by_id(after.header("audit-id").expect("an audit id"));
    assert_eq!(of(&both(&world), "hanging"), Vec::<&Value>::new());
}

/// Sends bytes on a connection of their own; none when it ends without an answer.
pub(super) fn exchange(world: &World, server_name: Option<&str>, request: &str) -> Option<Answer> {
    let authority = world.authority.pem();
    let mut connection = match server_name {
        Some(name) => Connection::open(world.port, name, authority),
        None => Connection::open_without_server_name(world.port, PROD_HOST, authority),
    };
    let request: Vec<u8> = request.chars().map(|character| u8::try_from(u32::from(character)).expect("Latin-1")).collect();
    connection.send(&request);
    connection.answer().and_then(|answer| if answer.status == 100 { connection.answer() } else { Some(answer) })
}

/// What is not as it must be.
fn judge(
    world: &World,
    row: Row,
    verdicts: impl Iterator<Item = (String, Verdict)>,
    answers: &HashMap<String, Option<Answer>>,
) -> Vec<String> {
    let person = person(row, "foo@example.com", "foo", &["group1", "group2"]);
    let verdicts: Vec<(String, Verdict)> = verdicts.collect();
    let awaited = |events: &[Value]| verdicts.iter().all(|(name, verdict)| *verdict != Verdict::AsSelf || !of(events, name).is_empty());
    // It writes a moment after it has answered; one that never comes is a finding.
    let deadline = Instant::now() + Duration::from_secs(2);
    let all = eventually("the API servers' events", Duration::from_secs(10), || {
        let events = both(world);
        (awaited(&events) || Instant::now() > deadline).then_some(events)
    });
    let mut findings = Vec::new();
    for (name, verdict) in verdicts {
        let answer = answers[&name].as_ref();
        let events = of(&all, &name);
        let shown = |event: &&Value| format!("{} by {} for {}", event["requestURI"], event["user"], event["impersonatedUser"]);
        let status = answer.map_or(0, |answer| answer.status);
        let found = match (verdict, events.as_slice()) {
            (Verdict::Refused(statuses), []) if statuses.contains(&status) || (status == 0 && name.starts_with("h2-")) => continue,
            (Verdict::AsSelf, [event]) => match as_self(row, event, answer, &person) {
                Ok(()) => continue,
                Err(why) => why,
            },
            (verdict, events) => format!("expected {verdict:?}; events: {:?}", events.iter().map(shown).collect::<Vec<_>>()),
        };
        findings.push(format!("{name}: status {status}: {found}; {}", answer.map_or(String::new(), Answer::text)));
    }
    findings
}

fn as_self(row: Row, event: &Value, answer: Option<&Answer>, person: &Value) -> Result<(), String> {
    check_identity(row, event, person)?;
    // What Envoy writes, and Envoy's own address where that is another: the client and Envoy are both on loopback.
    if event["sourceIPs"] != json!(["127.0.0.1"]) {
        return Err(format!("comes from {}", event["sourceIPs"]));
    }
    let (id, told) = (event["auditID"].as_str().unwrap_or(""), answer.and_then(|answer| answer.header("audit-id")));
    if id.len() != 36 || told != Some(id) { Err(format!("audit id {id}, told {told:?}")) } else { Ok(()) }
}

fn both(world: &World) -> Vec<Value> {
    let last = |cluster: &Cluster| cluster.audit_events().into_iter().filter(|event| event["stage"] != "ResponseStarted");
    last(&world.prod).chain(last(&world.staging)).collect()
}

fn of<'e>(events: &'e [Value], name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| is_of(event, name)).collect()
}

fn is_of(event: &Value, name: &str) -> bool {
    event["requestURI"].as_str().is_some_and(|uri| uri.contains(&format!("attack={name}.")))
}
