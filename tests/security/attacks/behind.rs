//! What stands behind a refusal. These requests may be refused or cleaned on the way: what counts is that nothing of the attacker's arrives, so each
//! of them falls only when two defences do.

use super::super::attack::{Attack, Verdict};
use super::super::judge::{Arrival, Must};
use super::super::scene::{PROD, RECORDER, Scene};
use super::super::support::world::PUBLIC_HOST;
use super::super::trial::Sent;

/// Header lines, each its own request: whoever it arrives as, it is the person.
fn nothing_arrives(scene: &Scene, name: &'static str, lines: &[&str]) -> Verdict {
    let mut trial = scene.trial(name);
    for lines in lines {
        trial.lines(lines, Must::Either);
    }
    trial.verdict()
}

/// Whether a server could read another path than the one that was judged.
fn is_another_path(arrival: &Arrival) -> bool {
    let path = arrival.uri.split('?').next().unwrap_or_default().to_ascii_lowercase();
    ["/../", "/./", "//", "%2f", "%5c", "%2e"].iter().any(|part| path.contains(part))
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "behind-impersonation",
        "two layers before the API server",
        "impersonate-*: whatever becomes of it, it arrives as oneself",
        |scene| {
            let lines = [
                "impersonate-group: system:masters",
                "impersonate-user: system:admin\r\nimpersonate-group: system:masters",
                "Impersonate-Uid: 0",
                "impersonate-extra-scopes: forged",
            ];
            nothing_arrives(scene, "behind-impersonation", &lines)
        },
    ),
    Attack::new(
        "behind-nomination",
        "two layers before the API server",
        "connection: Upgrade, Impersonate-User: no upstream is told so",
        |scene| {
            let mut trial = scene.trial("behind-nomination");
            for protocol in ["websocket", "SPDY/3.1"] {
                for nominated in ["Upgrade, Impersonate-User", "impersonate-group, upgrade", "Upgrade, Authorization"] {
                    trial.upgrade(protocol, &format!("connection: {nominated}\r\nupgrade: {protocol}\r\n"), "", Must::Either);
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "behind-sources",
        "two layers before the trails",
        "x-forwarded-for: no upstream is told of an address that did not connect",
        |scene| nothing_arrives(scene, "behind-sources", &["x-forwarded-for: 203.0.113.9", "X-Forwarded-For: 203.0.113.9, 127.0.0.1"]),
    ),
    Attack::new(
        "behind-paths",
        "two readers of one path",
        "paths that another server reads otherwise: arrive normalised or not at all",
        |scene| {
            let mut trial = scene.trial("behind-paths").never("a path that can be read otherwise", is_another_path);
            for path in [
                "/api/v1/namespaces/default/configmaps/../secrets",
                "/api/v1/namespaces/default/configmaps/./x",
                "/api//v1/namespaces/default/secrets",
                "/api/v1/namespaces/default/configmaps%2f..%2fsecrets",
                "/api/v1/namespaces/default/configmaps/%2e%2e/secrets",
            ] {
                let request = format!("GET {path}?attack={{mark}}. HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {{token}}\r\n\r\n");
                trial.raw(&request, Must::Either);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "session-token-renewed",
        "one kind of token for another",
        "a session token of one route in the place of a login token",
        session_token_renewed,
    ),
];

/// A session token is for one route and an hour. Whoever took one for a login token would have every route, for as long as the session lives.
fn session_token_renewed(scene: &Scene) -> Verdict {
    let mut trial = scene.trial("session-token-renewed").on(&[RECORDER, PROD]);
    let stolen = scene.token("foo", PROD);
    for target in trial.targets() {
        let request = scene.world.client().post(format!("{}/cli/session-token", scene.world.url(PUBLIC_HOST)));
        let answer = request.bearer_auth(&stolen).form(&[("host", target.host)]).send().expect("an answer");
        let body: serde_json::Value = answer.json().unwrap_or_default();
        let Some(token) = body["session_token"].as_str() else { continue };
        let mark = trial.mark(target, Must::Stop);
        let request = format!("GET {{at}} HTTP/1.1\r\nhost: {{host}}\r\nauthorization: Bearer {token}\r\n\r\n");
        let request = trial.fill(&request, target, &mark);
        let answer = trial.open(target, Some(target.host)).send(request.as_bytes()).answer();
        trial.ended(Sent { mark, answer });
        trial.finding(format!("a session token was taken for a login token, and gave one for {}", target.host));
    }
    trial.verdict()
}
