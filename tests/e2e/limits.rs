//! Limits of Envoy at their edges: what fits is served by the API server, one more is refused before anybody sees it. The README names them all.

use super::rows::{ROWS, Row, for_each_row};
use super::shared::own_world;
use super::support::raw::Connection;
use super::support::world::{Method, World, WorldOptions};

/// Header lines, and how many of them are added on the way at most; and bytes of all of them.
const LINES: usize = 300;
const ADDED: usize = 24;
const BYTES: usize = 60 * 1024;
/// What a request has besides what is put in here, and what is added on its way: on one of the routes a signed token.
const ROOM: usize = 4 * 1024;
/// Headers of which Envoy's log takes an id.
const IDS: [&str; 2] = ["x-request-id", "audit-id"];

#[test]
fn header_lines_and_bytes_have_their_edge() {
    // Its own: of what is allowed and finds no room the API server has no event, and stories of the shared one compare both trails.
    let world = own_world("limits", WorldOptions { staging: Method::Jwt, ..WorldOptions::default() });
    let foo = world.person("foo");
    let tokens = ROWS.map(|row| (row.route, foo.session_token(&world.url(row.host))));
    for_each_row(&world, |world, row| {
        let token = &tokens.iter().find(|(route, _)| *route == row.route).unwrap().1;
        let check = |what: &str, more: &[(String, String)], want: u16| {
            let path = format!("/version?limits={what}-{}", row.route);
            assert_eq!(get(world, row, token, &path, more), Some(want), "{what} on {}", row.route);
            let seen = || row.cluster(world).audit_events().iter().any(|event| event["requestURI"] == path.as_str());
            if want == 200 {
                super::support::wait::eventually(what, std::time::Duration::from_secs(5), || seen().then_some(()));
            } else {
                assert!(!seen(), "{what} came to the API server of {}", row.route);
            }
        };
        // `host` and `authorization` are lines as well.
        let lines = |count: usize| (0..count - 2).map(|number| (format!("x-line-{number}"), "x".to_owned())).collect::<Vec<_>>();
        check("lines-that-fit", &lines(LINES - ADDED), 200);
        check("no-room-for-what-is-added", &lines(LINES), 431);
        // In between it is one or the other, and never Envoy's word that something went wrong.
        for count in LINES - ADDED..LINES {
            let status = get(world, row, token, &format!("/version?limits={count}-{}", row.route), &lines(count));
            assert!(matches!(status, Some(200 | 431)), "{count} lines on {}: {status:?}", row.route);
        }
        check("a-line-too-many", &lines(LINES + 1), 431);
        let bytes = |count: usize| vec![("x-filler".to_owned(), "x".repeat(count - token.len()))];
        check("bytes-that-fit", &bytes(BYTES - ROOM), 200);
        check("bytes-too-many", &bytes(BYTES), 431);
        for name in IDS {
            let own = [(name.to_owned(), format!("of-another-{name}"))];
            assert_eq!(get(world, row, token, "/version%2Flimits", &own), Some(400), "{name}");
        }
    });
    complete_no_decision(&world);
}

/// What Envoy refuses before it makes the id of a request stands in its log under the client's: in the trail it has none.
fn complete_no_decision(world: &World) {
    let lines = super::support::wait::eventually("lines of the refusals", std::time::Duration::from_secs(10), || {
        let refusal = |line: &serde_json::Value| line["event"] == "undecided" && line["ended_by"] == "path_normalization_failed";
        let lines: Vec<_> = world.audit_lines().into_iter().filter(refusal).collect();
        (lines.len() == ROWS.len() * IDS.len()).then_some(lines)
    });
    for line in lines {
        assert_eq!((&line["request_id"], &line["status"]), (&"".into(), &400.into()), "{line}");
    }
    assert!(!world.audit_lines().iter().any(|line| line.to_string().contains("of-another-")));
}

fn get(world: &World, row: Row, token: &str, path: &str, more: &[(String, String)]) -> Option<u16> {
    let authorization = format!("Bearer {token}");
    let own = [("host", row.host), ("authorization", authorization.as_str())];
    let headers: Vec<(&str, &str)> = own.into_iter().chain(more.iter().map(|(name, value)| (name.as_str(), value.as_str()))).collect();
    let mut connection = Connection::open(world.port, row.host, world.authority.pem());
    connection.request("GET", path, &headers).answer().map(|answer| answer.status)
}
